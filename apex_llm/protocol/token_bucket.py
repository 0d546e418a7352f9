"""How much may be spent now: a token bucket in front of a rolling window.

Services count what a caller spends in a minute, and differ in how: Azure resets a counter every
minute, others refill a bucket continuously or look at the last sixty seconds. Spending that is
paced by a bucket *and* never exceeds the limit in any one period fits all of them, whenever
their minutes begin. The bucket is the usual one (RFC 2697 and 3290 describe it for networks); the
window keeps it honest, as a bucket alone lets its depth and the refill pass in the same period.

Pure: no clock. ``now`` is seconds of any clock that does not run backwards.
"""

from __future__ import annotations

__all__ = ["TokenBucket"]

from collections import deque
from math import inf
from typing import Final

_SLOTS: Final = 240
"""Spending is remembered in slots of a period's 240th: a quarter of a second for a minute."""
_SLACK: Final = 1 / 60
"""A request reaches the service some time after it was counted, so a period is kept for a 60th longer."""
_NOTHING: Final = 1e-6


class TokenBucket:
    """At most ``limit`` in any ``period``, and of that at most ``burst`` at once. Begins full.

    Args:
        limit: What may be spent in a period; ``inf`` only counts.
        period: Seconds.
        burst: Seconds' worth of the limit that may go at once after a rest.
    """

    __slots__ = ("_at", "_burst", "_foreign", "_level", "_limit", "_period", "_slots", "_spent")

    def __init__(self, limit: float, *, period: float = 60.0, burst: float = 10.0) -> None:
        if not limit > 0 or not period > 0 or not burst > 0:
            raise ValueError(f"limit, period and burst must be above 0, not {limit}, {period} and {burst}.")
        self._limit = limit
        self._period = period
        self._burst = min(burst, period)
        self._at = -inf
        self._level = self.depth
        self._spent = 0.0
        self._slots: deque[list[float]] = deque()  # time of the first spending, and how much
        # Spent by others, at times that nobody knows. It runs off at the rate of the limit: as soon as a
        # service that refills a bucket will have forgotten it, and at the latest after a period.
        self._foreign = 0.0

    @property
    def limit(self) -> float:
        """What may be spent in a period."""
        return self._limit

    @property
    def depth(self) -> float:
        """What may go at once."""
        return self._limit * self._burst / self._period

    def spent(self, now: float) -> float:
        """What was spent in the period that ends ``now``, less what was given back, and all that others spent."""
        foreign = self._foreign and max(0.0, self._foreign - max(0.0, now - self._at) * self._rate)
        return self._spent + foreign - sum(amount for start, amount in self._slots if start <= now - self._keep)

    def remaining(self, now: float) -> float:
        """What is left of the limit in the period that ends ``now``; never below 0."""
        return max(0.0, self._limit - self.spent(now))

    def wait(self, amount: float, now: float, *, paced: float | None = None) -> float:
        """Seconds until ``amount`` may be taken; 0 if it may now.

        More than the limit is treated as the limit: whether that much can ever pass is the
        service's decision.

        Args:
            amount: What will be spent, at most.
            now: The time.
            paced: What of it will probably not come back. The window holds all of a reservation, as the
                service does; pacing by it would leave most of the limit unused where answers are much
                shorter than they may be. ``amount`` if left out.
        """
        self._advance(now)
        amount = min(amount, self._limit)
        paced = amount if paced is None else min(paced, amount)
        seconds = 0.0
        # What is larger than the bucket may go when the bucket is full, and leaves a debt.
        short = min(paced, self.depth) - self._level
        if short > _NOTHING:
            seconds = short / self._rate
        return max(seconds, self._wait_for_room(amount, now))

    def _wait_for_room(self, amount: float, now: float) -> float:
        """Seconds until the window holds ``amount`` beside what is in it."""
        excess = self._spent + self._foreign + amount - self._limit
        if excess <= _NOTHING:
            return 0.0
        foreign, passed = self._foreign, 0.0
        for start, part in (*self._slots, (inf, 0.0)):
            leaves = start + self._keep - now
            runs_off = min(foreign, (leaves - passed) * self._rate)
            if excess <= runs_off + _NOTHING:
                return passed + excess / self._rate
            foreign -= runs_off
            excess -= runs_off + part
            passed = leaves
            if excess <= _NOTHING:
                break
        return passed

    def take(self, amount: float, now: float, *, paced: float | None = None) -> None:
        """Spend ``amount``, whether or not there is enough. Arguments as for ``wait``."""
        self._advance(now)
        amount = min(amount, self._limit)
        self._level -= amount if paced is None else min(paced, amount)
        self._add(amount, now)

    def give_back(self, amount: float, now: float, *, paced: float | None = None) -> None:
        """Undo ``amount`` of the latest spending: it was reserved and not used. Below 0, it is spent in addition."""
        self._advance(now)
        if amount < 0:
            self._add(-amount, now)
        else:
            # Of the latest: else reservations would stay in the window after they were settled.
            amount = self._remove(amount, newest=True)
        self._level = min(self.depth, self._level + (amount if paced is None else paced))

    def synchronise(self, remaining: float, now: float) -> None:
        """Believe the service that ``remaining`` is left of the limit, which must be known."""
        if self._limit == inf:
            raise ValueError("Nothing is left of a limit that is not known.")
        self._advance(now)
        remaining = min(max(0.0, remaining), self._limit)
        self._foreign += self._limit - self._spent - self._foreign - remaining
        if self._foreign < 0:  # the service has forgotten earlier than we have
            self._remove(-self._foreign, newest=False)
            self._foreign = 0.0
        self._level = min(self._level, remaining)

    def drain(self, now: float) -> None:
        """Believe the service that nothing may go at this moment."""
        self._advance(now)
        self._level = min(self._level, 0.0)

    def change_limit(self, limit: float, now: float) -> None:
        """From now on ``limit``; what was spent stays spent."""
        self._advance(now)
        unknown = self._limit == inf
        self._limit = limit
        self._level = min(self.depth, limit - self._spent) if unknown else min(self.depth, self._level)

    @property
    def _rate(self) -> float:
        return self._limit / self._period

    @property
    def _keep(self) -> float:
        return self._period * (1 + _SLACK)

    def _advance(self, now: float) -> None:
        slots = self._slots
        while slots and slots[0][0] <= now - self._keep:
            self._spent -= slots.popleft()[1]
        if not slots:
            self._spent = 0.0  # and with it what rounding has left
        if now > self._at:
            if self._limit < inf:
                gained = (now - self._at) * self._rate
                self._level = min(self.depth, self._level + gained)
                self._foreign = max(0.0, self._foreign - gained)
            self._at = now

    def _add(self, amount: float, now: float) -> None:
        self._spent += amount
        slots = self._slots
        if slots and now - slots[-1][0] < self._period / _SLOTS:
            slots[-1][1] += amount
        else:
            slots.append([now, amount])

    def _remove(self, amount: float, *, newest: bool) -> float:
        wanted = amount
        slots = self._slots
        while slots and amount > 0:
            slot = slots[-1 if newest else 0]
            part = min(amount, slot[1])
            slot[1] -= part
            self._spent -= part
            amount -= part
            if slot[1] <= _NOTHING:
                if newest:
                    slots.pop()
                else:
                    slots.popleft()
        return wanted - amount
