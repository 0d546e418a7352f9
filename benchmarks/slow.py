"""Many slow streams at once on one client, watched: used inside the child process of a case."""

from __future__ import annotations

__all__ = ["GivenUpError", "slow_streams"]

import asyncio
import math
import threading
import time
from array import array
from typing import Any

from benchmarks.load import resident_kb, server_told, streams

_BEAT = 0.01
_LOOK_EVERY = 5
"""Beats between two looks at the memory, which cost more than a beat."""
_WARM_UP = 5
_MARKERS = {"bedrock": b"contentBlockDelta", "azure": b'"content":" word'}
"""Which a piece holds once, for clients that give bytes."""


class GivenUpError(Exception):
    """The time did not suffice; ``figures`` are those of what had come by then."""

    def __init__(self, figures: dict[str, float]) -> None:
        super().__init__(f"Only {figures['ended']:g} streams ended in time.")
        self.figures = figures


class _Watch:
    """When each piece came, the longest gap of a heartbeat, and the most memory that was seen."""

    def __init__(self, *, count: int, pieces: int, apart: float, marker: bytes | None) -> None:
        self.count, self.pieces, self.apart = count, pieces, apart
        self.marker = marker
        self.arrived = array("d", bytes(8 * count * pieces))
        self.ended = 0
        self.gap = 0.0
        self.peak_kb = 0.0
        self.base_kb = resident_kb()
        self.began = time.perf_counter()

    async def beat(self) -> None:
        last = time.perf_counter()
        beats = 0
        while True:
            await asyncio.sleep(_BEAT)
            self.gap = max(self.gap, time.perf_counter() - last - _BEAT)
            beats += 1
            if not beats % _LOOK_EVERY:
                self.peak_kb = max(self.peak_kb, resident_kb())
            last = time.perf_counter()

    async def one(self, client: Any, model: str, number: int) -> None:
        arrived, clock = self.arrived, time.perf_counter
        at, stop = number * self.pieces, (number + 1) * self.pieces
        marker = self.marker
        if marker is None:
            async for _ in client.texts(model):
                arrived[at] = clock()
                at += 1
        else:
            async for block in client.texts(model):
                now = clock()
                end = min(at + block.count(marker), stop)
                while at < end:
                    arrived[at] = now
                    at += 1
        self._end(at, stop)

    def one_blocking(self, client: Any, model: str, number: int) -> None:
        arrived, clock = self.arrived, time.perf_counter
        at, stop = number * self.pieces, (number + 1) * self.pieces
        for _ in client.texts(model):
            arrived[at] = clock()
            at += 1
        self._end(at, stop)

    def _end(self, at: int, stop: int) -> None:
        if at != stop and self.marker is None:
            raise RuntimeError(f"A stream gave {self.pieces - (stop - at)} pieces of {self.pieces}.")
        self.ended += 1

    def figures(self) -> dict[str, float]:
        wall = time.perf_counter() - self.began
        self.peak_kb = max(self.peak_kb, resident_kb())
        late: list[float] = []
        for number in range(self.count):
            start = number * self.pieces
            late += [
                arrived - self.began - (index + 1) * self.apart
                for index, arrived in enumerate(self.arrived[start : start + self.pieces])
                if arrived
            ]
        late.sort()
        return {
            "value": round(wall, 3),
            "late_p50": round(late[len(late) // 2] * 1000, 1) if late else 0.0,
            "late_p99": round(late[math.ceil(len(late) * 0.99) - 1] * 1000, 1) if late else 0.0,
            "lag": round(self.gap * 1000, 1),
            "memory_kb": round((self.peak_kb - self.base_kb) / self.count, 1),
            "ended": self.ended,
        }


async def slow_streams(client: Any, *, wire: str, mode: str, count: int, seconds: float, port: int) -> dict[str, float]:
    """``count`` streams opened in one go, on connections that are opened for them.

    A piece is late by how long after the moment it came at which it would have come had all streams been
    opened at once and for nothing. Memory is the most that the process had above what it had before, over the
    number of streams.

    Returns:
        ``value``: seconds until the last stream ended; ``late_p50``, ``late_p99``, ``lag`` (the longest gap of a
        heartbeat on the loop): milliseconds; ``memory_kb``; ``cpu``: seconds; ``server_busy``, ``server_late``:
        its share of the time, and milliseconds by which it sent 99 of 100 pieces too late; ``ended``: streams.

    Raises:
        GivenUpError: ``seconds`` did not suffice.
    """
    pieces, milliseconds = map(int, mode.partition("-")[2].split("x"))
    model = f"bench.{mode}"
    await streams(client, "bench.burst-16", count=_WARM_UP, width=1, pieces=16)
    server_began, _ = server_told(port)
    watch = _Watch(
        count=count,
        pieces=pieces,
        apart=milliseconds / 1000,
        marker=None if client.decodes else _MARKERS[wire],
    )
    cpu_began = time.process_time()

    def figures() -> dict[str, float]:
        found = watch.figures()
        found["cpu"] = round(time.process_time() - cpu_began, 5)
        server, late = server_told(port)
        found["server_busy"] = round((server - server_began) / found["value"], 3)
        found["server_late"] = round(late * 1000, 1)
        return found

    heart = asyncio.create_task(watch.beat())
    try:
        async with asyncio.timeout(seconds):
            if client.blocking:
                await _in_threads(client, model, watch)
            else:
                async with asyncio.TaskGroup() as tasks:
                    for number in range(count):
                        tasks.create_task(watch.one(client, model, number))
    except TimeoutError:
        raise GivenUpError({**figures(), "value": seconds, "capped": 1}) from None
    finally:
        heart.cancel()
    return figures()


async def _in_threads(client: Any, model: str, watch: _Watch) -> None:
    threads = [
        threading.Thread(target=watch.one_blocking, args=(client, model, number), daemon=True)
        for number in range(watch.count)
    ]
    for thread in threads:
        thread.start()
        await asyncio.sleep(0)
    while watch.ended < watch.count and any(thread.is_alive() for thread in threads):
        await asyncio.sleep(_BEAT)
    if watch.ended < watch.count:
        raise RuntimeError(f"{watch.count - watch.ended} streams failed.")
