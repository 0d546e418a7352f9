"""Trying again: a policy that decides, and the loop that does what it says.

An *attempt* is a send together with understanding the first event of the answer, because a
service may answer 200 and throttle inside the stream. So this is a loop around a function
and not a layer around ``Send``. What is worth trying again is written on the errors
(``retryable``, ``retry_after``) by whoever raised them; nothing here knows HTTP.
"""

from __future__ import annotations

__all__ = ["RetryPolicy", "RetryStrategy", "run_attempts"]

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import inf
from random import random as _random
from typing import Protocol, TypeVar

import msgspec

from apex_llm.errors import ApexLlmError, ConfigurationError, RateLimitError, StreamInterruptedError, TransientError
from apex_llm.protocol.backoff import full_jitter, hinted_delay
from apex_llm.transport.limits import Limits

_logger = logging.getLogger("apex_llm.transport")

T = TypeVar("T")


class RetryStrategy(Protocol):
    """What the loop asks of a policy; ``RetryPolicy`` is one, and yours may be another."""

    @property
    def max_attempts(self) -> int:
        """Attempts in all, the first included: told to the service, shown in logs, and kept whatever is decided."""
        ...

    def next_delay(self, error: ApexLlmError, *, attempt: int, elapsed: float) -> float | None:
        """How long to wait before the next attempt, or ``None`` to give up; so does what is not finite."""
        ...


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a failed call is tried again, and after how long. All times in seconds."""

    max_attempts: int = 3
    """Attempts in all, the first included."""
    base_delay_transient: float = 0.05
    """The longest wait after the first failure; it doubles with each further one."""
    base_delay_throttle: float = 1.0
    """The same where the service said that we ask too much."""
    max_delay: float = 20.0
    """The longest wait of our own choosing."""
    max_retry_after: float = 60.0
    """The longest wait that is obeyed; when a service asks for more, the error is raised at once."""
    random: Callable[[], float] = _random
    """A uniform draw from ``[0, 1)``."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(
                f"max_attempts counts the first attempt too, so it is at least 1, not {self.max_attempts}."
            )
        for name in ("base_delay_transient", "base_delay_throttle", "max_delay", "max_retry_after"):
            seconds: float = getattr(self, name)
            if not seconds >= 0:
                raise ValueError(f"{name} must be at least 0 seconds, not {seconds}.")

    def next_delay(self, error: ApexLlmError, *, attempt: int, elapsed: float) -> float | None:
        """How long to wait before the next attempt, or ``None`` to give up.

        Full jitter: a uniform draw from ``[0, min(max_delay, base_delay * 2**(attempt - 1))]``,
        unless the server named a delay, which replaces it (and up to a quarter more, so that
        its clients do not all return at once).

        Args:
            error: What the last attempt raised.
            attempt: Attempts made so far, from 1.
            elapsed: Seconds since the call began, waiting included. Not used here: the
                loop itself keeps the deadline.
        """
        if attempt >= self.max_attempts or not _may_be_repeated(error):
            return None
        hint = error.retry_after
        if hint is not None:
            return None if hint > self.max_retry_after else hinted_delay(hint, random=self.random)
        throttled = isinstance(error, RateLimitError)
        return full_jitter(
            attempt,
            base_delay=self.base_delay_throttle if throttled else self.base_delay_transient,
            max_delay=self.max_delay,
            random=self.random,
        )


def _may_be_repeated(error: ApexLlmError) -> bool:
    if isinstance(error, StreamInterruptedError):
        # `retryable` tells the user that a new call may succeed. Repeating this one is
        # another matter: only while nothing of its answer has been handed over.
        return error.events_seen == 0
    return error.retryable


async def run_attempts(
    attempt: Callable[[int], Awaitable[T]],
    *,
    policy: RetryStrategy | None,
    quota: Limits | None = None,
    key: tuple[str, str] = ("", ""),
    deadline: float | None = None,
    recover: Callable[[ApexLlmError], Awaitable[bool]] | None = None,
    operation: str = "call",
    clock: Callable[[], float] | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    on_retry: Callable[[ApexLlmError, int, float], object] | None = None,
) -> T:
    """What ``attempt`` returns, once it does.

    Args:
        attempt: Makes one attempt. Gets its number, from 1, never above ``policy.max_attempts``.
        policy: Decides whether and when to go on; ``None`` makes one attempt.
        quota: Pays for retries; when it is empty, none is made and the error has ``quota_exhausted``.
        key: Endpoint, and model or deployment: whose quota it is.
        deadline: A time of ``clock``. A wait that would pass it is not begun: the error is raised at once.
        recover: Asked about each error, until it first says that it has removed the cause (renewed
            credentials, corrected the clock). Then one attempt follows immediately, with the same number
            and outside the policy's count.
        operation: For the log.
        clock: Seconds; the running loop's clock if left out.
        sleep: Waits for seconds.
        on_retry: Told the error, the number of the attempt that failed and the delay, before each wait.
            What it raises is logged and goes no further.

    Raises:
        ApexLlmError: The last attempt's, with ``attempts`` set to those made in all. Anything that
            is not an ``ApexLlmError``, cancellation above all, passes through untouched.
    """
    if clock is None:
        clock = asyncio.get_running_loop().time
    started = clock()
    number, made, paid = 1, 0, 0
    delay: float | None = None
    while True:
        try:
            if delay is not None:
                await sleep(delay)
            result = await attempt(number)
        except ApexLlmError as error:
            # An error of the set-up was found before anything was sent, and limits hold back what they refuse.
            made += not isinstance(error, ConfigurationError) and error.phase != "queue"
            error.attempts = made
            if recover is not None and await _recovered(recover, error, deadline=deadline, clock=clock):
                recover = delay = None
                continue
            now = clock()
            remaining = inf if deadline is None else deadline - now
            delay = _delay_after(error, policy=policy, attempt=number, elapsed=now - started, remaining=remaining)
            if policy is None or delay is None:
                raise
            if quota is not None:
                cost = quota.take_retry(key, throttled=isinstance(error, RateLimitError))
                if cost is None:
                    if isinstance(error, TransientError):
                        error.quota_exhausted = True
                    raise
                paid = cost
            _announce(error, number=number, delay=delay, policy=policy, operation=operation, on_retry=on_retry)
            number += 1
        except BaseException:
            # Cancelled while waiting or trying: the service has not failed, so nothing is charged.
            if quota is not None:
                quota.give_back(key, paid)
            raise
        else:
            if quota is not None:
                quota.give_back(key, paid or 1)
            return result


def _delay_after(
    error: ApexLlmError, *, policy: RetryStrategy | None, attempt: int, elapsed: float, remaining: float
) -> float | None:
    if policy is None or attempt >= policy.max_attempts:
        return None
    delay = policy.next_delay(error, attempt=attempt, elapsed=elapsed)
    # A policy may be anybody's: what is not a number, or infinite, is never below what remains.
    return delay if delay is not None and delay < remaining else None


async def _recovered(
    recover: Callable[[ApexLlmError], Awaitable[bool]],
    error: ApexLlmError,
    *,
    deadline: float | None,
    clock: Callable[[], float],
) -> bool:
    if deadline is None:
        return await recover(error)
    remaining = deadline - clock()
    if remaining <= 0:
        return False
    try:
        async with asyncio.timeout(remaining):
            return await recover(error)
    except TimeoutError:
        return False


def _announce(
    error: ApexLlmError,
    *,
    number: int,
    delay: float,
    policy: RetryStrategy,
    operation: str,
    on_retry: Callable[[ApexLlmError, int, float], object] | None,
) -> None:
    _logger.info(
        "retrying %s in %.2f s after %s (attempt %d of %d failed, status %s, code %s)",
        operation,
        delay,
        type(error).__name__,
        number,
        policy.max_attempts,
        error.status,
        error.code,
    )
    if on_retry is None:
        return
    try:
        on_retry(error, number, delay)
    except Exception as failure:  # an onlooker must not break the call
        _logger.warning("on_retry raised %s", type(failure).__name__, exc_info=True)
