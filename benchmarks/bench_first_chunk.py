"""How long does the client itself make one wait for the first piece of a stream?"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio
import statistics

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import closed, first_pieces

_MODEL = "bench.burst-16"
_WARM_UP = 20


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: the median in microseconds, streams one after the other on a warm connection."""

    async def main() -> Figures:
        client = clients.make(case.wire, case.variant, clients.Target(host.port))
        warm = await first_pieces(client, _MODEL, count=min(_WARM_UP, plan.most))
        count = int(min(max(plan.seconds / statistics.median(warm), 30), 2000, plan.most))
        waits = sorted(await first_pieces(client, _MODEL, count=count))
        await closed(client)
        return {
            f"{case.wire}_first": {
                "value": round(statistics.median(waits) * 1e6, 1),
                "p90": round(waits[int(len(waits) * 0.9)] * 1e6, 1),
                "units": count,
            }
        }

    return asyncio.run(main())


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="first_chunk",
    question="Time from the call to the first piece of its stream, median",
    unit="µs",
    metrics={"bedrock_first": "Bedrock", "azure_first": "Azure"},
    cases=clients.cases("bedrock", "azure"),
    measure=_measure,
)
