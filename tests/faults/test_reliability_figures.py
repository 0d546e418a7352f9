"""Figures that need sockets or real time; those of retries and limits are in tests/transport, on a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from apex_llm import (
    ApexLlmError,
    AzureOpenAIProvider,
    BedrockProvider,
    OverloadedError,
    RateLimitError,
    RetryPolicy,
    StreamInterruptedError,
    Timeout,
)
from apex_llm.emulator import Answer, Emulator

WIRES = ["converse", "invoke", "azure"]
WORDS = ["zero ", "one ", "two ", "three ", "four "]


def make(wire: str, emulator: Emulator, **arguments: Any) -> Any:
    url = emulator.environment["AZURE_OPENAI_ENDPOINT"]
    if wire == "azure":
        key = emulator.environment["AZURE_OPENAI_API_KEY"]
        return AzureOpenAIProvider(
            api_base=url, api_key=key, api_version="2024-10-21", default_deployment="chat", trust_env=False, **arguments
        )
    names = ("aws_access_key_id", "aws_secret_access_key")
    keys = {name: emulator.environment[name.upper()] for name in names}
    return BedrockProvider(
        default_model="claude",
        api="invoke" if wire == "invoke" else "auto",
        credentials=keys,
        aws_region="us-east-1",
        endpoint_url=url,
        trust_env=False,
        **arguments,
    )


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("wire", WIRES)
async def test_a_stream_that_is_cut_after_any_number_of_events_loses_and_doubles_nothing(
    emulator: Emulator, wire: str, reset: bool
) -> None:
    """Cut before the first event with a meaning it is tried again; after it there is one send, and no success."""
    good = Answer.text(chunks=WORDS)
    whole = "".join(WORDS)
    retried: list[int] = []
    texts: list[str] = []
    async with make(wire, emulator, retry=RetryPolicy(base_delay_transient=0.0)) as provider:
        for count in range(16):
            emulator.reset()
            emulator.script(Answer.cut(good, after_events=count, reset=reset), good)
            text, broken = await read(provider)
            if broken is None:
                assert text == whole
                assert len(emulator.requests) == 2
                retried.append(count)
                continue
            assert broken.partial is not None
            assert broken.partial.text == text
            assert broken.retryable
            assert len(emulator.requests) == 1
            texts.append(text)
    # Azure's first event tells of the prompt's filters, and nothing of the answer.
    assert retried == ([0, 1] if wire == "azure" else [0])
    assert texts == sorted(texts, key=len)
    assert set(texts) >= {whole[: whole.index(word)] for word in WORDS[1:]} | {whole}


async def read(provider: Any) -> tuple[str, StreamInterruptedError | None]:
    text = ""
    try:
        async with provider.generate_text_stream("Hi") as stream:
            async for piece in stream:
                text += piece
    except StreamInterruptedError as error:
        return text, error
    return text, None


@pytest.mark.slow
async def test_a_deadline_of_five_seconds_holds_against_whatever_keeps_a_call_from_ending() -> None:
    """All at once, on a real clock. The bar is two tenths of a second; what the loop itself lags comes on top."""
    lag, running = 0.0, True

    async def heartbeat() -> None:
        nonlocal lag
        loop = asyncio.get_running_loop()
        while running:
            asked = loop.time()
            await asyncio.sleep(0.02)
            lag = max(lag, loop.time() - asked - 0.02)

    async def timed(wire: str, emulator: Emulator, *, streamed: bool) -> tuple[float, ApexLlmError]:
        timeout = Timeout(first_byte=None, idle=None, total=5.0)
        loop = asyncio.get_running_loop()
        async with make(wire, emulator, timeout=timeout, retry=RetryPolicy(max_attempts=9)) as provider:
            began = loop.time()
            with pytest.raises(ApexLlmError) as caught:
                if streamed:
                    await provider.chat_stream("Hi").collect()
                else:
                    await provider.chat("Hi")
            return loop.time() - began, caught.value

    faults = ("drip", "pings-only", "stall", "stall-before-head")
    with contextlib.ExitStack() as stack:
        emulators = {fault: stack.enter_context(Emulator()) for fault in (*faults, "throttle")}
        for fault in faults:
            emulators[fault].fault(fault, times=None)
        emulators["throttle"].script(*[Answer.throttle(headers={"retry-after": "2"})] * 20)
        beating = asyncio.create_task(heartbeat())
        async with asyncio.TaskGroup() as group:
            stuck = [
                group.create_task(timed(wire, emulators[fault], streamed=True)) for wire in WIRES for fault in faults
            ]
            refused = [
                group.create_task(timed(wire, emulators["throttle"], streamed=streamed))
                for wire in WIRES
                for streamed in (True, False)
            ]
        running = False
        await beating
    for took, error in (task.result() for task in stuck):
        assert 4.95 <= took <= 5.2 + 2 * lag, (took, lag, error)
    for took, error in (task.result() for task in refused):
        # A third wait would end beyond the deadline, and so is not begun.
        assert isinstance(error, RateLimitError)
        assert error.attempts in {2, 3}
        assert took <= 5.2 + 2 * lag, (took, lag)


async def test_an_hour_of_waiting_is_reported_at_once(emulator: Emulator) -> None:
    emulator.script(Answer.throttle(headers={"retry-after": "3600"}))
    async with make("converse", emulator) as provider:
        with pytest.raises(RateLimitError) as caught:
            await provider.generate_text("Hi", timeout=5)
    assert caught.value.retry_after == 3600
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("wire", WIRES)
async def test_a_service_that_is_down_gets_few_retries_from_a_whole_provider(emulator: Emulator, wire: str) -> None:
    """Amplification end to end: the quota of 500 pays for 35 retries, whatever the number of calls."""
    emulator.script(*[Answer.error("unavailable")] * 400)
    async with make(wire, emulator, retry=RetryPolicy(base_delay_transient=0.0)) as provider:
        for _ in range(200):
            with pytest.raises(OverloadedError):
                await provider.generate_text("Hi")
        quota = provider.limits.snapshot()["retry_quota"]
    assert len(emulator.requests) == 235
    assert list(quota["remaining"].values()) == [500 - 35 * 14]
