"""The order of a stream's content blocks, checked.

A block begins once, the next one has a higher index, and nothing comes for one that has ended: so AWS and
Anthropic document their events, and so OpenAI's tool calls arrive. The decoders take any order, since gateways
and compatible servers have their own ideas of it. Who would rather have an error than a guess puts this in front
of a decoder; nobody else pays for it.

Event names and members are those of ConverseStream, of Claude's messages and of chat-completion chunks. No two
of them share a name, so one reader does for all three.
"""

from __future__ import annotations

__all__ = ["strict_decoder"]

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from apex_llm.codecs.base import DONE, StreamDecoder
from apex_llm.errors import ProtocolError
from apex_llm.types.decoders import decoder_for
from apex_llm.types.events import StreamEvent


class _Function(msgspec.Struct, gc=False):
    name: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Payload(msgspec.Struct, gc=False):
    """Of each format, what tells the order."""

    type: str | None = None
    index: int | None = None
    block_index: int | None = msgspec.field(default=None, name="contentBlockIndex")
    choices: list[_Choice] | None = None


_decode = decoder_for(_Payload).decode

_STARTS: Final = frozenset({"contentBlockStart", "content_block_start"})
_DELTAS: Final = frozenset({"contentBlockDelta", "content_block_delta"})
_STOPS: Final = frozenset({"contentBlockStop", "content_block_stop"})
_ENDS: Final = frozenset({"messageStop", "message_stop"})


def strict_decoder(make: Callable[[], StreamDecoder]) -> Callable[[], StreamDecoder]:
    """Decoders like those of ``make``, which raise ``ProtocolError`` where blocks are out of order."""
    return lambda: _StrictDecoder(make())


class _StrictDecoder:
    """Looks at each payload before the decoder does."""

    def __init__(self, inner: StreamDecoder) -> None:
        self._inner = inner
        self._blocks = _Order("block")
        self._calls: dict[int, _Order] = {}
        self._finished: set[int] = set()
        self._over = False

    def feed(self, name: str, payload: bytes) -> Sequence[StreamEvent]:
        """As the decoder.

        Raises:
            ProtocolError: A block or tool call is out of order.
        """
        if name == DONE:
            self._over = True
        if not self._over:
            try:
                found = _decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # the decoder says what is wrong with it
            else:
                self._check(name, found)
        return self._inner.feed(name, payload)

    def finish(self) -> Sequence[StreamEvent]:
        """As the decoder."""
        return self._inner.finish()

    def _check(self, name: str, payload: _Payload) -> None:
        if payload.choices is not None:
            for choice in payload.choices:
                self._check_choice(choice)
            return
        kind = payload.type or name
        index = payload.block_index or payload.index or 0
        if kind in _STARTS:
            self._blocks.begin(index)
        elif kind in _DELTAS or kind in _STOPS:
            # Text has no start on Converse.
            self._blocks.go_on(index, begun="_" in kind)
            if kind in _STOPS:
                self._blocks.end()
        elif kind in _ENDS:
            self._over = True  # what follows is ignored, with a warning

    def _check_choice(self, choice: _Choice) -> None:
        number = choice.index or 0
        delta = choice.delta
        if delta is not None and (delta.content or delta.tool_calls):
            # Choices may take turns; a filter's findings may follow an end, but without content.
            if number in self._finished:
                raise _out_of_order(f"choice {number} went on after its end")
            for call in delta.tool_calls or ():
                if call.index is None:
                    continue
                order = self._calls.setdefault(number, _Order("tool call"))
                if call.index > order.last and call.function is not None and call.function.name:
                    order.begin(call.index)
                else:
                    order.go_on(call.index, begun=True)
        if choice.finish_reason:
            self._finished.add(number)


class _Order:
    """Indices of one kind, which may only rise."""

    def __init__(self, what: str) -> None:
        self.last = -1
        self._what = what
        self._open = False

    def begin(self, index: int) -> None:
        if index == self.last:
            raise _out_of_order(f"{self._what} {index} began twice")
        self._rise(index)

    def go_on(self, index: int, *, begun: bool) -> None:
        """More of a block; ``begun`` if an event of its own must have begun it."""
        if index != self.last:
            if begun and index > self.last:
                raise _out_of_order(f"{self._what} {index} went on without having begun")
            self._rise(index)
        elif not self._open:
            raise _out_of_order(f"{self._what} {index} went on after its end")

    def end(self) -> None:
        self._open = False

    def _rise(self, index: int) -> None:
        if index < self.last:
            raise _out_of_order(f"{self._what} {index} came after {self._what} {self.last}")
        self.last = index
        self._open = True


def _out_of_order(what: str) -> ProtocolError:
    return ProtocolError(
        f"The stream is out of order: {what}.",
        phase="mid-stream",
        hint="Without strict_streams=True, content is taken in any order.",
    )
