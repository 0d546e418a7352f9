"""Calls that follow one another in a single task, as the steps of one stream do.

Cancel scopes and context variables must not straddle tasks, so whatever opens a stream also
reads and closes it.
"""

from __future__ import annotations

__all__ = ["Lane"]

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

from apex_llm.sync._call import Call, Signal
from apex_llm.sync._loop_thread import LoopThread


class Lane:
    """One task on the loop thread that does what it is told, a call at a time.

    It ends after a call that gave ``False`` or raised, or when it is closed; at its end it cleans up.

    Args:
        thread: Where to run.
        clean_up: Called in the task, once, however it ends.
        purpose: The method that needs it, for the message to whoever calls it on the loop's own thread.
    """

    def __init__(self, thread: LoopThread, clean_up: Callable[[], Awaitable[None]], *, purpose: str) -> None:
        self._thread = thread
        self._clean_up = clean_up
        self._running = thread.start(purpose)
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._call: Call[Any] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._begun = False
        self._over = False
        self._cleaning = False
        self._ended = False
        self._closers: list[Signal] = []

    @property
    def has_ended(self) -> bool:
        """Whether it has ended and cleaned up."""
        return self._ended

    @property
    def is_foreign(self) -> bool:
        """Whether its loop is that of a parent process, or has ended."""
        return not self._thread.is_current(self._running)

    def run(self, function: Callable[[], Awaitable[bool]], *, purpose: str) -> bool:
        """What ``await function()`` gives in the lane's task.

        An interrupt while waiting closes the lane.

        Raises:
            RuntimeError: Another thread is inside, or the lane was inherited by a fork, or the loop's thread calls.
            asyncio.CancelledError: Another thread closed the lane.
        """
        if self.is_foreign:
            raise RuntimeError("This stream was opened by a parent process, or the interpreter exits; open a new one.")
        self._thread.start(purpose)
        call = Call(function, self._running)
        try:
            self._running.loop.call_soon_threadsafe(self._accept, call)
            call.wait()
        except BaseException:
            self.close()
            raise
        return call.outcome()

    def close(self) -> None:
        """Cancel what runs, and wait until everything is cleaned up. Safe to call twice, and from any thread."""
        if self._ended or self.is_foreign:
            return
        self._thread.start("close")
        ended = Signal(self._running)
        self._running.loop.call_soon_threadsafe(self._stop, ended)
        ended.wait()

    def drop(self) -> None:
        """``close`` without waiting, as a finaliser must; on any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has just closed, and everything with it
            self._running.loop.call_soon_threadsafe(self._stop, Signal(self._running))

    # On the loop thread ------------------------------------------------------------------------

    def _accept(self, call: Call[Any]) -> None:
        if self._over:
            call.fail(asyncio.CancelledError())
        elif self._call is not None:
            call.fail(
                RuntimeError("This stream is being read by another thread; give each thread a stream of its own.")
            )
        else:
            self._call = call
            if self._task is None:
                self._start()
            elif self._idle is not None and not self._idle.done():
                self._idle.set_result(None)

    def _stop(self, ended: Signal) -> None:
        if self._ended:
            ended.set()
            return
        self._closers.append(ended)
        self._over = True
        if self._task is None:
            self._start()
        elif self._begun and not self._cleaning and len(self._closers) == 1:
            self._task.cancel()

    def _start(self) -> None:
        self._task = self._running.loop.create_task(self._serve(), context=self._context)
        self._running.tasks.add(self._task)

    async def _serve(self) -> None:
        self._begun = True
        loop = self._running.loop
        try:
            while not self._over:
                call = self._call
                if call is None:
                    self._idle = loop.create_future()
                    await self._idle
                    continue
                self._over = not await call.perform() or self._over
                self._call = None
                call.set()
                del call  # or an idle lane would keep the stream alive whose method it called last
        except asyncio.CancelledError:
            pass  # only ever asked for by _stop, or by the end of the loop, and at its end here anyway
        finally:
            self._over = True
            await self._finish()

    async def _finish(self) -> None:
        self._cleaning = True
        try:
            await self._clean_up()
        finally:
            if self._task is not None:
                self._running.tasks.discard(self._task)
            self._ended = True
            if self._call is not None:
                self._call.fail(asyncio.CancelledError())
            for ended in self._closers:
                ended.set()
