"""What does a call cost that sends 200 KB of JSON, and one that gets a megabyte?

The text has lines, quotes and letters beyond ASCII, as documents have. Embeddings, the other large JSON that there is,
are not part of the public interface yet.
"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio
from functools import partial

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import calls, closed, loaded
from benchmarks.payloads import PROMPT, long_text

_REQUEST_BYTES = 200_000
_KINDS = {"request": (long_text(_REQUEST_BYTES), "bench.call"), "answer": (PROMPT, "bench.large-1000000")}


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: microseconds of CPU for a call, one at a time."""

    async def main() -> Figures:
        figures: Figures = {}
        for name, (prompt, model) in _KINDS.items():
            client = clients.make(case.wire, case.variant, clients.Target(host.port, prompt=prompt))
            load = partial(_load, client, model)
            figures[f"{case.wire}_{name}"] = await loaded(load, plan=plan, port=host.port, width=1)
            await closed(client)
        return figures

    return asyncio.run(main())


async def _load(client: object, model: str, count: int) -> None:
    await calls(client, model, count=count, width=1)


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="large_json",
    question="CPU time of the client for one call with large JSON",
    unit="µs",
    metrics={
        "bedrock_request": "Bedrock, request of 200 KB",
        "bedrock_answer": "Bedrock, answer of 1 MB",
        "azure_request": "Azure, request of 200 KB",
        "azure_answer": "Azure, answer of 1 MB",
    },
    cases=clients.cases(
        "bedrock",
        "azure",
        only=("apex_llm", "limit", "aiohttp", "httpx", "boto3", "aiobotocore", "anthropic", "openai"),
    ),
    measure=_measure,
)
