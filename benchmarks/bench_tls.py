"""What do a call and a piece of a stream cost over TLS, from a server whose authority was made for the run?"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import call_and_piece, closed

_WIDTH = 20


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child, where every client trusts the authority: microseconds of CPU on connections that are open."""

    async def main() -> Figures:
        target = clients.Target(host.tls_port, width=_WIDTH, tls=True)
        client = clients.make(case.wire, case.variant, target)
        figures = await call_and_piece(client, case.wire, plan=plan, port=host.port, width=_WIDTH)
        await closed(client)
        return figures

    return asyncio.run(main())


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    if not host.tls_port:
        raise RuntimeError("There is no TLS server: trustme is not installed.")
    return in_child(__name__, case, plan, host, tls=True)


BENCHMARK = Benchmark(
    name="tls",
    question="CPU time of the client over TLS",
    unit="µs",
    metrics={
        "bedrock_call": "Bedrock, a call, 20 at a time",
        "bedrock_piece": "Bedrock, a piece, one stream",
        "azure_call": "Azure, a call, 20 at a time",
        "azure_piece": "Azure, a piece, one stream",
    },
    cases=clients.cases(
        "bedrock",
        "azure",
        only=("apex_llm", "limit", "aiohttp", "httpx", "boto3", "aiobotocore", "anthropic", "openai"),
    ),
    measure=_measure,
)
