"""The blocking twin under the same faults: threads that share providers, for ``soak.py`` and the gate."""

from __future__ import annotations

__all__ = ["soak_threads"]

import threading
import time
from random import Random
from typing import Any

from emulator_process import open_sockets, wait_until
from soak import PROMPTS, SLACK_SECONDS, TIMEOUT, TOTAL_SECONDS, Report, resident

from apex_llm import ApexLlmError, Limits
from apex_llm.sync import AzureOpenAIProvider, BedrockProvider


def soak_threads(
    environment: dict[str, str], *, seconds: float, round_seconds: float = 15.0, threads: int = 16, seed: int = 1
) -> Report:
    """One call at a time in each of ``threads`` threads for ``seconds``, in rounds with a moment of rest between."""
    limits = Limits(max_concurrency=max(1, threads - threads // 8))
    usual: dict[str, Any] = {"limits": limits, "timeout": TIMEOUT, "trust_env": False}
    url = environment["AZURE_OPENAI_ENDPOINT"]
    keys = {name: environment[name.upper()] for name in ("aws_access_key_id", "aws_secret_access_key")}
    key = environment["AZURE_OPENAI_API_KEY"]
    bedrock = BedrockProvider(
        default_model="claude", credentials=keys, aws_region="us-east-1", endpoint_url=url, **usual
    )
    azure = AzureOpenAIProvider(default_deployment="chat", api_key=key, api_base=url, api_version="2024-10-21", **usual)
    providers = [bedrock, azure]
    bedrock.generate_text("Hi")  # the thread behind has a loop, and the loop sockets of its own
    azure.generate_text("Hi")
    for provider in providers:
        provider.close()
    report = Report(seconds=seconds, sockets_before=open_sockets())
    began = time.monotonic()
    dice = [Random(f"{seed}:{number}") for number in range(threads)]
    while (now := time.monotonic()) < began + seconds:
        until = min(now + round_seconds, began + seconds)
        workers = [threading.Thread(target=_work, args=(report, providers, each, until)) for each in dice]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.2)
            report.busy_memory = max(report.busy_memory, resident())
            report.sockets.append(open_sockets())
        states = limits.snapshot()["models"].values
        assert wait_until(lambda states=states: not any(state["active"] or state["waiting"] for state in states()))
        report.look(time.monotonic() - began)
    for provider in providers:
        provider.close()
    report.seconds = time.monotonic() - began
    wait_until(lambda: open_sockets() <= report.sockets_before, seconds=2.0)
    report.sockets_after = open_sockets()
    return report


def _work(report: Report, providers: list[Any], dice: Random, until: float) -> None:
    prompts, weights = zip(*PROMPTS, strict=True)
    while (began := time.monotonic()) < until:
        (prompt,) = dice.choices(prompts, weights)
        slept = 0.0
        try:
            outcome, slept = _call(dice.choice(providers), prompt, dice)
        except ApexLlmError as error:
            outcome = type(error).__name__
        except BaseException as error:
            outcome = "untyped"
            report.untyped.append(f"{prompt}: {error!r}")
        took = time.monotonic() - began - slept
        with report.lock:
            report.outcomes[outcome] += 1
            if took > TOTAL_SECONDS + SLACK_SECONDS:
                report.late.append(f"{prompt}: {took:.2f} s;")


def _call(provider: Any, prompt: str, dice: Random) -> tuple[str, float]:
    """What became of it, and how long the reader took its time."""
    kind, slept = dice.random(), 0.0
    if kind < 0.15:
        provider.generate_text(prompt)
        return "answered", slept
    if kind < 0.25:
        provider.chat_stream(prompt).collect()
        return "finished", slept
    leave_after = dice.randrange(1, 10) if kind < 0.35 else None
    with provider.generate_text_stream(prompt) as stream:
        for number, _ in enumerate(stream, 1):
            if number == leave_after:
                return "left early", slept
            if kind > 0.95:
                began = time.monotonic()
                time.sleep(0.01)
                slept += time.monotonic() - began
    return "finished", slept
