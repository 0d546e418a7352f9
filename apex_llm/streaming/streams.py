"""The iterators that callers hold: events, or text alone.

The hot path is flat. One read of the socket decodes every event that it holds into one
list; ``__anext__`` takes the next of that list and awaits only when it is used up. Between
socket and caller there is no queue, no task and no generator per layer.

A stream ends in exactly one way: finished (``response``), or an error that carries what had
been handed over (``partial``).
"""

from __future__ import annotations

__all__ = ["EventStream", "TextStream", "content_filtered"]

import asyncio
import sys
import warnings
from collections.abc import Awaitable, Callable, Sequence
from types import CodeType
from typing import Any, Generic, NoReturn, Self, TypeVar

from apex_llm.errors import (
    ApexLlmError,
    ContentFilteredError,
    IdleTimeoutError,
    RequestTimeoutError,
    StreamInterruptedError,
    StreamTruncatedError,
)
from apex_llm.streaming.accumulator import Accumulator
from apex_llm.streaming.exchange import Exchange
from apex_llm.types.events import StreamEvent, TextDelta
from apex_llm.types.responses import ChatResponse, FinishReason

T = TypeVar("T")

_FOLD_AT = 32
"""So many events are folded into the answer at a time: one by one costs a good part of what reading them does."""
_UNBLOCKED = frozenset({None, FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS})
"""Endings that need no look at the whole answer."""
_ONE_READER = "This stream is being read by another task; give each task a stream of its own."


class _Stream(Generic[T]):
    """What both streams share: opening, reading on, the ways to end, and what arrived so far."""

    def __init__(
        self,
        opener: Callable[[], Awaitable[Exchange]],
        *,
        provider: str,
        model: str,
        request_warnings: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._opener = opener
        self._provider = provider
        self._model = model
        self._request_warnings = request_warnings
        self._exchange: Exchange | None = None
        self._batch: list[StreamEvent] = []
        self._index = 0  # events of the batch that were handed over
        self._accounted = 0  # events of the batch that the accumulator has seen
        self._handed: list[StreamEvent] = []  # events of earlier batches that it has not seen
        self._events_seen = 0
        self._accumulator: Accumulator | None = None
        self._error: ApexLlmError | None = None
        self._reading = False
        self._opening: asyncio.Task[Any] | None = None  # the task that opens it just now
        self._closed = False
        self._maker = _caller()

    @property
    def _made_at(self) -> str:
        code, line = self._maker
        return f"{code.co_filename}:{line}"

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        if self._exchange is None and not self._closed:
            if self._reading:
                raise RuntimeError(_ONE_READER)
            self._reading = True
            try:
                await self._open()
            finally:
                self._reading = False
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Free the connection at once, and hand over nothing more. At a stream's end it is free already.

        A task that waits for more just now gets ``StreamInterruptedError``.
        """
        self._close()
        if self._index < len(self._batch):
            self._batch = self._batch[: self._index]
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()

    @property
    def partial(self) -> ChatResponse:
        """What was handed over so far, at any time; ``finish_reason`` and ``usage`` are ``None`` until the end."""
        exchange = self._exchange
        return self._account().response(
            model=(exchange.model if exchange else "") or self._model,
            request_id=exchange.request_id if exchange else None,
            attempts=exchange.attempt if exchange else 0,
            warnings=(*self._request_warnings(), *(exchange.warnings if exchange else ())),
        )

    @property
    def response(self) -> ChatResponse:
        """The whole answer, once the stream has been read to its end.

        Raises:
            RuntimeError: It has not; ``partial`` holds what has arrived.
        """
        if not self._account().finished:
            if self._closed:
                raise RuntimeError(
                    "The stream was left, or broke, before its end; .partial holds what was handed over."
                )
            raise RuntimeError("The stream has not been read to its end; use .partial, or read on with .collect().")
        return self.partial

    async def collect(self) -> ChatResponse:
        """Read to the end and give the whole answer."""
        if self._reading:
            raise RuntimeError(_ONE_READER)  # and leave it to that task, whose stream this is
        async with self:
            self._index = len(self._batch)
            while await self._advance():
                self._index = len(self._batch)
        return self.response

    # What apex_llm.sync reads by: it waits on one thread and takes on another, never at the same time.

    async def _wait_ready(self) -> bool:
        """Wait until there is more to take, once all that was ready has been taken; false at the end."""
        return await self._advance()

    async def _open(self) -> Exchange:
        task = self._opening = _current_task()
        cancellations = 0 if task is None else task.cancelling()
        try:
            exchange = await self._opener()
        except ApexLlmError as error:
            self._error = error
            self._closed = True
            raise
        except BaseException as error:
            closed, self._closed = self._closed, True
            failure = self._interrupted(_interruption("closed" if closed else "interrupted", "being opened"))
            if closed and task is not None and task.uncancel() <= cancellations:
                raise failure from error  # cancelled by aclose alone
            raise
        finally:
            self._opening = None
        self._exchange = exchange
        if self._closed:
            exchange.close()
            raise self._interrupted(_interruption("closed", "being opened"))
        return exchange

    async def _advance(self) -> bool:
        """Replace the batch, all of which was handed over, by the next; false at the end."""
        if self._reading:
            raise RuntimeError(_ONE_READER)
        if self._error is not None:
            raise self._error
        if self._closed:
            return False
        batch = self._batch
        if batch:
            self._events_seen += len(batch)
            self._handed += batch[self._accounted :] if self._accounted else batch
            if len(self._handed) >= _FOLD_AT:
                self._fold()
            self._batch = []
            self._index = self._accounted = 0
        self._reading = True
        try:
            exchange = self._exchange or await self._open()
            try:
                batch = await exchange.read()
            except ApexLlmError as error:
                failure = self._interrupted(_interruption("closed", "being read") if self._closed else error)
                self._close()
                if failure is error:
                    raise
                raise failure from error
            except BaseException:
                # Cancelled in the middle: iterating on must not look like an end.
                self._close()
                self._interrupted(_interruption("cancelled", "waiting for more"))
                raise
        finally:
            self._reading = False
        if self._closed:  # by another task, when this one was about to go on
            raise self._interrupted(_interruption("closed", "being read"))
        if not batch:
            self._close()
            return False
        self._batch = batch
        return True

    def _interrupted(self, error: ApexLlmError) -> ApexLlmError:
        """The one error that tells how this stream ended, with what had arrived."""
        failure: StreamInterruptedError
        if isinstance(error, StreamInterruptedError):
            failure = error
        else:
            kind = StreamInterruptedError
            what = "broke"
            if isinstance(error, RequestTimeoutError) and error.phase == "idle":
                kind, what = IdleTimeoutError, "fell silent"
            elif isinstance(error, StreamTruncatedError):
                kind = StreamTruncatedError
            failure = kind(
                f"The stream {what} after {self._events_seen} events: {error.message}",
                status=error.status,
                code=error.code,
                retryable=error.retryable,
                retry_after=error.retry_after,
                headers=error.headers,
                hint=error.hint,
            )
            failure.__cause__ = error
        failure.events_seen = self._events_seen
        failure.phase = "mid-stream"
        failure.provider = failure.provider or self._provider
        failure.model = failure.model or self._model
        failure.partial = self.partial
        failure.request_id = failure.request_id or failure.partial.request_id
        failure.attempts = failure.partial.attempts
        self._error = failure
        return failure

    def _fold(self) -> Accumulator:
        accumulator = self._accumulator
        if accumulator is None:
            accumulator = self._accumulator = Accumulator()
        accumulator.add(self._handed)
        self._handed.clear()
        return accumulator

    def _account(self) -> Accumulator:
        accumulator = self._fold()
        if self._accounted < self._index:
            accumulator.add(self._batch[self._accounted : self._index])
            self._accounted = self._index
        return accumulator

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__}: a connection in use cannot be copied or pickled; its .response can.")

    def _close(self) -> None:
        self._closed = True
        if self._exchange is not None:
            self._exchange.close()

    def __del__(self) -> None:
        # Attributes may be missing when __init__ itself failed.
        if getattr(self, "_closed", True) or self._exchange is None:
            return
        self._close()
        warnings.warn(
            f"A {type(self).__name__} made at {self._made_at} was dropped before its end; its connection was closed. "
            "Use 'async with', or await stream.aclose().",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )


class EventStream(_Stream[StreamEvent]):
    """The events of one answer: an async iterator and a context manager.

    The request is sent by ``async with``, or by the first step of a bare ``async for``. Leaving
    the ``async with`` frees the connection at once, read to the end or not.

    Raises, while iterating:
        ApexLlmError: Before the first event, the typed error itself, after retries.
        StreamInterruptedError: After it; ``partial`` holds what was delivered, ``__cause__`` the typed error.
    """

    async def __anext__(self) -> StreamEvent:
        while True:
            index = self._index
            if index < len(self._batch):
                self._index = index + 1
                return self._batch[index]
            if not await self._advance():
                raise StopAsyncIteration

    def _take_ready(self) -> StreamEvent | None:
        index, batch = self._index, self._batch  # once: another thread may close it
        if index >= len(batch):
            return None
        self._index = index + 1
        return batch[index]

    async def next_batch(self) -> list[StreamEvent]:
        """The events that have arrived, at least one; ``[]`` at the end. For consumers that count microseconds.

        The first content of an answer comes alone: what arrived with it is decoded after it was handed over.
        """
        if self._index == len(self._batch) and not await self._advance():
            return []
        events = self._batch[self._index :]
        self._index = len(self._batch)
        return events


class TextStream(_Stream[str]):
    """The text of one answer, piece by piece: an async iterator of ``str`` and a context manager.

    As ``EventStream``, for callers who want text and nothing else. Reasoning, tool calls and the
    rest are in ``response`` at the end.

    Raises, while iterating:
        ContentFilteredError: At the end, when the provider blocked the answer; ``partial`` holds what came before.
    """

    async def __anext__(self) -> str:
        while True:
            index = self._index
            batch = self._batch
            size = len(batch)
            while index < size:
                event = batch[index]
                index += 1
                if type(event) is TextDelta:
                    self._index = index
                    return event.text
            self._index = index
            if not await self._advance():
                self._raise_if_blocked()
                raise StopAsyncIteration

    def _take_ready(self) -> str | None:
        batch = self._batch
        size = len(batch)
        index = self._index
        while index < size:
            event = batch[index]
            index += 1
            if type(event) is TextDelta:
                self._index = index
                return event.text
        self._index = index
        return None

    async def _wait_ready(self) -> bool:
        if await self._advance():
            return True
        self._raise_if_blocked()
        return False

    def _raise_if_blocked(self) -> None:
        if self._account().finish_reason in _UNBLOCKED:
            return
        response = self.partial
        if response.blocked:
            raise content_filtered(response, provider=self._provider)

    async def next_batch(self) -> list[str]:
        """The pieces of text that have arrived, at least one, the first alone; ``[]`` at the end."""
        while True:
            texts = [event.text for event in self._batch[self._index :] if type(event) is TextDelta]
            self._index = len(self._batch)
            if texts:
                return texts
            if not await self._advance():
                self._raise_if_blocked()
                return []


def content_filtered(response: ChatResponse, *, provider: str) -> ContentFilteredError:
    """The error that stands for a blocked answer where only text is handed over."""
    found = response.extra.get("content_filtered") or ()
    return ContentFilteredError(
        f"The answer was blocked by the provider ({response.raw_finish_reason}).",
        categories=sorted({category for item in found for category in item["categories"]}),
        where="completion",
        provider=provider,
        model=response.model,
        request_id=response.request_id,
        attempts=response.attempts,
        partial=response,
        hint="What had been written is in .partial. Rephrase, or change the filter or guardrail.",
    )


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop of asyncio runs, which the opener tells better
        return None


def _interruption(how: str, when: str) -> StreamInterruptedError:
    # Whoever closed it wants no more of it.
    return StreamInterruptedError(f"The stream was {how} while it was {when}.", retryable=how != "closed")


def _caller() -> tuple[CodeType, int]:
    """Code and line of the first frame outside this package."""
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage] # inspect.stack() reads source files
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("apex_llm."):
        frame = frame.f_back
    return frame.f_code, frame.f_lineno
