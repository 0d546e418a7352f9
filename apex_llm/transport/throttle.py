"""Waiting for leave to send: the interface, the layer, and a fair limit on concurrency.

A throttle decides when a request may go, and learns how it ended. Since a stream occupies
the service until its last byte, leave is given back when the body is over and not when the
head has arrived.
"""

from __future__ import annotations

__all__ = ["ConcurrencyThrottle", "Outcome", "Throttle", "ThrottleLayer"]

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from apex_llm.errors import RateLimitError, RequestTimeoutError
from apex_llm.types.http import Headers, HttpRequest, HttpResponse, Send


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an exchange ended. It does not hold the response, which would keep a dropped stream alive."""

    status: int | None = None
    """``None`` where no head arrived."""
    headers: Headers | None = None
    error: BaseException | None = None
    """What sending raised, cancellation included; ``None`` where a head arrived."""


class Throttle(Protocol):
    """Decides when requests may be sent."""

    async def acquire(self, request: HttpRequest, /) -> Callable[[Outcome], None]:
        """Wait until ``request`` may be sent; the answer gives the leave back.

        It is called exactly once, perhaps from another thread (a finaliser may run anywhere).
        Cancelling the wait must leave nothing acquired.

        Raises:
            RequestTimeoutError: ``request.deadline`` passed first.
        """
        ...


class ThrottleLayer:
    """Holds each request until ``throttle`` lets it go. Left out of the pipeline where there is no throttle."""

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle

    async def __call__(self, request: HttpRequest, send: Send, /) -> HttpResponse:
        """Send ``request`` when its turn has come; its leave ends with the body of the answer."""
        release = await self._throttle.acquire(request)
        try:
            response = await send(request)
        except BaseException as error:
            release(Outcome(error=error))
            raise
        response.add_release(partial(release, Outcome(status=response.status, headers=response.headers)))
        return response


class ConcurrencyThrottle:
    """At most ``limit`` exchanges at a time; the others wait in the order in which they came.

    May be shared between event loops and threads.

    Args:
        limit: Exchanges at a time, streams counted until their last byte.
        max_waiting: How many may wait. One more fails at once: a queue that only grows
            turns every deadline into a timeout.
    """

    def __init__(self, limit: int, *, max_waiting: int = 1000) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}.")
        self._limit = limit
        self._max_waiting = max_waiting
        self._active = 0
        self._waiting: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        # Re-entrant: a dropped response gives its slot back when the garbage collector finds
        # it, which may be in the thread that holds the lock.
        self._lock = threading.RLock()

    @property
    def active(self) -> int:
        """Exchanges under way."""
        return self._active

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    async def acquire(self, request: HttpRequest, /) -> Callable[[Outcome], None]:
        """Wait for a slot.

        Raises:
            RequestTimeoutError: ``request.deadline`` passed first; ``phase`` is ``queue``.
            RateLimitError: ``max_waiting`` others wait already. Not retried by itself.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            # A slot is free only while nobody waits, so nobody is overtaken here.
            if self._active < self._limit:
                self._active += 1
                return self._release
            if len(self._waiting) >= self._max_waiting:
                raise RateLimitError(
                    f"{len(self._waiting)} requests wait for one of {self._limit} slots already.",
                    model=request.model or None,
                    phase="queue",
                    retryable=False,
                    hint="Start fewer calls at a time, or raise max_waiting= or limit=.",
                )
            turn: asyncio.Future[bool] = loop.create_future()
            self._waiting[turn] = None
        timer = None if request.deadline is None else loop.call_at(request.deadline, self._expire, turn)
        try:
            granted = await turn
        except BaseException:
            if not self._forget(turn) and not turn.cancelled() and turn.done() and turn.result():
                self._free_slot()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not granted:
            raise RequestTimeoutError(
                "The call's deadline passed while it waited for its turn to be sent.",
                model=request.model or None,
                phase="queue",
                hint=f"At most {self._limit} requests are sent at a time; raise the limit or the timeout.",
            )
        return self._release

    def _release(self, outcome: Outcome) -> None:  # a fixed limit learns nothing
        self._free_slot()

    def _expire(self, turn: asyncio.Future[bool]) -> None:
        if self._forget(turn) and not turn.done():
            turn.set_result(False)

    def _forget(self, turn: asyncio.Future[bool]) -> bool:
        """Take a turn out of the queue; false if it is out already, by another hand."""
        with self._lock:
            if turn not in self._waiting:
                return False
            del self._waiting[turn]
            return True

    def _free_slot(self) -> None:
        """Hand the slot to whoever has waited longest, or count it free."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._active -= 1
                    return
                turn, _ = self._waiting.popitem(last=False)
            # The slot is between two owners now, and `_grant` sees to it that it gets one. It always goes through
            # the loop: we may be in a finaliser, or in another loop's thread.
            try:
                turn.get_loop().call_soon_threadsafe(self._grant, turn)
            except RuntimeError:  # that loop is closed, and its callers with it
                continue
            return

    def _grant(self, turn: asyncio.Future[bool]) -> None:
        if turn.done():
            self._free_slot()
        else:
            turn.set_result(True)
