"""Limits on real calls over sockets: what is reserved, what comes back, who shares, what is not sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apex_llm import (
    AzureOpenAIProvider,
    BedrockProvider,
    BreakerPolicy,
    Limits,
    OverloadedError,
    QueueFullError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    StreamInterruptedError,
    Timeout,
)
from apex_llm.emulator import Answer, Emulator

QUICK = RetryPolicy(base_delay_transient=0.0, base_delay_throttle=0.0)
SLOW = Answer.text(chunks=["one "] * 20, delay=0.1)
WIRES = ["converse", "invoke", "azure"]


def make(wire: str, **arguments: Any) -> BedrockProvider | AzureOpenAIProvider:
    arguments.setdefault("retry", QUICK)
    if wire == "azure":
        return AzureOpenAIProvider(default_deployment="chat", **arguments)
    return BedrockProvider(default_model="claude", api="invoke" if wire == "invoke" else "auto", **arguments)


def state(limits: Limits) -> dict[str, Any]:
    (only,) = limits.snapshot()["models"].values()
    return only


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("wire", WIRES)
async def test_the_count_is_corrected_by_what_was_really_used(emulator: Emulator, wire: str, streamed: bool) -> None:
    """Bedrock gives back what was not written; Azure has charged it for good."""
    limits = Limits(tokens_per_minute=100_000)
    emulator.script(Answer.text(chunks=["Rayleigh ", "scattering."], delay=0.05))
    async with make(wire, limits=limits) as provider:
        if streamed:
            async with provider.chat_stream("Why is the sky blue?", max_tokens=5000) as stream:
                assert state(limits)["tokens"]["remaining"] < 95_100
                assert state(limits)["active"] == 1
                response = await stream.collect()
        else:
            response = await provider.chat("Why is the sky blue?", max_tokens=5000)

    assert response.usage is not None
    charged = response.usage.input_tokens + (5000 if wire == "azure" else response.usage.output_tokens)
    assert state(limits)["tokens"]["remaining"] == pytest.approx(100_000 - charged, abs=1e-6)
    assert state(limits)["active"] == 0


async def test_providers_that_are_given_the_same_limits_share_them(emulator: Emulator) -> None:
    limits = Limits(max_concurrency=1, max_waiting=0)
    emulator.script(SLOW)
    async with make("converse", limits=limits) as one, make("converse", limits=limits) as other:
        async with one.chat_stream("Hi") as stream:
            assert state(limits)["active"] == 1
            with pytest.raises(QueueFullError):
                await other.chat("Hi")
            await stream.collect()
        await other.chat("Hi")
        await other.with_options(timeout=5).chat("Hi")

    assert state(limits)["sent"] == 3


async def test_a_stream_that_is_left_gives_its_slot_back(emulator: Emulator) -> None:
    limits = Limits(max_concurrency=1)
    emulator.script(SLOW, Answer.text("two"))
    async with make("converse", limits=limits) as provider:
        async with provider.generate_text_stream("Hi") as stream:
            async for _ in stream:
                break
        assert await asyncio.wait_for(provider.generate_text("Hi"), 5) == "two"


async def test_waiting_for_a_turn_counts_against_the_timeout(emulator: Emulator) -> None:
    limits = Limits(max_concurrency=1)
    emulator.script(SLOW)
    async with make("converse", limits=limits) as provider, provider.chat_stream("Hi"):
        with pytest.raises(RequestTimeoutError) as caught:
            await provider.chat("Hi", timeout=0.2)
    assert caught.value.phase == "queue"
    assert caught.value.provider == "bedrock"
    assert caught.value.attempts == 0
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("wire", WIRES)
async def test_an_open_breaker_sends_nothing(emulator: Emulator, wire: str) -> None:
    limits = Limits(circuit_breaker=BreakerPolicy(min_calls=3))
    emulator.script(*[Answer.error("unavailable")] * 3)
    async with make(wire, limits=limits) as provider:
        with pytest.raises(OverloadedError):
            await provider.chat("Hi")
        sent = len(emulator.requests)
        with pytest.raises(OverloadedError) as caught:
            await provider.chat("Hi")
    assert sent == len(emulator.requests) == 3
    assert caught.value.retry_after == pytest.approx(5, abs=1)
    assert caught.value.attempts == 0
    assert state(limits)["breaker"]["state"] == "open"


async def test_the_headers_of_a_deployment_are_learned_from(emulator: Emulator) -> None:
    limits = Limits(learn=True)
    async with make("azure", limits=limits) as provider:
        await provider.generate_text("Hi", max_tokens=10)
    assert state(limits)["tokens"]["source"] == "told"
    assert state(limits)["tokens"]["limit"] > 0


async def test_listings_are_not_limited(emulator: Emulator) -> None:
    limits = Limits(requests_per_minute=1)
    async with make("azure", limits=limits) as provider:
        for _ in range(3):
            await provider.get_available_models()
    assert limits.snapshot()["models"] == {}


async def test_limits_do_not_change_what_a_call_gives(emulator: Emulator) -> None:
    emulator.script(*[Answer.text("Same.")] * 2)
    everything = Limits(
        learn=True, tokens_per_minute=1e6, requests_per_minute=1e4, adaptive_concurrency=True, circuit_breaker=True
    )
    async with make("converse", limits=everything) as limited, make("converse") as plain:
        assert (await limited.chat("Hi")).text == (await plain.chat("Hi")).text


async def test_a_refusal_inside_a_stream_is_a_refusal(emulator: Emulator) -> None:
    """Bedrock may answer 200 and throttle in the first frame."""
    limits = Limits(adaptive_concurrency=10)
    emulator.script(Answer.throttle(inside_stream_after=0), Answer.text("Then."))
    async with make("converse", limits=limits) as provider:
        assert (await provider.chat_stream("Hi").collect()).text == "Then."
    assert state(limits)["throttled"] == 1
    assert state(limits)["concurrency"]["limit"] == 7


async def test_a_refusal_is_raised_when_retries_are_off(emulator: Emulator) -> None:
    emulator.script(Answer.throttle())
    async with make("converse", limits=Limits(tokens_per_minute=1e6), retry=None) as provider:
        with pytest.raises(RateLimitError):
            await provider.chat("Hi")


# Streams that break after their first event -----------------------------------------------------

BROKEN = {
    "reset": lambda: Answer.cut(SHORT, after_events=4, reset=True),
    "closed": lambda: Answer.cut(SHORT, after_events=4),
    "unavailable": lambda: Answer.error("unavailable", inside_stream_after=4),
    "internal": lambda: Answer.error("internal", inside_stream_after=4),
    "truncated": lambda: Answer.truncated(SHORT),
    "silent": lambda: Answer.stall(SHORT, after_events=4),
}
SHORT = Answer.text(chunks=["one "] * 6)


async def broken(provider: BedrockProvider | AzureOpenAIProvider) -> StreamInterruptedError:
    with pytest.raises(StreamInterruptedError) as caught:
        await provider.chat_stream("Hi", timeout=Timeout(idle=0.2, total=10)).collect()
    return caught.value


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("wire", WIRES)
async def test_a_stream_that_breaks_is_one_failure_to_the_breaker(emulator: Emulator, wire: str, how: str) -> None:
    limits = Limits(circuit_breaker=BreakerPolicy(min_calls=3, failure_ratio=1.0), adaptive_concurrency=10)
    emulator.script(*[BROKEN[how]() for _ in range(3)])
    async with make(wire, limits=limits) as provider:
        for number in (1, 2):
            await broken(provider)
            found = state(limits)["breaker"]
            assert (found["calls"], found["failures"]) == (number, number)
        await broken(provider)
        assert state(limits)["breaker"]["state"] == "open"
        with pytest.raises(OverloadedError):
            await provider.chat("Hi")
    assert len(emulator.requests) == 3
    assert state(limits)["throttled"] == 0
    assert state(limits)["concurrency"]["limit"] == 10


@pytest.mark.parametrize("wire", WIRES)
async def test_a_refusal_in_the_middle_of_a_stream_is_one_refusal(emulator: Emulator, wire: str) -> None:
    """And neither a success nor a failure of the service."""
    limits = Limits(adaptive_concurrency=1, circuit_breaker=True)
    emulator.script(Answer.throttle(inside_stream_after=4), SHORT)
    async with make(wire, limits=limits) as provider:
        await broken(provider)
        found = state(limits)
        assert found["throttled"] == 1
        assert found["concurrency"]["limit"] == 1, "no success had raised it"
        assert found["breaker"]["failures"] == 0
        await provider.chat_stream("Hi").collect()
    assert state(limits)["throttled"] == 1


async def test_a_burst_of_streams_refused_in_the_middle_lowers_concurrency_once(emulator: Emulator) -> None:
    limits = Limits(adaptive_concurrency=10)
    emulator.script(*[Answer.throttle(inside_stream_after=4)] * 8)
    async with make("converse", limits=limits) as provider:
        await asyncio.gather(*(broken(provider) for _ in range(8)))
    assert state(limits)["throttled"] == 8
    assert state(limits)["concurrency"]["limit"] == 7


async def test_a_stream_that_its_reader_leaves_or_has_no_time_for_is_no_failure(emulator: Emulator) -> None:
    limits = Limits(circuit_breaker=True)
    emulator.script(SLOW, SLOW, SLOW)
    async with make("converse", limits=limits) as provider:
        async with provider.chat_stream("Hi") as stream:
            await anext(stream)
        with pytest.raises(StreamInterruptedError):
            await provider.chat_stream("Hi", timeout=0.5).collect()
        reading = asyncio.ensure_future((closed := provider.chat_stream("Hi")).collect())
        while closed.partial.text == "":
            await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading])
    found = state(limits)["breaker"]
    assert (found["calls"], found["failures"]) == (3, 0)


async def test_a_probe_whose_stream_breaks_keeps_the_breaker_open_for_longer(emulator: Emulator) -> None:
    limits = Limits(circuit_breaker=BreakerPolicy(min_calls=1, open_seconds=0.05))
    emulator.script(BROKEN["reset"](), BROKEN["reset"]())
    async with make("converse", limits=limits) as provider:
        await broken(provider)
        await asyncio.sleep(0.06)
        await broken(provider)
        found = state(limits)["breaker"]
        assert found["state"] == "open"
        assert found["retry_after"] > 0.05
