"""One daemon thread with one event loop, which serves every blocking call of a process.

Started by the first call, made anew in a forked child, closed at exit. A call is handed over
with the caller's context variables and waited for; an interrupt while waiting cancels it,
waits for its clean-up, and is then raised as it is.
"""

from __future__ import annotations

__all__ = ["SHARED", "LoopThread"]

import _thread
import atexit
import contextvars
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

from apex_llm.errors import ConnectionFailedError
from apex_llm.sync._call import Call
from apex_llm.sync._running import Running
from apex_llm.transport.network_errors import load_failed

P = ParamSpec("P")
T = TypeVar("T")

_EXIT_SECONDS = 0.8
_PARK_SECONDS = 1.0


class LoopThread:
    """Runs coroutines for threads that wait for them. Any number of threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._registered = False
        self._ended = False
        self._parked: dict[int, _thread.LockType] = {}
        self._inherited: list[object] = []

    @property
    def ended(self) -> bool:
        """Whether everything was closed because the interpreter exits."""
        return self._ended and self._running is None

    def is_current(self, running: Running) -> bool:
        """Whether ``running`` is this process's, and still open."""
        return self._running is running

    def run(self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``await function(...)`` gives on the loop, in a task of its own.

        Raises:
            RuntimeError: The caller is the loop's own thread, which would wait for itself.
            BaseException: What the coroutine raised; or an interrupt of this thread, once the clean-up is over.
        """
        running = self.start(getattr(function, "__name__", "this"))
        call: Call[T] = Call(functools.partial(function, *args, **kwargs), running)
        loop = running.loop
        # Handing over is inside: an interrupt may land between it and the waiting.
        try:
            loop.call_soon_threadsafe(call.start, contextvars.copy_context())
            call.wait()
        except BaseException:
            loop.call_soon_threadsafe(call.cancel)
            call.wait()
            raise
        return call.outcome()

    def start(self, purpose: str) -> Running:
        """The loop, started if need be.

        Args:
            purpose: The method that needs it, for the message.

        Raises:
            RuntimeError: Called from the loop's own thread.
            ConnectionFailedError: There is no descriptor left for a loop, or no thread.
        """
        running = self._running
        if running is None:
            with self._lock:
                running = self._running
                if running is None:
                    running = self._running = self._begin()
        if threading.get_ident() == running.thread.ident:
            raise RuntimeError(
                f"{purpose.lstrip('_')}() was called from apex_llm's own event loop; use the async provider there."
            )
        return running

    def _begin(self) -> Running:
        if not self._registered:
            self._registered = True
            atexit.register(self.close)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(before=self._park, after_in_parent=self._unpark, after_in_child=self._forget)
        try:
            running = Running()
        except OSError as error:
            raise load_failed(error, what="The event loop of apex_llm.sync could not be made") or error from error
        try:
            running.thread.start()
        except RuntimeError as error:
            running.loop.close()
            raise ConnectionFailedError(
                "No thread could be started for the event loop of apex_llm.sync.",
                kind="network",
                phase="prepare",
                hint="There are too many threads already, or the interpreter is about to exit.",
            ) from error
        return running

    def close(self) -> None:
        """Cancel what runs, give it a moment to clean up, and end the thread; for the interpreter's exit."""
        self._ended = True
        running, self._running = self._running, None
        if running is not None:
            running.stop()
            running.thread.join(_EXIT_SECONDS)

    def keep(self, inherited: object) -> None:
        """Keep something of a parent process from being finalised in this one."""
        self._inherited.append(inherited)

    # During a fork the loop stands still between two callbacks, so that the child inherits no
    # lock that is held and nothing that is half changed.

    def _park(self) -> None:
        running = self._running
        if running is None or threading.get_ident() == running.thread.ident:
            return
        reached, leave = _thread.allocate_lock(), _thread.allocate_lock()
        reached.acquire()
        leave.acquire()

        def stand_still() -> None:
            reached.release()
            leave.acquire()

        self._parked[threading.get_ident()] = leave
        running.loop.call_soon_threadsafe(stand_still)
        reached.acquire(timeout=_PARK_SECONDS)

    def _unpark(self) -> None:
        leave = self._parked.pop(threading.get_ident(), None)
        if leave is not None:
            leave.release()

    def _forget(self) -> None:
        running, self._running = self._running, None
        self._lock = threading.Lock()
        self._parked = {}
        if running is not None:
            running.abandon()
            self._inherited.append(running)


SHARED: Final = LoopThread()
"""The one of this process: the exception to the rule that no module keeps state."""
