"""The events of a streamed answer of Claude.

``message_start``, per block ``content_block_start``, ``content_block_delta``s and
``content_block_stop``, then ``message_delta`` with the stop reason, then ``message_stop``; ``ping``
anywhere. Each event says its own type, so the name that the framing gives is not looked at.
"""

from __future__ import annotations

__all__ = ["AnthropicStreamDecoder"]

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from apex_llm.codecs.chat._common import ToolCallBuilder
from apex_llm.codecs.chat.anthropic_messages.decode import (
    is_server_call,
    is_server_result,
    read_server_result,
)
from apex_llm.codecs.chat.anthropic_messages.wire import (
    Event,
    EventType,
    SimpleDelta,
    guardrail_extra,
    merge_usage,
    particulars,
    read_citation,
    read_finish_reason,
    tool_arguments,
    usage_of,
    usage_of_metrics,
)
from apex_llm.codecs.json_text import decode_json
from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelTimeoutError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    ResponseFormatError,
    StreamTruncatedError,
)
from apex_llm.types.decoders import decoder_for
from apex_llm.types.events import (
    CitationAdded,
    GuardrailTraced,
    ReasoningDelta,
    ServerToolResultAdded,
    StreamEvent,
    StreamFinished,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UnknownEvent,
)

_decode_simple_delta = decoder_for(SimpleDelta).decode
_decode_event = decoder_for(Event).decode

_NOTHING: tuple[StreamEvent, ...] = ()

_FAILURES: dict[str, type[ApexLlmError]] = {
    "authentication_error": AuthenticationError,
    "invalid_request_error": InvalidRequestError,
    "not_found_error": ModelNotFoundError,
    "permission_error": PermissionDeniedError,
    "rate_limit_error": RateLimitError,
    "request_too_large": InvalidRequestError,
    "timeout_error": ModelTimeoutError,
}


class AnthropicStreamDecoder:
    """``StreamDecoder`` for Claude's own format."""

    __slots__ = (
        "_extra",
        "_guardrail_action",
        "_metrics",
        "_stop_reason",
        "_stopped",
        "_tools",
        "_usage",
        "_warnings",
    )

    def __init__(self) -> None:
        self._tools: dict[int, ToolCallBuilder] = {}
        self._stopped = False
        self._stop_reason: str | None = None
        self._guardrail_action: str | None = None
        self._usage: dict[str, Any] = {}
        self._metrics: dict[str, Any] | None = None
        self._warnings: list[str] = []
        self._extra: dict[str, Any] = {}

    def feed(self, name: str, payload: bytes) -> Sequence[StreamEvent]:
        """The events of one payload; empty for pings and empty deltas.

        Raises:
            ResponseFormatError: The payload is not an event of this format.
            LimitExceededError: It is nested too deep.
            ApexLlmError: The service reported an error as an event, as it does over server-sent events.
        """
        try:
            simple = _decode_simple_delta(payload)
            if simple.type == "content_block_delta" and (piece := simple.delta) is not None and not self._stopped:
                if piece.text:
                    return (TextDelta(piece.text, simple.index or 0),)
                if piece.thinking:
                    return (ReasoningDelta(piece.thinking, simple.index or 0),)
                if piece.partial_json:
                    return self._tool_delta(simple.index or 0, piece.partial_json)
            event = _decode_event(payload)
        except (ValueError, RecursionError):
            kind = decode_json(payload, EventType, what="An event of Claude's stream").type
            if kind is not None and kind not in self._HANDLERS:
                return self._unknown(kind, payload)
            event = decode_json(payload, Event, what="An event of Claude's stream")
        kind = event.type
        if kind == "content_block_delta" and not self._stopped:
            return self._delta(event, payload)
        pending = self._bedrock_members(event)
        if kind is None:
            return pending if _has_bedrock_members(event) else (UnknownEvent(name, payload),)
        if self._stopped:
            if kind != "ping":
                self._warn(f"{kind[:80]!r} after message_stop was ignored")
            return pending
        handler = self._HANDLERS.get(kind)
        if handler is None:
            return (*self._unknown(kind, payload), *pending)
        events = handler(self, event, payload)
        return (*events, *pending) if pending else events

    def finish(self) -> Sequence[StreamEvent]:
        """The last event.

        Raises:
            StreamTruncatedError: ``message_stop`` never came.
        """
        if not self._stopped:
            raise StreamTruncatedError(
                "The stream ended without message_stop.",
                hint="Keep what arrived (error.partial), or call again.",
            )
        usage = usage_of(self._usage) or usage_of_metrics(self._metrics)
        if usage is None:
            self._warn("the stream gives no usage")
        return (
            StreamFinished(
                finish_reason=read_finish_reason(self._stop_reason, self._guardrail_action, self._warnings),
                raw_finish_reason=self._stop_reason,
                usage=usage,
                warnings=tuple(self._warnings),
                extra=self._extra,
            ),
        )

    def _delta(self, event: Event, payload: bytes) -> Sequence[StreamEvent]:
        delta = event.delta
        if delta is None:
            return _NOTHING
        index = event.index or 0
        if delta.text is not None:
            return (TextDelta(delta.text, index),) if delta.text else _NOTHING
        if delta.thinking is not None:
            return (ReasoningDelta(delta.thinking, index),) if delta.thinking else _NOTHING
        if delta.partial_json is not None:
            return self._tool_delta(index, delta.partial_json)
        if delta.signature is not None:
            return (ReasoningDelta("", index, delta.signature),) if delta.signature else _NOTHING
        if delta.citation is not None:
            return (CitationAdded(index, read_citation(delta.citation)),)
        return (UnknownEvent("content_block_delta", payload),)

    def _tool_delta(self, index: int, piece: str) -> Sequence[StreamEvent]:
        tool = self._tools.get(index)
        if tool is None:
            raise ResponseFormatError(f"Tool input came for block {index}, which no content_block_start has begun.")
        if not piece:
            return _NOTHING
        tool.pieces.append(piece)
        return (ToolCallDelta(index, piece),)

    def _message_start(self, event: Event, payload: bytes) -> Sequence[StreamEvent]:
        del payload
        message = event.message
        if message is None:
            return (StreamStarted(),)
        merge_usage(self._usage, message.usage)
        self._extra.update(particulars(message))
        return (StreamStarted(message.id, message.model),)

    def _block_start(self, event: Event, payload: bytes) -> Sequence[StreamEvent]:
        index = event.index or 0
        pending = self._close(index)
        block = event.content_block
        kind = block.type if block is not None else None
        if block is None:
            return pending
        if kind == "tool_use" or is_server_call(kind):
            tool = ToolCallBuilder(
                block.id or "",
                block.name or "",
                server_side=kind != "tool_use",
                fallback=tool_arguments(block.input),
            )
            self._tools[index] = tool
            return (*pending, ToolCallStarted(index, tool.id, tool.name, tool.server_side))
        if kind == "text":
            said = [TextDelta(block.text, index)] if block.text else []
            cited = [CitationAdded(index, read_citation(citation)) for citation in block.citations or () if citation]
            return (*pending, *said, *cited)
        if kind == "thinking":
            if block.thinking or block.signature:
                return (*pending, ReasoningDelta(block.thinking or "", index, block.signature or None))
            return pending
        if kind == "redacted_thinking":
            return (*pending, ReasoningDelta("", index, None, block.data)) if block.data else pending
        if is_server_result(kind):
            return (*pending, ServerToolResultAdded(index, read_server_result(block)))
        self._warn(f"unknown content block {(kind or '')[:80]!r} was ignored")
        return (*pending, UnknownEvent("content_block_start", payload))

    def _block_stop(self, event: Event, payload: bytes) -> Sequence[StreamEvent]:
        del payload
        return self._close(event.index or 0)

    def _message_delta(self, event: Event, payload: bytes) -> Sequence[StreamEvent]:
        del payload
        merge_usage(self._usage, event.usage)
        self._extra.update(particulars(event, event.delta))
        if (delta := event.delta) is not None:
            self._stop_reason = delta.stop_reason or self._stop_reason
        return _NOTHING

    def _message_stop(self, event: Event, payload: bytes) -> Sequence[StreamEvent]:
        del event, payload
        self._stopped = True
        return tuple(finished for index in sorted(self._tools) for finished in self._close(index))

    def _ping(self, event: Event, payload: bytes) -> Sequence[StreamEvent]:
        del event, payload
        return _NOTHING

    def _error(self, event: Event, payload: bytes) -> Sequence[StreamEvent]:
        del payload
        error = event.error
        code = (error.type if error is not None else None) or "error"
        # overloaded_error, api_error and whatever comes next: the service failed, not the request.
        kind = _FAILURES.get(code, OverloadedError)
        message = (error.message if error is not None else None) or "The service reported an error in the stream."
        raise kind(message, code=code, phase="mid-stream")

    def _bedrock_members(self, event: Event) -> Sequence[StreamEvent]:
        """What Bedrock adds to chunks: it may stand beside any event, or in a chunk of its own."""
        if not _has_bedrock_members(event):
            return _NOTHING
        self._guardrail_action = event.guardrail_action or self._guardrail_action
        self._metrics = event.metrics or self._metrics
        self._extra.update(guardrail_extra(event))
        return (GuardrailTraced(event.trace),) if event.trace else _NOTHING

    def _unknown(self, kind: str, payload: bytes) -> Sequence[StreamEvent]:
        return (UnknownEvent(kind, payload),)

    def _close(self, index: int) -> Sequence[StreamEvent]:
        tool = self._tools.pop(index, None)
        if tool is None:
            return _NOTHING
        return (ToolCallFinished(index, tool.id, tool.name, tool.arguments, tool.server_side),)

    def _warn(self, warning: str) -> None:
        if warning not in self._warnings:
            self._warnings.append(warning)

    _HANDLERS: ClassVar[dict[str, Callable[[AnthropicStreamDecoder, Event, bytes], Sequence[StreamEvent]]]] = {
        "message_start": _message_start,
        "content_block_start": _block_start,
        "content_block_delta": _delta,
        "content_block_stop": _block_stop,
        "message_delta": _message_delta,
        "message_stop": _message_stop,
        "ping": _ping,
        "error": _error,
    }


def _has_bedrock_members(event: Event) -> bool:
    return event.metrics is not None or event.guardrail_action is not None or event.trace is not None
