"""Both clouds as fast as a socket: pre-rendered bytes over HTTP/1.1, in a process of its own.

It checks no signature and reads nothing of a request but its first line, its length and whether a
stream is asked for. The model (Bedrock) or deployment (Azure, dated surface) in the path says how the
answer is sent: ``burst-1000`` streams a thousand pieces of text in one go, ``paced-50x20`` fifty, one
every 20 ms, and ``large-1000000`` answers with a text of a million bytes. Every event is an HTTP chunk of
its own, as both clouds send them, and every paced piece a write of its own.

That it is not what limits a measurement is checked in every run: at ``/cpu`` it tells its own CPU time
and how late it sent, each result holds its share of the wall time as ``server_busy``, and the runner
refuses a result in which it was busy for over 95 % of the time. The question ``server`` drives it at the
highest rate that is asked of it, 250,000 pieces a second, with a client that only empties its sockets. Three
quarters of what a paced piece costs it are spent in the kernel, for the write that a piece has to be, so that a
server in another language could not be much faster.
"""

from __future__ import annotations

__all__ = ["serve"]

import argparse
import contextlib
import heapq
import re
import select
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Mapping

from benchmarks.payloads import answer, long_text, stream_head, stream_parts

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODE = re.compile(rb"(burst|paced|large)-(\d+)(?:x(\d+))?")
_STREAM = re.compile(rb'"stream": ?true')
_READ_BYTES = 256 * 1024
_BACKLOG = 4096
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_TICK = 0.0002
"""Pieces that are due within so many seconds are sent in one turn, a write each."""


class _Rendered:
    """One answer: all of its bytes, or a head and pieces that are sent one at a time."""

    __slots__ = ("interval", "pieces", "whole")

    def __init__(self, whole: bytes, pieces: list[bytes] | None = None, interval: float = 0.0) -> None:
        self.whole = whole
        self.pieces = pieces
        self.interval = interval


def _render(line: bytes, *, streamed: bool) -> _Rendered:
    wire = "azure" if b"/openai/" in line else "invoke" if b"/invoke" in line else "bedrock"
    mode = _MODE.search(line)
    kind, number, milliseconds = mode.groups() if mode else (b"burst", b"16", None)
    if not streamed:
        return _Rendered(answer(wire, long_text(int(number))) if kind == b"large" else answer(wire))
    opening, texts, closing = stream_parts(wire, int(number))
    if kind == b"burst":
        return _Rendered(b"".join((stream_head(wire), opening, *texts, closing)))
    # What stands before and after the text travels with its first and its last piece.
    texts[0] = opening + texts[0]
    texts[-1] += closing
    return _Rendered(stream_head(wire), texts, int(milliseconds or b"10") / 1000)


class _Connection:
    __slots__ = ("due", "interval", "open", "outgoing", "pieces", "sent", "socket", "unread")

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.unread = b""
        self.outgoing = memoryview(b"")
        self.pieces: list[bytes] = []
        self.sent = 0
        self.due = 0.0
        self.interval = 0.0
        self.open = True


class _Server:
    def __init__(self, listeners: Mapping[socket.socket, ssl.SSLContext | None]) -> None:
        self._listeners = listeners
        self._selector = selectors.DefaultSelector()
        self._rendered: dict[tuple[bytes, bool], _Rendered] = {}
        self._ticks: list[int] = []
        self._due: dict[int, list[_Connection]] = {}
        self._late: list[tuple[float, int]] = []

    def run(self) -> None:
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ, listener)
        waited_on = [self._selector.fileno()] if hasattr(self._selector, "fileno") else None
        while True:
            timeout = max(0.0, self._ticks[0] * _TICK - time.monotonic()) if self._ticks else None
            if timeout and waited_on:
                # epoll counts in milliseconds, and pieces of different streams are less than that apart.
                select.select(waited_on, (), (), timeout)
                timeout = 0
            for key, ready in self._selector.select(timeout):
                connection = key.data
                if not isinstance(connection, _Connection):
                    self._accept(connection)
                elif ready & selectors.EVENT_WRITE:
                    self._send(connection, b"")
                else:
                    self._receive(connection)
            now = time.monotonic()
            while self._ticks and self._ticks[0] * _TICK <= now:
                tick = heapq.heappop(self._ticks)
                group = self._due.pop(tick)
                self._send_due(group)
                self._late.append((time.monotonic() - tick * _TICK, len(group)))

    def _accept(self, listener: socket.socket) -> None:
        context = self._listeners[listener]
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = listener.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if context is not None:
                    # The handshake happens along with the first read.
                    accepted = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
                self._selector.register(accepted, selectors.EVENT_READ, _Connection(accepted))

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_READ_BYTES)
        except _LATER:
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
            body = b"%.6f %.6f" % (time.process_time(), self._lateness())
            self._send(connection, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        streamed = b"-stream " in line or (b"/openai/" in line and _STREAM.search(data, head_end) is not None)
        rendered = self._rendered.get((line, streamed))
        if rendered is None:
            rendered = self._rendered[line, streamed] = _render(line, streamed=streamed)
        self._send(connection, rendered.whole)
        if rendered.pieces is not None:
            connection.pieces, connection.sent, connection.interval = rendered.pieces, 0, rendered.interval
            connection.due = time.monotonic()
            self._schedule(connection)

    def _schedule(self, connection: _Connection) -> None:
        connection.due += connection.interval
        tick = int(connection.due / _TICK) + 1
        group = self._due.get(tick)
        if group is None:
            self._due[tick] = [connection]
            heapq.heappush(self._ticks, tick)
        else:
            group.append(connection)

    def _send_due(self, group: list[_Connection]) -> None:
        """The next piece of each: a quarter of a million a second may come by here."""
        for connection in group:
            if not connection.open:
                continue
            number = connection.sent
            piece = connection.pieces[number]
            connection.sent = number = number + 1
            if number < len(connection.pieces):
                self._schedule(connection)
            if connection.outgoing:
                self._send(connection, piece)
                continue
            try:
                sent = connection.socket.send(piece)
            except _LATER:
                sent = 0
            except OSError:
                self._close(connection)
                continue
            if sent != len(piece):
                self._keep(connection, piece, sent)

    def _lateness(self) -> float:
        """How late 99 of 100 pieces were sent since this was last asked: when the last one of each turn was."""
        late, self._late = sorted(self._late), []
        left = sum(count for _, count in late) * 0.01
        for seconds, count in reversed(late):
            left -= count
            if left < 0:
                return seconds
        return 0.0

    def _send(self, connection: _Connection, data: bytes) -> None:
        waiting = connection.outgoing
        if waiting:
            data = bytes(waiting) + data if data else waiting
        try:
            sent = connection.socket.send(data)
        except _LATER:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if waiting or sent != len(data):
            self._keep(connection, data, sent)

    def _keep(self, connection: _Connection, data: bytes | memoryview, sent: int) -> None:
        """What could not be sent, for when there is room again."""
        waited = bool(connection.outgoing)
        connection.outgoing = memoryview(data)[sent:]
        if waited != bool(connection.outgoing):
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.outgoing else 0)
            self._selector.modify(connection.socket, events, connection)

    def _close(self, connection: _Connection) -> None:
        if connection.open:
            connection.open = False
            self._selector.unregister(connection.socket)
            connection.socket.close()


def _many_files() -> None:
    with contextlib.suppress(ImportError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve(*, port: int = 0, certificate: str | None = None) -> None:
    """Serve on loopback until the process is ended; the ports are printed first, a line each: plain, then TLS."""
    _many_files()
    with contextlib.ExitStack() as stack:
        listeners: dict[socket.socket, ssl.SSLContext | None] = {}

        def listen(at: int, context: ssl.SSLContext | None) -> None:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", at), backlog=_BACKLOG))
            listener.setblocking(False)
            listeners[listener] = context
            sys.stdout.write(f"{listener.getsockname()[1]}\n")

        listen(port, None)
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            listen(0, context)
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            _Server(listeners).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve both wires on loopback, as fast as possible.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate", help="of a file, with its key: serve TLS too, on another port")
    given = parser.parse_args()
    serve(port=given.port, certificate=given.certificate)
