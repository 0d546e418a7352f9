"""What do the blocking twins cost beside the asynchronous client: a call, and a piece of a fast stream?"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import call_and_piece, closed


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: microseconds of CPU, all threads, one call or stream at a time."""

    async def main() -> Figures:
        client = clients.make(case.wire, case.variant, clients.Target(host.port))
        figures = await call_and_piece(client, case.wire, plan=plan, port=host.port, width=1)
        await closed(client)
        return figures

    # The blocking twins run on a loop and a thread of their own, whatever runs here.
    return asyncio.run(main())


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="sync",
    question="CPU time of the blocking twins, one at a time",
    unit="µs",
    metrics={
        "bedrock_call": "Bedrock, a call",
        "bedrock_piece": "Bedrock, a piece of a fast stream",
        "azure_call": "Azure, a call",
        "azure_piece": "Azure, a piece of a fast stream",
    },
    cases=clients.cases("bedrock", "azure", only=("apex_llm", "apex_llm.sync", "boto3")),
    measure=_measure,
)
