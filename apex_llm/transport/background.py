"""Blocking work beside the loop, on threads that nobody has to wait for.

The loop's own executor is joined when ``asyncio.run`` ends, so one hanging name look-up would hold
the whole program; daemon threads are left behind.
"""

from __future__ import annotations

__all__ = ["SingleFlight"]

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from apex_llm.errors import ConnectionFailedError

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs blocking work on a daemon thread, once at a time for each loop and key, however many wait for it.

    Args:
        name: Of the threads.
    """

    def __init__(self, *, name: str) -> None:
        self._name = name
        self._flights: dict[tuple[asyncio.AbstractEventLoop, Hashable], asyncio.Future[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], T]) -> T:
        """The result of ``work``, or what it raised; cancelling one waiter leaves the others waiting.

        Raises:
            ConnectionFailedError: No thread could be started for it.
        """
        loop = asyncio.get_running_loop()
        place = (loop, key)
        flight = self._flights.get(place)
        if flight is None:
            for other in list(self._flights):  # other threads may be adding theirs
                if other[0].is_closed():
                    self._flights.pop(other, None)
            flight = loop.create_future()
            thread = threading.Thread(target=_work, args=(loop, flight, work), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise ConnectionFailedError(
                    f"No thread could be started ({self._name}).",
                    kind="network",
                    phase="prepare",
                    hint="The process, or its container, has as many threads as it may have.",
                ) from error
            self._flights[place] = flight  # only now: nobody must wait for what was never begun
            flight.add_done_callback(lambda done: self._land(place, done))
        return await asyncio.shield(flight)

    def _land(self, place: tuple[asyncio.AbstractEventLoop, Hashable], flight: asyncio.Future[T]) -> None:
        if self._flights.get(place) is flight:
            self._flights.pop(place, None)
        if not flight.cancelled():
            flight.exception()  # marks it as seen, in case everybody who waited has gone


def _work(loop: asyncio.AbstractEventLoop, flight: asyncio.Future[T], work: Callable[[], T]) -> None:
    try:
        settle = functools.partial(_succeed, flight, work())
    except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
        settle = functools.partial(_fail, flight, error)
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(settle)


def _succeed(flight: asyncio.Future[T], result: T) -> None:
    if not flight.done():
        flight.set_result(result)


def _fail(flight: asyncio.Future[T], error: Exception) -> None:
    if not flight.done():
        flight.set_exception(error)
