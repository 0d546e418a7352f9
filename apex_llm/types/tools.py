"""Tools as data: what the model may ask for, and whether it must."""

from __future__ import annotations

__all__ = ["Tool", "ToolChoice"]

from collections.abc import Mapping
from typing import Any, Literal

import msgspec


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function that the model may ask us to call."""

    name: str
    """1 to 64 of ``a-z A-Z 0-9 _ -``."""
    description: str = ""
    parameters: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"type": "object", "properties": {}})
    """A JSON Schema of type ``object``."""
    strict: bool | None = None
    """Whether the arguments must follow the schema exactly; needs a model that offers it."""


class ToolChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the model may, must or must not call a tool."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str | None = None
    """The one tool to call, with mode ``tool``."""
