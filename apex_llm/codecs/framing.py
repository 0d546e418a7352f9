"""Bytes to JSON payloads: the packaging between the body of an answer and a chat format.

Event-stream frames (Converse), event-stream frames with base64 inside (InvokeModel) and
server-sent events. Errors that a service sends inside a 200 answer are raised here, typed;
whether a stream is complete is for the format to say, which knows its terminal event.
"""

from __future__ import annotations

__all__ = ["ChunkFraming", "EventStreamFraming", "SseFraming"]

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from apex_llm.codecs.azure_failures import openai_stream_failure
from apex_llm.codecs.base import DONE
from apex_llm.codecs.bedrock_failures import bedrock_failure, bedrock_stream_failure
from apex_llm.codecs.failure_details import excerpt, read_error_body
from apex_llm.codecs.json_text import decode_json
from apex_llm.errors import ApexLlmError, ProtocolError, ResponseFormatError, StreamTruncatedError
from apex_llm.protocol.eventstream import FrameDecoder, HeaderValue
from apex_llm.protocol.sse import SseDecoder
from apex_llm.types.decoders import decoder_for
from apex_llm.types.http import Headers


class _EventFrames(FrameDecoder[Any]):
    """Gives the type of a plain event, and the headers of anything else."""

    __slots__ = ("plain",)

    def __init__(self, names: dict[bytes, str] | None = None) -> None:
        super().__init__(names)
        self.plain = True
        """Whether all frames so far were plain events."""

    def interpret(self, headers: Mapping[str, HeaderValue]) -> Any:
        """``str`` or headers."""
        name = headers.get(":event-type")
        if type(name) is str and name != "initial-response" and headers.get(":message-type", "event") == "event":
            return name
        self.plain = False
        return headers

    def remember(self, block: bytes, interpreted: Any) -> None:
        """Types of plain events only: whatever else comes must be noticed each time."""
        if type(interpreted) is str:
            super().remember(block, interpreted)


_LONGEST_ERROR: Final = 64 * 1024
_SINGLY: Final = 3
"""Frames until the first text, in most streams: the role, the beginning of a block, the text."""
_FEW_BYTES: Final = 1024
"""So few are not worth being taken apart: they hold hardly more than those frames."""


class EventStreamFraming:
    """``application/vnd.amazon.eventstream`` as ``ConverseStream`` uses it: event type and payload.

    Args:
        model: For errors.
        region: For errors.
        names: What the headers of frames were found to say; streams may share it.

    Raises (from ``feed``):
        EventStreamError: A frame is damaged.
        LimitExceededError: A frame is larger than the format allows.
        ApexLlmError: The service sent an exception or error frame; the class is the one that
            ``bedrock_failure`` would give.
    """

    __slots__ = ("_astray", "_begun", "_decoder", "_model", "_region")

    def __init__(
        self, *, model: str | None = None, region: str | None = None, names: dict[bytes, str] | None = None
    ) -> None:
        self._begun = False
        self._astray = b""
        self._decoder = _EventFrames(names)
        self._model = model
        self._region = region

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """Event type and payload of each frame that is complete."""
        if self._begun:
            return self._frames(data)
        if self._astray or data[:1] == b"{":
            # No frame is as long as this would be: an error in bare JSON, which may come in pieces.
            self._astray += data
            if len(self._astray) <= _LONGEST_ERROR:
                return iter(())
            data = self._astray
        self._begun = True
        if len(data) <= _FEW_BYTES:
            return self._frames(data)
        return itertools.chain.from_iterable(self._opening(data))

    def finish(self) -> Iterator[tuple[str, bytes]]:
        """Nothing more.

        Raises:
            StreamTruncatedError: Part of a frame was left.
            ApexLlmError: The body was an error in bare JSON.
        """
        if self._astray and not self._begun:
            if read_error_body(self._astray).recognised:
                failure = bedrock_failure(200, Headers(), self._astray, model=self._model, region=self._region)
                failure.phase = "mid-stream"
                raise failure
            for _ in itertools.chain.from_iterable(self._opening(self._astray)):
                pass  # it raises what is wrong with it as a frame
        self._decoder.finish()
        return iter(())

    def _frames(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        frames = self._decoder.feed(data)
        return frames if self._decoder.plain else self._events(frames)

    def _opening(self, data: bytes) -> Iterator[Iterator[tuple[str, bytes]]]:
        """The first bytes, with the first frames taken singly: who waits for them need not wait for all the others."""
        position = 0
        for _ in range(_SINGLY):
            # Only a guess where a frame ends; whether it does is for the decoder to find out.
            end = position + int.from_bytes(data[position : position + 4], "big")
            if not position < end < len(data):
                break
            yield self._frames(data[position:end])
            position = end
        yield self._frames(data[position:])

    def _events(self, frames: Iterator[tuple[Any, bytes]]) -> Iterator[tuple[str, bytes]]:
        for name, payload in frames:
            if type(name) is str:
                yield name, payload
            else:
                yield from self._other_frame(name, payload)

    def _other_frame(self, headers: Mapping[str, HeaderValue], payload: bytes) -> Iterator[tuple[str, bytes]]:
        if headers.get(":event-type") == "initial-response" and headers.get(":message-type", "event") == "event":
            return
        kind = _text(headers.get(":message-type"))
        exception = _text(headers.get(":exception-type"))
        code = _text(headers.get(":error-code"))
        message = _text(headers.get(":error-message"))
        if kind in ("exception", "error") or exception or code:
            raise bedrock_stream_failure(
                exception or code, payload, message=message, model=self._model, region=self._region
            )
        yield _text(headers.get(":event-type")) or "", payload


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


class _Chunk(msgspec.Struct, gc=False):
    """Payload of a ``chunk`` event; its padding member ``p`` carries nothing."""

    body: bytes | None = msgspec.field(default=None, name="bytes")


_decode_chunk = decoder_for(_Chunk).decode


class ChunkFraming(EventStreamFraming):
    """Event-stream frames of ``InvokeModelWithResponseStream``: ``chunk``, and the model's own JSON.

    Events of another name are given as they are.

    Raises (from ``feed``), besides what the frames raise:
        ResponseFormatError: A chunk is not base64 in JSON.
    """

    __slots__ = ()

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """Event type and payload of each frame that is complete; of a chunk, what it wraps."""
        # Not a generator itself: the bytes are taken in now, the frames looked at one by one.
        return self._unwrapped(super().feed(data))

    def _unwrapped(self, events: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        for name, payload in events:
            if name != "chunk":
                yield name, payload
                continue
            try:
                body = _decode_chunk(payload).body
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                body = decode_json(payload, _Chunk, what="A chunk of the stream").body
            if body is None:
                raise ResponseFormatError("A chunk of the stream holds no bytes.", phase="mid-stream")
            yield name, body


class _WithError(msgspec.Struct):
    """Any object of an OpenAI stream, read for its error only."""

    error: Any = None
    type: Any = None


_decode_error = decoder_for(_WithError).decode
_ERROR_MEMBER: Final = b'"error"'
"""Cannot stand inside a JSON string, where its quotes would be escaped: only member names and values match."""
_USUAL: Final = (b'{"choices"', b'{"id"', b'{"type":"response.')
"""How chunks and events begin that hold no error, or one that the format's decoder finds: the search costs
as much as everything else here."""
_SHOWN: Final = 200
_USUAL_LINES: Final = tuple([b"data: " + beginning for beginning in _USUAL])


class SseFraming:
    """Server-sent events: event name and data; ``data: [DONE]`` becomes the name ``DONE`` without data.

    Raises (from ``feed``):
        LimitExceededError: An event is larger than 24 MiB.
        ApexLlmError: The service sent an error as an event, typed by its code.
    """

    __slots__ = ("_decoder", "_done", "_model", "_provider")

    def __init__(self, *, model: str | None = None, provider: str = "azure_openai") -> None:
        self._decoder = SseDecoder(usual=_USUAL_LINES)
        self._done = False
        self._model = model
        self._provider = provider

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """Name and data of each event that is complete."""
        events = self._decoder.feed_raw(data)
        return iter(events) if self._decoder.usual_only else self._checked(events)

    def finish(self) -> Iterator[tuple[str, bytes]]:
        """A ``[DONE]`` that came without its empty line.

        Raises:
            StreamTruncatedError: Half an event was left, and the stream was not done.
            ResponseFormatError: It held a page instead of events.
            ApexLlmError: It held an error in bare JSON, as gateways send them.
        """
        last = self._decoder.finish()
        discarded = self._decoder.discarded
        if self._done:
            return iter(())
        if self._decoder.stray:
            self._check_stray(self._decoder.stray)
        if discarded:
            raise StreamTruncatedError(
                f"The stream ended inside an event: {discarded} bytes of it had arrived.", retryable=True
            )
        return self._checked(last)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd about the bytes so far."""
        warnings: list[str] = []
        if self._decoder.replaced_bad_utf8:
            warnings.append("The stream held bytes that are not UTF-8; U+FFFD stands in their place.")
        if self._done and self._decoder.discarded:
            warnings.append(f"{self._decoder.discarded} bytes after [DONE] are no event and were ignored.")
        return tuple(warnings)

    def _checked(self, events: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        for name, payload in events:
            if payload.startswith(_USUAL) and name != "error":
                yield name, payload
            elif payload.lstrip().startswith(b"[DONE]"):
                self._done = True
                yield DONE, b""
            elif name == "error" or _holds_error(payload):
                raise self._failure(payload)
            else:
                yield name, payload

    def _check_stray(self, stray: bytes) -> None:
        found = read_error_body(stray)
        if found.recognised:
            raise self._failure(stray)
        if self._decoder.begins_astray:
            # JSON may hold what a model or a user said.
            shown = "JSON" if stray.lstrip()[:1] == b"{" else f"text that begins: {excerpt(stray, limit=_SHOWN)!r}"
            raise ResponseFormatError(
                f"Expected server-sent events, but the answer is {shown}.",
                hint="A proxy, gateway or login page may stand between here and the service. Check the endpoint.",
            )

    def _failure(self, payload: bytes) -> ApexLlmError:
        return openai_stream_failure(payload, model=self._model, provider=self._provider)


def _holds_error(payload: bytes) -> bool:
    """Whether the top level has an ``error`` that says something; the format's decoder deals with broken JSON."""
    if _ERROR_MEMBER not in payload:
        return False
    try:
        found = _decode_error(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            found = decode_json(payload, _WithError, what="An event of the stream")
        except ProtocolError:
            return False
    return bool(found.error) or found.type == "error"
