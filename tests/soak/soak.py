"""Many streams with random faults for a long time: ``python tests/soak/soak.py 30`` (``scripts/check-soak``).

The server is another process, so that memory and descriptors counted here are the client's. What must hold: resident
memory does not grow, descriptors do not either, every error is typed, and every call is back by its deadline.
"""

from __future__ import annotations

__all__ = [
    "PROMPTS",
    "SLACK_SECONDS",
    "TIMEOUT",
    "TOTAL_SECONDS",
    "Report",
    "resident",
    "resident_at_rest",
    "soak",
]

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import statistics
import sys
import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

if __name__ == "__main__":
    sys.modules["soak"] = sys.modules["__main__"]  # for thread_soak
    sys.path.insert(0, str(Path(__file__).parent.parent / "lifecycle"))

from cancelling import Rig, random_cancellations
from emulator_process import EmulatorProcess, open_sockets

from apex_llm import ApexLlmError, Timeout

TOTAL_SECONDS = 4.0
TIMEOUT = Timeout(connect=2.0, first_byte=1.0, idle=0.5, total=TOTAL_SECONDS)
SLACK_SECONDS = 0.5
"""On a busy machine; the deadline itself is kept by a timer."""
MOST_KEPT = 40.0
"""Blocks that each thousand calls may leave: at a hundred calls a second and sixty bytes a block, a MiB an hour."""
WARM_UP = 0.25
"""Of the time, at the beginning: caches fill, the allocator finds its size."""

PROMPTS = (
    ("plain words", 20),
    ("text 30 0.005", 30),
    ("text 10 0.05", 10),
    ("cut 3 0.005", 5),
    ("cut 20 0.005", 5),
    ("reset 1 0", 4),
    ("reset 10 0.005", 5),
    ("stall 0", 2),
    ("stall 6", 3),
    ("truncated 0.002", 5),
    ("throttle", 4),
    ("inside 0 throttled", 3),
    ("inside 5 internal", 4),
    ("error internal", 2),
    ("error unavailable", 2),
    ("error validation", 2),
    ("error content_filter", 1),
)


def _doubles() -> array[float]:
    return array("d")


def _integers() -> array[int]:
    return array("q")


@dataclass
class Report:
    """What was counted."""

    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    untyped: list[str] = field(default_factory=list[str])
    late: list[str] = field(default_factory=list[str])
    times: array[float] = field(default_factory=_doubles)
    """Seconds since the beginning of each look at memory. Arrays, so that what is counted does not grow by counting."""
    sizes: array[float] = field(default_factory=_doubles)
    """MiB resident between two rounds, when nothing runs. While calls run it follows their number a second, which on a
    shared machine says nothing."""
    busy_memory: float = 0.0
    """The most while all were busy."""
    sockets: array[int] = field(default_factory=_integers)
    sockets_before: int = 0
    sockets_after: int = 0
    blocks: array[int] = field(default_factory=_integers)
    """What Python has allocated between two rounds: a leak of ours shows here, an allocator's habits do not."""
    stalled: float = 0.0
    """Seconds in which the machine gave this loop no time, all together. No deadline can be kept in them."""
    lags: list[float] = field(default_factory=list[float])
    """How much later than asked for the heartbeat came, in seconds; the last thousand."""
    latest: float = 0.0
    """The most of all of them."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """For those who count from several threads."""

    def look(self, time: float) -> None:
        """Count what is kept while nothing runs, ``time`` seconds after the beginning."""
        self.times.append(time)
        self.sizes.append(resident_at_rest())
        self.blocks.append(sys.getallocatedblocks())

    @property
    def warm(self) -> list[tuple[float, float]]:
        """Memory after the warm-up."""
        return [sample for sample in zip(self.times, self.sizes, strict=True) if sample[0] > WARM_UP * self.seconds]

    @property
    def slope(self) -> float:
        """MiB an hour: least squares over what follows the warm-up."""
        warm = self.warm
        return statistics.linear_regression(*zip(*warm, strict=True)).slope * 3600 if len(warm) > 2 else 0.0

    @property
    def curve(self) -> str:
        """About ten sizes from beginning to end: a leak is a line, an allocator levels off."""
        step = max(1, len(self.sizes) // 10)
        return " ".join(f"{size:.2f}" for size in self.sizes[::step])

    @property
    def kept(self) -> float:
        """Blocks that each thousand calls leave behind, after the warm-up."""
        late = self.blocks[int(len(self.blocks) * WARM_UP) :]
        if len(late) < 3:
            return 0.0
        calls = self.outcomes.total() / len(self.blocks)
        return statistics.linear_regression(range(len(late)), late).slope / calls * 1000

    @property
    def growth(self) -> float:
        """MiB from the end of the first round to the end of the last."""
        return self.sizes[-1] - self.sizes[0]

    def __str__(self) -> str:
        sizes = [size for _, size in self.warm] or [0.0]
        counts = ", ".join(f"{name} {times}" for name, times in self.outcomes.most_common())
        lags = sorted(self.lags)
        heartbeat = (
            f"heartbeat: {lags[len(lags) // 2] * 1000:.1f} ms late at the median, {self.latest * 1000:.0f} at most; "
            f"the machine gave no time for {self.stalled:.1f} s in all"
            if lags
            else "no heartbeat: no loop of ours"
        )
        return "\n".join(
            (
                f"{self.outcomes.total()} calls in {self.seconds:.0f} s: {counts}",
                (
                    f"resident memory between rounds: {sizes[0]:.2f} MiB after warm-up, {sizes[-1]:.2f} at the end, "
                    f"slope {self.slope:+.2f} MiB an hour; {self.busy_memory:.1f} MiB at most while busy\n"
                    f"  {self.curve}\n"
                    f"  of Python's own: {self.blocks[0]} blocks after the first round, {self.blocks[-1]} at the end, "
                    f"{self.kept:+.1f} with each thousand calls after warm-up"
                ),
                (
                    f"sockets: {self.sockets_before} before, {min(self.sockets)} to {max(self.sockets)} meanwhile, "
                    f"{self.sockets_after} after"
                ),
                heartbeat,
                f"untyped errors: {len(self.untyped)}{''.join(f'{chr(10)}  {text}' for text in self.untyped[:5])}",
                f"calls past their deadline: {len(self.late)} {' '.join(self.late[:10])}",
            )
        )


async def soak(
    environment: dict[str, str], *, seconds: float, round_seconds: float = 15.0, streams: int = 50, seed: int = 1
) -> Report:
    """``streams`` calls at a time for ``seconds``, in rounds with a moment of rest between them."""
    report = Report(seconds=seconds, sockets_before=open_sockets())
    loop = asyncio.get_running_loop()
    began = loop.time()
    # A few fewer slots than streams, so that the queue is used as well.
    async with Rig(environment, slots=streams - streams // 10) as rig:
        providers = [provider.with_options(timeout=TIMEOUT) for provider in rig.providers.values()]
        dice = [Random(f"{seed}:{number}") for number in range(streams)]
        watcher = asyncio.ensure_future(_watch(report))
        rig.background.add(watcher)
        while (now := loop.time()) < began + seconds:
            until = min(now + round_seconds, began + seconds)
            await asyncio.gather(*(_work(report, providers, each, until) for each in dice))
            await rig.come_to_rest()
            for provider in providers:  # how many connections a round leaves in the pools is chance
                await provider.aclose()
            report.look(loop.time() - began)
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
    await asyncio.sleep(0.1)
    report.seconds = loop.time() - began
    report.sockets_after = open_sockets()
    return report


async def _work(report: Report, providers: list[Any], dice: Random, until: float) -> None:
    loop = asyncio.get_running_loop()
    prompts, weights = zip(*PROMPTS, strict=True)
    while (began := loop.time()) < until:
        stalled = report.stalled
        (prompt,) = dice.choices(prompts, weights)
        pause = _Pause(loop)
        try:
            outcome = await _call(dice.choice(providers), prompt, dice, pause)
        except ApexLlmError as error:
            outcome = type(error).__name__
        except TimeoutError:
            outcome = "left by the caller"
        except Exception as error:
            outcome = "untyped"
            report.untyped.append(f"{prompt}: {error!r}")
        report.outcomes[outcome] += 1
        # What was handed over already is read on after the deadline, as slowly as the reader likes.
        took = loop.time() - began - pause.slept - (report.stalled - stalled)
        if took > TOTAL_SECONDS + SLACK_SECONDS:
            report.late.append(f"{prompt}: {took:.2f} s;")


class _Pause:
    """A reader that takes its time, and knows how long it took."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.slept = 0.0

    async def __call__(self, seconds: float) -> None:
        began = self._loop.time()
        await asyncio.sleep(seconds)
        self.slept += self._loop.time() - began


async def _call(provider: Any, prompt: str, dice: Random, pause: _Pause) -> str:
    kind = dice.random()
    if kind < 0.15:
        await provider.generate_text(prompt)
        return "answered"
    if kind < 0.25:
        async with asyncio.timeout(dice.random() * 0.1):
            await provider.chat_stream(prompt).collect()
        return "finished"
    leave_after = dice.randrange(1, 10) if kind < 0.35 else None
    async with provider.generate_text_stream(prompt) as stream:
        number = 0
        async for _ in stream:
            number += 1
            if number == leave_after:
                return "left early"
            if kind > 0.9:
                await pause(0.01)
    return "finished"


async def _watch(report: Report) -> None:
    """The heartbeat, and once a second memory and sockets while all are busy."""
    loop = asyncio.get_running_loop()
    sampled = 0.0
    while True:
        asked, busy = loop.time(), time.thread_time()
        await asyncio.sleep(0.02)
        lag = loop.time() - asked - 0.02
        report.lags.append(lag)
        report.latest = max(report.latest, lag)
        report.stalled += max(0.0, lag - (time.thread_time() - busy))
        if loop.time() - sampled >= 1.0:
            sampled = loop.time()
            del report.lags[:-1000]  # what is counted must not grow by counting
            report.busy_memory = max(report.busy_memory, resident())
            report.sockets.append(open_sockets())


def resident_at_rest() -> float:
    """What is left when the collector and the allocator have given back what they held for the next call."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident()


def resident() -> float:
    """MiB; 0 where there is no ``/proc``."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def _cancel(environment: dict[str, str], count: int) -> None:
    before, began = open_sockets(), time.monotonic()
    async with Rig(environment) as rig:
        outcomes = await random_cancellations(rig, count, seed=11)
        kept = rig.connections[0]
    counts = ", ".join(f"{name} {times}" for name, times in outcomes.most_common())
    print(
        f"{count} cancellations in {time.monotonic() - began:.0f} s: {counts}; at rest after each sixteen, "
        f"{kept} connections pooled at the end, sockets {before} before and {open_sockets()} after",
        flush=True,
    )
    assert open_sockets() == before


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description="Soak: streams with random faults, and cancellations.")
    parser.add_argument("minutes", type=float, nargs="?", default=30.0)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cancellations", type=int, default=10_000)
    parser.add_argument("--thread-minutes", type=float, help="for the blocking twin; a sixth of minutes if left out")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--round-seconds", type=float, help="how often all calls end and memory is looked at")
    parser.add_argument("--most-growth", type=float, help="MiB from the first look at memory to the last")
    parser.add_argument("--least-finished", type=int, default=1, help="streams and calls that must have ended well")
    options = parser.parse_args()
    from thread_soak import soak_threads  # which takes its faults from here

    with EmulatorProcess() as server:
        if options.cancellations:
            asyncio.run(_cancel(server.environment, options.cancellations))
            gc.collect()
        rounds = {} if options.round_seconds is None else {"round_seconds": options.round_seconds}
        report = asyncio.run(
            soak(server.environment, seconds=options.minutes * 60, streams=options.streams, seed=options.seed, **rounds)
        )
        print(report, flush=True)
        minutes = options.minutes / 6 if options.thread_minutes is None else options.thread_minutes
        if minutes:
            blocking = soak_threads(
                server.environment, seconds=minutes * 60, threads=options.threads, seed=options.seed, **rounds
            )
            print(f"\nThe blocking twin, {options.threads} threads:\n{blocking}")
    reports = [report, blocking] if minutes else [report]
    grew = options.most_growth is not None and any(each.growth > options.most_growth for each in reports)
    idle = report.outcomes["finished"] < options.least_finished
    return 1 if grew or idle or any(map(_bad, reports)) else 0


def _bad(report: Report) -> bool:
    # Python takes memory from the system by the MiB and seldom gives one back: one more is a slope of two an hour in
    # half an hour, with nothing leaked. A leak goes on, so what is kept for each call decides before an hour is over.
    leaks = report.seconds >= 600 and report.kept > MOST_KEPT
    grew = report.seconds >= 3600 and report.slope > 1.0
    return bool(report.untyped or report.late or leaks or grew or report.sockets_after > report.sockets_before)


if __name__ == "__main__":
    sys.exit(main())
