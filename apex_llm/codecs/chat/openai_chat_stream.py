"""Chunks of a chat completion as stream events.

Source: recorded streams of Azure, OpenAI and DeepSeek on Azure, and the documented shape of
Azure's asynchronous filter. The first chunk may be empty of everything but the prompt's filter
results, annotations may come without a delta, and the usage without a choice.
"""

from __future__ import annotations

__all__ = ["OpenAIChatStreamDecoder"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from apex_llm.codecs.azure_failures import openai_stream_failure
from apex_llm.codecs.base import DONE
from apex_llm.codecs.chat.openai_chat_wire import (
    NOTHING,
    Choice,
    Chunk,
    Delta,
    Function,
    Particulars,
    ToolCallDelta,
    add_particulars,
    arguments_text,
    citation_of,
    finding,
    finish_reason_of,
    prompt_findings,
    reasoning_text,
    text_of,
    usage_of,
)
from apex_llm.codecs.failure_details import as_mapping
from apex_llm.codecs.json_text import decode_json
from apex_llm.errors import ResponseFormatError, StreamTruncatedError
from apex_llm.types.decoders import decoder_for
from apex_llm.types.events import (
    CitationAdded,
    ReasoningDelta,
    StreamEvent,
    StreamFinished,
    StreamStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from apex_llm.types.events import (
    ToolCallDelta as ToolCallPiece,
)

if TYPE_CHECKING:
    from apex_llm.codecs.chat.openai_chat_gathered import Gathered

_decode_chunk = decoder_for(Chunk).decode
_decode_particulars = decoder_for(Particulars).decode
_NO_EVENTS: Final[Sequence[StreamEvent]] = ()
_LEGACY_KEY: Final = -1
_WHAT: Final = "A chunk of the stream"


class _Call:
    """A tool call that is being written."""

    __slots__ = ("block", "closed", "id", "name", "pieces", "started")

    def __init__(self, block: int, call_id: str | None, name: str | None) -> None:
        self.block = block
        self.id = call_id or ""
        self.name = name or ""
        self.pieces: list[str] = []
        self.started = False
        self.closed = False

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


class OpenAIChatStreamDecoder:
    """The state of one stream of ``chat.completion.chunk`` objects.

    Content blocks are numbered in the order in which they begin: reasoning, text, tool calls.
    Choices beyond the first are left out, with a warning.
    """

    __slots__ = (
        "_blocks",
        "_calls",
        "_current",
        "_done",
        "_every_call",
        "_extra",
        "_finish_reasons",
        "_gathered",
        "_harmless",
        "_id",
        "_metrics",
        "_model",
        "_packed",
        "_reasoning_block",
        "_refused",
        "_started",
        "_text_block",
        "_usage",
        "_warnings",
    )

    def __init__(self) -> None:
        self._id: str | None = None
        self._model: str | None = None
        self._started = False
        self._done = False
        self._packed = False
        self._blocks = 0
        self._text_block = -1
        self._reasoning_block = -1
        self._calls: dict[int, _Call] = {}  # the latest of each index
        self._every_call: list[_Call] = []
        self._current: _Call | None = None
        self._gathered: Gathered | None = None
        self._finish_reasons: dict[int, str | None] = {}
        self._refused = False
        self._usage: dict[str, Any] | None = None
        self._metrics: dict[str, Any] | None = None
        self._extra: dict[str, Any] = {}
        self._warnings: list[str] = []
        self._harmless = NOTHING

    def feed(self, name: str, payload: bytes) -> Sequence[StreamEvent]:
        """Events of one chunk.

        Raises:
            ResponseFormatError: The chunk is not JSON, or not of this shape.
            ApexLlmError: The chunk is an error.
        """
        if self._done or name == DONE:
            return self._after_or_at_done()
        try:
            chunk = _decode_chunk(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            if not payload.lstrip().startswith(b"{"):
                return self._not_an_object(payload.strip())
            chunk = decode_json(payload, Chunk, what=_WHAT)
        if chunk.error:
            raise openai_stream_failure(payload)
        choices = chunk.choices
        events: list[StreamEvent] = [] if self._started else self._first_chunks(name, chunk, payload)
        if choices:
            # By far the most frequent chunk holds a piece of text and nothing else.
            choice = choices[0]
            delta = choice.delta
            if len(choices) == 1 and not choice.index:
                if delta is not None:
                    self._add_delta(delta, events)
                elif choice.message is not None:
                    self._add_message(choice.message, events)
                if choice.content_filter_results != self._harmless or choice.logprobs is not None:
                    self._read_beside(choice, events)
                if choice.finish_reason:  # "" is what some gateways say instead of nothing
                    self._finish_choice(0, choice.finish_reason, events)
            else:
                self._add_choices(choices, events)
        if not choices or chunk.usage or chunk.metrics or chunk.prompt_filter_results or chunk.prompt_annotations:
            self._read_rest(chunk, payload, events)
        return events

    def finish(self) -> Sequence[StreamEvent]:
        """The last events.

        Raises:
            StreamTruncatedError: Neither ``[DONE]`` came, nor a finish reason for every choice.
            ResponseFormatError: ``[DONE]`` came, but no choice.
        """
        reasons = self._finish_reasons
        if self._done:
            if not reasons:
                raise ResponseFormatError("The stream said [DONE] without having said anything.", phase="mid-stream")
        elif not reasons or None in reasons.values():
            raise StreamTruncatedError(
                "The stream ended before the answer was complete: neither [DONE] nor a finish reason came.",
                retryable=True,
            )
        elif not self._packed:
            self._warn("The stream ended without [DONE], but after a finish reason for every choice.")
        events: list[StreamEvent] = []
        for call in self._every_call:
            self._close(call, events)
        raw = reasons.get(0)
        if raw is None:
            self._warn("The stream ended without a finish reason.")
        if len(reasons) > 1:
            self._warn(f"{len(reasons)} choices were streamed; only the first was delivered.")
        events.append(
            StreamFinished(
                finish_reason_of(raw, has_calls=bool(self._every_call), refused=self._refused),
                raw,
                usage_of(self._usage, self._metrics),
                tuple(self._warnings),
                self._whole_extra(),
            )
        )
        return events

    # -- chunks ----------------------------------------------------------------------------

    def _first_chunks(self, name: str, chunk: Chunk, payload: bytes) -> list[StreamEvent]:
        """Id and model come from the first chunk that names them; Azure's very first one may not."""
        self._packed = name == "chunk"
        self._id = self._id or chunk.id
        self._model = self._model or chunk.model
        if not chunk.choices:
            return []
        self._started = True
        self._read_particulars(payload)
        return [StreamStarted(self._id or None, self._model or None)]

    def _after_or_at_done(self) -> Sequence[StreamEvent]:
        if self._done:
            self._warn("Something came after [DONE] and was ignored.")
        self._done = True
        return _NO_EVENTS

    def _not_an_object(self, payload: bytes) -> Sequence[StreamEvent]:
        if payload == b'"[DONE]"':  # Writer's models on Bedrock
            self._done = True
        elif payload:
            try:
                msgspec.json.decode(payload, type=msgspec.Raw)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise ResponseFormatError(f"{_WHAT} is not JSON ({len(payload)} bytes).") from error
            self._warn("A chunk that is not a JSON object was ignored.")
        return _NO_EVENTS

    def _add_choices(self, choices: list[Choice], events: list[StreamEvent]) -> None:
        for choice in choices:
            index = choice.index or 0
            if index == 0:
                if choice.delta is not None:
                    self._add_delta(choice.delta, events)
                elif choice.message is not None:
                    self._add_message(choice.message, events)
                self._read_beside(choice, events)
            else:
                self._finish_reasons.setdefault(index, None)
            if choice.finish_reason:
                self._finish_choice(index, choice.finish_reason, events)

    def _add_delta(self, delta: Delta, events: list[StreamEvent]) -> None:
        if 0 not in self._finish_reasons:
            self._finish_reasons[0] = None
        content = delta.content
        if isinstance(content, str) and delta.reasoning_content is None and delta.reasoning is None:
            if content:
                if self._text_block < 0:
                    self._text_block = self._next_block()
                events.append(TextDelta(content, self._text_block))
        else:
            self._add_reasoning(reasoning_text(delta), events)
            self._add_text(text_of(content), events)
        if delta.refusal:
            self._refused = True
            self._add_text(delta.refusal, events)
        if delta.tool_calls:
            for piece in delta.tool_calls:
                if piece.custom is None:
                    self._add_call(piece, events)
                else:
                    self._gather().add_custom_call(piece)
        if delta.function_call is not None:
            self._add_call(ToolCallDelta(_LEGACY_KEY, "function_call", delta.function_call), events)
        if delta.context:
            self._extra["context"] = {**self._extra.get("context", {}), **delta.context}
        if delta.annotations:
            self._add_citations(delta.annotations, events)
        if delta.audio:
            self._gather().add_audio(delta.audio)

    def _add_message(self, message: Delta, events: list[StreamEvent]) -> None:
        """What gateways send that stream for a model that does not; after deltas, it only says them again."""
        if not self._blocks:
            self._add_delta(message, events)

    def _add_text(self, text: str, events: list[StreamEvent]) -> None:
        if not text:
            return
        if self._text_block < 0:
            self._text_block = self._next_block()
        events.append(TextDelta(text, self._text_block))

    def _add_citations(self, annotations: list[dict[str, Any] | None], events: list[StreamEvent]) -> None:
        if self._text_block < 0:
            self._text_block = self._next_block()
        events.extend(CitationAdded(self._text_block, citation_of(each)) for each in annotations if each)

    def _add_reasoning(self, text: str, events: list[StreamEvent]) -> None:
        if not text:
            return
        if self._reasoning_block < 0:
            self._reasoning_block = self._next_block()
        events.append(ReasoningDelta(text, self._reasoning_block))

    def _next_block(self) -> int:
        block = self._blocks
        self._blocks += 1
        return block

    def _finish_choice(self, index: int, reason: str, events: list[StreamEvent]) -> None:
        # A filter that worked behind the text takes back what "stop" had said.
        if self._finish_reasons.get(index) is None or reason == "content_filter":
            self._finish_reasons[index] = reason
        if index == 0:
            for call in self._every_call:
                self._close(call, events)

    # -- tool calls ------------------------------------------------------------------------

    def _add_call(self, piece: ToolCallDelta, events: list[StreamEvent]) -> None:
        function = piece.function or Function()
        known = len(self._every_call)
        call = self._call_of(piece, function, events)
        if len(self._every_call) > known and self._current is not None and _is_complete(self._current.arguments):
            # Pieces usually come grouped; an unfinished call stays open in case they do not.
            self._close(self._current, events)
        self._current = call
        if function.name and not call.name:
            call.name = function.name
        if piece.id and not call.id:
            call.id = piece.id
        arguments = arguments_text(function.arguments)
        if call.closed:
            if arguments.strip():
                self._warn(f"Arguments of the tool call {call.name!r} came after its end and were ignored.")
            return
        if call.name and not call.started:
            self._start(call, events)
        if arguments:
            call.pieces.append(arguments)
            if call.started:
                events.append(ToolCallPiece(call.block, arguments))

    def _call_of(self, piece: ToolCallDelta, function: Function, events: list[StreamEvent]) -> _Call:
        """The call that a piece belongs to.

        Its index says so. Compatible servers leave that out, or say 0 for every call: then
        another id together with a name begins another call. A repeated id alone does not.
        """
        key, current = piece.index, self._current
        call = current if key is None else self._calls.get(key)
        if call is not None and function.name:
            if piece.id:
                begins = bool(call.id) and piece.id != call.id
            else:
                begins = key is None and _is_complete(call.arguments)
            if begins:
                self._close(call, events)
                call = None
        if call is None:
            call = _Call(self._next_block(), piece.id, function.name)
            self._calls[len(self._every_call) if key is None else key] = call
            self._every_call.append(call)
        return call

    def _start(self, call: _Call, events: list[StreamEvent]) -> None:
        call.started = True
        call.id = call.id or f"call_{call.block}"
        events.append(ToolCallStarted(call.block, call.id, call.name))
        held = call.arguments
        if held:
            events.append(ToolCallPiece(call.block, held))

    def _close(self, call: _Call, events: list[StreamEvent]) -> None:
        if call.closed:
            return
        if not call.started:
            self._start(call, events)
        call.closed = True
        events.append(ToolCallFinished(call.block, call.id, call.name, call.arguments or "{}"))

    # -- the rest --------------------------------------------------------------------------

    def _read_beside(self, choice: Choice, events: list[StreamEvent]) -> None:
        """What a filter found in the text, and how probable its tokens were."""
        if choice.logprobs is not None:
            self._gather().add_logprobs(choice.logprobs)
        results = bytes(choice.content_filter_results)
        if b"true" not in results:
            # The next chunk will say the same, byte for byte; so it need not be read again.
            if len(results) > len(b"{}"):
                self._harmless = choice.content_filter_results.copy()
            return
        found = decode_json(results, object, what="A content filter's result")
        event = finding("completion", found)
        if event is None:  # the word was in something else
            self._harmless = choice.content_filter_results.copy()
            return
        earlier = self._extra.get("content_filter_results", {})
        self._extra["content_filter_results"] = {**earlier, **event.details}
        if offsets := bytes(choice.content_filter_offsets):
            # Which text it was about: for whoever has to take it back.
            self._extra["content_filter_offsets"] = decode_json(offsets, object, what="A content filter's result")
        events.append(event)

    def _read_rest(self, chunk: Chunk, payload: bytes, events: list[StreamEvent]) -> None:
        """What the first and the last chunks hold beside the choices, or instead of them."""
        self._usage = chunk.usage or self._usage
        self._metrics = chunk.metrics or self._metrics
        if prompts := chunk.prompt_filter_results or chunk.prompt_annotations:
            self._extra["prompt_filter_results"] = prompts
            events.extend(prompt_findings(prompts))
        if self._started and not chunk.choices:
            self._read_particulars(payload)

    def _read_particulars(self, payload: bytes) -> None:
        try:
            particulars = _decode_particulars(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            particulars = decode_json(payload, Particulars, what=_WHAT)
        add_particulars(particulars, self._extra)

    def _whole_extra(self) -> dict[str, Any]:
        """As in an answer that was not streamed, where a filter's findings stand together, good and bad."""
        extra = self._extra
        if harmless := bytes(self._harmless):
            results = as_mapping(decode_json(harmless, object, what="A content filter's result"))
            extra["content_filter_results"] = {**results, **extra.get("content_filter_results", {})}
        if self._gathered is not None:
            extra.update(self._gathered.extra())
        return extra

    def _gather(self) -> Gathered:
        if self._gathered is None:
            from apex_llm.codecs.chat.openai_chat_gathered import Gathered

            self._gathered = Gathered()
        return self._gathered

    def _warn(self, warning: str) -> None:
        if warning not in self._warnings:
            self._warnings.append(warning)


def _is_complete(arguments: str) -> bool:
    """Whether no piece can follow: the text is one whole JSON value."""
    try:
        msgspec.json.decode(arguments, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return True
