"""Regular expressions that are compiled when they are first needed.

Those that read error texts and model names are many, and most processes never need one of them:
compiled at import they would be a good part of the time to the first answer.
"""

from __future__ import annotations

__all__ = ["LazyPattern"]

import re
from collections.abc import Callable


class LazyPattern:
    """The part of ``re.Pattern`` that reading errors and names needs."""

    __slots__ = ("_flags", "_pattern", "_text")

    def __init__(self, text: str, flags: re.RegexFlag = re.NOFLAG) -> None:
        self._text = text
        self._flags = flags
        self._pattern: re.Pattern[str] | None = None

    def _compiled(self) -> re.Pattern[str]:
        if self._pattern is None:
            self._pattern = re.compile(self._text, self._flags)
        return self._pattern

    def match(self, text: str) -> re.Match[str] | None:
        """As ``re.Pattern.match``."""
        return self._compiled().match(text)

    def search(self, text: str) -> re.Match[str] | None:
        """As ``re.Pattern.search``."""
        return self._compiled().search(text)

    def sub(self, replacement: str | Callable[[re.Match[str]], str], text: str) -> str:
        """As ``re.Pattern.sub``."""
        return self._compiled().sub(replacement, text)
