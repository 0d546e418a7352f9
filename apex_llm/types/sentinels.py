"""``NOT_GIVEN``: an argument that was left out, where ``None`` means something of its own."""

from __future__ import annotations

__all__ = ["NOT_GIVEN", "NotGiven"]

import enum
from typing import Final


class NotGiven(enum.Enum):
    """The type of ``NOT_GIVEN``; false in a condition."""

    NOT_GIVEN = "NOT_GIVEN"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = NotGiven.NOT_GIVEN
"""The default of arguments for which ``None`` is a value."""
