"""One exchange in flight, and the answer that the caller holds.

Two objects, because the event loop keeps a connection alive, and a connection its exchange: were
the exchange the caller's answer, an answer that is dropped unread would never be collected.
"""

from __future__ import annotations

__all__ = ["HELD", "HIGH_WATER", "Exchange", "Http11Response"]

import asyncio
import math
from collections.abc import Callable
from typing import Any, Protocol, cast

from apex_llm.errors import ApexLlmError, ConnectionFailedError, LimitExceededError
from apex_llm.types.http import Headers

HIGH_WATER = 192 * 1024
"""Bytes queued for a reader before the socket is left alone; TCP then slows the server down. With the read that
crosses it, 256 KiB are never exceeded."""

HELD = 4 * 1024 * 1024
"""Bytes of a body that is not streamed, held before the call returns; the rest is read as a stream is."""


class Carrier(Protocol):
    """What an exchange needs of its connection."""

    def abort(self, reason: ApexLlmError | None = None, /) -> None:
        """Close at once; from the loop's own thread."""
        ...

    def abort_from_anywhere(self, reason: ApexLlmError | None = None, /) -> None:
        """Close at once, or as soon as the loop's thread gets to it."""
        ...

    def arm(self, when: float, /) -> None:
        """Enforce deadlines at ``when`` at the latest."""
        ...

    def resume_reading(self) -> None:
        """The queue is empty again."""
        ...


class Exchange:
    """The state of one request and its answer; filled by the connection, emptied by the response."""

    __slots__ = (
        "carrier",
        "complete",
        "deadline",
        "error",
        "head_deadline",
        "headers",
        "loop",
        "pieces",
        "queued",
        "read_deadline",
        "releases",
        "status",
        "streamed",
        "touched",
        "waiter",
    )

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        carrier: Carrier,
        streamed: bool,
        deadline: float,
        head_deadline: float,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.carrier: Carrier | None = carrier
        """``None`` when the connection has nothing more to do with this exchange."""
        self.streamed: bool = streamed
        self.deadline: float = deadline
        self.head_deadline: float = head_deadline
        self.read_deadline: float = head_deadline
        self.status: int = 0
        self.headers: list[tuple[str, str]] = []
        self.pieces: list[bytes] = []
        self.queued: int = 0
        self.complete: bool = False
        self.touched: bool = False
        """Whether any byte of an answer has arrived."""
        self.error: ApexLlmError | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.releases: list[Callable[[], None]] | None = None

    def wake(self) -> None:
        """Let whoever waits look again."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def end(self, error: ApexLlmError | None) -> None:
        """The connection lets go: the answer is whole (``None``), or broke."""
        self.carrier = None
        if error is None:
            self.complete = True
        elif self.error is None:
            self.error = error
        self.wake()
        releases, self.releases = self.releases, None
        for release in releases or ():
            try:
                release()
            except Exception as failure:  # noqa: BLE001 - a layer's mistake must not break the connection
                self.loop.call_exception_handler({"message": "a release callback failed", "exception": failure})


class Http11Response:
    """The answer as the caller holds it; see ``apex_llm.types.http.HttpResponse``.

    Dropped without being read or closed, it closes its connection when it is collected.
    """

    __slots__ = ("_exchange", "headers", "status")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.status: int = exchange.status
        self.headers: Headers = Headers(tuple(exchange.headers))

    def _get_deadline(self) -> float | None:
        return _optional(self._exchange.deadline)

    def _set_deadline(self, when: float | None) -> None:
        exchange = self._exchange
        exchange.deadline = math.inf if when is None else when
        if exchange.carrier is not None:
            exchange.carrier.arm(exchange.deadline)

    def _get_read_deadline(self) -> float | None:
        return _optional(self._exchange.read_deadline)

    def _set_read_deadline(self, when: float | None) -> None:
        exchange = self._exchange
        exchange.read_deadline = math.inf if when is None else when
        if exchange.waiter is not None and exchange.carrier is not None:
            exchange.carrier.arm(exchange.read_deadline)

    # Plain attributes to the reader, as the protocol has them; setting one may have to move the timer.
    deadline: float | None = cast("Any", property(_get_deadline, _set_deadline))
    """When the call must be over, on the loop's clock."""
    read_deadline: float | None = cast("Any", property(_get_read_deadline, _set_read_deadline))
    """When a waiting ``read()`` must have got something."""

    async def read(self) -> bytes:
        """All bytes that have arrived; waits for some if there are none. ``b""`` at the end."""
        exchange = self._exchange
        while True:
            pieces = exchange.pieces
            if pieces:
                data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
                if exchange.queued > HIGH_WATER and exchange.carrier is not None:
                    exchange.carrier.resume_reading()
                exchange.queued = 0
                return data
            if exchange.complete:
                return b""
            if exchange.error is not None:
                raise exchange.error
            if exchange.waiter is not None:
                raise RuntimeError("Two tasks read the same response.")
            waiter: asyncio.Future[None] = exchange.loop.create_future()
            exchange.waiter = waiter
            carrier = exchange.carrier
            assert carrier is not None
            carrier.arm(exchange.read_deadline)
            try:
                await waiter
            except BaseException:
                exchange.waiter = None
                self.close()
                raise

    async def read_all(self, *, limit: int) -> bytes:
        """The rest of the body; ``LimitExceededError`` beyond ``limit`` bytes."""
        exchange = self._exchange
        if exchange.complete and len(exchange.pieces) == 1 and exchange.queued <= limit:
            # What a small answer is: all of it came with the head.
            return exchange.pieces.pop()
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > limit:
                self.close()
                raise LimitExceededError(f"The response body is larger than {limit} bytes.", limit="body", phase="body")
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Be done with it; a body that has not ended closes its connection."""
        exchange = self._exchange
        if exchange.carrier is not None:
            exchange.carrier.abort_from_anywhere(
                ConnectionFailedError("The response was closed.", kind="closed", phase="body")
            )
        exchange.pieces.clear()
        exchange.queued = 0

    def add_release(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, when the body has ended, failed or was closed."""
        exchange = self._exchange
        if exchange.carrier is None:
            callback()
        elif exchange.releases is None:
            exchange.releases = [callback]
        else:
            exchange.releases.append(callback)

    def __del__(self) -> None:
        carrier = self._exchange.carrier
        if carrier is not None:
            carrier.abort_from_anywhere()

    def __repr__(self) -> str:
        return f"<Http11Response {self.status}>"


def _optional(when: float) -> float | None:
    return None if when == math.inf else when
