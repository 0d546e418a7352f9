"""One time for things that several event loops and threads share.

Loops of asyncio and uvloop read the same monotonic clock, each at its own moment, so a time may
come a little late. A loop of another kind, such as a virtual one in a test, has a clock of its own.
"""

from __future__ import annotations

__all__ = ["SharedClock", "running_loop"]

import asyncio
from collections.abc import Callable
from typing import Final

_ANOTHER_CLOCK: Final = 1.0
"""Seconds by which a time is no longer just late."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The running event loop, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class SharedClock:
    """Seconds that never run backwards. Its owner holds a lock around ``now``.

    Args:
        clock: Where the seconds come from; ``None`` for the clock of whichever event loop asks.
    """

    __slots__ = ("_clock", "_latest", "_offset")

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._latest: float | None = None
        self._offset = 0.0

    def now(self, loop: asyncio.AbstractEventLoop | None = None) -> float:
        """The time, asked of the running loop, else of ``loop``; without either, that of the last call."""
        self._latest = time = self.peek(loop)
        return time

    def peek(self, loop: asyncio.AbstractEventLoop | None = None) -> float:
        """As ``now``, and remembers nothing but that another clock was met."""
        if self._clock is not None:
            time = self._clock()
        else:
            loop = running_loop() or loop
            if loop is None:
                return self._latest or 0.0
            time = loop.time()
        latest = self._latest
        if latest is None:
            return time
        if time + self._offset < latest - _ANOTHER_CLOCK:
            self._offset = latest - time
        return max(latest, time + self._offset)
