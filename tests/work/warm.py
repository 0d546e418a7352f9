"""Counts what calls and pieces cost once everything is warm: one wire, in a process of its own (``child``)."""

from __future__ import annotations

__all__ = ["main"]

import asyncio
import gc
import json
import statistics
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from apex_llm import AzureOpenAIProvider, BaseLlmProvider, BedrockProvider, Limits, Message, Observer
from tests.work.answers import PROMPT, stream_of, whole
from tests.work.counting import BlocksTaken, Functions, Instructions
from tests.work.loopback import Loopback


class _Onlooker(Observer):
    """Sees everything, does nothing."""


WARM_UP = 12
REPEATS = 3
FEW, MANY = 8, 24
"""Pieces of two streams, whose difference is what pieces cost; the longer one still fits into one read."""
CALLS = 100
STREAMS = 8
_OPTIONAL = (
    "transport/observe.py",
    "transport/limits.py",
    "transport/gate.py",
    "transport/rates.py",
    "transport/throttle.py",
    "transport/adaptive.py",
    "transport/breaker.py",
    "transport/fair_queue.py",
    "transport/estimate.py",
    "providers/metering.py",
)
"""Where observers and limits live."""

_MODEL = "bench.model"
_SWITCHED_ON: dict[str, dict[str, Any]] = {
    "call_with_limits": {"limits": Limits(requests_per_minute=1_000_000)},
    "call_observed": {"observers": [_Onlooker()]},
}

Job = Callable[[], Awaitable[object]]
Figures = dict[str, float]


def make(wire: str, url: str, **options: Any) -> BaseLlmProvider:
    if wire == "bedrock":
        keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"}
        return BedrockProvider(endpoint_url=url, aws_region="us-east-1", credentials=keys, **options)
    return AzureOpenAIProvider(api_base=url, api_version="2024-10-21", api_key="key", **options)


class Bench:
    """One provider against one loopback cloud, and the jobs that are counted."""

    def __init__(self, wire: str, cloud: Loopback, **options: Any) -> None:
        self.provider = make(wire, cloud.url, **options)
        self._cloud = cloud
        self._whole = whole(wire)
        self._stream = stream_of(wire)

    async def call(self) -> None:
        self._cloud.answer = self._whole
        assert await self.provider.generate_text(PROMPT, _MODEL, max_tokens=500)

    async def burst(self, pieces: int, *, at_end: Callable[[], None] | None = None) -> None:
        """Text, all of it in one write."""
        self._cloud.answer = self._stream.opening + self._stream.piece * pieces + self._stream.closing
        kept: list[object] = [None] * pieces
        position = 0
        async with self.provider.generate_text_stream(PROMPT, _MODEL, max_tokens=500) as stream:
            async for kept[position] in stream:
                position += 1
                if position == pieces:
                    break
            if at_end is not None:
                at_end()
            async for _ in stream:
                raise AssertionError("more pieces than were sent")
        assert position == pieces

    async def paced(self, pieces: int) -> None:
        """Text, a piece a write, each after the client has taken the one before."""
        self._cloud.answer = self._stream.opening + self._stream.piece
        async with self.provider.generate_text_stream(PROMPT, _MODEL, max_tokens=500) as stream:
            await anext(stream)
            for _ in range(pieces - 1):
                self._cloud.send(self._stream.piece)
                await anext(stream)
            self._cloud.send(self._stream.closing)
            async for _ in stream:
                raise AssertionError("more pieces than were sent")

    async def events(self, pieces: int, *, at_end: Callable[[], None] | None = None) -> None:
        """Events, all of them in one write; kept until the end, as callers do."""
        self._cloud.answer = self._stream.opening + self._stream.piece * pieces + self._stream.closing
        kept: list[object] = []
        async with self.provider.chat_stream([Message.user(PROMPT)], model=_MODEL, max_tokens=500) as stream:
            async for event in stream:
                kept.append(event)
            if at_end is not None:
                at_end()
        assert len(kept) >= pieces

    async def held_open(self, streams: int) -> int:
        """Bytes that Python holds while so many streams wait for their second piece; both ends of each connection."""
        self._cloud.answer = self._stream.opening + self._stream.piece
        before, _ = tracemalloc.get_traced_memory()
        opened: list[Any] = []
        for _ in range(streams):
            stream = self.provider.generate_text_stream(PROMPT, _MODEL, max_tokens=500)
            await anext(stream)
            opened.append(stream)
        held = tracemalloc.get_traced_memory()[0] - before
        for stream in opened:
            await stream.aclose()
        return held


async def _instructions(job: Job) -> Instructions:
    counter = Instructions()
    with counter:
        await job()
    return counter


async def counted(job: Job, *, blocks: bool = True) -> Figures:
    """Medians, so that what happens once in a while is not in the figures by chance."""
    runs: list[Figures] = []
    for _ in range(REPEATS):
        instructions = await _instructions(job)
        functions = Functions()
        with functions:
            await job()
        runs.append(
            {
                "instructions": instructions.total,
                "instructions_for_what_is_unused": sum(instructions.by_file[file] for file in _OPTIONAL),
                "functions": functions.ours,
                "library_functions": functions.libraries,
                "c_functions": functions.in_c,
            }
        )
    figures = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    if blocks:
        taken = BlocksTaken()
        with taken:
            await job()
        figures["blocks"] = taken.total
    return figures


async def per_piece(stream: Callable[[int], Awaitable[object]], *, blocks: bool = True) -> tuple[Figures, Figures]:
    """What a stream costs apart from its pieces, and what a piece costs."""
    few, many = await counted(lambda: stream(FEW), blocks=blocks), await counted(lambda: stream(MANY), blocks=blocks)
    piece = {name: (many[name] - few[name]) / (MANY - FEW) for name in few}
    return {name: few[name] - FEW * piece[name] for name in few}, piece


async def left_behind(job: Job) -> Figures:
    """What a finished job leaves: objects with the collector off, so also what stands in a cycle; blocks after it ran.

    Running it empties the free lists too, which fill up to a limit and look like a leak until then. A block now and
    then, less than one a job, is the same.
    """
    gc.collect()
    blocks, objects = sys.getallocatedblocks(), len(gc.get_objects())
    for _ in range(CALLS):
        await job()
    objects = len(gc.get_objects()) - objects
    gc.collect()
    blocks = sys.getallocatedblocks() - blocks
    return {"objects_left": max(0, objects // CALLS), "blocks_left": max(0, blocks // CALLS)}


async def kept_blocks(stream: Callable[..., Awaitable[object]]) -> float:
    """Blocks that a piece takes up for as long as its stream is being read and the piece is kept."""

    async def held(pieces: int) -> int:
        at_end: list[int] = []
        before = sys.getallocatedblocks()
        await stream(pieces, at_end=lambda: at_end.append(sys.getallocatedblocks()))
        return at_end[0] - before

    differences: list[float] = []
    for _ in range(REPEATS):
        few = await held(FEW)
        differences.append((await held(MANY) - few) / (MANY - FEW))
    return statistics.median(differences)


async def measure(wire: str) -> Figures:
    cloud = Loopback()
    figures: Figures = {}

    def add(name: str, found: Figures) -> None:
        figures.update({f"{wire}.{name}.{unit}": round(number, 2) for unit, number in found.items()})

    plain = Bench(wire, cloud)
    for _ in range(WARM_UP):
        await plain.call()
        await plain.burst(FEW)
        await plain.burst(MANY)
        await plain.paced(3)
        await plain.events(FEW)
    add("call", await counted(plain.call))
    opening, piece = await per_piece(plain.burst)
    add("stream", opening)
    add("piece_in_burst", {**piece, "kept_blocks": await kept_blocks(plain.burst)})
    _, piece = await per_piece(plain.paced)
    add("piece_paced", piece)
    _, piece = await per_piece(plain.events, blocks=False)
    add("event_in_burst", {**piece, "kept_blocks": await kept_blocks(plain.events)})
    for name, job in (("call", plain.call), ("stream", lambda: plain.burst(FEW))):
        add(name, await left_behind(job))
    tracemalloc.start()
    await plain.held_open(2 * STREAMS)
    few, many = await plain.held_open(STREAMS), await plain.held_open(2 * STREAMS)
    tracemalloc.stop()
    add("open_stream", {"bytes": round((many - few) / STREAMS, -2)})
    await plain.provider.aclose()

    for name, options in _SWITCHED_ON.items():
        bench = Bench(wire, cloud, **options)
        for _ in range(WARM_UP):
            await bench.call()
        found = await counted(bench.call, blocks=False)
        del found["instructions_for_what_is_unused"]
        add(name, found)
        await bench.provider.aclose()
    cloud.close()
    return figures


async def by_file(wire: str) -> dict[str, dict[str, float]]:
    """Instructions by file, for whoever wants to make them fewer."""
    cloud = Loopback()
    bench = Bench(wire, cloud)
    for _ in range(WARM_UP):
        await bench.call()
        await bench.burst(MANY)
        await bench.paced(3)
    table: dict[str, dict[str, float]] = {"call": dict((await _instructions(bench.call)).by_file)}
    for name, stream in (("piece_in_burst", bench.burst), ("piece_paced", bench.paced)):
        few, many = await _instructions(partial(stream, FEW)), await _instructions(partial(stream, MANY))
        table[name] = {file: round((many.by_file[file] - few.by_file[file]) / (MANY - FEW), 2) for file in many.by_file}
    await bench.provider.aclose()
    cloud.close()
    return table


def main(wire: str, *, files: bool) -> str:
    """The figures as JSON."""
    gc.collect()
    gc.disable()
    # Not whichever loop is the default: that of Windows reads in another way.
    loop = asyncio.SelectorEventLoop()
    try:
        return json.dumps(loop.run_until_complete(by_file(wire) if files else measure(wire)))
    finally:
        loop.close()
