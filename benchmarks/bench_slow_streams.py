"""What happens when 1,000 slow streams are open at once, and 5,000: fifty pieces each, 20 ms apart?

All are opened in one go. The last piece is due a second later. Who has not got through after a minute is stopped, and
who took more than a fifth of that for 1,000 is not tried with 5,000. Only some are: boto3 and those that use it would
need as many threads, and the others would take minutes to say the same again.
"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio
from dataclasses import replace

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, finish, in_child
from benchmarks.load import closed, tidy
from benchmarks.slow import GivenUpError, slow_streams

_TRIED_WITH_MORE = ("apex_llm", "limit", "aiohttp", "httpx", "aiobotocore", "openai")
_SIZES = ("thousand", "five_thousand")


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: one number of streams."""
    (count,) = plan.slow
    metric = f"{case.wire}_{count}"

    async def main() -> Figures:
        client = clients.make(case.wire, case.variant, clients.Target(host.port, width=count))
        tidy(plan)
        try:
            figures = await slow_streams(
                client,
                wire=case.wire,
                mode=plan.slow_mode,
                count=count,
                seconds=plan.slow_seconds,
                port=host.port,
            )
        except GivenUpError as error:
            # Its threads may wait for streams that nobody reads any more.
            finish({metric: error.figures})
        await closed(client)
        return {metric: figures}

    return asyncio.run(main())


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    figures: Figures = {}
    taken = 0.0
    for name, count in zip(_SIZES, plan.slow, strict=False):
        metric = f"{case.wire}_{name}"
        if name == "five_thousand" and case.variant not in _TRIED_WITH_MORE:
            break
        if taken > plan.slow_seconds / 5:
            figures[metric] = {"value": plan.slow_seconds, "capped": 1, "untried": 1}
            break
        (measured,) = in_child(__name__, case, replace(plan, slow=(count,)), host).values()
        figures[metric] = measured
        taken = measured["value"]
    return figures


BENCHMARK = Benchmark(
    name="slow_streams",
    question="Many slow streams at once: time until the last one has ended",
    unit="s",
    metrics={
        "bedrock_thousand": "Bedrock, 1,000 streams",
        "bedrock_five_thousand": "Bedrock, 5,000 streams",
        "azure_thousand": "Azure, 1,000 streams",
        "azure_five_thousand": "Azure, 5,000 streams",
    },
    cases=(
        *clients.cases("bedrock"),
        *clients.cases("azure", only=("apex_llm", "limit", "openai", "litellm")),
    ),
    measure=_measure,
)
