"""One call on its way: handed over by a thread that waits, run on the loop, brought back."""

from __future__ import annotations

__all__ = ["Call", "Signal"]

import _thread
import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

from apex_llm.sync._running import Running

T = TypeVar("T")

_SLICE_SECONDS = 0.1


class Signal:
    """Set once on the loop thread, waited for on another. An interrupt of ``wait`` leaves it usable."""

    __slots__ = ("_done", "_lock", "running")

    def __init__(self, running: Running) -> None:
        self.running = running
        self._done = False
        # A bare lock: threading.Event and concurrent.futures.Future cost a condition variable more.
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let the waiting thread go on. On the loop thread only."""
        if not self._done and not self.running.closing:
            self._done = True
            self._lock.release()

    def wait(self) -> None:
        """Block until it is set; signal handlers run meanwhile, and what they raise is raised here."""
        # Whether it is set is asked before the lock is: an interrupt may have come when it was taken already.
        while not self._done:
            if sys.platform == "win32":
                self._lock.acquire(timeout=_SLICE_SECONDS)  # a lock that waits for ever hides Ctrl-C there
            else:
                self._lock.acquire()


class Call(Signal, Generic[T]):
    """A coroutine function without arguments, and what became of it."""

    __slots__ = ("_begun", "_cancelled", "_error", "_function", "_task", "_value")

    def __init__(self, function: Callable[[], Awaitable[T]], running: Running) -> None:
        super().__init__(running)
        self._function = function
        self._value: T | None = None
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._cancelled = False

    def start(self, context: contextvars.Context) -> None:
        """Run in a task of its own. On the loop thread, as everything but ``wait`` and ``outcome``."""
        if self._cancelled:
            return
        self._task = self.running.loop.create_task(self._run(), context=context)
        self.running.tasks.add(self._task)

    async def _run(self) -> None:
        self._begun = True
        await self.perform()
        task, self._task = self._task, None
        if task is not None:
            self.running.tasks.discard(task)
            # The waiting thread must not be the one to finalise it: an interrupt in a finaliser is lost.
            del task
        self.set()

    async def perform(self) -> bool:
        """Run in the present task, without letting the waiting thread go; whether it went well and not to ``False``."""
        try:
            self._value = await self._function()
        except BaseException as error:  # noqa: BLE001 - a SystemExit, too, belongs to the caller and not to the loop
            self._error = error
            return False
        return self._value is not False

    def fail(self, error: BaseException) -> None:
        """Be over, with ``error`` as the outcome."""
        self._error = error
        self.set()

    def cancel(self) -> None:
        """Have it be over soon: after its clean-up, or now if it has not begun (or never will)."""
        if self._done:
            return
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()
            if self._begun:
                return
            # A task that is cancelled before its first step never takes one.
            self.running.tasks.discard(self._task)
        self.fail(asyncio.CancelledError())

    def outcome(self) -> T:
        """What it returned or raised; to be asked once, after ``wait``."""
        error = self._error
        if error is not None:
            try:
                raise error
            finally:
                del error
                self._error = None  # or error, traceback, frame and call would hold each other
        return cast("T", self._value)
