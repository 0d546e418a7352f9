"""Waiting for leave to send: the interface, and the layer.

A throttle decides when a request may go, and learns how it ended. Since a stream occupies
the service until its last byte, leave is given back when the body is over and not when the
head has arrived.
"""

from __future__ import annotations

__all__ = ["Leave", "Outcome", "Throttle", "ThrottleLayer"]

from functools import partial
from typing import Protocol

import msgspec

from apex_llm.types.http import Headers, HttpRequest, HttpResponse, Send


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an exchange ended. It does not hold the response, which would keep a dropped stream alive."""

    status: int | None = None
    """``None`` where no head arrived."""
    headers: Headers | None = None
    error: BaseException | None = None
    """What sending raised, cancellation included; ``None`` where a head arrived."""


class Leave(Protocol):
    """Leave to send one request."""

    def answered(self, status: int, headers: Headers, /) -> None:
        """The head of the answer has arrived."""
        ...

    def over(self, outcome: Outcome, /) -> None:
        """Give the leave back.

        Called exactly once, perhaps from another thread, or in the middle of anything (a finaliser may
        run anywhere).
        """
        ...


class Throttle(Protocol):
    """Decides when requests may be sent."""

    async def acquire(self, request: HttpRequest, /) -> Leave | None:
        """Wait until ``request`` may be sent; ``None`` for a request that is none of its business.

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
        leave = await self._throttle.acquire(request)
        if leave is None:
            return await send(request)
        try:
            response = await send(request)
        except BaseException as error:
            leave.over(Outcome(error=error))
            raise
        status, headers = response.status, response.headers
        leave.answered(status, headers)
        response.add_release(partial(leave.over, Outcome(status=status, headers=headers)))
        return response
