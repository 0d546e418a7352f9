"""Requests and tokens per minute of one model: counted, and corrected by what the service says.

Two buckets and a pause. A refusal with ``retry-after`` stops everything until then, since
whatever is sent before would be refused as well. With ``learn``, limits and remainders are
read from the headers; where there are none, the first refusal shows how much was too much. That
limit is raised now and then, by a tenth at first: further while it goes well, and when it does not, back to
what went well before, where it stays for longer.
"""

from __future__ import annotations

__all__ = ["Rates"]

import time
from collections.abc import Mapping
from math import inf, isinf
from typing import Any, Final, Literal

from apex_llm.protocol.backoff import retry_after_hint
from apex_llm.protocol.token_bucket import TokenBucket
from apex_llm.transport.rate_headers import RateFacts, read_rate_headers

_LONGEST_PAUSE: Final = 60.0
"""A service that asks for more than the retry policy obeys must not hold up calls that could report it."""
_MINUTE: Final = 60.0
_FIRST_RAISE: Final = 0.1
_LAST_RAISE: Final = 1.0
_USED: Final = 0.8
"""The share of a limit that must be in use before it is raised: else its success proves nothing."""
_LOWER: Final = 0.9
_LOWEST: Final = 0.7
_LONGEST_PATIENCE: Final = 4
"""Minutes between attempts to raise a limit that was found again and again."""
_WEIGHT: Final = 0.2
_REFUSED: Final = 429


class _Count:
    """One of the two: its bucket, and where its limit came from."""

    __slots__ = (
        "bucket",
        "changed_at",
        "configured",
        "first_judged",
        "judged",
        "patience",
        "proven",
        "raise_by",
        "source",
        "synchronised_at",
        "unanswered",
    )

    def __init__(self, configured: float | None, *, burst: float) -> None:
        self.configured = configured
        self.bucket = TokenBucket(inf if configured is None else configured, burst=burst)
        self.source: Literal["unknown", "configured", "told", "remainder", "refusal"] = (
            "unknown" if configured is None else "configured"
        )
        self.changed_at = -inf
        self.unanswered = 0.0
        """Reserved by requests whose answer has not come: the service may not have counted them yet."""
        self.synchronised_at = -inf
        self.raise_by = _FIRST_RAISE
        self.proven = inf
        """The limit at which the last full minute went well."""
        self.patience = 1
        """Minutes until it is raised from there."""
        self.judged = 0
        """The newest request when the limit was last found to be too high: older ones say nothing about it."""
        self.first_judged = 0
        """The same for the first time, when they do: they show how much there was below the limit."""

    def believe(self, facts: RateFacts, *, cost: float, refused: bool, now: float) -> None:
        """Take over what an answer says."""
        bucket, remaining = self.bucket, facts.remaining
        if facts.limit is not None:
            self._change(facts.limit if self.configured is None else min(facts.limit, self.configured), "told", now)
        elif remaining is not None and not refused and self.source in {"unknown", "remainder", "refusal"}:
            # Without a limit, a remainder and what it was a remainder of are at least that much.
            least = remaining + cost
            if self.source != "remainder" or least > bucket.limit:
                self._change(least, "remainder", now)
        if remaining is None or isinf(bucket.limit):
            return
        remaining -= self.unanswered
        shared = facts.limit is not None and self.configured is not None and self.configured < facts.limit
        if shared or remaining > bucket.limit:
            # Ours is a part of a limit that others use too: what they leave is not ours to spend.
            remaining = min(remaining, bucket.remaining(now))
        bucket.synchronise(remaining, now)
        self.synchronised_at = now

    def too_much(self, number: int, *, newest: int, cost: float, now: float) -> None:
        """Request ``number`` was refused, without being told a limit."""
        if self.source not in {"unknown", "refusal"}:
            return  # others use it too, or our count was off; the pause will do
        if number <= self.judged:
            return
        self.judged = newest
        passed = max(self.bucket.spent(now) - self.unanswered, cost)
        limit = self.bucket.limit
        if isinf(limit):
            self.first_judged = newest
            self._change(passed, "refusal", now)
        elif limit > self.proven:
            self.patience = min(self.patience * 2, _LONGEST_PATIENCE)
            self._change(self.proven, "refusal", now)
        else:
            self.patience = 1
            self._change(max(limit * _LOWEST, min(passed, limit * _LOWER)), "refusal", now)
        self.proven = self.bucket.limit
        self.raise_by = _FIRST_RAISE

    def went_well(self, number: int, *, cost: float, now: float) -> None:
        """Request ``number`` was not refused."""
        if self.source != "refusal":
            return
        limit = self.bucket.limit
        if number <= self.judged:
            if number <= self.first_judged:  # had passed before the first refusal did, and was answered later
                self._change(limit + cost, "refusal", now)
                self.proven = self.bucket.limit
            return
        raised = limit > self.proven
        minutes = 1 if raised else self.patience
        if now - self.changed_at < _MINUTE * minutes or self.bucket.spent(now) < _USED * limit:
            return
        if raised:
            self.patience = 1
        self.proven = limit
        self._change(limit * (1 + self.raise_by), "refusal", now)
        self.raise_by = min(self.raise_by * 2, _LAST_RAISE)

    def _change(self, limit: float, source: Literal["told", "remainder", "refusal"], now: float) -> None:
        self.source = source
        self.changed_at = now
        if limit != self.bucket.limit:
            self.bucket.change_limit(limit, now)

    def snapshot(self, now: float) -> dict[str, Any] | None:
        """As plain values; ``None`` while no limit is known."""
        if isinf(self.bucket.limit):
            return None
        return {
            "limit": self.bucket.limit,
            "remaining": self.bucket.remaining(now),
            "source": self.source,
        }


class Rates:
    """Requests and tokens a minute.

    Args:
        requests: Requests per minute; ``None`` if not limited, or not known yet.
        tokens: Tokens per minute.
        burst: Seconds' worth of either that may go at once.
        learn: Whether to believe the service's headers, and to conclude from refusals.
    """

    def __init__(self, *, requests: float | None, tokens: float | None, burst: float, learn: bool) -> None:
        self._requests = _Count(requests, burst=burst)
        self._tokens = _Count(tokens, burst=burst)
        self._learn = learn
        self._paused_until = -inf
        self._newest_told = 0
        self._share = 1.0
        """What is charged in the end of what was reserved, in recent calls."""

    def wait(self, cost: int, now: float) -> float:
        """Seconds until a request of ``cost`` tokens may go; 0 if it may now."""
        return max(
            0.0,
            self._paused_until - now,
            self._requests.bucket.wait(1, now),
            self._tokens.bucket.wait(cost, now, paced=cost * self._share),
        )

    def take(self, cost: int, now: float) -> None:
        """A request goes."""
        self._requests.bucket.take(1, now)
        self._requests.unanswered += 1
        self._tokens.bucket.take(cost, now, paced=cost * self._share)
        self._tokens.unanswered += cost

    def undo(self, cost: int, now: float) -> None:
        """It did not go after all."""
        self._requests.bucket.give_back(1, now)
        self._requests.unanswered -= 1
        self._return(cost, now)
        self._tokens.unanswered -= cost

    def _return(self, cost: int, now: float) -> None:
        self._tokens.bucket.give_back(cost, now, paced=cost * self._share)

    def failed(self, cost: int, *, sent: bool, now: float) -> None:
        """No answer came. What may have reached the service stays counted."""
        if not sent:
            self.undo(cost, now)
            return
        self._requests.unanswered -= 1
        self._tokens.unanswered -= cost

    def answered(
        self, number: int, cost: int, status: int, headers: Mapping[str, str], *, newest: int, now: float
    ) -> None:
        """The head of the answer to request ``number`` has arrived."""
        self._requests.unanswered -= 1
        self._tokens.unanswered -= cost
        refused = status == _REFUSED
        if status >= 400:
            self._return(cost, now)
        if refused:
            self._requests.bucket.give_back(1, now)
            self._pause(retry_after_hint(headers, now=time.time(), rate_limited=True), now)
        if not self._learn:
            return
        told = read_rate_headers(headers, refused=refused)
        # Answers overtake each other; an older one knows less.
        if number >= self._newest_told:
            self._newest_told = number
            self._requests.believe(told.requests, cost=1, refused=refused, now=now)
            self._tokens.believe(told.tokens, cost=cost, refused=refused, now=now)
        if refused:
            blamed = self._requests if told.blames_requests else self._tokens
            blamed.too_much(number, newest=newest, cost=1 if blamed is self._requests else cost, now=now)
        elif status < 400:
            self._requests.went_well(number, cost=1, now=now)
            self._tokens.went_well(number, cost=cost * self._share, now=now)

    def refused_late(self, number: int, cost: int, retry_after: float | None, *, newest: int, now: float) -> None:
        """An answer that had begun well was a refusal."""
        self._return(cost, now)
        self._pause(retry_after, now)
        if self._learn:
            self._tokens.too_much(number, newest=newest, cost=cost, now=now)

    def correct(self, reserved: int, charged: int, now: float) -> None:
        """A request that had ``reserved`` tokens was charged ``charged``."""
        share = self._share
        self._share += _WEIGHT * (min(charged / reserved, 1.0) - share)
        # Where the service has just said what remains, it has counted in its own way already.
        known = now - self._tokens.synchronised_at < _MINUTE
        self._tokens.bucket.give_back(0 if known else reserved - charged, now, paced=reserved * share - charged)

    def _pause(self, seconds: float | None, now: float) -> None:
        if seconds:
            self._paused_until = max(self._paused_until, now + min(seconds, _LONGEST_PAUSE))
        else:
            self._requests.bucket.drain(now)
            self._tokens.bucket.drain(now)

    def snapshot(self, now: float) -> dict[str, Any]:
        """As plain values."""
        return {
            "paused_for": max(0.0, self._paused_until - now),
            "requests": self._requests.snapshot(now),
            "tokens": self._tokens.snapshot(now),
        }
