"""The blocking streams: the async ones, read by a task on the loop thread.

The thread that iterates takes what has arrived straight from the async stream, and goes to the
loop only when all of it was taken; the task rests meanwhile, so the two never touch the stream
at the same time. One hop serves everything that is ready, nothing is read ahead, and what was
handed over is counted in one place.
"""

from __future__ import annotations

__all__ = ["EventStream", "TextStream"]

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from typing import Generic, NoReturn, Self, TypeVar

from apex_llm.errors import StreamInterruptedError
from apex_llm.streaming import EventStream as AsyncEventStream
from apex_llm.streaming import TextStream as AsyncTextStream
from apex_llm.sync._lane import Lane
from apex_llm.sync._loop_thread import SHARED, LoopThread
from apex_llm.types.events import StreamEvent
from apex_llm.types.responses import ChatResponse

T = TypeVar("T")
R = TypeVar("R")


class _Stream(Generic[T]):
    """What both streams share.

    Args:
        inner: The async stream; nobody else may use it.
        take: Its method that gives the next item that is there already, or ``None``.
        thread: Where it runs.
    """

    def __init__(
        self, inner: AsyncEventStream | AsyncTextStream, *, take: Callable[[], T | None], thread: LoopThread
    ) -> None:
        self._inner = inner
        self._take = take
        self._wait = inner._wait_ready  # pyright: ignore[reportPrivateUsage]
        self._made_at = inner._made_at  # pyright: ignore[reportPrivateUsage]
        self._thread = thread
        self._lane: Lane | None = None
        self._over = False
        self._interrupted = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while True:
            item = self._take()
            if item is not None:
                return item
            if not self._advance():
                raise StopIteration

    def _next_batch(self) -> list[T]:
        take = self._take
        batch: list[T] = []
        while not batch:
            while (item := take()) is not None:
                batch.append(item)
            if not batch and not self._advance():
                break
        return batch

    def __enter__(self) -> Self:
        if self._lane is None and not self._over:
            self._step(self._open, purpose="with")
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the connection at once, and hand over nothing more. At a stream's end it is free already.

        A thread that waits for more just now gets ``StreamInterruptedError``.
        """
        # Not only once: an interrupt may have struck while it was being closed.
        self._over = True
        if self._lane is not None:
            self._lane.close()

    @property
    def partial(self) -> ChatResponse:
        """What was handed over so far, at any time; ``finish_reason`` and ``usage`` are ``None`` until the end."""
        return self._ask(lambda: self._inner.partial)

    @property
    def response(self) -> ChatResponse:
        """The whole answer, once the stream has been read to its end.

        Raises:
            RuntimeError: It has not; ``partial`` holds what has arrived.
        """
        return self._ask(lambda: self._inner.response)

    def collect(self) -> ChatResponse:
        """Read to the end and give the whole answer."""
        if self._over:
            self._how_it_ended()
        else:
            self._step(self._collect, purpose="collect")
        return self.response

    async def _open(self) -> bool:
        await self._inner.__aenter__()
        return True

    async def _collect(self) -> bool:
        await self._inner.collect()
        return False

    def _advance(self) -> bool:
        """Wait until there is more to take; false at the end."""
        if self._over:
            return self._how_it_ended()
        try:
            return self._step(self._wait, purpose="next")
        except asyncio.CancelledError:
            return self._how_it_ended()  # another thread has closed it

    def _step(self, step: Callable[[], Awaitable[bool]], *, purpose: str) -> bool:
        lane = self._lane
        if lane is None:
            lane = self._lane = Lane(self._thread, self._inner.aclose, purpose=purpose)
        try:
            more = lane.run(step, purpose=purpose)
        except RuntimeError:
            raise  # a mistake in how it is used, which ends nothing
        except Exception:
            self._over = True
            raise
        except BaseException:
            self._over = self._interrupted = True
            raise
        self._over = self._over or not more
        return more

    def _how_it_ended(self) -> bool:
        """Raise the error that ended the stream; ``False`` when it was none."""
        if self._lane is None or self._lane.is_foreign:
            return False
        if self._thread.run(self._wait_again):
            return True
        if self._interrupted:
            partial = self.partial
            raise StreamInterruptedError(
                "The stream was interrupted while it was being read.",
                retryable=True,
                phase="mid-stream",
                model=partial.model,
                request_id=partial.request_id,
                partial=partial,
            )
        return False

    async def _wait_again(self) -> bool:
        return await self._wait()

    def _ask(self, question: Callable[[], R]) -> R:
        lane = self._lane
        if lane is None or lane.has_ended or lane.is_foreign:
            return question()

        async def answer() -> R:
            return question()

        # Another thread may wait for more just now, and the stream belongs to the loop until it is there.
        return self._thread.run(answer)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__}: a connection in use cannot be copied or pickled; its .response can.")

    def __del__(self) -> None:
        # Attributes may be missing when __init__ itself failed.
        lane = getattr(self, "_lane", None)
        if lane is None or lane.has_ended:
            return
        if lane.is_foreign:
            self._thread.keep(lane)  # a parent process is reading it, or everything was closed already
            return
        lane.drop()
        if self._over:
            return  # it is about to end by itself, or an interrupt struck while it was being closed
        warnings.warn(
            f"A {type(self).__name__} made at {self._made_at} was dropped before its end; its connection was closed. "
            "Use 'with', or call stream.close().",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )


class EventStream(_Stream[StreamEvent]):
    """The events of one answer: an iterator and a context manager.

    The request is sent by ``with``, or by the first step of a bare ``for``. Leaving the ``with``
    frees the connection at once, read to the end or not.

    Raises, while iterating:
        ApexLlmError: Before the first event, the typed error itself, after retries.
        StreamInterruptedError: After it; ``partial`` holds what was delivered, ``__cause__`` the typed error.
    """

    def __init__(self, inner: AsyncEventStream, *, thread: LoopThread = SHARED) -> None:
        super().__init__(inner, take=inner._take_ready, thread=thread)  # pyright: ignore[reportPrivateUsage]

    def next_batch(self) -> list[StreamEvent]:
        """The events that have arrived, at least one; ``[]`` at the end. For consumers that count microseconds.

        The first content of an answer comes alone: what arrived with it is decoded after it was handed over.
        """
        return self._next_batch()


class TextStream(_Stream[str]):
    """The text of one answer, piece by piece: an iterator of ``str`` and a context manager.

    As ``EventStream``, for callers who want text and nothing else. Reasoning, tool calls and the
    rest are in ``response`` at the end.

    Raises, while iterating:
        ContentFilteredError: At the end, when the provider blocked the answer; ``partial`` holds what came before.
    """

    def __init__(self, inner: AsyncTextStream, *, thread: LoopThread = SHARED) -> None:
        super().__init__(inner, take=inner._take_ready, thread=thread)  # pyright: ignore[reportPrivateUsage]

    def next_batch(self) -> list[str]:
        """The pieces of text that have arrived, at least one, the first alone; ``[]`` at the end."""
        return self._next_batch()
