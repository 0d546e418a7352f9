"""What does one piece of a stream cost: one stream, fifty in bursts, and fifty that trickle as in production?"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio
from functools import partial

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import loaded, pieces_of, streams

_WIDTHS = {"one": 1, "fifty": 50}
_SHORT = "bench.burst-16"


def measure_here(case: Case, plan: Plan, port: int) -> Figures:
    """In the child: microseconds of CPU for a piece of text, the opening of its stream included."""

    async def main() -> Figures:
        figures: Figures = {}
        client = clients.make(case.wire, case.variant, port=port, width=max(_WIDTHS.values()))
        for name, width in _WIDTHS.items():
            figures[f"{case.wire}_{name}"] = await loaded(
                partial(_load, client, f"bench.burst-{plan.pieces}", width),
                plan=plan,
                port=port,
                width=width,
                units=plan.pieces,
                warm_up=partial(_load, client, _SHORT, width),
            )
        width = _WIDTHS["fifty"]
        figures[f"{case.wire}_paced"] = await loaded(
            partial(_load, client, f"bench.{plan.paced}", width),
            plan=plan,
            port=port,
            width=width,
            units=pieces_of(plan.paced),
            count=width,
            warm_up=partial(_load, client, _SHORT, width),
        )
        if not client.blocking:
            await client.close()
        return figures

    return asyncio.run(main())


async def _load(client: object, model: str, width: int, count: int) -> None:
    await streams(client, model, count=count, width=width, pieces=pieces_of(model.removeprefix("bench.")))


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="chunk",
    question="CPU time of the client for one piece of a stream",
    unit="µs",
    metrics={
        "bedrock_one": "Bedrock, one stream, burst",
        "bedrock_fifty": "Bedrock, 50 streams, burst",
        "bedrock_paced": "Bedrock, 50 streams, a piece every 10 ms",
        "azure_one": "Azure, one stream, burst",
        "azure_fifty": "Azure, 50 streams, burst",
        "azure_paced": "Azure, 50 streams, a piece every 10 ms",
    },
    cases=clients.cases("bedrock", "azure", without=("httpx, signed",)),
    measure=_measure,
)
