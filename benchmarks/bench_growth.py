"""Does what a piece costs stay the same as a stream grows longer, and as more streams are open?

The exponent is the slope of the whole CPU time over the length of a stream, or over the number of open ones, in a plot
of logarithms: 1 is linear, 2 quadratic. With open streams it may be below 1, since pieces that arrive together
share a wake-up. Memory is the most that the process had above what it had before the stream, or streams.
"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import closed, resident_kb, streams, tidy, us_per_piece
from benchmarks.slow import GivenUpError, slow_streams

_PEERS = ("apex_llm", "limit", "aiobotocore", "boto3", "anthropic", "openai")
_LOOK_EVERY = 500


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: the exponents, and what they are made of."""

    async def main() -> Figures:
        target = clients.Target(host.port, width=max(plan.widths))
        client = clients.make(case.wire, case.variant, target)
        await streams(client, "bench.burst-16", count=5, width=1, pieces=16)
        figures = {f"{case.wire}_length": await _lengths(client, plan)}
        if not client.blocking:
            figures[f"{case.wire}_streams"] = await _widths(client, case.wire, plan, host)
        await closed(client)
        return figures

    return asyncio.run(main())


async def _lengths(client: Any, plan: Plan) -> dict[str, float]:
    each = await us_per_piece(client)
    found: dict[str, float] = {}
    costs: dict[int, float] = {}
    for length in plan.lengths:
        # The server makes a stream when it is first asked for it.
        await _read(client, length, 1)
        if costs and each * length > plan.long_seconds * 1e6:
            break
        count = max(1, int(min(max(plan.lengths) // 10, plan.seconds * 1e6 / each) // length))
        tidy(plan)
        before = resident_kb()
        began = time.process_time()
        peak = await _read(client, length, count)
        each = (time.process_time() - began) / (count * length) * 1e6
        costs[length] = each * length
        found[f"us_{length}"] = round(each, 3)
        found[f"kb_{length}"] = round(max(0.0, peak - before), 0)
    return {"value": _exponent(costs), **found}


async def _read(client: Any, length: int, count: int) -> float:
    """Read so many streams one after the other; the most memory that was seen on the way."""
    model = f"bench.burst-{length}"
    peak = seen = 0
    for _ in range(count):
        if client.blocking:
            for _ in client.texts(model):
                seen += 1
                if not seen % _LOOK_EVERY:
                    peak = max(peak, resident_kb())
        else:
            async for _ in client.texts(model):
                seen += 1
                if not seen % _LOOK_EVERY:
                    peak = max(peak, resident_kb())
    if seen != length * count:
        raise RuntimeError(f"Streams gave {seen} pieces of {length * count}.")
    return peak


async def _widths(client: Any, wire: str, plan: Plan, host: Host) -> dict[str, float]:
    found: dict[str, float] = {}
    costs: dict[int, float] = {}
    for width in plan.widths:
        tidy(plan)
        try:
            taken = await slow_streams(
                client, wire=wire, mode=plan.slow_mode, count=width, seconds=plan.slow_seconds, port=host.port
            )
        except GivenUpError:
            break
        costs[width] = taken["cpu"]
        pieces = width * int(plan.slow_mode.partition("-")[2].partition("x")[0])
        found[f"us_{width}"] = round(taken["cpu"] / pieces * 1e6, 3)
        found[f"kb_{width}"] = taken["memory_kb"]
    return {"value": _exponent(costs), **found}


def _exponent(costs: Mapping[int, float]) -> float:
    """The slope of the line through the logarithms, by least squares."""
    points = [(math.log(size), math.log(cost)) for size, cost in costs.items() if cost > 0]
    if len(points) < 2:
        return 1.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return round(sum((x - middle_x) * (y - middle_y) for x, y in points) / spread, 3)


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="growth",
    question="Exponent with which the CPU time of the client grows",
    unit="",
    metrics={
        "bedrock_length": "Bedrock, with the length of a stream",
        "bedrock_streams": "Bedrock, with the number of open streams",
        "azure_length": "Azure, with the length of a stream",
        "azure_streams": "Azure, with the number of open streams",
    },
    cases=clients.cases("bedrock", "azure", only=_PEERS),
    measure=_measure,
)
