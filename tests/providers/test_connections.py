"""How many connections a provider opens, when it is told a limit, and what those meet who must wait for one."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from apex_llm import AzureOpenAIProvider, BedrockProvider, ConfigurationError, RequestTimeoutError, sync
from apex_llm.emulator import Answer, Emulator
from apex_llm.types.http import Origin

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="its table of sockets is read")

PROVIDERS = [BedrockProvider, AzureOpenAIProvider]
SLOW = Answer.text(chunks=["one "] * 5, delay=0.04)


def make(kind: Any, **arguments: Any) -> Any:
    name = "default_deployment" if kind.name == "azure_openai" else "default_model"
    return kind(**{name: "chat" if kind.name == "azure_openai" else "claude"}, **arguments)


def connections(provider: Any) -> int:
    return sum(sender.open_connections for sender in provider._backend._senders.values())


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_no_more_connections_are_opened_than_allowed_and_everybody_is_served(
    kind: Any, emulator: Emulator
) -> None:
    emulator.script(*[SLOW] * 8)
    most = 0
    async with make(kind, max_connections=2) as provider:

        async def one() -> str:
            nonlocal most
            text = ""
            async for piece in provider.generate_text_stream("Hi"):
                most = max(most, connections(provider))
                text += piece
            return text

        answers = await asyncio.gather(*(one() for _ in range(8)))
        assert connections(provider) == 2
    assert answers == ["one " * 5] * 8
    assert most == 2


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_without_a_limit_there_are_as_many_as_calls(kind: Any, emulator: Emulator) -> None:
    emulator.script(*[SLOW] * 8)
    async with make(kind) as provider:
        await asyncio.gather(*(provider.chat_stream("Hi").collect() for _ in range(8)))
        assert connections(provider) == 8


async def test_who_waits_for_a_connection_until_the_deadline_was_never_sent(emulator: Emulator) -> None:
    emulator.script(Answer.text(chunks=["one "] * 50, delay=0.1))
    async with make(BedrockProvider, max_connections=1) as provider, provider.generate_text_stream("Hi") as stream:
        await anext(stream)
        with pytest.raises(RequestTimeoutError, match="None of the 1 connections") as caught:
            await provider.generate_text("Hi", timeout=0.2)
    assert caught.value.phase == "queue"
    assert caught.value.attempts == 0
    assert "max_connections" in (caught.value.hint or "")
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_a_copy_with_other_options_shares_the_connections(kind: Any, emulator: Emulator) -> None:
    async with make(kind, max_connections=1) as provider:
        await provider.generate_text("Hi")
        await provider.with_options(timeout=20).generate_text("Hi")
        assert connections(provider) == 1


@pytest.mark.parametrize("kind", PROVIDERS)
def test_a_limit_that_makes_no_sense_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        make(kind, max_connections=0)
    with pytest.raises(ConfigurationError, match="http_client"):
        make(kind, max_connections=5, http_client=httpx.AsyncClient())


@pytest.mark.parametrize("kind", [sync.BedrockProvider, sync.AzureOpenAIProvider])
def test_the_blocking_twin_takes_it_too(kind: Any, emulator: Emulator) -> None:
    with make(kind, max_connections=1) as provider:
        assert provider.generate_text("Hi")
        assert provider.generate_text("Hi")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted by /proc")
async def test_many_streams_fit_into_few_descriptors(emulator: Emulator) -> None:
    """Row 71: a thousand streams wait for a hundred connections, and nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    answer = Answer.text("Hi.")
    async with make(BedrockProvider, max_connections=20) as provider:
        emulator.script(*[answer] * 200)
        responses = await asyncio.gather(*(provider.chat_stream("Hi").collect() for _ in range(200)))
        assert connections(provider) <= 20
    assert {response.text for response in responses} == {"Hi."}
    await asyncio.sleep(0.1)
    assert len(os.listdir("/proc/self/fd")) <= before + 25, "the emulator's side may still be closing"


@on_linux
@pytest.mark.parametrize("kind", PROVIDERS)
async def test_what_a_call_opens_while_the_provider_is_being_closed_is_closed_the_next_time(
    kind: Any, emulator: Emulator
) -> None:
    provider = make(kind)
    most = 0
    for turns in range(12):
        call = asyncio.ensure_future(provider.generate_text("Hi"))
        for _ in range(turns):
            await asyncio.sleep(0)
        await provider.aclose()
        await asyncio.wait([call])
        most = max(most, len(open_to(emulator)))
        await provider.aclose()

        assert not open_to(emulator)
    assert most == 1


@on_linux
@pytest.mark.parametrize("kind", PROVIDERS)
async def test_after_a_cancelled_close_the_provider_goes_on_and_can_be_closed(kind: Any, emulator: Emulator) -> None:
    provider = make(kind)
    await provider.generate_text("Hi")
    closing = asyncio.ensure_future(provider.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing

    assert await provider.generate_text("again") == "You said: again"
    await provider.aclose()

    assert not open_to(emulator)


@on_linux
async def test_a_sender_that_cannot_be_closed_does_not_keep_the_others_open(emulator: Emulator) -> None:
    class Stubborn:
        async def aclose(self) -> None:
            raise RuntimeError("not now")

    provider = make(BedrockProvider)
    await provider.generate_text("Hi")
    others = provider._backend._senders
    provider._backend._senders = {Origin("https", "stubborn.example", 443): Stubborn(), **others}

    with pytest.raises(RuntimeError, match="not now"):
        await provider.aclose()
    assert not open_to(emulator)


def open_to(emulator: Emulator) -> list[str]:
    """Local ends of the established connections of this process to the emulator."""
    port = int(emulator.url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text("ascii").splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "01" and int(row[2].rpartition(":")[2], 16) == port]
