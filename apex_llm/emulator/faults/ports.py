"""Ports that fail before a request can be made: nobody there, nobody answering, no TLS."""

from __future__ import annotations

__all__ = ["PORT_FAULTS", "FaultPort"]

import contextlib
import errno
import select
import socket
import threading
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Self

from apex_llm.errors import ConfigurationError

PORT_FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "refused": "Connections are refused.",
        "black-hole": "Connections are never accepted, as behind a firewall that drops them.",
        "reset-on-connect": "Connections are reset as soon as they are made.",
        "plain-answer-to-tls": "A TLS handshake is answered in plain HTTP.",
        "old-tls-only": "A TLS handshake is refused, as by a server that offers nothing newer than TLS 1.1.",
        "silent-handshake": "Connections are made, and nothing is ever said on them.",
    }
)
"""Name to what it does, in one sentence."""

_ANSWERS = {
    "old-tls-only": b"\x15\x03\x02\x00\x02\x02\x46",  # a fatal alert: protocol_version
    "plain-answer-to-tls": b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
}


class FaultPort:
    """A port of this machine that fails as ``PORT_FAULTS`` says.

    ::

        with FaultPort("black-hole") as port:
            ...  # port.url

    Args:
        name: One of ``PORT_FAULTS``.
        host: A loopback address.
        port: The port; 0 takes a free one.

    Raises:
        ConfigurationError: There is no such fault.
    """

    def __init__(self, name: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        if name not in PORT_FAULTS:
            raise ConfigurationError(f"No port fault is called {name!r}.", hint=f"Known are {', '.join(PORT_FAULTS)}.")
        self.name = name
        self.connections: int = 0
        """Connections that were accepted so far."""
        self.received: bytes = b""
        """The first bytes that each connection sent, one after another."""
        self._host = host
        self._port = port
        self._listener: socket.socket | None = None
        self._waker: tuple[socket.socket, socket.socket] | None = None
        self._kept: list[socket.socket] = []
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port number."""
        return self._port

    @property
    def url(self) -> str:
        """Scheme, host and port; ``https`` where TLS is what fails."""
        scheme = "https" if self.name in {"old-tls-only", "plain-answer-to-tls", "silent-handshake"} else "http"
        return f"{scheme}://{self._host}:{self._port}"

    def start(self) -> Self:
        """Take the port."""
        listener = self._listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._host, self._port))
        self._port = listener.getsockname()[1]
        if self.name == "refused":
            return self  # bound, so that nobody else gets the port, and not listening
        if self.name == "black-hole":
            listener.listen(0)
            self._fill()
            return self
        listener.listen(128)
        self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="apex-llm-fault-port", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Give the port back. Safe to call twice."""
        if self._waker is not None:
            with contextlib.suppress(OSError):
                self._waker[0].send(b"x")
        if self._thread is not None:
            self._thread.join()
        for kept in (*self._kept, *(self._waker or ()), *([self._listener] if self._listener else [])):
            kept.close()
        self._kept, self._waker, self._thread, self._listener = [], None, None, None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self) -> None:
        """Connect until the queue of the listener is full: the next connection hangs."""
        for _ in range(64):
            filler = socket.socket()
            filler.settimeout(0)
            self._kept.append(filler)
            code = filler.connect_ex((self._host, self._port))
            if code not in {0, errno.EINPROGRESS, errno.EWOULDBLOCK}:
                raise ConfigurationError(f"The port could not be filled: {errno.errorcode.get(code, code)}.")
            _, connected, _ = select.select([], [filler], [], 0.1)
            if not connected:
                return
        raise ConfigurationError("This system accepts connections without end, so that no port can be filled.")

    def _accept(self) -> None:
        listener, waker = self._listener, self._waker
        assert listener is not None
        assert waker is not None
        watched: dict[socket.socket, bool] = {}
        while True:
            ready, _, _ = select.select([listener, waker[1], *watched], [], [])
            if waker[1] in ready:
                return
            for one in ready:
                if one is listener:
                    self._begin(listener, watched)
                else:
                    self._answer(one, watched)

    def _begin(self, listener: socket.socket, watched: dict[socket.socket, bool]) -> None:
        accepted, _ = listener.accept()
        self.connections += 1
        if self.name == "reset-on-connect":
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            accepted.close()
            return
        self._kept.append(accepted)
        watched[accepted] = False

    def _answer(self, one: socket.socket, watched: dict[socket.socket, bool]) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = one.recv(65536)
        if not watched[one]:
            self.received += data
        if data and self.name in _ANSWERS and not watched[one]:
            watched[one] = True
            with contextlib.suppress(OSError):
                one.sendall(_ANSWERS[self.name])
                one.shutdown(socket.SHUT_WR)
        elif not data:
            del watched[one]
            self._kept.remove(one)
            one.close()
