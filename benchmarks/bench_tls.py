"""What do a call and a piece of a stream cost over TLS, from a server whose authority was made for the run?"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio
from functools import partial

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import calls, closed, loaded, pieces_of, streams

_WIDTH = 20


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child, where every client trusts the authority: microseconds of CPU on connections that are open."""

    async def main() -> Figures:
        target = clients.Target(host.tls_port, width=_WIDTH, tls=True)
        client = clients.make(case.wire, case.variant, target)
        figures = {
            f"{case.wire}_call": await loaded(partial(_calls, client), plan=plan, port=host.port, width=_WIDTH),
            f"{case.wire}_piece": await loaded(
                partial(_streams, client, f"bench.burst-{plan.pieces}"),
                plan=plan,
                port=host.port,
                width=1,
                units=plan.pieces,
                warm_up=partial(_streams, client, "bench.burst-16"),
            ),
        }
        await closed(client)
        return figures

    return asyncio.run(main())


async def _calls(client: object, count: int) -> None:
    await calls(client, "bench.call", count=count, width=_WIDTH)


async def _streams(client: object, model: str, count: int) -> None:
    await streams(client, model, count=count, width=1, pieces=pieces_of(model.removeprefix("bench.")))


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
