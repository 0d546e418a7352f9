"""A reply on its way to the socket: at the pace, and with the faults, that the answer asks for.

Orderly answers go through ASGI. What no ASGI server would do (a reset, a connection that ends
in the middle of a chunk, bytes that are no HTTP) is done on the connection's transport, which
``server`` puts into the scope.
"""

from __future__ import annotations

__all__ = ["TRANSPORT_KEY", "Playback"]

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable
from random import Random

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from apex_llm.emulator.answers import Answer, Fault
from apex_llm.emulator.faults.base import FaultCall
from apex_llm.emulator.faults.played import PlayedConnection
from apex_llm.emulator.recorded import RecordedRequest
from apex_llm.emulator.wire import Reply

TRANSPORT_KEY = "apex_llm.transport"
"""Where in the scope's ``state`` the connection's transport is."""


class Playback(Response):
    """Plays one reply; as a Starlette response, so that an endpoint may return it."""

    def __init__(
        self,
        reply: Reply,
        answer: Answer | None,
        headers: Iterable[tuple[str, str]],
        *,
        request: RecordedRequest,
        random: Random | None = None,
    ) -> None:
        self._reply = reply
        self._request = request
        self._random = random
        self._answer = answer or _PLAIN
        merged = dict(headers)
        merged["content-type"] = reply.content_type
        merged.update(reply.headers)
        merged.update(self._answer.headers)
        super().__init__(b"", reply.status, headers=merged)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await self._play(scope, receive, send)
        except asyncio.CancelledError:
            # Only the closing emulator cancels. The task ends here anyway, and uvicorn would report it as a failure.
            return

    async def _play(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer, reply = self._answer, self._reply
        transport: asyncio.Transport = scope["state"][TRANSPORT_KEY]
        if answer.first_delay:
            await asyncio.sleep(answer.first_delay)
        if answer.raw_bytes is not None:
            transport.write(answer.raw_bytes)
            await _leave(transport, answer.raw_then, receive)
            return
        if answer.spoiled_by is not None and answer.spoiled_by.strikes(call := self._call()):
            connection = PlayedConnection(transport, receive, pieces=self._random)
            await answer.spoiled_by.play(connection, call)
            await connection.finish()
            return
        writes, end = _plan(reply, answer.fault)
        if answer.write_size is not None:
            body = b"".join(writes)
            writes = [body[start : start + answer.write_size] for start in range(0, len(body), answer.write_size)]
        streamed = reply.parts is not None
        whole = sum(map(len, reply.parts or ())) if streamed else len(reply.body)
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        if not streamed and answer.write_size is None:
            # A body cut short keeps the length that was promised; one that ends cleanly tells the shorter one.
            length = sum(map(len, writes)) if end == "clean" else whole
            headers.append((b"content-length", str(length).encode()))
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        for index, data in enumerate(writes):
            if answer.delay and index and streamed:
                await asyncio.sleep(answer.delay)
            if transport.is_closing():
                break
            await send({"type": "http.response.body", "body": data, "more_body": True})
        if end == "clean":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await _leave(transport, end, receive)

    def _call(self) -> FaultCall:
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw_headers)
        return FaultCall(request=self._request, reply=self._reply, headers=headers, random=self._random or Random())


_PLAIN = Answer()


def _plan(reply: Reply, fault: Fault | None) -> tuple[list[bytes], str]:
    """What to write, one write each, and how to end: ``clean``, ``close``, ``reset`` or ``keep``."""
    parts = list(reply.parts) if reply.parts is not None else [reply.body]
    if fault is None:
        return parts, "clean"
    if fault.after_bytes is not None:
        kept = _first_bytes(parts, fault.after_bytes)
    elif reply.parts is None:
        # One body, no events: half of it stands for any part of it.
        kept = [] if fault.kind == "cut" and fault.after_events is None else [reply.body[: len(reply.body) // 2]]
    elif fault.after_events is not None:
        kept = parts[: fault.after_events]
    elif fault.kind == "truncate":
        kept = parts[: len(parts) if reply.terminal is None else reply.terminal]
    else:
        kept = []
    end = {"truncate": "clean", "stall": "keep", "cut": "reset" if fault.reset else "close"}[fault.kind]
    return kept, end


def _first_bytes(parts: list[bytes], count: int) -> list[bytes]:
    kept: list[bytes] = []
    for part in parts:
        if count <= 0:
            break
        kept.append(part[:count])
        count -= len(part)
    return kept


async def _leave(transport: asyncio.Transport, how: str, receive: Receive) -> None:
    """End a connection in the given way, and wait until it has ended, so that nobody ends it in another."""
    if how == "reset":
        # The bytes written so far must be out before the reset, which discards what waits. A transport tells its
        # protocol only, and that is uvicorn's, when its buffer is empty.
        while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):  # the client has left meanwhile
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    elif how == "close":
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
