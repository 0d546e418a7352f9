"""One timer that is moved by changing a number.

Arming and cancelling a timer of the event loop for each exchange costs more than sending a small
request does. So a timer stays armed for the earliest moment at which anything could be due; when it
fires, its owner says what is due next, and only then is it armed again.
"""

from __future__ import annotations

__all__ = ["LazyTimer"]

import asyncio
import math
from collections.abc import Callable


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
