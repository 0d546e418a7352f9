"""What does a piece cost that comes alone: one event a write, each with a wake-up of its own?

Twenty streams send a piece every 10 ms and are opened half a millisecond apart, so that each piece finds the client
asleep. ``bare`` is a connection that wakes a future for each read and decodes nothing: what the system and the event
loop take for a wake-up, whoever is woken. The CPU time is taken between the fifteenth and the eighty-fifth piece of a
hundred, so that openings and ends are left out. How many reads there were for each piece of ``bare`` shows whether
every piece did have a wake-up of its own.
"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio
import math
import threading
import time
from typing import Any

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import closed, pieces_of, server_told, streams, tidy

_WIDTH = 20
_APART = 0.0005
_WINDOW = (0.15, 0.85)


class _Window:
    """CPU time and wall time between two counts of pieces, over all streams."""

    def __init__(self, *, total: int, port: int) -> None:
        self.first, self.last = (int(total * part) for part in _WINDOW)
        self.seen = self.reads = 0
        self.next: float = self.first
        self.marks: list[tuple[int, float, float, float]] = []
        self._port = port

    def count(self, pieces: int = 1) -> None:
        self.seen = seen = self.seen + pieces
        if seen >= self.next:
            self.next = self.last if self.next == self.first < self.last else math.inf
            server, _ = server_told(self._port)
            self.marks.append((seen, time.process_time(), time.perf_counter(), server))

    def figures(self) -> dict[str, float]:
        if len(self.marks) != 2:
            raise RuntimeError(f"{self.seen} pieces were seen, {self.last} expected.")
        (first, cpu, wall, server), (last, cpu_end, wall_end, server_end) = self.marks
        return {
            "value": round((cpu_end - cpu) / (last - first) * 1e6, 2),
            "units": last - first,
            "server_busy": round((server_end - server) / (wall_end - wall), 3),
        }


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: microseconds of CPU for a piece."""
    pieces = pieces_of(plan.paced)
    total = _WIDTH * pieces

    async def main() -> Figures:
        client = clients.make(case.wire, case.variant, clients.Target(host.port, width=_WIDTH))
        await streams(client, "bench.burst-16", count=2 * _WIDTH, width=_WIDTH, pieces=16)
        window = _Window(total=total, port=host.port)
        tidy(plan)
        if client.blocking:
            await asyncio.to_thread(_in_threads, client, f"bench.{plan.paced}", window)
        else:
            async with asyncio.TaskGroup() as tasks:
                for number in range(_WIDTH):
                    tasks.create_task(_one(client, f"bench.{plan.paced}", window, after=number * _APART, pieces=pieces))
        await closed(client)
        figures = window.figures()
        if not client.decodes:
            figures["reads_per_piece"] = round(window.reads / total, 3)
        return {f"{case.wire}_paced": figures}

    return asyncio.run(main())


async def _one(client: Any, model: str, window: _Window, *, after: float, pieces: int) -> None:
    await asyncio.sleep(after)
    count = window.count
    if client.decodes:
        async for _ in client.texts(model):
            count()
        return
    reads = 0
    async for _ in client.texts(model):
        reads += 1
        if reads <= pieces:
            count()
    # Pieces that came together with others.
    count(max(0, pieces - reads))
    window.reads += reads


def _in_threads(client: Any, model: str, window: _Window) -> None:
    lock = threading.Lock()

    def one(after: float) -> None:
        time.sleep(after)
        for _ in client.texts(model):
            with lock:
                window.count()

    threads = [threading.Thread(target=one, args=(number * _APART,)) for number in range(_WIDTH)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="paced",
    question="CPU time of the client for one piece that comes alone, with a wake-up of its own",
    unit="µs",
    metrics={"bedrock_paced": "Bedrock", "azure_paced": "Azure"},
    cases=clients.cases("bedrock", "azure", only=("apex_llm", "bare", *clients.FLOORS, *clients.PEERS)),
    measure=_measure,
)
