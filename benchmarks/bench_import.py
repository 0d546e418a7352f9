"""What does an import cost over a bare interpreter?"""

from __future__ import annotations

__all__ = ["BENCHMARK", "HEAVY", "best_of", "heavy_modules"]

import os
import time
from collections.abc import Callable

from benchmarks.clients import case_of
from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, spawn

HEAVY = ("httpx", "pydantic", "botocore", "asyncio")
"""What ``import apex_llm`` must not load."""

_STATEMENTS = {
    "python": "pass",
    "apex_llm": "import apex_llm",
    "apex_llm, a provider": "from apex_llm import BedrockProvider",
    "asyncio": "import asyncio, ssl",
    "httpx": "import httpx",
    "httpx2": "import httpx2",
    "aiohttp": "import aiohttp",
    "boto3": "import boto3",
    "aiobotocore": "import aiobotocore.session",
    "openai": "import openai",
    "anthropic": "import anthropic",
    "langchain-aws": "from langchain_aws import ChatBedrockConverse",
    "pydantic-ai": "from pydantic_ai.models.bedrock import BedrockConverseModel",
    "litellm": "import litellm",
}
_ENOUGH_SECONDS = 3.0


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return {"import": best_of(plan.starts, lambda: _one(case, host))}


def best_of(starts: int, one: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The shortest of so many processes; of fewer, if they take long."""
    runs: list[dict[str, float]] = []
    while len(runs) < starts and sum(run["value"] for run in runs) < _ENOUGH_SECONDS * 1000:
        runs.append(one())
    return min(runs, key=lambda run: run["value"])


def _one(case: Case, host: Host) -> dict[str, float]:
    statement = _STATEMENTS[case.variant]
    began = time.perf_counter()
    child = spawn(["-c", statement], environ=host.environ, environment=case.environment)
    # wait4 tells what the child used, which a wait by subprocess would throw away.
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    errors = child.communicate()[1]
    if child.returncode:
        raise RuntimeError(f"{statement!r} failed:\n{errors}")
    return {
        "value": round(wall * 1000, 2),
        "cpu": round((usage.ru_utime + usage.ru_stime) * 1000, 2),
    }


def heavy_modules(host: Host) -> list[str]:
    """Which of ``HEAVY`` a fresh ``python -X importtime -c 'import apex_llm'`` loads; none, if all is well."""
    child = spawn(["-X", "importtime", "-c", "import apex_llm"], environ=host.environ)
    _, told = child.communicate()
    if child.returncode:
        raise RuntimeError(told)
    loaded = {line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")}
    return sorted(name for name in HEAVY if any(f"{module}.".startswith(f"{name}.") for module in loaded))


BENCHMARK = Benchmark(
    name="import",
    question="Process that imports and ends, wall time (a bare interpreter included)",
    unit="ms",
    metrics={"import": "Import"},
    cases=tuple(
        Case("", variant) if variant.startswith(("apex_llm", "python", "asyncio")) else case_of("", variant)
        for variant in _STATEMENTS
    ),
    measure=_measure,
)
