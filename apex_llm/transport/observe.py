"""Seeing what is sent: one debug line per attempt, and observers of your own.

Nothing secret and nothing said by a user is ever shown: no headers, no query, no bodies.
An observer looks on; what it raises is logged and changes nothing.
"""

from __future__ import annotations

__all__ = ["ObserveLayer", "Observer"]

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from apex_llm.errors import ApexLlmError
from apex_llm.types.http import HttpRequest, HttpResponse, Send

_logger = logging.getLogger("apex_llm.transport")


class Observer(Protocol):
    """Told about every attempt, on the event loop: be quick, and do not block.

    Subclass it to write only the methods that you need.
    """

    def attempt_started(self, request: HttpRequest, /) -> None:
        """An attempt begins; ``request.attempt`` and ``request.invocation_id`` tell which."""

    def attempt_finished(
        self, request: HttpRequest, /, *, status: int | None, error: BaseException | None, seconds: float
    ) -> None:
        """The head of an answer has arrived, or the attempt failed.

        Args:
            request: As given to ``attempt_started``.
            status: The HTTP status, if an answer came.
            error: The typed error, or the cancellation, that ended the attempt.
            seconds: Since ``attempt_started``, waiting for a throttle included.
        """

    def body_finished(self, request: HttpRequest, /, *, seconds: float) -> None:
        """The body of a good answer was read to its end, broke, or was closed; perhaps in another thread."""


class ObserveLayer:
    """Logs each attempt at DEBUG on ``apex_llm.transport``, and tells observers.

    Costs one check per attempt while there are no observers and DEBUG is off.
    """

    def __init__(self, *observers: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self._observers = observers
        self._clock = clock

    def __call__(self, request: HttpRequest, send: Send, /) -> Awaitable[HttpResponse]:
        """Send ``request`` unchanged."""
        if not self._observers and not _logger.isEnabledFor(logging.DEBUG):
            return send(request)
        return self._observed(request, send)

    async def _observed(self, request: HttpRequest, send: Send) -> HttpResponse:
        started = self._clock()
        for observer in self._observers:
            _tell(partial(observer.attempt_started, request))
        try:
            response = await send(request)
        except BaseException as error:
            status = error.status if isinstance(error, ApexLlmError) else None
            self._finish(request, status=status, error=error, started=started)
            raise
        self._finish(request, status=response.status, error=None, started=started)
        if self._observers:
            response.add_release(partial(self._body_finished, request, started))
        return response

    def _finish(self, request: HttpRequest, *, status: int | None, error: BaseException | None, started: float) -> None:
        seconds = self._clock() - started
        _logger.debug(
            "%s %s %s model=%s attempt=%d status=%s error=%s in %.3f s",
            request.method,
            request.origin.host,
            request.operation,
            request.model,
            request.attempt,
            status,
            None if error is None else type(error).__name__,
            seconds,
        )
        for observer in self._observers:
            _tell(partial(observer.attempt_finished, request, status=status, error=error, seconds=seconds))

    def _body_finished(self, request: HttpRequest, started: float) -> None:
        seconds = self._clock() - started
        for observer in self._observers:
            _tell(partial(observer.body_finished, request, seconds=seconds))


def _tell(notify: Callable[[], None]) -> None:
    try:
        notify()
    except Exception as failure:  # an onlooker must not break the call
        _logger.warning("an observer raised %s", type(failure).__name__, exc_info=True)
