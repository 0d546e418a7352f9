"""Those who wait for their turn: first come, first served, whatever thread and event loop they are on.

What counts is when a call came, not its latest attempt: one that was refused and tries again has been let go once,
so it is older than all who still wait for the first time, and goes before them.

Nothing here is locked: the owner holds a lock around every method but ``Ticket.wait``. A waiter
is woken through its own loop, as the one who wakes it may be on another thread or in a finaliser.
"""

from __future__ import annotations

__all__ = ["FairQueue", "Ticket"]

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import chain
from typing import Literal, TypeAlias

State: TypeAlias = Literal["waiting", "granted", "refused", "expired", "over"]


class Ticket:
    """One request on its way through the queue, and then through its exchange."""

    __slots__ = (
        "again",
        "answered",
        "cost",
        "credited",
        "error",
        "judged",
        "loop",
        "number",
        "probe",
        "state",
        "timer",
        "turn",
        "wake_at",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, cost: int, *, again: bool = False) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.cost: int = cost
        self.again: bool = again
        """Whether its call has been let go before."""
        self.state: State = "waiting"
        self.turn: asyncio.Future[None] | None = None
        """Set when the ticket is not waiting any more; ``None`` if it never had to."""
        self.timer: asyncio.TimerHandle | None = None
        """Wakes the queue when the first in line may go; touched on ``loop``'s thread only."""
        self.wake_at: float | None = None
        self.number: int = 0
        self.probe: bool = False
        self.answered: bool = False
        self.judged: bool = False
        """Whether it is known to have gone wrong, which counts once however often it is told."""
        self.credited: bool = False
        """Whether it was counted as a success when its body was over."""
        self.error: Exception | None = None

    def wake(self) -> bool:
        """Let the waiter go on; false if its event loop is closed, and its callers with it."""
        turn = self.turn
        if turn is None:
            return True
        try:
            # Always through the loop, never at once: we may be in a finaliser, or in another loop's thread.
            self.loop.call_soon_threadsafe(_set, turn)
        except RuntimeError:
            return False
        return True

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Have ``action`` called on the waiter's loop; replaces what was to be called before."""
        try:
            self.loop.call_soon_threadsafe(self._arm, seconds, action)
        except RuntimeError:  # closed: the owner finds out when it looks at the loop
            return

    def _arm(self, seconds: float, action: Callable[[], None]) -> None:
        self.disarm()
        if self.state == "waiting":
            self.timer = self.loop.call_later(seconds, action)

    def disarm(self) -> None:
        """Cancel the timer. Only on the loop's own thread."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def _set(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


class FairQueue:
    """Tickets in the order in which they came."""

    __slots__ = ("_again", "_nudged", "_waiting")

    def __init__(self) -> None:
        self._again: OrderedDict[Ticket, None] = OrderedDict()
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()
        self._nudged: set[asyncio.AbstractEventLoop] = set()

    def __len__(self) -> int:
        return len(self._again) + len(self._waiting)

    def append(self, ticket: Ticket) -> None:
        """Stand at the end of those who came as early."""
        self._line(ticket)[ticket] = None

    def remove(self, ticket: Ticket) -> bool:
        """Leave the queue; false if it has been left already."""
        line = self._line(ticket)
        if ticket not in line:
            return False
        del line[ticket]
        return True

    def _line(self, ticket: Ticket) -> OrderedDict[Ticket, None]:
        return self._again if ticket.again else self._waiting

    def first(self, nudge: Callable[[], None]) -> Ticket | None:
        """Who is next. Waiters whose loop is closed are dropped.

        Waiters whose loop stands still cannot be served, and must not hold up the others: they keep their
        place, and ``nudge`` is called on that loop when it runs again.
        """
        gone: list[Ticket] = []
        found: Ticket | None = None
        for ticket in chain(self._again, self._waiting):
            loop = ticket.loop
            if loop.is_running():
                found = ticket
                break
            if loop.is_closed():
                gone.append(ticket)
            elif loop not in self._nudged:
                self._nudged.add(loop)
                try:
                    loop.call_soon_threadsafe(self._resumed, loop, nudge)
                except RuntimeError:
                    gone.append(ticket)
        for ticket in gone:
            ticket.state = "over"
            self._nudged.discard(ticket.loop)
            self.remove(ticket)
        return found

    def _resumed(self, loop: asyncio.AbstractEventLoop, nudge: Callable[[], None]) -> None:
        self._nudged.discard(loop)
        nudge()
