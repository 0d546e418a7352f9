"""What does one call cost that is not streamed, one at a time and a hundred at a time?"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio
from functools import partial

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import calls, closed, loaded

_WIDTHS = {"one": 1, "hundred": 100}
_MODEL = "bench.call"


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: microseconds of CPU for a call."""

    async def main() -> Figures:
        figures: Figures = {}
        client = clients.make(case.wire, case.variant, clients.Target(host.port, width=max(_WIDTHS.values())))
        for name, width in _WIDTHS.items():
            load = partial(_load, client, width)
            figures[f"{case.wire}_{name}"] = await loaded(load, plan=plan, port=host.port, width=width)
        await closed(client)
        return figures

    return asyncio.run(main())


async def _load(client: object, width: int, count: int) -> None:
    await calls(client, _MODEL, count=count, width=width)


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="call",
    question="CPU time of the client for one call that is not streamed",
    unit="µs",
    metrics={
        "bedrock_one": "Bedrock, one at a time",
        "bedrock_hundred": "Bedrock, 100 at a time",
        "azure_one": "Azure, one at a time",
        "azure_hundred": "Azure, 100 at a time",
    },
    cases=clients.cases("bedrock", "azure"),
    measure=_measure,
)
