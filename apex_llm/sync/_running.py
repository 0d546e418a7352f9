"""An event loop and the daemon thread that runs it, from the first callback to the last."""

from __future__ import annotations

__all__ = ["Running"]

import asyncio
import selectors
import sys
import threading
from collections.abc import Iterable
from typing import Any

_NAME = "apex_llm-loop"
_CLEAN_UP_SECONDS = 0.4
_GENERATORS_SECONDS = 0.2


class Running:
    """A loop with its thread. ``thread.start()`` makes it run; ``stop()`` ends it for good."""

    def __init__(self) -> None:
        # Not what an event loop policy would give: an application's choice of loop is about its own loops.
        self.loop: asyncio.AbstractEventLoop = asyncio.ProactorEventLoop() if sys.platform == "win32" else _Loop()
        self.thread: threading.Thread = threading.Thread(target=self._main, name=_NAME, daemon=True)
        self.tasks: set[asyncio.Task[None]] = set()
        """Held here, as a loop holds its tasks only weakly."""
        self.closing: bool = False
        """From here on nobody is woken: threads that wait could only print a traceback into the exit."""
        self._finished = False

    def _main(self) -> None:
        loop = self.loop
        try:
            while not self._finished:
                try:
                    loop.run_forever()
                except BaseException as error:  # noqa: BLE001 - a SystemExit in a callback must not strand every caller
                    loop.call_exception_handler({"message": "A callback on apex_llm's loop failed", "exception": error})
        finally:
            loop.close()

    def stop(self) -> None:
        """Have the loop cancel its tasks, finish its generators and end; does not wait for it."""
        self.closing = True
        self.loop.call_soon_threadsafe(self._begin_to_stop)

    def _begin_to_stop(self) -> None:
        self.tasks.add(self.loop.create_task(self._stop()))

    async def _stop(self) -> None:
        loop = self.loop
        # Nobody is left who could mend what goes wrong from here on; it would only end up on stderr.
        loop.set_exception_handler(lambda _loop, _context: None)
        loop.set_debug(False)
        tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                done, late = await asyncio.wait(tasks, timeout=_CLEAN_UP_SECONDS)
                for task in done:
                    if not task.cancelled():
                        task.exception()
                _silence(late)
            # Kept-alive connections are closed by a generator that waits for this.
            async with asyncio.timeout(_GENERATORS_SECONDS):
                await loop.shutdown_asyncgens()
                await asyncio.sleep(0)
        finally:
            self._finished = True
            loop.stop()

    def abandon(self) -> None:
        """In a forked child: the thread is gone, and what the loop watches is the parent's."""
        self.closing = True
        _silence(asyncio.all_tasks(self.loop))
        if isinstance(self.loop, _Loop):
            self.loop.abandon()


class _Loop(asyncio.SelectorEventLoop):
    _closed: bool

    def __init__(self) -> None:
        self._closed = True  # until it is made: what is half made would fail to close itself when it is collected
        selector = selectors.DefaultSelector()
        try:
            super().__init__(selector)
        except BaseException:
            selector.close()
            self._closed = True
            raise

    def abandon(self) -> None:
        """Count as closed without closing, which would take the parent's sockets out of the epoll that both share."""
        self._closed = True


def _silence(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
