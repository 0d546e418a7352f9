"""One HTTP/1.1 connection: bytes in, exchanges out.

A protocol with one parser and one timer for its whole life, so that a request on a warm connection costs one
write, one future and no timer. It reads into a buffer that all connections of a pool share: the plain
``asyncio.Protocol`` allocates 256 KiB for each read and shrinks it, which the C library may do by mapping and
unmapping memory each time, at several times the cost of the read itself.
"""

from __future__ import annotations

__all__ = ["Http11Connection"]

import asyncio
import contextlib
import math
import os
import socket
import ssl
import warnings
from collections.abc import Callable
from typing import Any, cast

from apex_llm.errors import ApexLlmError, ConnectionFailedError, RequestTimeoutError
from apex_llm.transport.deadline import LazyTimer
from apex_llm.transport.http11_parser import ResponseParser
from apex_llm.transport.http11_response import HELD, HIGH_WATER, Exchange
from apex_llm.transport.network_errors import connection_failed
from apex_llm.types.http import HttpRequest

_ONE_WRITE = 64 * 1024
"""Up to this size head and body are joined: copying is cheaper than a second system call."""


class Http11Connection(asyncio.BufferedProtocol):
    """Carries one exchange at a time.

    Args:
        loop: The loop it lives and dies with.
        host: For error messages.
        raw_socket: Kept, since it is all that can be closed once the loop is gone.
        read_buffer: What the loop reads into; free again as soon as ``buffer_updated`` returns.
        names: See ``ResponseParser``; shared by the connections of a pool, as they hear the same ones.
        keep_alive_seconds: How long it may idle.
        on_idle: Called when it can take another request.
        on_closed: Called once when it cannot any more.
    """

    __slots__ = (
        "_ended_tls",
        "_exchange",
        "_host",
        "_keep_alive_seconds",
        "_loop",
        "_on_closed",
        "_on_idle",
        "_parser",
        "_paused",
        "_pid",
        "_raw_socket",
        "_read_buffer",
        "_timer",
        "_transport",
        "closed",
        "idle_since",
        "used",
    )

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        host: str,
        raw_socket: socket.socket,
        read_buffer: memoryview,
        names: dict[bytes, str],
        keep_alive_seconds: float,
        on_idle: Callable[[Http11Connection], None],
        on_closed: Callable[[Http11Connection], None],
    ) -> None:
        self._loop = loop
        self._host = host
        self._raw_socket = raw_socket
        self._read_buffer = read_buffer
        self._keep_alive_seconds = keep_alive_seconds
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._pid = os.getpid()
        self._parser = ResponseParser(peer=host, names=names)
        self._timer = LazyTimer(loop, self._on_timer)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._paused = False
        self._ended_tls = False
        self.closed: bool = False
        self.idle_since: float = 0.0
        self.used: bool = False
        """Whether an exchange was completed on it, so that it may have gone stale since."""

    def begin(self, request: HttpRequest, head: bytes, *, deadline: float, head_deadline: float) -> Exchange:
        """Send a request; its exchange has a waiter that is done when head (and body, unless streamed) are there."""
        transport = self._transport
        assert transport is not None
        assert self._exchange is None
        loop = self._loop
        exchange = Exchange(
            loop=loop, carrier=self, streamed=request.stream, deadline=deadline, head_deadline=head_deadline
        )
        exchange.waiter = loop.create_future()
        self._exchange = exchange
        self._parser.begin(request_headers=request.headers, head_only=request.method == "HEAD")
        body = request.body
        if len(body) <= _ONE_WRITE:
            transport.write(head + body if body else head)
        else:
            transport.write(head)
            transport.write(body)
        when = min(deadline, head_deadline)
        if when < self._timer.when:
            self._timer.arm(when)
        return exchange

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop has a transport for us."""
        # uvloop's transports are asyncio's in shape only.
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop may put what it reads."""
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        exchange = self._exchange
        if exchange is None:
            # Nobody asked: whatever it is, it must not become the next request's answer.
            self.abort()
            return
        parser = self._parser
        had_head = parser.head_complete
        exchange.touched = True
        body = parser.feed(self._read_buffer[:nbytes])
        if body:
            exchange.pieces.append(body)
            exchange.queued += len(body)
        if not had_head and parser.head_complete:
            exchange.status = parser.status
            exchange.headers = parser.headers
            if not 200 <= parser.status < 300:
                # A refusal is decided by its status, whatever becomes of the body that explains it.
                exchange.streamed = True
        if parser.complete:
            self._complete(exchange)
        elif parser.failure is not None:
            self.abort(parser.failure)
        elif parser.head_complete:
            if exchange.streamed:
                if exchange.queued > HIGH_WATER:
                    self._pause_reading()
                if body or not had_head:
                    exchange.wake()
            elif exchange.queued > HELD:
                exchange.streamed = True
                self._pause_reading()
                exchange.wake()

    def eof_received(self) -> bool | None:
        """The server will send no more; the transport closes itself."""
        if self._exchange is None:
            self.abort()
        elif self._transport is not None:
            self._ended_tls = _has_ended_tls(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        exchange = self._exchange
        error: ApexLlmError | None = None
        if exchange is not None:
            error = self._parser.finish() if exc is None else self._translate(exc)
            if error is None and not self._ended_tls:
                # RFC 9112, 9.8: a body that only the connection's end ends may have been cut by anybody.
                error = ConnectionFailedError(
                    f"{self._host} closed the connection without ending TLS, and the body has no length.",
                    kind="closed",
                    phase="body",
                )
        self._close(error)

    # What exchanges and pools ask for.

    def arm(self, when: float, /) -> None:
        """Have the timer fire at ``when`` at the latest."""
        if when < self._timer.when:
            self._timer.arm(when)

    def resume_reading(self) -> None:
        """Listen to the socket again."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def abort(self, reason: ApexLlmError | None = None, /) -> None:
        """Close at once; a running exchange fails with ``reason``."""
        transport = self._transport
        self._close(reason or ConnectionFailedError(f"The connection to {self._host} was closed.", kind="closed"))
        if transport is None:
            return
        if os.getpid() != self._pid:
            # A forked child: the loop, and what it watches, are still the parent's.
            self._raw_socket.close()
        elif self._loop.is_closed():
            _bury(transport, self._raw_socket)
        else:
            transport.abort()

    def abort_from_anywhere(self, reason: ApexLlmError | None = None, /) -> None:
        """``abort``, also from another thread or a finaliser that runs in one."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = not self._loop.is_running()
        if here or os.getpid() != self._pid:
            self.abort(reason)
            return
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self.abort, reason)

    # Inner workings

    def _pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _complete(self, exchange: Exchange) -> None:
        transport = self._transport
        assert transport is not None
        # A server may answer before it has read the request; the rest of it would reach the next one.
        reusable = self._parser.reusable and not (transport.is_closing() or transport.get_write_buffer_size())
        self._exchange = None
        exchange.end(None)
        if not reusable:
            self.abort()
            return
        self.resume_reading()
        self.used = True
        self.idle_since = now = self._loop.time()
        if now + self._keep_alive_seconds < self._timer.when:
            self._timer.arm(now + self._keep_alive_seconds)
        self._on_idle(self)

    def _close(self, error: ApexLlmError | None) -> None:
        if self.closed:
            return
        self.closed = True
        self._transport = None
        self._timer.disarm()
        self._parser.dispose()
        exchange, self._exchange = self._exchange, None
        self._on_closed(self)
        if exchange is not None:
            exchange.end(error)

    def _translate(self, error: Exception) -> ApexLlmError:
        exchange = self._exchange
        if self._parser.head_complete:
            phase = "body"
        elif isinstance(error, BrokenPipeError) and exchange is not None and not exchange.touched:
            phase = "send"
        else:
            phase = "head"
        failure = connection_failed(error, host=self._host, phase=phase)
        failure.__cause__ = error
        return failure

    def _on_timer(self, now: float) -> float:
        exchange = self._exchange
        if exchange is None:
            due = self.idle_since + self._keep_alive_seconds
            if due > now:
                return due
            self.abort()
            return math.inf
        due, phase = exchange.deadline, "total"
        if exchange.waiter is not None:
            inner, name = (
                (exchange.read_deadline, "idle") if self._parser.head_complete else (exchange.head_deadline, "head")
            )
            if inner < due:
                due, phase = inner, name
        if due > now:
            return due
        self._expire(exchange, phase)
        return math.inf

    def _expire(self, exchange: Exchange, phase: str) -> None:
        what = {
            "total": "The call to {} was not over by its deadline.",
            "head": "{} did not begin to answer in time.",
            "idle": "{} sent nothing for too long.",
        }[phase]
        if phase == "total":
            exchange.pieces.clear()
        self.abort(RequestTimeoutError(what.format(self._host), phase=phase))


def _has_ended_tls(transport: asyncio.Transport) -> bool:
    """Whether the peer has said its farewell (close_notify), if there is TLS; asyncio does not tell."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    try:
        return tls is None or not tls.read(1)
    except ssl.SSLError as error:
        return isinstance(error, ssl.SSLZeroReturnError)


def _bury(transport: asyncio.Transport, raw_socket: socket.socket) -> None:
    """Close a transport whose loop is closed; its own ``abort`` needs the loop for the last step."""
    finish: Callable[[Any], None] | None = None
    with contextlib.suppress(RuntimeError):
        transport.abort()
    inner: Any = getattr(transport, "_ssl_protocol", None)
    inner = transport if inner is None else getattr(inner, "_transport", None)
    finish = getattr(inner, "_call_connection_lost", None)
    if finish is not None:
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            finish(None)
    raw_socket.close()
