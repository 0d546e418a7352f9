"""The connections of one event loop to one origin: opened, lent out last-in first-out, closed.

The last one used is lent first: its congestion window is warm, and the surplus of a burst ages
and closes. Lending and taking back cost the same however many connections are open.
"""

from __future__ import annotations

__all__ = ["OriginPool", "PoolSettings", "Turns"]

import asyncio
import collections
import contextlib
import errno
import math
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from apex_llm.errors import ApexLlmError, RequestTimeoutError
from apex_llm.transport.deadline import TimedWait, TimedWaits
from apex_llm.transport.http11_connection import Http11Connection
from apex_llm.transport.network_errors import connection_failed
from apex_llm.transport.resolver import Address
from apex_llm.types.http import HttpRequest, Origin

HEAD_START_SECONDS = 0.25
"""How long an address may be alone before the next one is tried beside it (RFC 8305 section 5)."""

_MOST_AT_ONCE = 128
"""Connections that are being opened at a time. Thousands of calls that begin together would overrun the server's
backlog, and count the time in which the loop opens the others' connections as time to connect."""

_KEEP_ALIVE_OPTIONS: Final = (("TCP_KEEPIDLE", 120), ("TCP_KEEPALIVE", 120), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4))
"""Load balancers and NAT gateways drop silent connections after 350 s; a long pause before a token is silent."""
_KEEP_ALIVE: Final = tuple(
    [(getattr(socket, name), value) for name, value in _KEEP_ALIVE_OPTIONS if hasattr(socket, name)]
)
_CONNECTING: Final = (errno.EINPROGRESS, errno.EWOULDBLOCK)
_WHERE_POSSIBLE: Final = contextlib.suppress(OSError)

_READ_SIZE = 64 * 1024
"""Bytes taken from a socket at a time; all connections read into the same buffer, one after the other."""


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What all pools of a sender share."""

    resolve: Callable[[str, int], Awaitable[Sequence[Address]]]
    ssl_context: Callable[[], Awaitable[ssl.SSLContext]]
    max_connections: int | None
    keep_alive_seconds: float


class OriginPool:
    """Connections to ``origin`` on ``loop``; used from that loop only."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop, origin: Origin, settings: PoolSettings) -> None:
        self._loop = loop
        self._origin = origin
        self._settings = settings
        self.authority: str = origin.authority
        # Ordered sets: the last one in is popped first, and one that dies while idle is found at once.
        self._idle: dict[Http11Connection, None] = {}
        self._open: dict[Http11Connection, None] = {}
        self._slots = 0
        """Connections that are open or being opened."""
        self._closed = False
        self._read_buffer = memoryview(bytearray(_READ_SIZE))
        self._names: dict[bytes, str] = {}
        self._turns = Turns(loop, most=_MOST_AT_ONCE)
        self._waits = TimedWaits(loop)
        # All loops can but that of Windows, which is told of what is done instead of what can be done.
        self._watches_sockets = type(loop).add_writer is not asyncio.AbstractEventLoop.add_writer
        # Bound once, and not anew for each connection.
        self._on_idle = self.give_back
        self._on_closed = self._forget
        self._queue: collections.deque[asyncio.Future[Http11Connection | None]] = collections.deque()

    @property
    def open_connections(self) -> int:
        """Connections that are open, idle or not."""
        return len(self._open)

    @property
    def idle_connections(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    def take_idle(self) -> Http11Connection | None:
        """The connection that was used last, if one is free."""
        return self._idle.popitem()[0] if self._idle else None

    def give_back(self, connection: Http11Connection) -> None:
        """A connection is free again: for the one who waits longest, or for later."""
        if self._closed:
            connection.abort()
        elif not self._grant(connection):
            self._idle[connection] = None

    async def connect(self, request: HttpRequest, *, deadline: float) -> Http11Connection:
        """A new connection; or, where no more may be opened, the next one that becomes free.

        Raises:
            ConnectionFailedError: nobody answered, or not as TLS demands.
            RequestTimeoutError: it took too long (``phase`` is ``connect`` or ``total``).
            InvalidEndpointError: the host is at an address that must not be used.
        """
        maximum = self._settings.max_connections
        while maximum is not None and self._slots >= maximum:
            freed = await self._wait_in_line(deadline)
            if freed is None:
                break  # with the place of one that was closed
            if not freed.closed:
                return freed
        else:
            self._slots += 1
        try:
            connection = await self._open_in_time(request.timeout.connect, deadline)
            if connection.closed:
                raise connection_failed(ConnectionResetError(), host=self._origin.host, phase="connect")
        except BaseException:
            self._release_slot()
            raise
        self._open[connection] = None
        return connection

    def close(self) -> None:
        """Close every connection, and keep none that is being opened; running exchanges fail."""
        self._closed = True
        for connection in list(self._open):
            connection.abort()

    def close_from_anywhere(self) -> None:
        """``close`` from another thread than the loop's."""
        for connection in list(self._open):
            connection.abort_from_anywhere()

    # Slots

    async def _wait_in_line(self, deadline: float) -> Http11Connection | None:
        place: asyncio.Future[Http11Connection | None] = self._loop.create_future()
        self._queue.append(place)
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                return await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                # Served in the same moment: what was given goes to the next in line.
                given = place.result()
                if given is None:
                    self._release_slot()
                elif not given.closed:
                    self.give_back(given)
            place.cancel()
            if isinstance(error, TimeoutError):
                raise RequestTimeoutError(
                    f"None of the {self._settings.max_connections} connections to {self._origin.host} became free "
                    "by the call's deadline.",
                    phase="queue",
                    hint="Start fewer calls at a time, or raise max_connections= or the timeout.",
                ) from error
            raise

    def _grant(self, connection: Http11Connection | None) -> bool:
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(connection)
                return True
        return False

    def _release_slot(self) -> None:
        if not self._grant(None):
            self._slots -= 1

    def _forget(self, connection: Http11Connection) -> None:
        self._idle.pop(connection, None)
        # One that broke before it was lent out for the first time is accounted for in connect().
        if connection in self._open:
            del self._open[connection]
            self._release_slot()

    # Opening

    async def _open_in_time(self, limit: float | None, deadline: float) -> Http11Connection:
        limit = math.inf if limit is None else limit
        connect_deadline = math.inf
        has_turn = self._turns.take()
        if has_turn:
            connect_deadline = self._loop.time() + limit
        wait = TimedWait(self._waits, min(deadline, connect_deadline))
        try:
            with wait:
                if not has_turn:
                    await self._turns.wait()
                    # What a connection may take is counted from its turn on.
                    connect_deadline = self._loop.time() + limit
                    wait.move(min(deadline, connect_deadline))
                try:
                    return await self._open_now()
                finally:
                    self._turns.release()
        except ApexLlmError:
            raise
        except (OSError, UnicodeError, ValueError) as error:
            host = self._origin.host
            if not wait.expired:
                # A TimeoutError too, when it is the operating system's.
                raise connection_failed(error, host=host, phase="connect") from error
            if connect_deadline <= deadline:
                raise RequestTimeoutError(f"No connection to {host} within {limit:g} s.", phase="connect") from error
            raise RequestTimeoutError(f"No connection to {host} by the call's deadline.", phase="total") from error

    async def _open_now(self) -> Http11Connection:
        origin, loop = self._origin, self._loop
        context = await self._settings.ssl_context() if origin.scheme == "https" else None
        addresses = await self._settings.resolve(origin.host, origin.port)
        opened = await (self._dial(addresses[0]) if len(addresses) == 1 else self._race(addresses))
        connection = Http11Connection(
            loop=loop,
            host=origin.host,
            raw_socket=opened,
            read_buffer=self._read_buffer,
            names=self._names,
            keep_alive_seconds=self._settings.keep_alive_seconds,
            on_idle=self._on_idle,
            on_closed=self._on_closed,
        )
        try:
            await loop.create_connection(
                lambda: connection, sock=opened, ssl=context, server_hostname=None if context is None else origin.host
            )
        except BaseException:
            connection.abort()
            opened.close()
            raise
        return connection

    async def _race(self, addresses: Sequence[Address]) -> socket.socket:
        """The first address that answers, each with a head start over the next (RFC 8305)."""
        runners: set[asyncio.Task[socket.socket]] = set()
        failure: OSError | None = None
        waiting = list(reversed(addresses))
        try:
            while waiting or runners:
                if waiting:
                    runners.add(self._loop.create_task(self._dial(waiting.pop())))
                done, _ = await asyncio.wait(
                    runners,
                    timeout=HEAD_START_SECONDS if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for runner in done:
                    runners.discard(runner)
                    error = runner.exception()
                    if error is None:
                        return runner.result()
                    if not isinstance(error, OSError):
                        raise error
                    failure = failure or error
        finally:
            for runner in runners:
                runner.cancel()
                runner.add_done_callback(_hang_up)
        raise failure or OSError("no address")

    async def _dial(self, address: Address) -> socket.socket:
        family, target = address
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.settimeout(0)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            with _WHERE_POSSIBLE:
                for option, value in _KEEP_ALIVE:
                    opened.setsockopt(socket.IPPROTO_TCP, option, value)
            if not self._watches_sockets:
                await self._loop.sock_connect(opened, target)
            elif (error := opened.connect_ex(target)) != 0:
                if error not in _CONNECTING:
                    raise OSError(error, os.strerror(error))
                await self._until_connected(opened)
        except BaseException:
            opened.close()
            raise
        return opened

    async def _until_connected(self, opened: socket.socket) -> None:
        # The loop's sock_connect would look the address up first, which is one already, at twice the cost.
        loop, descriptor = self._loop, opened.fileno()
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(descriptor, _settle, writable)
        try:
            await writable
        finally:
            loop.remove_writer(descriptor)
        error = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error != 0:
            raise OSError(error, os.strerror(error))


class Turns:
    """So many at a time, in the order in which they came. Who has a turn gives it back with ``release``.

    What ``asyncio.Semaphore`` does, for crowds: that one looks, at each release, through all whom it let go in the
    same turn of the loop, which for a hundred connections that open together is most of what waiting costs.
    """

    __slots__ = ("_free", "_line", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, most: int) -> None:
        self._loop = loop
        self._free = most
        self._line: collections.deque[asyncio.Future[None]] = collections.deque()

    def take(self) -> bool:
        """Whether there was a free turn, which is now the caller's."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    async def wait(self) -> None:
        """Take the next turn that is given back; who waits longest is first."""
        place: asyncio.Future[None] = self._loop.create_future()
        self._line.append(place)
        try:
            await place
        except BaseException:
            if not place.cancel() and not place.cancelled():
                self.release()  # it had come in the same moment
            raise

    def release(self) -> None:
        """Give a turn back, to whoever is next."""
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


def _settle(writable: asyncio.Future[None]) -> None:
    if not writable.done():
        writable.set_result(None)


def _hang_up(runner: asyncio.Task[socket.socket]) -> None:
    if not runner.cancelled() and runner.exception() is None:
        runner.result().close()
