"""Events folded back into the answer that they are pieces of."""

from __future__ import annotations

__all__ = ["Accumulator"]

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from apex_llm.codecs.json_text import join_base64
from apex_llm.types.events import (
    CitationAdded,
    ContentFiltered,
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
)
from apex_llm.types.messages import CitationPart, Message, Part, ReasoningPart, TextPart, ToolCallPart
from apex_llm.types.responses import ChatResponse, FinishReason


class _Text:
    """Text and what it relies on, which may be told before, amid or after it, and belongs behind it."""

    __slots__ = ("citations", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.citations: list[CitationPart] = []

    def parts(self) -> Iterator[Part]:
        if self.pieces:
            yield TextPart(text="".join(self.pieces))
        yield from self.citations


class _Reasoning:
    __slots__ = ("pieces", "redacted", "signature")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.signature = ""
        self.redacted: list[str] = []

    def parts(self) -> Iterator[Part]:
        redacted = join_base64(self.redacted) or None
        yield ReasoningPart(text="".join(self.pieces), signature=self.signature or None, redacted=redacted)


class _ToolCall:
    __slots__ = ("id", "name", "pieces", "server_side", "whole")

    def __init__(self, event: ToolCallStarted | ToolCallFinished) -> None:
        self.id = event.id
        self.name = event.name
        self.server_side = event.server_side
        self.pieces: list[str] = []
        self.whole: str | None = None

    def parts(self) -> Iterator[Part]:
        arguments = self.whole if self.whole is not None else "".join(self.pieces)
        yield ToolCallPart(id=self.id, name=self.name, arguments=arguments, server_side=self.server_side)


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
                if event.redacted:
                    reasoning.redacted.append(event.redacted)
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
                self._block(_Text, event.index).citations.append(event.citation)
            case ServerToolResultAdded(_, part) | ImageAdded(_, part):
                self._blocks.append(part)
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
        parts: list[Part] = []
        for block in self._blocks:
            if isinstance(block, (_Text, _Reasoning, _ToolCall)):
                parts.extend(block.parts())
            else:
                parts.append(block)
        started, finish = self._started, self._finish
        return ChatResponse(
            message=Message("assistant", tuple(parts)),
            finish_reason=finish.finish_reason if finish else None,
            raw_finish_reason=finish.raw_finish_reason if finish else None,
            usage=finish.usage if finish else None,
            model=(finish and finish.model) or (started and started.model) or model,
            id=started.id if started else None,
            request_id=request_id,
            attempts=attempts,
            warnings=(*warnings, *(finish.warnings if finish else ())),
            extra={**self._extra, **(finish.extra if finish else {})},
        )
