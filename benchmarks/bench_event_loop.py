"""For how long does the event loop stand still while streams run, credentials refresh and aiobotocore is imported?

A heartbeat asks to be woken every two milliseconds; its longest gap is how long any other task of the
application would have waited. The client may use one core only, so what runs in its threads is felt here
as it is on a busy machine. Beside the gap on the wall clock stands the longest one in CPU time of this
process: other people's processes lengthen the first, and cannot lengthen the second.
"""

from __future__ import annotations

__all__ = ["BENCHMARK", "Heartbeat", "measure_here"]

import asyncio
import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from benchmarks import clients
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import pieces_of, streams

_BEAT = 0.002
_APART = 0.005
_BLOCKING_SECONDS = 0.1
_REFRESHING = 4


class Heartbeat:
    """Keeps the gaps between beats, in seconds of wall time and of this process's CPU time; a context manager."""

    def __init__(self, *, interval: float = _BEAT) -> None:
        self.gaps: list[float] = []
        self.cpu_gaps: list[float] = []
        self._interval = interval

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat())
        await asyncio.sleep(10 * self._interval)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.sleep(0)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _beat(self) -> None:
        last, last_cpu = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(self._interval)
            now, cpu = time.perf_counter(), time.process_time()
            self.gaps.append(now - last)
            self.cpu_gaps.append(cpu - last_cpu)
            last, last_cpu = now, cpu


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: the longest gap in milliseconds, and what came along with it."""
    heartbeat = asyncio.run(_watched(case.variant, plan, host.port))
    if case.variant.endswith("import") and "aiobotocore" not in sys.modules:
        raise RuntimeError("aiobotocore was not imported.")
    gaps = sorted(heartbeat.gaps)
    return {
        "gap": {
            "value": round(gaps[-1] * 1000, 2),
            "cpu": round(max(heartbeat.cpu_gaps) * 1000, 2),
            "p99": round(gaps[int(len(gaps) * 0.99)] * 1000, 2),
            "units": len(gaps),
        }
    }


async def _watched(variant: str, plan: Plan, port: int) -> Heartbeat:
    wanted = set(variant.split(", "))
    # An application imports its client before its loop runs; what the client loads later is its own affair.
    name = "aiobotocore" if "aiobotocore" in wanted else "apex_llm"
    client = clients.make("bedrock", name, clients.Target(port, width=plan.streams))
    async with Heartbeat() as heartbeat:
        if variant == "heartbeat alone":
            await asyncio.sleep(1)
            return heartbeat
        async with asyncio.TaskGroup() as tasks:
            for number in range(plan.streams):
                after = 0.0 if "at once" in wanted else number * _APART
                tasks.create_task(_streamed(client, plan.trickle, after=after))
            if "refresh" in wanted:
                for number in range(_REFRESHING):
                    tasks.create_task(_refreshed(port, after=0.4 * (number + 1)))
            if "import" in wanted:
                tasks.create_task(_imported(port, after=1.0))
        await client.close()
    return heartbeat


async def _streamed(client: Any, mode: str, *, after: float) -> None:
    await asyncio.sleep(after)
    await streams(client, f"bench.{mode}", count=1, width=1, pieces=pieces_of(mode))


def _provider(port: int, **options: Any) -> Any:
    from apex_llm import BedrockProvider

    return BedrockProvider(endpoint_url=f"http://127.0.0.1:{port}", aws_region=clients.REGION, **options)


async def _refreshed(port: int, *, after: float) -> None:
    """A provider whose callback blocks, and whose credentials are due for a refresh as soon as they are there."""
    asked = 0

    def callback() -> dict[str, str]:
        nonlocal asked
        asked += 1
        time.sleep(_BLOCKING_SECONDS)
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 840))
        return {**clients.CREDENTIALS, "expiration": expiry}

    await asyncio.sleep(after)
    async with _provider(port, credentials=callback) as provider:
        for _ in range(5):
            await provider.generate_text("Hi", "bench.call")
            await asyncio.sleep(_BLOCKING_SECONDS)
    if asked < 2:
        raise RuntimeError("The credentials were not refreshed.")


async def _imported(port: int, *, after: float) -> None:
    """A profile that only aiobotocore can serve, which is imported for it."""
    await asyncio.sleep(after)
    keys = {"Version": 1, "AccessKeyId": clients.ACCESS_KEY_ID, "SecretAccessKey": clients.SECRET_ACCESS_KEY}
    with tempfile.TemporaryDirectory() as folder:
        command = f"{shlex.quote(sys.executable)} -S -c {shlex.quote(f'print({json.dumps(json.dumps(keys))})')}"
        config = Path(folder) / "config"
        config.write_text(f"[profile bench]\ncredential_process = {command}\n", "utf-8")
        os.environ["AWS_CONFIG_FILE"] = str(config)
        async with _provider(port, profile="bench") as provider:
            await provider.generate_text("Hi", "bench.call")


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="event_loop",
    question="Longest gap of a heartbeat beside streams",
    unit="ms",
    metrics={"gap": "Longest gap"},
    cases=(
        Case("", "heartbeat alone"),
        Case("", "streams"),
        Case("", "streams, at once"),
        Case("", "streams, refresh"),
        Case("", "streams, refresh, import", "aiobotocore"),
        Case("", "aiobotocore", "aiobotocore", "aiobotocore"),
    ),
    measure=_measure,
)
