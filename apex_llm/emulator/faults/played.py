"""The connection of an emulator's answer, as a fault sees it."""

from __future__ import annotations

__all__ = ["PlayedConnection"]

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from random import Random
from typing import Any

from apex_llm.emulator.raw import FaultConnection
from apex_llm.emulator.recorded import RecordedRequest

_HIGH_WATER = 1 << 18
_TINY = 16
_POLL_SECONDS = 0.001


class PlayedConnection(FaultConnection):
    """``FaultConnection`` over a transport that an ASGI server owns.

    Args:
        transport: The connection's.
        receive: The ASGI function; it tells when the client has left.
        pieces: Where to cut what is written; ``None`` writes as it comes.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        *,
        pieces: Random | None = None,
    ) -> None:
        self._transport = transport
        self._receive = receive
        self._pieces = pieces
        self._leaving: asyncio.Task[None] | None = None
        self.requests_seen = 1

    @property
    def closed(self) -> bool:
        """Whether it has ended, by either side."""
        return self._transport.is_closing()

    async def write(self, data: bytes, *, piece: int | None = None, delay: float = 0.0) -> None:
        """Send ``data``; in random pieces, or pieces of ``piece`` bytes with ``delay`` seconds between them."""
        random = self._pieces
        start = 0
        while start < len(data) and not self.closed:
            size = piece or len(data)
            if random is not None and piece is None:
                # Mostly small pieces of what is small, and seldom those of what is large.
                size = random.randint(1, max(_TINY, random.randint(1, max(1, len(data) // 4))))
            if start and delay:
                await asyncio.sleep(delay)
            self._transport.write(data[start : start + size])
            start += size
            await self._drained(_HIGH_WATER)
            if start < len(data):
                await asyncio.sleep(0)

    async def _drained(self, level: int) -> None:
        # The transport tells its own protocol when it is empty, and that is the ASGI server's.
        while self._transport.get_write_buffer_size() > level and not self.closed:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)

    async def stall(self) -> None:
        """Keep silent until the client leaves."""
        await self._left()

    async def left_within(self, seconds: float) -> bool:
        """Wait that long, or until the client leaves; whether it has."""
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._left())
        await asyncio.wait([self._leaving], timeout=seconds)
        return self._leaving.done() or self.closed

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def read_request(self) -> RecordedRequest | None:
        """Never another one: the emulator reads requests itself."""
        return None

    def close(self) -> None:
        """End in good order (FIN), after what was written."""
        self._transport.close()

    def reset(self) -> None:
        """End with a reset (RST). What the client has not read yet may be lost to it."""
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _drop(self) -> None:
        self._transport.abort()

    async def finish(self) -> None:
        """Close what is still open, and wait until nobody is there any more."""
        if not self.closed:
            self.close()
        if self._leaving is not None:
            await self._leaving
        else:
            await self._left()
