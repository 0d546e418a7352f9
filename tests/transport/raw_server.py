"""A server that speaks raw bytes on loopback, so that tests say exactly what is on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator

from apex_llm.types.http import HttpRequest, Origin

Handler = Callable[["RawConnection"], Awaitable[None]]


class RawConnection:
    """One accepted connection, as the server's side of a test sees it."""

    def __init__(self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def read_request(self) -> bytes | None:
        """Head and body of the next request; ``None`` when the client has gone."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            request = head + await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            return None
        self.server.requests.append(request)
        return request

    async def send(self, data: bytes, *, pieces: int | None = None) -> None:
        """Write ``data``, in pieces of that size with a flush between them if asked."""
        with contextlib.suppress(OSError):
            step = pieces or len(data) or 1
            for start in range(0, len(data), step):
                self.writer.write(data[start : start + step])
                await self.writer.drain()
                if pieces:
                    await asyncio.sleep(0)

    async def wait_closed_by_client(self) -> None:
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class RawServer:
    """Listens on 127.0.0.1 and runs ``handler`` for each connection."""

    def __init__(self, handler: Handler, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.handler = handler
        self.requests: list[bytes] = []
        self.accepted = 0
        self.open = 0
        self._tls = tls
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls, backlog=1024)
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def origin(self) -> Origin:
        return Origin("http" if self._tls is None else "https", self._host, self.port)

    def request(self, **fields: object) -> HttpRequest:
        """A request to this server: POST / with a small body, unless said otherwise."""
        fields = {"method": "POST", "origin": self.origin, "target": "/", "body": b"{}", **fields}
        return HttpRequest(**fields)  # type: ignore[arg-type]

    async def drained(self, *, within: float = 2.0) -> bool:
        """Whether every connection is closed, soon."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.open:
                    await asyncio.sleep(0.005)
        return self.open == 0

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.handler(RawConnection(self, reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort() if self._tls else writer.close()


def answering(*answers: bytes, close: bool = False, pieces: int | None = None) -> Handler:
    """Each request on each connection gets the next answer; the last one is repeated."""

    async def handle(connection: RawConnection) -> None:
        index = 0
        while await connection.read_request() is not None:
            await connection.send(answers[min(index, len(answers) - 1)], pieces=pieces)
            index += 1
            if close:
                return

    return handle


def http_answer(
    body: bytes = b"hello", *, status: str = "200 OK", headers: str = "", chunks: list[bytes] | None = None
) -> bytes:
    """A well-formed answer; chunked if ``chunks`` are given."""
    if chunks is not None:
        framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        return f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode() + framed + b"0\r\n\r\n"
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@contextlib.contextmanager
def threaded_server(handler: Handler) -> Iterator[RawServer]:
    """A server on a loop and a thread of its own, for tests that start loops, or processes, themselves."""
    ready, stop = threading.Event(), threading.Event()
    server = RawServer(handler)

    async def main() -> None:
        await server.start()
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.01)
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait(5)
    try:
        yield server
    finally:
        stop.set()
        thread.join(5)


Serve = Callable[..., Awaitable[RawServer]]
