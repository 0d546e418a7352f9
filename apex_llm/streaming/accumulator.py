"""Events folded back into the answer that they are pieces of."""

from __future__ import annotations

__all__ = ["Accumulator"]

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from apex_llm.types.events import (
    CitationAdded,
    ContentFiltered,
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
)
from apex_llm.types.messages import Message, Part, ReasoningPart, TextPart, ToolCallPart
from apex_llm.types.responses import ChatResponse, FinishReason


class _Text:
    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def part(self) -> Part:
        return TextPart(text="".join(self.pieces))


class _Reasoning:
    __slots__ = ("pieces", "redacted", "signature")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.signature = ""
        self.redacted = ""

    def part(self) -> Part:
        return ReasoningPart(
            text="".join(self.pieces), signature=self.signature or None, redacted=self.redacted or None
        )


class _ToolCall:
    __slots__ = ("id", "name", "pieces", "server_side", "whole")

    def __init__(self, event: ToolCallStarted | ToolCallFinished) -> None:
        self.id = event.id
        self.name = event.name
        self.server_side = event.server_side
        self.pieces: list[str] = []
        self.whole: str | None = None

    def part(self) -> Part:
        arguments = self.whole if self.whole is not None else "".join(self.pieces)
        return ToolCallPart(id=self.id, name=self.name, arguments=arguments, server_side=self.server_side)


_Block: TypeAlias = "_Text | _Reasoning | _ToolCall | Part"
_Kind = TypeVar("_Kind", "_Text", "_Reasoning")


class Accumulator:
    """The answer so far. Blocks stand in the order in which their first piece came."""

    __slots__ = ("_blocks", "_extra", "_finish", "_keyed", "_started", "_text", "_text_index")

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._keyed: dict[tuple[type, int], _Text | _Reasoning | _ToolCall] = {}
        self._extra: dict[str, Any] = {}
        self._started: StreamStarted | None = None
        self._finish: StreamFinished | None = None
        self._text: list[str] = []
        self._text_index = -1

    @property
    def finished(self) -> bool:
        """Whether ``StreamFinished`` was among the events."""
        return self._finish is not None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped, once it has said."""
        return self._finish.finish_reason if self._finish else None

    def add(self, events: Iterable[StreamEvent]) -> None:
        """Fold events in, in the order in which they came."""
        # Text is joined at once: as one string it takes a small part of what its pieces do.
        run: list[str] = []
        for event in events:
            if type(event) is TextDelta:
                if event.index != self._text_index:
                    self._add_text(run)
                    self._text = self._block(_Text, event.index).pieces
                    self._text_index = event.index
                run.append(event.text)
            else:
                self._add_other(event)
        self._add_text(run)

    def _add_text(self, run: list[str]) -> None:
        if run:
            self._text.append("".join(run))
            run.clear()

    def _add_other(self, event: StreamEvent) -> None:
        match event:
            case ReasoningDelta():
                reasoning = self._block(_Reasoning, event.index)
                reasoning.pieces.append(event.text)
                reasoning.signature += event.signature or ""
                reasoning.redacted += event.redacted or ""
            case ToolCallStarted():
                self._tool_call(event)
            case ToolCallDelta():
                call = self._keyed.get((_ToolCall, event.index))
                if isinstance(call, _ToolCall):
                    call.pieces.append(event.arguments)
            case ToolCallFinished():
                call = self._keyed.get((_ToolCall, event.index))
                if not isinstance(call, _ToolCall):
                    call = self._tool_call(event)
                call.whole = event.arguments
            case CitationAdded():
                self._blocks.append(event.citation)
            case ServerToolResultAdded():
                self._blocks.append(event.result)
            case ContentFiltered():
                found = self._extra.setdefault("content_filtered", [])
                found.append({"where": event.where, "categories": event.categories, "details": event.details})
            case GuardrailTraced():
                self._extra["trace"] = event.trace
            case StreamStarted():
                self._started = event
            case StreamFinished():
                self._finish = event
            case _:
                pass

    def _block(self, kind: type[_Kind], index: int) -> _Kind:
        block = self._keyed.get((kind, index))
        if not isinstance(block, kind):
            block = kind()
            self._keyed[kind, index] = block
            self._blocks.append(block)
        return block

    def _tool_call(self, event: ToolCallStarted | ToolCallFinished) -> _ToolCall:
        call = _ToolCall(event)
        self._keyed[_ToolCall, event.index] = call
        self._blocks.append(call)
        return call

    def response(
        self, *, model: str, request_id: str | None, attempts: int, warnings: Sequence[str] = ()
    ) -> ChatResponse:
        """The answer as far as it is known; can be asked for at any time, and again later."""
        parts = tuple(
            block.part() if isinstance(block, (_Text, _Reasoning, _ToolCall)) else block for block in self._blocks
        )
        started, finish = self._started, self._finish
        return ChatResponse(
            message=Message("assistant", parts),
            finish_reason=finish.finish_reason if finish else None,
            raw_finish_reason=finish.raw_finish_reason if finish else None,
            usage=finish.usage if finish else None,
            model=(started.model if started and started.model else None) or model,
            id=started.id if started else None,
            request_id=request_id,
            attempts=attempts,
            warnings=(*warnings, *(finish.warnings if finish else ())),
            extra={**self._extra, **(finish.extra if finish else {})},
        )
