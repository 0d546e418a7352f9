"""A circuit breaker: when a service fails again and again, stop asking for a while.

The pattern is Nygard's ("Release It!"): closed while things go well, open after too many
failures, half-open when one probe may find out whether they go well again. What counts as a
failure is the caller's decision. No clock, no lock: whoever owns it passes the time.
"""

from __future__ import annotations

__all__ = ["BreakerPolicy", "CircuitBreaker"]

from collections import deque
from typing import Literal

import msgspec


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a circuit breaker opens, and for how long. All times in seconds."""

    window: float = 30.0
    """Calls that ended this long ago are still counted."""
    min_calls: int = 10
    """Fewer calls in the window prove nothing."""
    failure_ratio: float = 0.5
    """The share of failures, from 0 to 1, that opens it."""
    open_seconds: float = 5.0
    """How long nothing is sent, the first time; twice as long after each probe that fails."""
    max_open_seconds: float = 60.0
    """Never longer than this."""
    probes: int = 1
    """Calls at a time that may find out whether the service is back. One that succeeds closes the breaker."""

    def __post_init__(self) -> None:
        if self.window <= 0 or self.min_calls < 1 or self.probes < 1:
            raise ValueError("window must be above 0, min_calls and probes at least 1.")
        if not 0 < self.failure_ratio <= 1:
            raise ValueError(f"failure_ratio must be above 0 and at most 1, not {self.failure_ratio}.")
        if not 0 < self.open_seconds <= self.max_open_seconds:
            raise ValueError("open_seconds must be above 0 and at most max_open_seconds.")


class CircuitBreaker:
    """The state of one breaker."""

    __slots__ = ("_calls", "_failures", "_open_for", "_opened_at", "_policy", "_probed_after", "_probing", "_slots")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._slots: deque[list[float]] = deque()  # time of the first call, calls, failures
        self._calls = 0
        self._failures = 0
        self._open_for = policy.open_seconds
        self._opened_at: float | None = None
        self._probed_after = policy.open_seconds
        self._probing = 0

    def state(self, now: float) -> Literal["closed", "open", "half_open"]:
        """``half_open`` when a probe may go, or is under way."""
        if self._opened_at is None:
            return "closed"
        return "open" if now < self._opened_at + self._open_for else "half_open"

    def counts(self, now: float) -> tuple[int, int]:
        """Calls and failures in the window."""
        self._forget(now)
        return self._calls, self._failures

    def refusal(self, now: float) -> float | None:
        """After how many seconds to ask again; ``None`` if a call may go now."""
        if self._opened_at is None:
            return None
        left = self._opened_at + self._open_for - now
        if left > 0:
            return left
        # A probe is out. If it fails, the next one may go after the doubled time; if not, at any moment.
        return None if self._probing < self._policy.probes else self._policy.open_seconds

    def admitted(self) -> bool:
        """A call goes, after ``refusal`` allowed it; true if it is a probe, which must be told how it ended."""
        if self._opened_at is None:
            return False
        self._probing += 1
        return True

    def abandoned(self) -> None:
        """A probe ended without saying anything about the service, such as by cancellation."""
        self._probing = max(0, self._probing - 1)

    def ended(self, *, failed: bool, probe: bool, now: float) -> None:
        """A call came back."""
        if probe:
            self.abandoned()
            if self._opened_at is None:
                return  # another probe was quicker
            if failed:
                self._open_for = min(self._open_for * 2, self._policy.max_open_seconds)
                self._opened_at = now
            else:
                self._opened_at = None
                self._probed_after, self._open_for = self._open_for, self._policy.open_seconds
                self._clear()
        elif self._opened_at is None:
            self._count(1, int(failed), now)

    def failed_late(self, *, probe: bool = False, now: float) -> None:
        """A call that was counted as a success has failed after all, in its body."""
        if self._opened_at is not None:
            return
        if probe:  # the only proof that it was over
            self._open_for = min(self._probed_after * 2, self._policy.max_open_seconds)
            self._opened_at = now
            self._clear()
        else:
            self._count(0 if self._calls > self._failures else 1, 1, now)

    def _count(self, calls: int, failures: int, now: float) -> None:
        self._forget(now)
        policy = self._policy
        if not self._slots or now - self._slots[-1][0] >= policy.window / 60:
            self._slots.append([now, 0, 0])
        slot = self._slots[-1]
        slot[1] += calls
        slot[2] += failures
        self._calls += calls
        self._failures += failures
        if self._calls >= policy.min_calls and self._failures >= policy.failure_ratio * self._calls:
            self._opened_at = now
            self._clear()

    def _forget(self, now: float) -> None:
        while self._slots and self._slots[0][0] <= now - self._policy.window:
            _, calls, failures = self._slots.popleft()
            self._calls -= int(calls)
            self._failures -= int(failures)

    def _clear(self) -> None:
        self._slots.clear()
        self._calls = self._failures = 0
