"""A whole answer, replayed as the events of a stream.

Some models answer tools only when they are not streamed. Callers who stream get the same
events all the same, at once and at the end.
"""

from __future__ import annotations

__all__ = ["ReplayCodec", "WholeBodyFraming", "events_of"]

from collections.abc import Iterator, Sequence
from typing import Final

from apex_llm.codecs.base import ChatCodec, StreamDecoder
from apex_llm.errors import LimitExceededError, StreamTruncatedError
from apex_llm.types.events import (
    CitationAdded,
    ImageAdded,
    ReasoningDelta,
    ServerToolResultAdded,
    StreamEvent,
    StreamFinished,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from apex_llm.types.messages import CitationPart, ImagePart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import ChatResponse, FinishReason

_MAX_BODY: Final = 256 * 1024 * 1024


class WholeBodyFraming:
    """One payload: the whole body, at its end.

    Raises (from ``feed``):
        LimitExceededError: The body is larger than 256 MiB, which is also as much as a call that is not streamed reads.
    """

    def __init__(self) -> None:
        # One buffer: kept apart, chunks of one byte would take fifty times their size.
        self._body = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """Nothing yet."""
        self._body += data
        if len(self._body) > _MAX_BODY:
            self._body.clear()
            raise LimitExceededError(f"The response body is larger than {_MAX_BODY} bytes.", limit="body", phase="body")
        return iter(())

    def finish(self) -> Iterator[tuple[str, bytes]]:
        """The body."""
        return iter((("body", bytes(self._body)),))


class ReplayCodec:
    """``ChatCodec`` around another: the same requests and answers, and a stream made of a whole answer."""

    __slots__ = ("_codec",)

    def __init__(self, codec: ChatCodec) -> None:
        self._codec = codec

    def encode(self, request: ChatRequest, *, stream: bool) -> tuple[bytes, tuple[str, ...]]:
        """As the other codec for a call that is not streamed."""
        del stream
        body, warnings = self._codec.encode(request, stream=False)
        return body, (*warnings, "changed: this model does not stream tool calls; the answer was replayed as a stream")

    def decode(self, body: bytes) -> ChatResponse:
        """As the other codec."""
        return self._codec.decode(body)

    def stream_decoder(self) -> StreamDecoder:
        """Takes the whole body as its one payload."""
        return _ReplayDecoder(self._codec)


class _ReplayDecoder:
    def __init__(self, codec: ChatCodec) -> None:
        self._codec = codec
        self._response: ChatResponse | None = None

    def feed(self, name: str, payload: bytes) -> Sequence[StreamEvent]:
        del name
        self._response = self._codec.decode(payload)
        return events_of(self._response)

    def finish(self) -> Sequence[StreamEvent]:
        response = self._response
        if response is None:
            raise StreamTruncatedError("The answer has no body.")
        return (
            StreamFinished(
                response.finish_reason or FinishReason.UNKNOWN,
                response.raw_finish_reason,
                response.usage,
                response.warnings,
                response.extra,
            ),
        )


def events_of(response: ChatResponse) -> list[StreamEvent]:
    """The events, all but the last, by which a stream would have said this answer."""
    events: list[StreamEvent] = [StreamStarted(response.id, response.model or None)]
    cited = 0
    for index, part in enumerate(response.message.parts):
        if not isinstance(part, CitationPart):
            cited = index
        match part:
            case TextPart() if part.text:
                events.append(TextDelta(part.text, index))
            case ReasoningPart():
                events.append(ReasoningDelta(part.text, index, part.signature, part.redacted))
            case ToolCallPart():
                events += [
                    ToolCallStarted(index, part.id, part.name, part.server_side),
                    ToolCallDelta(index, part.arguments),
                    ToolCallFinished(index, part.id, part.name, part.arguments, part.server_side),
                ]
            case CitationPart():
                events.append(CitationAdded(cited, part))
            case ImagePart():
                events.append(ImageAdded(index, part))
            case ToolResultPart():
                events.append(ServerToolResultAdded(index, part))
            case _:
                pass
    return events
