"""Both clouds as fast as a socket: pre-rendered bytes over HTTP/1.1, in a process of its own.

It checks no signature and reads nothing of a request but its first line, its length and whether a
stream is asked for. The model (Bedrock) or deployment (Azure, dated surface) in the path says how a
stream is sent: ``burst-1000`` sends a thousand pieces of text in one go, ``paced-50x20`` fifty, one
every 20 ms. Every event is an HTTP chunk of its own, as both clouds send them.

That it is not what limits a measurement is checked in every run: it tells its own CPU time at
``/cpu``, and each result holds ``server_us`` beside the client's figure, and ``server_busy``, its share
of the wall time; the runner refuses a result in which it was busy for over 95 % of the time. A loop
over ``epoll`` with one ``recv`` and one ``send`` for each answer costs less than any asyncio client can:
for 100 calls at a time it uses about a third of the CPU time that ``limit``, the leanest client, uses, and
for streams less than a tenth, since a whole burst is one buffer.
"""

from __future__ import annotations

__all__ = ["serve"]

import argparse
import contextlib
import heapq
import re
import selectors
import socket
import sys
import time

from benchmarks.payloads import answer, stream_chunks, stream_head

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODE = re.compile(rb"(burst|paced)-(\d+)(?:x(\d+))?")
_STREAM = re.compile(rb'"stream": ?true')
_READ_BYTES = 256 * 1024


class _Rendered:
    """One answer: all of its bytes, or a head and chunks that are sent one at a time."""

    __slots__ = ("chunks", "interval", "whole")

    def __init__(self, whole: bytes, chunks: list[bytes] | None = None, interval: float = 0.0) -> None:
        self.whole = whole
        self.chunks = chunks
        self.interval = interval


def _render(line: bytes, *, streamed: bool) -> _Rendered:
    wire = "azure" if b"/openai/" in line else "bedrock"
    if not streamed:
        return _Rendered(answer(wire))
    mode = _MODE.search(line)
    kind, pieces, milliseconds = mode.groups() if mode else (b"burst", b"16", None)
    chunks = stream_chunks(wire, int(pieces))
    if kind == b"burst":
        return _Rendered(stream_head(wire) + b"".join(chunks))
    # What stands before and after the text travels with its first and its last piece.
    before, after = (1, 4) if wire == "bedrock" else (2, 4)
    texts = chunks[before:-after]
    texts[0] = b"".join((*chunks[:before], texts[0]))
    texts[-1] = b"".join((texts[-1], *chunks[-after:]))
    return _Rendered(stream_head(wire), texts, int(milliseconds or b"10") / 1000)


class _Connection:
    __slots__ = ("chunks", "interval", "open", "outgoing", "sent", "socket", "unread")

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.unread = b""
        self.outgoing = memoryview(b"")
        self.chunks: list[bytes] = []
        self.sent = 0
        self.interval = 0.0
        self.open = True


class _Server:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._rendered: dict[tuple[bytes, bool], _Rendered] = {}
        self._due: list[tuple[float, int, _Connection]] = []
        self._ticket = 0

    def run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        while True:
            timeout = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for key, ready in self._selector.select(timeout):
                connection = key.data
                if connection is None:
                    self._accept()
                elif ready & selectors.EVENT_WRITE:
                    self._send(connection, b"")
                else:
                    self._receive(connection)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                self._send_next(heapq.heappop(self._due)[2])

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = self._listener.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(accepted, selectors.EVENT_READ, _Connection(accepted))

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        if connection.unread:
            data = connection.unread + data
        head_end = data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data, 0, head_end) if head_end >= 4 else None
        if head_end < 4 or len(data) < head_end + (int(length[1]) if length else 0):
            connection.unread = data
            return
        connection.unread = b""
        line = data[: data.index(b"\r")]
        if line.startswith(b"GET /cpu"):
            body = b"%.6f" % time.process_time()
            self._send(connection, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        streamed = b"-stream " in line or (b"/openai/" in line and _STREAM.search(data, head_end) is not None)
        rendered = self._rendered.get((line, streamed))
        if rendered is None:
            rendered = self._rendered[line, streamed] = _render(line, streamed=streamed)
        self._send(connection, rendered.whole)
        if rendered.chunks is not None:
            connection.chunks, connection.sent, connection.interval = rendered.chunks, 0, rendered.interval
            self._schedule(connection)

    def _schedule(self, connection: _Connection) -> None:
        self._ticket += 1
        heapq.heappush(self._due, (time.monotonic() + connection.interval, self._ticket, connection))

    def _send_next(self, connection: _Connection) -> None:
        if not connection.open:
            return
        chunk = connection.chunks[connection.sent]
        connection.sent += 1
        if connection.sent < len(connection.chunks):
            self._schedule(connection)
        self._send(connection, chunk)

    def _send(self, connection: _Connection, data: bytes) -> None:
        waiting = connection.outgoing
        if waiting:
            data = bytes(waiting) + data if data else waiting
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        connection.outgoing = memoryview(data)[sent:]
        if bool(waiting) != bool(connection.outgoing):
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.outgoing else 0)
            self._selector.modify(connection.socket, events, connection)

    def _close(self, connection: _Connection) -> None:
        if connection.open:
            connection.open = False
            self._selector.unregister(connection.socket)
            connection.socket.close()


def serve(*, port: int = 0) -> None:
    """Serve on loopback until the process is ended; the port is printed first."""
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        listener.setblocking(False)
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            _Server(listener).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve both wires on loopback, as fast as possible.")
    parser.add_argument("--port", type=int, default=0)
    serve(port=parser.parse_args().port)
