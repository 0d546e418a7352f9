"""The events of ConverseStream.

Order on the wire: ``messageStart``, per block ``contentBlockDelta``s and ``contentBlockStop``
(``contentBlockStart`` before them for tools only), ``messageStop``, ``metadata``. The stream is
complete with ``messageStop``; usage comes after it.
"""

from __future__ import annotations

__all__ = ["ConverseStreamDecoder"]

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from apex_llm.codecs.chat._common import ToolCallBuilder
from apex_llm.codecs.chat.bedrock_converse.decode import invoked_model, read_media, tool_arguments
from apex_llm.codecs.chat.bedrock_converse.wire import (
    BlockDelta,
    BlockStart,
    BlockStop,
    Delta,
    Media,
    MessageStop,
    Metadata,
    ToolResultBlock,
    read_citation,
    read_finish_reason,
    read_server_result,
    read_usage,
)
from apex_llm.codecs.json_text import decode_json
from apex_llm.errors import ResponseFormatError, StreamTruncatedError
from apex_llm.types.decoders import decoder_for
from apex_llm.types.events import (
    CitationAdded,
    GuardrailTraced,
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
    UnknownEvent,
)
from apex_llm.types.messages import ImagePart
from apex_llm.types.responses import Usage

_decode_delta = decoder_for(BlockDelta).decode

_NOTHING: tuple[StreamEvent, ...] = ()
_READ = frozenset({"stopReason", "usage", "p"})


class ConverseStreamDecoder:
    """``StreamDecoder`` for ConverseStream; ``name`` is the frame's ``:event-type``."""

    __slots__ = ("_extra", "_images", "_results", "_stop_reason", "_stopped", "_tools", "_usage", "_warnings")

    def __init__(self) -> None:
        self._tools: dict[int, ToolCallBuilder] = {}
        self._results: dict[int, ToolResultBlock] = {}
        self._images: dict[int, list[Media]] = {}
        self._stopped = False
        self._stop_reason: str | None = None
        self._usage: Usage | None = None
        self._warnings: list[str] = []
        self._extra: dict[str, Any] = {}

    def feed(self, name: str, payload: bytes) -> Sequence[StreamEvent]:
        """The events of one payload; empty for empty deltas.

        Raises:
            ResponseFormatError: The payload is not what its name says.
            LimitExceededError: It is nested too deep.
        """
        if name == "contentBlockDelta" and not self._stopped:
            try:
                event = _decode_delta(payload)
            except (ValueError, RecursionError):
                event = decode_json(payload, BlockDelta, what="A contentBlockDelta")
            delta = event.delta
            if delta is None:
                return _NOTHING
            text = delta.text
            if text is None:
                return self._other_delta(delta, event.content_block_index or 0, payload)
            return (TextDelta(text, event.content_block_index or 0),) if text else _NOTHING
        handler = self._HANDLERS.get(name)
        if self._stopped and name != "metadata":
            self._warn(f"{name[:80]!r} after messageStop was ignored")
            return _NOTHING
        if handler is None:
            return (UnknownEvent(name, payload),)
        return handler(self, payload)

    def finish(self) -> Sequence[StreamEvent]:
        """The last event.

        Raises:
            StreamTruncatedError: ``messageStop`` never came.
        """
        if not self._stopped:
            raise StreamTruncatedError(
                "The stream ended without messageStop.",
                hint="Keep what arrived (error.partial), or call again.",
            )
        reason = read_finish_reason(self._stop_reason, self._warnings)
        if self._usage is None:
            self._warn("the stream gives no usage")
        return (
            StreamFinished(
                finish_reason=reason,
                raw_finish_reason=self._stop_reason,
                usage=self._usage,
                warnings=tuple(self._warnings),
                extra=self._extra,
                model=invoked_model(self._extra.get("trace")) or None,
            ),
        )

    def _other_delta(self, delta: Delta, index: int, payload: bytes) -> Sequence[StreamEvent]:
        if delta.tool_use is not None:
            piece = delta.tool_use.input
            tool = self._tools.get(index)
            if tool is None:
                raise ResponseFormatError(f"Tool input came for block {index}, which no contentBlockStart has begun.")
            if not piece:
                return _NOTHING
            tool.pieces.append(piece)
            return (ToolCallDelta(index, piece),)
        if (reasoning := delta.reasoning_content) is not None:
            if reasoning.text or reasoning.signature or reasoning.redacted_content:
                return (ReasoningDelta(reasoning.text or "", index, reasoning.signature, reasoning.redacted_content),)
            return _NOTHING
        if delta.citation is not None:
            return (CitationAdded(index, read_citation(delta.citation)),)
        if delta.tool_result is not None and index in self._results:
            block = self._results[index]
            block.content = [*(block.content or ()), *delta.tool_result]
            return _NOTHING
        if delta.image is not None:
            self._images.setdefault(index, []).append(delta.image)
            return _NOTHING
        return (UnknownEvent("contentBlockDelta", payload),)

    def _message_start(self, payload: bytes) -> Sequence[StreamEvent]:
        del payload  # {"role": "assistant"}, always
        return (StreamStarted(),)

    def _block_start(self, payload: bytes) -> Sequence[StreamEvent]:
        event = decode_json(payload, BlockStart, what="A contentBlockStart")
        index = event.content_block_index or 0
        pending = self._close(index)
        start = event.start
        if start is not None and (use := start.tool_use) is not None:
            tool = ToolCallBuilder(
                use.tool_use_id or "",
                use.name or "",
                server_side=use.type == "server_tool_use",
                fallback=tool_arguments(use.input),
            )
            self._tools[index] = tool
            return (*pending, ToolCallStarted(index, tool.id, tool.name, tool.server_side))
        if start is not None and start.tool_result is not None:
            self._results[index] = start.tool_result
            return pending
        if start is not None and start.image is not None:
            self._images[index] = [start.image]
            return pending
        if start is None or payload_is_empty_start(payload):
            return pending
        return (*pending, UnknownEvent("contentBlockStart", payload))

    def _block_stop(self, payload: bytes) -> Sequence[StreamEvent]:
        event = decode_json(payload, BlockStop, what="A contentBlockStop")
        return self._close(event.content_block_index or 0)

    def _message_stop(self, payload: bytes) -> Sequence[StreamEvent]:
        event = decode_json(payload, MessageStop, what="A messageStop")
        self._stopped = True
        self._stop_reason = event.stop_reason
        self._keep(payload)
        if not self._tools and not self._results and not self._images:
            return _NOTHING
        open_blocks = sorted({*self._tools, *self._results, *self._images})
        return tuple(finished for index in open_blocks for finished in self._close(index))

    def _metadata(self, payload: bytes) -> Sequence[StreamEvent]:
        event = decode_json(payload, Metadata, what="A metadata event")
        self._usage = read_usage(event.usage) or self._usage
        self._keep(payload)
        if event.trace and "guardrail" in event.trace:
            return (GuardrailTraced(event.trace),)
        return _NOTHING

    def _keep(self, payload: bytes) -> None:
        """What only Bedrock has, known or not: a stream has no body in which to look it up."""
        members = decode_json(payload, dict[str, Any], what="The end of a stream")
        self._extra.update((name, value) for name, value in members.items() if value is not None and name not in _READ)

    def _close(self, index: int) -> Sequence[StreamEvent]:
        tool = self._tools.pop(index, None)
        if tool is not None:
            return (ToolCallFinished(index, tool.id, tool.name, tool.arguments, tool.server_side),)
        if (result := self._results.pop(index, None)) is not None:
            return (ServerToolResultAdded(index, read_server_result(result)),)
        if pieces := self._images.pop(index, None):
            source = read_media(pieces, self._warnings, what="an image")
            return (ImageAdded(index, ImagePart(format=pieces[0].format, **source)),) if source else _NOTHING
        return _NOTHING

    def _warn(self, warning: str) -> None:
        if warning not in self._warnings:
            self._warnings.append(warning)

    _HANDLERS: ClassVar[dict[str, Callable[[ConverseStreamDecoder, bytes], Sequence[StreamEvent]]]] = {
        "messageStart": _message_start,
        "contentBlockStart": _block_start,
        "contentBlockStop": _block_stop,
        "messageStop": _message_stop,
        "metadata": _metadata,
    }


def payload_is_empty_start(payload: bytes) -> bool:
    """Whether ``start`` holds nothing, as in streams of other people's making."""
    return not decode_json(payload, dict[str, Any], what="A contentBlockStart").get("start")
