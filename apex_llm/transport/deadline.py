"""One timer that is moved by changing a number.

Arming and cancelling a timer of the event loop for each exchange costs more than sending a small
request does. So a timer stays armed for the earliest moment at which anything could be due; when it
fires, its owner says what is due next, and only then is it armed again. Waits of many tasks share one.
"""

from __future__ import annotations

__all__ = ["LazyTimer", "TimedWait", "TimedWaits"]

import asyncio
import math
from collections.abc import Callable
from typing import Self


class LazyTimer:
    """Calls ``callback`` at or after each moment it was armed for; never later than the earliest of them.

    ``callback`` gets the loop's time, does what is due, and returns when it wants to be called
    next (``math.inf`` for never).
    """

    __slots__ = ("_callback", "_handle", "_loop", "when")

    when: float
    """The moment it is armed for, on the loop's clock; ``math.inf`` when it is not armed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[float], float]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self.when = math.inf

    def arm(self, when: float) -> None:
        """Fire at ``when`` at the latest; a later moment than the present one changes nothing."""
        if when >= self.when:
            return
        if self._handle is not None:
            self._handle.cancel()
        self.when = when
        self._handle = self._loop.call_at(when, self._fire)

    def disarm(self) -> None:
        """Fire no more, unless armed again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.when = math.inf

    def _fire(self) -> None:
        self._handle = None
        self.when = math.inf
        # The loop fires up to its clock's resolution early; "now" may not lie before the moment that was asked for.
        following = self._callback(self._loop.time() + 0.001)
        if following < math.inf:
            self.arm(following)


class TimedWaits:
    """Waits of any number of tasks, each with its own end, on one timer.

    What ``asyncio.timeout_at`` does, for many tasks that begin together and are nearly always done in time:
    a timer for each of them is a good part of what opening a connection costs.
    """

    __slots__ = ("_loop", "_timer", "_waits")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer = LazyTimer(loop, self._expire)
        self._waits: dict[TimedWait, None] = {}

    def add(self, wait: TimedWait) -> None:
        """Have ``wait`` ended in time."""
        self._waits[wait] = None
        if wait.when < self._timer.when:
            self._timer.arm(wait.when)

    def remove(self, wait: TimedWait) -> None:
        """It is over."""
        del self._waits[wait]
        if not self._waits:
            self._timer.disarm()

    def _expire(self, now: float) -> float:
        following = math.inf
        for wait in list(self._waits):
            if wait.when <= now:
                wait.expire()
            elif wait.when < following:
                following = wait.when
        return following


class TimedWait:
    """A task's wait, for use with ``with``: cancelled when its time is up, which then raises ``TimeoutError``.

    Args:
        waits: Those that it shares a timer with.
        when: Its end on the loop's clock; ``math.inf`` for none.
    """

    __slots__ = ("_cancellations", "_task", "_waits", "expired", "when")

    when: float
    """Its end on the loop's clock; ``math.inf`` for none."""
    expired: bool
    """Whether its time was up before it was over."""

    def __init__(self, waits: TimedWaits, when: float) -> None:
        self._waits = waits
        self.when = when
        self.expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancellations = task.cancelling()
        self._waits.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._waits.remove(self)
        if (
            self.expired
            and self._task.uncancel() <= self._cancellations
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def move(self, when: float) -> None:
        """End at ``when`` instead."""
        self.when = when
        self._waits.add(self)

    def expire(self) -> None:
        """Its time is up."""
        if not self.expired:
            self.expired = True
            self._task.cancel()
