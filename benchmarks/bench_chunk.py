"""What does one piece of a stream cost when its bytes are already there: one stream, and fifty?"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import asyncio
from functools import partial

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import closed, loaded, pieces_of, streams, us_per_piece

_WIDTHS = {"one": 1, "fifty": 50}
_SHORT = "bench.burst-16"


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: microseconds of CPU for a piece of text, the opening of its stream included."""

    async def main() -> Figures:
        figures: Figures = {}
        client = clients.make(case.wire, case.variant, clients.Target(host.port, width=max(_WIDTHS.values())))
        for name, width in _WIDTHS.items():
            warm_up = partial(_load, client, _SHORT, width)
            await warm_up(width)
            pieces = plan.pieces
            if width > 1 and await us_per_piece(client) * pieces * width > plan.long_seconds * 1e6:
                pieces //= 5
            figure = await loaded(
                partial(_load, client, f"bench.burst-{pieces}", width),
                plan=plan,
                port=host.port,
                width=width,
                units=pieces,
                warm_up=warm_up,
            )
            figures[f"{case.wire}_{name}"] = {**figure, "stream": pieces}
        await closed(client)
        return figures

    return asyncio.run(main())


async def _load(client: object, model: str, width: int, count: int) -> None:
    await streams(client, model, count=count, width=width, pieces=pieces_of(model.removeprefix("bench.")))


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="chunk",
    question="CPU time of the client for one piece of a stream that is sent at once",
    unit="µs",
    metrics={
        "bedrock_one": "Bedrock, one stream",
        "bedrock_fifty": "Bedrock, 50 streams",
        "azure_one": "Azure, one stream",
        "azure_fifty": "Azure, 50 streams",
    },
    cases=clients.cases("bedrock", "azure"),
    measure=_measure,
)
