"""Everything that limits the calls to one endpoint and model, behind one queue.

First in line goes when the breaker is closed, a slot is free, and both buckets hold enough.
Answers come back to the same place: refusals slow it down, failures open the breaker, headers
and usage correct the count. The parts know neither locks nor clocks; both are kept here.
"""

from __future__ import annotations

__all__ = ["Account", "Gate", "GateLeave"]

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf, isinf
from typing import Any, Final

from apex_llm.errors import (
    ApexLlmError,
    ConfigurationError,
    ConnectionFailedError,
    OverloadedError,
    QueueFullError,
    RateLimitError,
    RequestTimeoutError,
    StreamTruncatedError,
)
from apex_llm.transport.adaptive import AdaptiveConcurrency
from apex_llm.transport.breaker import CircuitBreaker
from apex_llm.transport.fair_queue import FairQueue, Ticket
from apex_llm.transport.gate_options import GateOptions
from apex_llm.transport.rates import Rates
from apex_llm.transport.shared_clock import SharedClock
from apex_llm.transport.throttle import Outcome
from apex_llm.types.http import Headers, HttpRequest

_UNSENT_PHASES: Final = frozenset({"prepare", "credentials", "queue", "connect"})
_OUR_OWN_PHASES: Final = frozenset({"prepare", "credentials", "queue"})
_FIRST_ANSWER_SECONDS: Final = 1.0
_AT_ONCE: Final = 1e-6
"""A wait that a timer cannot tell from none."""


class Account:
    """By which an error that is found later finds the request that it is about."""

    __slots__ = ("ticket",)

    def __init__(self) -> None:
        self.ticket: Ticket | None = None
        """``None`` until the request may go."""


class GateLeave:
    """Leave to send one request, as the throttle layer holds it."""

    __slots__ = ("_gate", "_ticket")

    def __init__(self, gate: Gate, ticket: Ticket) -> None:
        self._gate = gate
        self._ticket = ticket

    def answered(self, status: int, headers: Headers, /) -> None:
        """The head of the answer has arrived."""
        self._gate.post(partial(self._gate.on_answer, self._ticket, status, headers), self._ticket.loop)

    def over(self, outcome: Outcome, /) -> None:
        """The exchange has ended."""
        self._gate.post(partial(self._gate.on_over, self._ticket, outcome), self._ticket.loop)


class Gate:
    """The limits of one endpoint and model.

    Args:
        options: Which parts there are.
        clock: Seconds; ``None`` for the clock of the event loop that asks.
    """

    def __init__(self, options: GateOptions, *, clock: Callable[[], float] | None = None) -> None:
        self._options = options
        self._clock = SharedClock(clock)
        # Re-entrant, and events are queued: a dropped response gives its leave back when the garbage collector
        # finds it, which may be in the very thread that is in the middle of a change here.
        self._lock = threading.RLock()
        self._events: deque[Callable[[float], None]] = deque()
        self._busy = False
        self._queue = FairQueue()
        self._active = 0
        self._sent = self._throttled = self._refused = 0
        self._heard = not options.learn or options.tokens_per_minute is not None
        self._first_sent_at: float | None = None
        self._adaptive = (
            None
            if options.adaptive_concurrency is None
            else AdaptiveConcurrency(options.adaptive_concurrency, maximum=options.max_concurrency or inf)
        )
        self._breaker = None if options.breaker is None else CircuitBreaker(options.breaker)
        self._rates = (
            Rates(
                requests=options.requests_per_minute,
                tokens=options.tokens_per_minute,
                burst=options.burst,
                learn=options.learn,
            )
            if options.paces
            else None
        )

    # Going down ------------------------------------------------------------------------------

    async def acquire(self, request: HttpRequest, cost: int) -> GateLeave:
        """Wait for leave to send ``request``, which will be charged ``cost`` tokens.

        Raises:
            RequestTimeoutError: ``request.deadline`` passed first; ``phase`` is ``queue``.
            QueueFullError: ``max_waiting`` others wait already.
            OverloadedError: The breaker is open.
        """
        loop = asyncio.get_running_loop()
        ticket = Ticket(loop, cost, again=request.attempt > 1)
        self.post(partial(self._on_arrival, ticket), loop)
        if ticket.state == "waiting":
            await self._wait(ticket, request.deadline)
        if ticket.state == "granted":
            if isinstance(request.account, Account):
                request.account.ticket = ticket
            return GateLeave(self, ticket)
        model = request.model or None
        if ticket.state == "expired":
            raise RequestTimeoutError(
                "The call's deadline passed while it waited for its turn to be sent.",
                model=model,
                phase="queue",
                hint="Start fewer calls at a time, or raise the timeout; provider.limits.snapshot() shows the queue.",
            )
        assert isinstance(ticket.error, ApexLlmError)
        ticket.error.model = model
        raise ticket.error

    async def _wait(self, ticket: Ticket, deadline: float | None) -> None:
        loop, turn = ticket.loop, ticket.turn
        assert turn is not None
        timer = None
        if deadline is not None:
            timer = loop.call_at(deadline, self.post, partial(self._on_deadline, ticket), loop)
        try:
            await turn
        except BaseException:
            self.post(partial(self._on_abandoned, ticket), loop)
            raise
        finally:
            ticket.disarm()
            if timer is not None:
                timer.cancel()

    # One event after another ------------------------------------------------------------------

    def post(self, event: Callable[[float], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Have ``event`` happen, and then serve the queue; at once, or after what this thread is in the middle of."""
        self._events.append(event)
        while True:
            # Taken even if another thread has seen to the event by now: on return it has happened.
            with self._lock:
                if self._busy:
                    return  # a frame further up in this thread goes on when we return
                self._busy = True
                try:
                    now = self._clock.now(loop)
                    while self._events:
                        self._events.popleft()(now)
                    if len(self._queue):
                        self._serve(now)
                finally:
                    self._busy = False
            if not self._events:  # else a finaliser has come in between
                return

    def _on_arrival(self, ticket: Ticket, now: float) -> None:
        if not len(self._queue) and self._pass(ticket, now) is None:
            return
        if len(self._queue) >= self._options.max_waiting:
            ticket.state = "refused"
            ticket.error = QueueFullError(
                f"{len(self._queue)} requests wait for their turn already.",
                phase="queue",
                hint="Start fewer calls at a time, or raise max_waiting= of the limits.",
            )
            self._refused += 1
            return
        ticket.turn = ticket.loop.create_future()
        self._queue.append(ticket)

    def _on_deadline(self, ticket: Ticket, now: float) -> None:
        if self._queue.remove(ticket):
            ticket.state = "expired"
            ticket.wake()

    def _on_abandoned(self, ticket: Ticket, now: float) -> None:
        if self._queue.remove(ticket):
            ticket.state = "over"
        elif ticket.state == "granted":
            self._undo(ticket, now)

    def _on_timer(self, ticket: Ticket, now: float) -> None:
        # It may have fired a moment early: clocks and timers round differently.
        ticket.wake_at = None

    def _on_nudge(self, now: float) -> None:
        """Only serves the queue."""

    def _serve(self, now: float) -> None:
        """Let go whoever may, in order; set a timer for the first who may not yet."""
        while (ticket := self._queue.first(self._nudge)) is not None:
            wait = self._pass(ticket, now)
            if wait is not None:
                if wait < inf and (ticket.wake_at is None or ticket.wake_at > now + wait):
                    ticket.wake_at = now + wait
                    ticket.call_later(wait, partial(self.post, partial(self._on_timer, ticket)))
                return
            self._queue.remove(ticket)
            if not ticket.wake() and ticket.state == "granted":
                self._undo(ticket, now)

    def _nudge(self) -> None:
        self.post(self._on_nudge)

    def _pass(self, ticket: Ticket, now: float) -> float | None:
        """Grant or refuse, and ``None``; or how long to wait, ``inf`` if until something ends."""
        if self._breaker is not None and (seconds := self._breaker.refusal(now)) is not None:
            ticket.state = "refused"
            ticket.error = OverloadedError(
                "Most recent calls to this endpoint and model failed, so for a while none is sent.",
                retryable=False,  # by us, now: failing fast is what it is for
                retry_after=seconds,
                phase="queue",
                hint="Wait as long as retry_after says, or use another model or region.",
            )
            self._refused += 1
            return None
        limit = self._limit()
        if self._active >= limit:
            if self._adaptive is not None:
                self._adaptive.saturated()
            return inf
        if not self._heard and self._first_sent_at is not None:
            left = self._first_sent_at + _FIRST_ANSWER_SECONDS - now
            if left > _AT_ONCE:
                return left
            self._heard = True
        if self._rates is not None:
            seconds = self._rates.wait(ticket.cost, now)
            if seconds > _AT_ONCE:
                return seconds
            self._rates.take(ticket.cost, now)
        if not self._heard:
            self._first_sent_at = now
        self._active += 1
        self._sent += 1
        ticket.number = self._sent
        ticket.probe = self._breaker is not None and self._breaker.admitted()
        ticket.state = "granted"
        if self._adaptive is not None and self._active >= limit:
            self._adaptive.saturated()
        return None

    def _limit(self) -> float:
        if self._adaptive is not None:
            return self._adaptive.limit
        return self._options.max_concurrency or inf

    def _undo(self, ticket: Ticket, now: float) -> None:
        """A leave that was granted and never used."""
        ticket.state = "over"
        self._active -= 1
        if ticket.probe and self._breaker is not None:
            self._breaker.abandoned()
        if self._rates is not None:
            self._rates.undo(ticket.cost, now)
        if not self._heard:
            self._first_sent_at = None

    # Coming up -------------------------------------------------------------------------------

    def on_answer(self, ticket: Ticket, status: int, headers: Headers, now: float) -> None:
        """The head of an answer has arrived."""
        if ticket.state != "granted" or ticket.answered:
            return
        ticket.answered = True
        self._heard = True
        if self._breaker is not None:
            self._breaker.ended(failed=status >= 500, probe=ticket.probe, now=now)
        ticket.judged = status >= 400
        if status == 429:
            self._throttled += 1
            if self._adaptive is not None:
                self._adaptive.throttled(ticket.number, newest=self._sent)
        if self._rates is not None:
            self._rates.answered(ticket.number, ticket.cost, status, headers.to_dict(), newest=self._sent, now=now)

    def on_over(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        """An exchange has ended."""
        if ticket.state != "granted":
            return
        if outcome.status is not None and outcome.headers is not None:
            if not ticket.answered:
                self.on_answer(ticket, outcome.status, outcome.headers, now)
            if self._adaptive is not None and not ticket.judged:
                self._adaptive.succeeded()
                ticket.credited = True
        elif not ticket.answered:
            self._on_failure(ticket, outcome.error, now)
        ticket.state = "over"
        self._active -= 1

    def _on_failure(self, ticket: Ticket, error: BaseException | None, now: float) -> None:
        """No head arrived."""
        ticket.judged = self._heard = True
        if self._breaker is not None:
            if _is_failure(error):
                self._breaker.ended(failed=True, probe=ticket.probe, now=now)
            elif ticket.probe:
                self._breaker.abandoned()
        if self._rates is not None:
            self._rates.failed(ticket.cost, sent=not _was_unsent(error), now=now)

    def on_late_failure(self, ticket: Ticket, error: ApexLlmError, now: float) -> None:
        """An answer whose head was good brought an error, or broke."""
        throttled = isinstance(error, RateLimitError)
        if ticket.judged or not (throttled or _is_failure(error)):
            return
        ticket.judged = True
        if self._adaptive is not None and ticket.credited:
            self._adaptive.withdrawn()
        if throttled:
            self._throttled += 1
            if self._adaptive is not None:
                self._adaptive.throttled(ticket.number, newest=self._sent)
            if self._rates is not None:
                self._rates.refused_late(ticket.number, ticket.cost, error.retry_after, newest=self._sent, now=now)
        elif self._breaker is not None:
            self._breaker.failed_late(probe=ticket.probe, now=now)

    def on_usage(self, reserved: int, charged: int, now: float) -> None:
        """It is known what a request was really charged."""
        if self._rates is not None:
            self._rates.correct(reserved, charged, now)

    # Looking on ------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nobody waits and nothing is under way."""
        return not self._active and not len(self._queue)

    def snapshot(self) -> dict[str, Any]:
        """The state of every part as plain values."""
        with self._lock:
            now = self._clock.peek()
            breaker = None
            if self._breaker is not None:
                calls, failures = self._breaker.counts(now)
                breaker = {
                    "state": self._breaker.state(now),
                    "calls": calls,
                    "failures": failures,
                    "retry_after": self._breaker.refusal(now),
                }
            limit = self._limit()
            return {
                "active": self._active,
                "waiting": len(self._queue),
                "sent": self._sent,
                "throttled": self._throttled,
                "refused": self._refused,
                "concurrency": None if isinf(limit) else {"limit": int(limit), "adaptive": self._adaptive is not None},
                "breaker": breaker,
                **(
                    {"paused_for": 0.0, "requests": None, "tokens": None}
                    if self._rates is None
                    else self._rates.snapshot(now)
                ),
            }


def _is_failure(error: BaseException | None) -> bool:
    """Whether an error says something bad about the service or the way to it."""
    if not isinstance(error, ConnectionFailedError | RequestTimeoutError | OverloadedError | StreamTruncatedError):
        return False
    return error.phase not in _OUR_OWN_PHASES


def _was_unsent(error: BaseException | None) -> bool:
    """Whether the service cannot have seen the request."""
    return isinstance(error, ConfigurationError) or (isinstance(error, ApexLlmError) and error.phase in _UNSENT_PHASES)
