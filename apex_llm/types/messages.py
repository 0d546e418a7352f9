"""What is said: messages and the parts that they are made of.

One vocabulary for every model family. A codec turns it into a provider's JSON and refuses,
with an ``InvalidRequestError``, what that provider cannot be told. All values are frozen,
compare by content and encode with msgspec (``{"type": "text", ...}``), so a transcript is
plain data.
"""

from __future__ import annotations

__all__ = [
    "AudioPart",
    "CachePoint",
    "CitationPart",
    "DocumentPart",
    "ImagePart",
    "Message",
    "Part",
    "ReasoningPart",
    "Role",
    "TextPart",
    "ToolCallPart",
    "ToolResultPart",
    "VideoPart",
]

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
"""Who speaks. ``tool`` carries only tool results; where a provider has no such role they travel in a user turn."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """What all parts share: the ``type`` member when encoded."""


class TextPart(_Part, frozen=True, kw_only=True, tag="text"):
    """Plain text."""

    text: str


class _MediaPart(_Part, frozen=True, kw_only=True):
    """Bytes, or where to find them: exactly one of ``data`` and ``url``."""

    data: bytes | None = None
    url: str | None = None
    """``https://…`` or ``data:…`` for OpenAI formats, ``s3://bucket/key`` for Bedrock."""


class ImagePart(_MediaPart, frozen=True, kw_only=True, tag="image"):
    """An image: PNG, JPEG, GIF or WebP."""

    format: str | None = None
    """``png``, ``jpeg``, ``gif`` or ``webp``; recognised from the first bytes of ``data`` when left out."""
    detail: str | None = None
    """``auto``, ``low`` or ``high``; OpenAI formats only."""


class DocumentPart(_MediaPart, frozen=True, kw_only=True, tag="document"):
    """A document for the model to read."""

    format: str
    """``pdf``, ``csv``, ``doc``, ``docx``, ``xls``, ``xlsx``, ``html``, ``txt`` or ``md``."""
    name: str = "document"
    """1 to 200 characters of neutral text; the model sees it."""
    citations: bool = False
    """Whether the answer may cite it (Claude)."""


class AudioPart(_MediaPart, frozen=True, kw_only=True, tag="audio"):
    """Recorded sound."""

    format: str
    """``wav`` or ``mp3`` everywhere; more on Bedrock."""


class VideoPart(_MediaPart, frozen=True, kw_only=True, tag="video"):
    """A film; Bedrock only."""

    format: str
    """``mp4``, ``mov``, ``mkv``, ``webm``, ``flv``, ``mpeg``, ``mpg``, ``wmv`` or ``three_gp``."""


class ToolCallPart(_Part, frozen=True, kw_only=True, tag="tool_call"):
    """The model asks for a tool to be run."""

    id: str
    name: str
    arguments: str
    """JSON text as the model wrote it; ``"{}"`` when it gave none."""
    server_side: bool = False
    """Run by the provider itself, such as Nova's code interpreter; needs no result from us."""

    @property
    def input(self) -> Any:
        """The arguments, parsed: a dictionary for every well-behaved model.

        Raises:
            msgspec.DecodeError: The model wrote text that is not JSON, as models sometimes do when cut short.
        """
        return msgspec.json.decode(self.arguments)


class ToolResultPart(_Part, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool answered, to be sent in the turn after the call."""

    tool_call_id: str
    content: str | Mapping[str, Any] | Sequence[Any]
    """Text, or a JSON value."""
    is_error: bool = False
    name: str | None = None
    server_side: bool = False


class ReasoningPart(_Part, frozen=True, kw_only=True, tag="reasoning"):
    """The model's own thinking. Send it back unchanged: the signature covers the text."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    """Base64, for thinking that the provider encrypted; ``text`` is empty then."""


class CachePoint(_Part, frozen=True, kw_only=True, tag="cache_point"):
    """Everything before this point may be cached by the provider."""

    ttl: str | None = None
    """``"5m"`` or ``"1h"``; the provider's default when left out."""


class CitationPart(_Part, frozen=True, kw_only=True, tag="citation"):
    """A source that the text beside it relies on."""

    title: str | None = None
    source: str | None = None
    quotes: tuple[str, ...] = ()
    """The cited passages."""
    location: Mapping[str, Any] | None = None
    """Where in the source, in the provider's own words."""


Part: TypeAlias = (
    TextPart
    | ImagePart
    | DocumentPart
    | AudioPart
    | VideoPart
    | ToolCallPart
    | ToolResultPart
    | ReasoningPart
    | CachePoint
    | CitationPart
)
"""Anything that a message is made of."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation.

    Use the builders: ``Message.user("Hi")``, ``Message.user("What is this?", ImagePart(data=png))``,
    ``Message.system("Be brief.")``, ``Message.tool("call_1", "22 degrees")``.
    """

    role: Role
    parts: tuple[Part, ...]

    @classmethod
    def system(cls, *content: str | Part) -> Message:
        """Instructions that stand above the conversation."""
        return cls("system", _parts(content))

    @classmethod
    def user(cls, *content: str | Part) -> Message:
        """What the user says, in text and other parts."""
        return cls("user", _parts(content))

    @classmethod
    def assistant(cls, *content: str | Part) -> Message:
        """What the model said; ``response.message`` is one already."""
        return cls("assistant", _parts(content))

    @classmethod
    def tool(
        cls, tool_call_id: str, content: str | Mapping[str, Any] | Sequence[Any], *, is_error: bool = False
    ) -> Message:
        """The result of one tool call, as text or as a JSON value."""
        return cls("tool", (ToolResultPart(tool_call_id=tool_call_id, content=content, is_error=is_error),))

    @property
    def text(self) -> str:
        """The text of all text parts, joined."""
        parts = self.parts
        if len(parts) == 1 and isinstance(parts[0], TextPart):
            return parts[0].text
        return "".join([part.text for part in parts if isinstance(part, TextPart)])

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls that wait for a result from us."""
        return tuple(part for part in self.parts if isinstance(part, ToolCallPart) and not part.server_side)


def _parts(content: tuple[str | Part, ...]) -> tuple[Part, ...]:
    return tuple(TextPart(text=part) if isinstance(part, str) else part for part in content)
