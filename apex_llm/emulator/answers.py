"""What the emulator is told to answer, independent of the wire that it is played on.

An ``Answer`` is a value: what is said, how fast, and what goes wrong. The same answer plays
on Converse, InvokeModel and Azure chat, streamed or not. How it looks on a wire is the
business of that wire's module; how it reaches the socket is ``playback``'s.
"""

from __future__ import annotations

__all__ = [
    "FAILURE_KINDS",
    "Answer",
    "Block",
    "Failure",
    "Fault",
    "ReasoningBlock",
    "TextBlock",
    "Tokens",
    "ToolCallBlock",
]

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from apex_llm.errors import ConfigurationError

if TYPE_CHECKING:
    from apex_llm.emulator.faults.base import Fault as NamedFault

_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+$")
FAILURE_KINDS = frozenset({
    "access_denied", "content_filter", "context_length", "expired_token", "internal", "model_error",
    "model_stream_error", "not_found", "not_ready", "overloaded", "quota", "throttled", "timeout", "unauthorized",
    "unavailable", "validation",
})  # fmt: skip
"""What ``Answer.error`` knows; each cloud has its own words for it."""
_DEFAULT_TEXT = "The quick brown fox jumps over the lazy dog."


class TextBlock(msgspec.Struct, frozen=True):
    """Text, and the pieces in which a stream sends it."""

    text: str
    pieces: tuple[str, ...] = ()


class ReasoningBlock(msgspec.Struct, frozen=True):
    """Reasoning that the model shows; wires that cannot show it count it only."""

    text: str
    pieces: tuple[str, ...] = ()
    signature: str = "EqQBCkYIBRgCKkDemulated"


class ToolCallBlock(msgspec.Struct, frozen=True):
    """A call that the model wants to have made; ``arguments`` is JSON text."""

    name: str
    arguments: str
    pieces: tuple[str, ...] = ()
    id: str = ""
    """Empty: each wire makes one in its own style."""


Block: TypeAlias = TextBlock | ReasoningBlock | ToolCallBlock


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer claims to have cost; ``None`` is counted from the texts."""

    input: int | None = None
    """Everything read, cache reads and writes included."""
    output: int | None = None
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error that the service reports itself, before or inside a stream."""

    kind: str
    status: int | None = None
    code: str | None = None
    message: str | None = None
    retry_after_ms: int | None = None
    inside_stream_after: int | None = None
    """Wire events sent before the error; ``None`` answers with an HTTP status instead of a stream."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that no service would do on purpose."""

    kind: Literal["cut", "truncate", "stall"]
    after_events: int | None = None
    after_bytes: int | None = None
    """Bytes of the body, HTTP's own framing not counted."""
    reset: bool = False
    """Whether a cut is a TCP reset (RST) rather than an orderly end (FIN)."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One scripted answer. Use the builders; ``msgspec.structs.replace`` changes a detail."""

    blocks: tuple[Block, ...] = ()
    finish: str = "stop"
    """``stop``, ``length``, ``tool_calls``, ``content_filter``, ``guardrail``, ``refusal``, ``stop_sequence``
    or ``context_window``; each wire spells it in its own way."""
    usage: Tokens = Tokens()
    headers: tuple[tuple[str, str], ...] = ()
    """Added to the response; a name that the emulator sends itself is replaced."""
    first_delay: float = 0.0
    """Seconds before the response's head."""
    delay: float = 0.0
    """Seconds before each event of a stream but the first."""
    write_size: int | None = None
    """Send the body in pieces of this many bytes, without regard to events."""
    failure: Failure | None = None
    fault: Fault | None = None
    filtered: str | None = None
    """The category that a content filter found."""
    filtered_where: Literal["prompt", "completion"] = "completion"
    body: bytes | None = None
    """A body to send as it is, in place of one made from the blocks."""
    status: int = 200
    content_type: str = "application/json"
    payloads: tuple[bytes, ...] | None = None
    """Payloads of a stream as they are; the wire still frames them."""
    raw_bytes: bytes | None = None
    """Exactly these bytes, HTTP head included."""
    raw_then: Literal["close", "reset", "keep"] = "close"
    spoiled_by: NamedFault | None = None
    """A fault that takes the connection and makes of this good answer what it likes."""

    @classmethod
    def text(
        cls,
        text: str = _DEFAULT_TEXT,
        *,
        chunks: Sequence[str] | None = None,
        delay: float = 0.0,
        first_delay: float = 0.0,
        reasoning: str | None = None,
        finish: str = "stop",
        usage: Mapping[str, int] | Tokens | None = None,
        headers: Mapping[str, str] | None = None,
        write_size: int | None = None,
    ) -> Answer:
        """Plain text, streamed word by word, or in ``chunks`` (whose concatenation then is the text)."""
        pieces = tuple(chunks) if chunks is not None else _words(text)
        blocks: list[Block] = [] if reasoning is None else [ReasoningBlock(reasoning, _words(reasoning))]
        blocks.append(TextBlock("".join(pieces), pieces))
        return cls(
            blocks=tuple(blocks),
            finish=finish,
            usage=_tokens(usage),
            headers=_pairs(headers),
            delay=delay,
            first_delay=first_delay,
            write_size=write_size,
        )

    @classmethod
    def tool_call(
        cls,
        name: str,
        arguments: Mapping[str, Any] | str | None = None,
        *more: tuple[str, Mapping[str, Any] | str],
        id: str = "",  # noqa: A002 # the wire's own word
        text: str | None = None,
        reasoning: str | None = None,
        delay: float = 0.0,
        usage: Mapping[str, int] | Tokens | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One tool call, or several: ``Answer.tool_call("a", {...}, ("b", {...}))``.

        Args:
            name: The tool.
            arguments: Its arguments, as a mapping or as the JSON text to send.
            more: Further calls, each a name and arguments.
            id: The first call's id; made by the wire where it is empty.
            text: Said before the calls.
            reasoning: Thought before everything else.
            delay: Seconds between events of a stream.
            usage: Tokens to claim.
            headers: Added to the response.
        """
        said = cls.text(text, reasoning=reasoning).blocks if text is not None else ()
        if text is None and reasoning is not None:
            said = (ReasoningBlock(reasoning, _words(reasoning)),)
        calls = [_tool_call(name, {} if arguments is None else arguments, id)]
        calls.extend(_tool_call(other, values, "") for other, values in more)
        return cls(
            blocks=(*said, *calls),
            finish="tool_calls",
            usage=_tokens(usage),
            headers=_pairs(headers),
            delay=delay,
        )

    @classmethod
    def error(
        cls,
        kind: str = "internal",
        *,
        status: int | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        message: str | None = None,
        retry_after_ms: int | None = None,
        inside_stream_after: int | None = None,
    ) -> Answer:
        """An error in the words of each cloud.

        Args:
            kind: ``throttled``, ``unavailable``, ``internal``, ``overloaded``, ``timeout``, ``model_error``,
                ``model_stream_error``, ``not_ready``, ``validation``, ``access_denied``, ``not_found``, ``quota``,
                ``unauthorized``, ``expired_token``, ``context_length`` or ``content_filter``.
            status: HTTP status in place of the usual one.
            code: Error code (Bedrock: exception name) in place of the usual one.
            headers: Added to the response.
            message: Text in place of the usual one.
            retry_after_ms: What the service asks to wait, in the headers of each cloud.
            inside_stream_after: Send it inside the stream, after so many wire events.

        Raises:
            ConfigurationError: There is no such kind.
        """
        if kind not in FAILURE_KINDS:
            raise ConfigurationError(
                f"No failure is called {kind!r}.", hint=f"Known are {', '.join(sorted(FAILURE_KINDS))}."
            )
        failure = Failure(
            kind=kind,
            status=status,
            code=code,
            message=message,
            retry_after_ms=retry_after_ms,
            inside_stream_after=inside_stream_after,
        )
        base = cls.text()
        return msgspec.structs.replace(base, failure=failure, headers=_pairs(headers))

    @classmethod
    def throttle(
        cls,
        *,
        inside_stream_after: int | None = None,
        retry_after_ms: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Too many requests: HTTP 429, or in the stream after so many wire events."""
        return cls.error(
            "throttled", inside_stream_after=inside_stream_after, retry_after_ms=retry_after_ms, headers=headers
        )

    @classmethod
    def cut(
        cls,
        answer: Answer | str | None = None,
        *,
        after_events: int | None = None,
        after_bytes: int | None = None,
        reset: bool = False,
    ) -> Answer:
        """An answer whose connection ends too early: by FIN, or by RST with ``reset``.

        With neither count the connection ends after the head.
        """
        return cls._broken(answer, Fault(kind="cut", after_events=after_events, after_bytes=after_bytes, reset=reset))

    @classmethod
    def truncated(
        cls, answer: Answer | str | None = None, *, after_events: int | None = None, after_bytes: int | None = None
    ) -> Answer:
        """A stream that ends cleanly as HTTP goes, but without its terminal event.

        With neither count everything is sent but the events from the first terminal one on.
        """
        return cls._broken(answer, Fault(kind="truncate", after_events=after_events, after_bytes=after_bytes))

    @classmethod
    def stall(
        cls, answer: Answer | str | None = None, *, after_events: int | None = None, after_bytes: int | None = None
    ) -> Answer:
        """An answer that stops in the middle and keeps the connection open until the client leaves."""
        return cls._broken(answer, Fault(kind="stall", after_events=after_events, after_bytes=after_bytes))

    @classmethod
    def content_filtered(
        cls, text: str = "", *, where: Literal["prompt", "completion"] = "completion", category: str = "violence"
    ) -> Answer:
        """Blocked by a content filter; ``text`` is what came through before it struck.

        A blocked prompt is HTTP 400 on Azure, and an intervened guardrail on Bedrock.
        """
        pieces = _words(text)
        blocks: tuple[Block, ...] = (TextBlock(text, pieces),) if text else ()
        return cls(blocks=blocks, finish="content_filter", filtered=category, filtered_where=where)

    @classmethod
    def json(
        cls,
        value: Any = None,
        *,
        status: int = 200,
        content_type: str = "application/json",
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """A whole response body as it is: ``value`` as JSON, or the bytes of ``content``."""
        body = json.dumps(value, separators=(",", ":")).encode() if content is None else content
        return cls(body=body, status=status, content_type=content_type, headers=_pairs(headers))

    @classmethod
    def stream(cls, *payloads: Mapping[str, Any] | bytes | str, delay: float = 0.0) -> Answer:
        """A stream of payloads as they are, framed as the wire does.

        On InvokeModel each one is a ``chunk``. On Converse each is an object with one key, the event's
        name: ``{"messageStart": {"role": "assistant"}}``. On Azure each is the ``data`` of one event.
        """
        encoded = tuple(
            payload
            if isinstance(payload, bytes)
            else payload.encode()
            if isinstance(payload, str)
            else json.dumps(payload, separators=(",", ":")).encode()
            for payload in payloads
        )
        return cls(payloads=encoded, delay=delay)

    @classmethod
    def raw(cls, data: bytes, *, then: Literal["close", "reset", "keep"] = "close") -> Answer:
        """Exactly these bytes on the connection, status line and all; then FIN, RST, or an open connection."""
        return cls(raw_bytes=data, raw_then=then)

    @classmethod
    def _broken(cls, answer: Answer | str | None, fault: Fault) -> Answer:
        base = answer if isinstance(answer, Answer) else cls.text(_DEFAULT_TEXT if answer is None else answer)
        return msgspec.structs.replace(base, fault=fault)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text)) or ((text,) if text else ())


def _tool_call(name: str, arguments: Mapping[str, Any] | str, call_id: str) -> ToolCallBlock:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    size = max(1, -(-len(text) // 3))
    pieces = tuple(text[start : start + size] for start in range(0, len(text), size))
    return ToolCallBlock(name, text, pieces, call_id)


def _tokens(usage: Mapping[str, int] | Tokens | None) -> Tokens:
    if usage is None:
        return Tokens()
    return usage if isinstance(usage, Tokens) else msgspec.convert(dict(usage), Tokens)


def _pairs(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value) for name, value in (headers or {}).items())
