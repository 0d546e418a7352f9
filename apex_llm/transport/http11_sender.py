"""The default sender: HTTP/1.1 over asyncio and httptools.

Written because the connection is most of what a call costs: a general client spends fifty times
more on it than the operating system does. Pools belong to an event loop and to a process, so a
second ``asyncio.run`` and a forked child both start afresh. Redirects are answers like any other.
"""

from __future__ import annotations

__all__ = ["Http11Sender"]

import asyncio
import contextlib
import math
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from apex_llm.errors import ApexLlmError, ConnectionFailedError, InvalidRequestError, RequestTimeoutError
from apex_llm.transport.http11_pool import OriginPool, PoolSettings
from apex_llm.transport.http11_request import HeadWriter
from apex_llm.transport.http11_response import Exchange, Http11Response
from apex_llm.transport.resolver import Address, Resolver
from apex_llm.transport.tls import ContextLoader, TrustRoots
from apex_llm.types.http import Headers, HttpRequest, HttpResponse, Origin

_NOT_IN_HOSTS = frozenset(" /?#@\\")
_SCHEMES = frozenset({"http", "https"})


class Http11Sender:
    """Sends requests over connections of its own; a ``Send``.

    Args:
        ssl_context: Replaces the default one (system roots, TLS 1.2 or newer).
        trust: Which roots the default context trusts; see ``tls.trust_roots``.
        max_connections: To one origin, on one loop; more calls wait in line. ``None`` opens as many as there are calls.
        keep_alive_seconds: How long a connection may idle. Servers of both clouds wait 60 s and more.
        allow_link_local: Let metadata and other link-local addresses pass (credential sources only).
        resolver: Replaces the look-up of names.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        trust: TrustRoots | None = None,
        max_connections: int | None = None,
        keep_alive_seconds: float = 50.0,
        allow_link_local: bool = False,
        resolver: Callable[[str, int], Awaitable[Sequence[Address]]] | None = None,
    ) -> None:
        self._ssl_context = ssl_context
        self._load_context = ContextLoader(trust or TrustRoots())
        self._settings = PoolSettings(
            resolve=resolver or Resolver(allow_link_local=allow_link_local),
            ssl_context=self._context,
            max_connections=max_connections,
            keep_alive_seconds=keep_alive_seconds,
        )
        self._heads = HeadWriter()
        self._pid = os.getpid()
        self._loops: dict[asyncio.AbstractEventLoop, _LoopPools] = {}
        self._inherited: list[_LoopPools] = []

    @property
    def open_connections(self) -> int:
        """Connections that are open, busy or idle."""
        return sum(
            pool.open_connections for pools in list(self._loops.values()) for pool in list(pools.origins.values())
        )

    @property
    def idle_connections(self) -> int:
        """Connections that wait for a request."""
        return sum(
            pool.idle_connections for pools in list(self._loops.values()) for pool in list(pools.origins.values())
        )

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """Send ``request``; return when the head is there, and the body too unless it is streamed.

        Raises:
            InvalidRequestError: it cannot be sent safely; nothing was.
            InvalidEndpointError: the host is at an address that must not be used.
            ConnectionFailedError: no connection, or it broke; ``kind`` and ``phase`` tell.
            RequestTimeoutError: a deadline passed; ``phase`` is ``connect``, ``head`` or ``total``.
            ProtocolError: the answer cannot be trusted (``LimitExceededError``: or is too large).
        """
        loop = asyncio.get_running_loop()
        pools = self._loops.get(loop)
        if pools is None or self._pid != os.getpid():
            pools = await self._start(loop)
        pool = pools.origins.get(request.origin) or self._open_pool(pools, request.origin)
        head = self._heads.write(request, authority=pool.authority)
        timeout = request.timeout
        now = loop.time()
        if request.deadline is not None:
            deadline = request.deadline
            if deadline <= now:
                raise RequestTimeoutError("The deadline had passed before the request was sent.", phase="total")
        else:
            deadline = math.inf if timeout.total is None else now + timeout.total
        connection = pool.take_idle()
        replaced = False
        while True:
            if connection is None:
                connection = await pool.connect(request, deadline=deadline)
            if request.stream and timeout.first_byte is not None:
                head_deadline = loop.time() + timeout.first_byte
            else:
                head_deadline = math.inf
            exchange = connection.begin(request, head, deadline=deadline, head_deadline=head_deadline)
            waiter = exchange.waiter
            if waiter is not None:
                try:
                    await waiter
                except BaseException:
                    # Only while it is ours: an answer that came in the same moment has freed it already.
                    if exchange.carrier is not None:
                        exchange.carrier.abort()
                    raise
            error = exchange.error
            if error is None or (exchange.status and exchange.streamed):
                return Http11Response(exchange)
            if replaced or not (connection.used and _was_stale(exchange, error)):
                if exchange.status:
                    error.headers = Headers(tuple(exchange.headers)).to_dict()  # whose body broke
                raise error
            # The server had closed it while it was idle, as servers may: nothing was answered, nothing is counted.
            replaced = True
            connection = None

    async def aclose(self) -> None:
        """Close all connections of this loop, and forget those of loops that have ended."""
        pools = self._loops.pop(asyncio.get_running_loop(), None)
        if pools is not None:
            pools.close()
            await pools.guard.aclose()
            # The loop closes sockets one turn after it was asked to.
            await asyncio.sleep(0)
        self._bury_dead_loops()

    def close(self) -> None:
        """Close all connections of all loops, from anywhere; running exchanges fail."""
        for pools in list(self._loops.values()):
            for pool in list(pools.origins.values()):
                pool.close_from_anywhere()
        self._bury_dead_loops()

    async def _start(self, loop: asyncio.AbstractEventLoop) -> _LoopPools:
        if self._pid != os.getpid():
            # A forked child: the sockets are shared with the parent, and so is what watches them. The
            # objects are kept, as their finalisers would complain about sockets that are not theirs to close.
            self._pid = os.getpid()
            self._inherited.extend(self._loops.values())
            self._loops = {}
            for pools in self._inherited:
                pools.close()
        self._bury_dead_loops()
        pools = self._loops.get(loop)
        if pools is None:
            pools = self._loops[loop] = _LoopPools()
            # asyncio.run finishes asynchronous generators while its loop still turns: the one moment
            # at which connections can be closed properly without anybody having called aclose().
            await anext(pools.guard)
        return pools

    def _open_pool(self, pools: _LoopPools, origin: Origin) -> OriginPool:
        if origin.scheme not in _SCHEMES:
            raise InvalidRequestError(f"{origin.scheme!r} is not http or https.", phase="prepare")
        if not origin.host.isprintable() or not _NOT_IN_HOSTS.isdisjoint(origin.host):
            raise InvalidRequestError(f"{origin.host!r} is not a host name.", phase="prepare")
        pool = OriginPool(loop=asyncio.get_running_loop(), origin=origin, settings=self._settings)
        pools.origins[origin] = pool
        return pool

    def _bury_dead_loops(self) -> None:
        # Other threads may be doing the same, and beginning with loops of their own.
        for loop in list(self._loops):
            if loop.is_closed() and (pools := self._loops.pop(loop, None)) is not None:
                pools.close()

    async def _context(self) -> ssl.SSLContext:
        return self._ssl_context or await self._load_context()


class _LoopPools:
    """All pools of one loop, and the guard that empties them when the loop ends."""

    __slots__ = ("guard", "origins")

    def __init__(self) -> None:
        self.origins: dict[Origin, OriginPool] = {}
        self.guard: AsyncGenerator[None] = _guard(self.origins)

    def close(self) -> None:
        for pool in self.origins.values():
            pool.close()


async def _guard(origins: dict[Origin, OriginPool]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        for pool in origins.values():
            with contextlib.suppress(RuntimeError):
                pool.close()


def _was_stale(exchange: Exchange, error: ApexLlmError) -> bool:
    return not exchange.touched and isinstance(error, ConnectionFailedError) and error.kind in {"closed", "reset"}
