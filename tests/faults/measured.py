"""What faults cost the client: measured in a process of its own, so that no byte or second of the server's is in it.

Run as a program by ``measure``; the emulator stays with the test.
"""

from __future__ import annotations

__all__ = ["Cost", "measure"]

import asyncio
import contextlib
import gc
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fault_cases import FULL_TEXT, Column, make

from apex_llm import ApexLlmError
from apex_llm.emulator import Emulator


@dataclass
class Cost:
    """What one call has cost."""

    error: str = ""
    """The error's class, or its cause's; empty for an answer."""
    text: str = ""
    peak: int = 0
    """Bytes of resident memory at the worst moment, beyond those before the call."""
    cpu_seconds: float = 0.0
    blocked_seconds: float = 0.0
    """The most CPU time of the event loop's thread between two beats of a heart. Not time of day: that a busy
    machine does not run the thread is not the loop being blocked."""


def measure(emulator: Emulator, column: Column, plays: Sequence[tuple[Any, str]]) -> list[Cost]:
    """Play each fault to one call of its kind, one after the other, in a fresh process that has made two good calls.

    Those that may cost much go last: freed memory that the allocator kept would hide what follows.
    """
    emulator.reset()
    emulator.script(FULL_TEXT, FULL_TEXT)
    for fault, _ in plays:
        emulator.fault(fault, FULL_TEXT)
    done = subprocess.run(
        [sys.executable, __file__, column.twin, column.sender, column.wire, *(call for _, call in plays)],
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Cost(**cost) for cost in json.loads(done.stdout)]


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


@contextlib.contextmanager
def _watched(cost: Cost) -> Iterator[None]:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak starts anew
    before = _resident("VmRSS")
    began = time.process_time()
    try:
        yield
    except ApexLlmError as error:
        cost.error = type(error.__cause__ if isinstance(error.__cause__, ApexLlmError) else error).__name__
    cost.cpu_seconds = time.process_time() - began
    cost.peak = _resident("VmHWM") - before


def _blocking(column: Column, calls: Sequence[str]) -> list[Cost]:
    costs = [Cost() for _ in calls]
    with make(column, retry=None) as provider:

        def once(kind: str) -> str:
            if kind == "whole":
                return provider.generate_text("Hi")
            with provider.generate_text_stream("Hi") as stream:
                return "".join(stream)

        _warm([once("whole"), once("stream")])
        for cost, call in zip(costs, calls, strict=True):
            with _watched(cost):
                cost.text = once(call)
    return costs


async def _asynchronous(column: Column, calls: Sequence[str], client: Any) -> list[Cost]:
    costs = [Cost() for _ in calls]
    async with make(column, client=client, retry=None) as provider:

        async def once(kind: str) -> str:
            if kind == "whole":
                return await provider.generate_text("Hi")
            async with provider.generate_text_stream("Hi") as stream:
                return "".join([piece async for piece in stream])

        _warm([await once("whole"), await once("stream")])
        for cost, call in zip(costs, calls, strict=True):
            beats = [time.thread_time()]
            heart = asyncio.ensure_future(_beat(beats.append))
            with _watched(cost):
                await asyncio.sleep(0)
                cost.text = await once(call)
            heart.cancel()
            beats.append(time.thread_time())
            cost.blocked_seconds = max(later - earlier for earlier, later in itertools.pairwise(beats))
    return costs


async def _beat(tell: Callable[[float], None]) -> None:
    while True:
        tell(time.thread_time())
        await asyncio.sleep(0.001)


def _warm(texts: list[str]) -> None:
    assert texts == [FULL_TEXT, FULL_TEXT]


async def _with_httpx(column: Column, calls: Sequence[str]) -> list[Cost]:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:
        return await _asynchronous(column, calls, client)


def _main(column: Column, calls: Sequence[str]) -> list[Cost]:
    if column.twin == "sync":
        return _blocking(column, calls)
    return asyncio.run(_with_httpx(column, calls) if column.sender == "httpx" else _asynchronous(column, calls, None))


if __name__ == "__main__":
    print(json.dumps([asdict(cost) for cost in _main(Column(*sys.argv[1:4]), sys.argv[4:])]))
