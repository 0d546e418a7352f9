"""A server that speaks bytes: for the faults that no HTTP server, however obedient, would play.

``FaultServer`` accepts connections and gives each request to a handler that writes what it
likes, when it likes: half a head, two answers at once, a gigabyte of trailers, a reset.
``Emulator`` is for answers that are HTTP; use this one for those that are not.
"""

from __future__ import annotations

__all__ = ["FaultConnection", "FaultServer", "Handler"]

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias

from apex_llm.emulator.recorded import RecordedRequest

_HEAD_LIMIT = 1 << 20
_DELIVERY_SECONDS = 0.02


class FaultConnection:
    """One connection, as seen by a handler."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.requests_seen: int = 0
        """Requests that came on this connection, the present one included."""

    @property
    def closed(self) -> bool:
        """Whether it was closed or reset, by us."""
        return self._writer.is_closing()

    async def write(self, data: bytes, *, piece: int | None = None, delay: float = 0.0) -> None:
        """Send ``data``, all at once or in pieces of ``piece`` bytes with ``delay`` seconds between them."""
        size = max(1, len(data)) if piece is None else piece
        for start in range(0, len(data), size):
            if start and delay:
                await asyncio.sleep(delay)
            self._writer.write(data[start : start + size])
            await self._writer.drain()
            if piece is not None:
                await asyncio.sleep(0)

    async def respond(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        content_type: str = "application/json",
        headers: tuple[tuple[str, str], ...] = (),
        chunks: tuple[bytes, ...] | None = None,
        terminated: bool = True,
    ) -> None:
        """A well-formed answer; with ``chunks`` a chunked one, whose end can be left out."""
        lines = [f"HTTP/1.1 {status} Status", f"content-type: {content_type}", *(f"{n}: {v}" for n, v in headers)]
        lines.append(f"content-length: {len(body)}" if chunks is None else "transfer-encoding: chunked")
        await self.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        for chunk in chunks or ():
            await self.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if chunks is None:
            await self.write(body)
        elif terminated:
            await self.write(b"0\r\n\r\n")

    async def stall(self) -> None:
        """Keep silent until the client leaves."""
        with contextlib.suppress(OSError):
            while await self._reader.read(65536):
                pass

    def close(self) -> None:
        """End in good order (FIN), after what was written."""
        self._writer.close()

    def reset(self) -> None:
        """End with a reset (RST). What the client has not read yet may be lost to it."""
        raw: socket.socket | None = self._writer.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def reset_after_delivery(self) -> None:
        """Reset once the client has had the time to read what was written."""
        await self._drained(0)
        await asyncio.sleep(_DELIVERY_SECONDS)
        self.reset()

    async def drop_after_delivery(self) -> None:
        """End (FIN) once the client has had the time to read, without the farewell that TLS wants (close_notify)."""
        await self._drained(0)
        await asyncio.sleep(_DELIVERY_SECONDS)
        self._drop()

    async def left_within(self, seconds: float) -> bool:
        """Wait that long, or until the client leaves; whether it has."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stall()
                return True
        return False

    def _drop(self) -> None:
        self._writer.transport.abort()

    async def _drained(self, level: int) -> None:
        while self._writer.transport.get_write_buffer_size() > level and not self.closed:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def read_request(self) -> RecordedRequest | None:
        """The next request, with a body of the length that it names; ``None`` where the client left."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            return None
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = (*first.split(" ", 2), "", "")[:3]
        pairs = tuple(
            (name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
        )
        length = next((int(value) for name, value in pairs if name == "content-length" and value.isdigit()), 0)
        try:
            body = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            return None
        self.requests_seen += 1
        path, _, query = target.partition("?")
        return RecordedRequest(method=method, path=path, query_string=query, raw_headers=pairs, body=body)


Handler: TypeAlias = Callable[[FaultConnection, RecordedRequest], Awaitable[None]]
"""Answers one request. Returning leaves the connection open for the next, unless it was closed."""


class FaultServer:
    r"""Runs ``handler`` for each request, in the running event loop.

    ::

        async def half_a_head(connection: FaultConnection, request: RecordedRequest) -> None:
            await connection.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
            connection.reset()

        async with FaultServer(half_a_head) as server:
            ...  # server.url

    Args:
        handler: Called for each request, several at a time for several connections.
        on_connect: Called for each connection before anything is read from it, to break it early.
        ssl_context: Serve TLS with it.
        host: A loopback address.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        on_connect: Callable[[FaultConnection], Awaitable[None]] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.requests: list[RecordedRequest] = []
        self.connections: int = 0
        """Connections that were accepted so far."""
        self._handler = handler
        self._on_connect = on_connect
        self._ssl_context = ssl_context
        self._host = host
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None, "the server is not running"
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'http' if self._ssl_context is None else 'https'}://{self._host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, self._host, 0, ssl=self._ssl_context, limit=_HEAD_LIMIT, backlog=1024
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(FaultConnection(reader, writer), writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: FaultConnection, writer: asyncio.StreamWriter) -> None:
        try:
            if self._on_connect is not None:
                await self._on_connect(connection)
            while not connection.closed:
                request = await connection.read_request()
                if request is None:
                    break
                self.requests.append(request)
                await self._handler(connection, request)
        except OSError:
            pass  # the client left, which is its right
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
