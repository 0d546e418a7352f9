"""What a stream says while it runs: one vocabulary for every provider.

Events are positional, so that ``case TextDelta(text):`` works, and carry the index of the
content block that they belong to, so that parallel tool calls can be told apart. Decoders
emit no empty deltas and nothing for keep-alives: every event but ``UnknownEvent`` carries
meaning, and counts against the idle timeout.
"""

from __future__ import annotations

__all__ = [
    "CitationAdded",
    "ContentFiltered",
    "GuardrailTraced",
    "ImageAdded",
    "ReasoningDelta",
    "ServerToolResultAdded",
    "StreamEvent",
    "StreamFinished",
    "StreamStarted",
    "TextDelta",
    "ToolCallDelta",
    "ToolCallFinished",
    "ToolCallStarted",
    "UnknownEvent",
]

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from apex_llm.types.messages import CitationPart, ImagePart, ToolResultPart
from apex_llm.types.responses import FinishReason, Usage


class StreamStarted(msgspec.Struct, frozen=True, gc=False):
    """The model has begun to answer."""

    id: str | None = None
    model: str | None = None


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer's text; never empty."""

    text: str
    index: int = 0


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's thinking, or its signature, or a redacted block."""

    text: str
    index: int = 0
    signature: str | None = None
    redacted: str | None = None


class ToolCallStarted(msgspec.Struct, frozen=True, gc=False):
    """The model begins to ask for a tool."""

    index: int
    id: str
    name: str
    server_side: bool = False


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the arguments: JSON text, not parsed; never empty."""

    index: int
    arguments: str


class ToolCallFinished(msgspec.Struct, frozen=True, gc=False):
    """The call is complete."""

    index: int
    id: str
    name: str
    arguments: str
    """The whole JSON text; ``"{}"`` when the model gave none."""
    server_side: bool = False


class ServerToolResultAdded(msgspec.Struct, frozen=True):
    """A tool that the provider ran itself, such as Nova's code interpreter, has answered."""

    index: int
    result: ToolResultPart


class CitationAdded(msgspec.Struct, frozen=True):
    """The text of the same index relies on this source."""

    index: int
    citation: CitationPart


class ImageAdded(msgspec.Struct, frozen=True):
    """The model has made an image; it comes whole."""

    index: int
    image: ImagePart


class ContentFiltered(msgspec.Struct, frozen=True):
    """A filter found something: text that was delivered already may have to be taken back."""

    where: str
    """``"prompt"`` or ``"completion"``."""
    categories: tuple[str, ...]
    details: Mapping[str, Any]
    """The provider's own object."""


class GuardrailTraced(msgspec.Struct, frozen=True):
    """What a Bedrock guardrail assessed, in the provider's own words."""

    trace: Mapping[str, Any]


class UnknownEvent(msgspec.Struct, frozen=True, gc=False):
    """Something newer than this package; carried, not interpreted."""

    name: str
    payload: bytes


class StreamFinished(msgspec.Struct, frozen=True):
    """The answer is complete: the format's terminal event came, and the body ended cleanly."""

    finish_reason: FinishReason
    raw_finish_reason: str | None = None
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """As ``ChatResponse.extra``."""
    model: str | None = None
    """The model that answered, where only the end tells: the choice of a prompt router."""


StreamEvent: TypeAlias = (
    StreamStarted
    | TextDelta
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallFinished
    | ServerToolResultAdded
    | CitationAdded
    | ImageAdded
    | ContentFiltered
    | GuardrailTraced
    | UnknownEvent
    | StreamFinished
)
"""Anything that a stream yields."""
