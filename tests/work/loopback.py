"""A cloud in the client's own event loop: it says what it was given, when it is told to.

Each answer, and each piece of a paced one, is one write that fits into one read, made while the
client waits: so the number of reads and wake-ups is the same on any machine under any load.
"""

from __future__ import annotations

__all__ = ["Loopback"]

import asyncio
import re
import socket

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Loopback:
    """``answer`` is what the next request is answered with, in one write."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)
        self._connections: list[socket.socket] = []
        self._latest: socket.socket | None = None
        self.answer = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def send(self, data: bytes) -> None:
        """More for the request that came last."""
        assert self._latest is not None
        self._latest.sendall(data)

    def close(self) -> None:
        for connection in self._connections:
            self._loop.remove_reader(connection)
            connection.close()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.append(connection)
        self._loop.add_reader(connection, self._receive, connection)

    def _receive(self, connection: socket.socket) -> None:
        request = connection.recv(65536)
        if not request:
            self._loop.remove_reader(connection)
            return
        head, separator, body = request.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        # The client sends head and body in one write; if it ceases to, that is work too, and must be seen here.
        whole = separator and length is not None and len(body) == int(length[1])
        assert whole, "a request in more than one write"
        self._latest = connection
        connection.sendall(self.answer)
