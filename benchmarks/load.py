"""Load on one client, and what it cost this process: used inside the child process of a case."""

from __future__ import annotations

__all__ = [
    "call_and_piece",
    "calls",
    "closed",
    "first_pieces",
    "loaded",
    "pieces_of",
    "resident_kb",
    "server_told",
    "streams",
    "tidy",
    "us_per_piece",
]

import asyncio
import gc
import os
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Plan

_WARM_UP = 2
"""How many times each of the calls that will be under way is made before anything is measured."""


def pieces_of(mode: str) -> int:
    """How many pieces of text a model such as ``paced-50x20`` sends."""
    return int(mode.partition("-")[2].partition("x")[0])


async def calls(client: Any, model: str, *, count: int, width: int) -> None:
    """``count`` calls, ``width`` at a time."""

    async def one() -> None:
        if not await client.call(model):
            raise RuntimeError("An answer was empty.")

    def one_blocking() -> None:
        if not client.call(model):
            raise RuntimeError("An answer was empty.")

    await _shared(one_blocking if client.blocking else one, count=count, width=width, blocking=client.blocking)


async def streams(client: Any, model: str, *, count: int, width: int, pieces: int) -> None:
    """``count`` streams, ``width`` at a time, each read to its end and counted."""

    def check(seen: int) -> None:
        if client.decodes and seen != pieces:
            raise RuntimeError(f"A stream gave {seen} pieces of {pieces}.")

    async def one() -> None:
        seen = 0
        async for _ in client.texts(model):
            seen += 1
        check(seen)

    def one_blocking() -> None:
        check(sum(1 for _ in client.texts(model)))

    await _shared(one_blocking if client.blocking else one, count=count, width=width, blocking=client.blocking)


async def closed(client: Any) -> None:
    """Close it, whether it blocks or not."""
    if client.blocking:
        client.close()
    else:
        await client.close()


async def first_pieces(client: Any, model: str, *, count: int) -> list[float]:
    """Seconds from call to first piece of ``count`` streams, one after the other; each is read to its end."""
    waits: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        wait = None
        if client.blocking:
            for _ in client.texts(model):
                wait = wait or time.perf_counter() - started
        else:
            async for _ in client.texts(model):
                wait = wait or time.perf_counter() - started
        waits.append(wait or 0.0)
    return waits


async def _shared(one: Callable[[], Any], *, count: int, width: int, blocking: bool) -> None:
    remaining = count

    async def worker() -> None:
        nonlocal remaining
        while remaining > 0:
            remaining -= 1
            await one()

    def blocking_worker() -> None:
        nonlocal remaining
        while remaining > 0:
            remaining -= 1
            one()

    if width == 1:
        if blocking:
            blocking_worker()
        else:
            await worker()
    elif blocking:
        with ThreadPoolExecutor(width) as threads:
            for finished in [threads.submit(blocking_worker) for _ in range(width)]:
                finished.result()
    else:
        await asyncio.gather(*(worker() for _ in range(width)))


async def call_and_piece(client: Any, wire: str, *, plan: Plan, port: int, width: int) -> dict[str, dict[str, float]]:
    """What ``loaded`` says of calls, ``width`` at a time, and of the pieces of one burst after another."""

    async def call(count: int) -> None:
        await calls(client, "bench.call", count=count, width=width)

    async def stream(mode: str, count: int) -> None:
        await streams(client, f"bench.{mode}", count=count, width=1, pieces=pieces_of(mode))

    return {
        f"{wire}_call": await loaded(call, plan=plan, port=port, width=width),
        f"{wire}_piece": await loaded(
            partial(stream, f"burst-{plan.pieces}"),
            plan=plan,
            port=port,
            width=1,
            units=plan.pieces,
            warm_up=partial(stream, "burst-16"),
        ),
    }


async def loaded(
    load: Callable[[int], Awaitable[None]],
    *,
    plan: Plan,
    port: int,
    width: int,
    units: int = 1,
    count: int | None = None,
    warm_up: Callable[[int], Awaitable[None]] | None = None,
) -> dict[str, float]:
    """What one unit of ``load`` costs, after warm-up.

    Args:
        load: Does so many calls or streams.
        plan: How long to measure.
        port: The server's plain one, to ask for its own CPU time.
        width: How many calls or streams are under way at a time.
        units: Units (pieces of text) in one call or stream.
        count: How many to measure; found by a pilot if left out.
        warm_up: Opens the connections and warms the code up more cheaply than ``load``.

    Returns:
        ``value``: microseconds of CPU time of this process, all threads, for one unit; ``per_second``: units a
        second; ``server_us``: CPU time of the server for one; ``server_busy``: its share of the wall time.
    """
    await (warm_up or load)(_WARM_UP * width)
    if count is None:
        pilot = width // 10 or 3
        began = time.process_time()
        await load(pilot)
        each = max((time.process_time() - began) / pilot, 1e-6)
        count = int(min(max(plan.seconds / each, width), plan.most))
    tidy(plan)
    server_began, wall_began, began = server_told(port)[0], time.perf_counter(), time.process_time()
    await load(count)
    spent, wall = time.process_time() - began, time.perf_counter() - wall_began
    server = server_told(port)[0] - server_began
    total = count * units
    return {
        "value": round(spent / total * 1e6, 3),
        "per_second": round(total / wall),
        "server_us": round(server / total * 1e6, 3),
        "server_busy": round(server / wall, 3),
        "units": total,
    }


def tidy(plan: Plan) -> None:
    """Begin a figure without other people's garbage."""
    if plan.tidy:
        gc.collect()


async def us_per_piece(client: Any, *, pieces: int = 100) -> float:
    """A first guess, from one stream."""
    began = time.process_time()
    await streams(client, f"bench.burst-{pieces}", count=1, width=1, pieces=pieces)
    return (time.process_time() - began) / pieces * 1e6


def server_told(port: int) -> tuple[float, float]:
    """The server's CPU time in seconds, and how late 99 of 100 of its pieces were sent since it was last asked."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /cpu HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = connection.recv(1024)
    cpu, late = answer.partition(b"\r\n\r\n")[2].split()
    return float(cpu), float(late)


def resident_kb() -> float:
    """The memory that this process has now; the most that it ever had where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        import resource

        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024
