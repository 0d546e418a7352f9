"""One provider for several event loops, loops of another make, many threads, and readers that take their time."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from emulator_process import open_sockets, wait_until

import apex_llm.sync
from apex_llm import (
    AzureOpenAIProvider,
    BedrockProvider,
    IdleTimeoutError,
    RequestTimeoutError,
    StreamInterruptedError,
    Timeout,
)
from apex_llm.emulator import FaultConnection, FaultServer, RecordedRequest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets are counted by /proc or /dev/fd")

MEBIBYTE = 1 << 20


def connections(provider: Any) -> tuple[int, int]:
    senders = provider._backend._senders.values()
    return sum(item.open_connections for item in senders), sum(item.idle_connections for item in senders)


def run_on(loop: str, main: Any) -> Any:
    if loop == "asyncio":
        return asyncio.run(main)
    if sys.platform == "win32":
        pytest.skip("uvloop does not run there")
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_provider_outlives_the_loops_it_is_used_on(loop: str, cloud: dict[str, str]) -> None:
    """A warm pool, a stream in the middle and a stalled one are left behind by each run, and are in nobody's way."""
    before = open_sockets()
    provider = BedrockProvider(default_model="claude")
    kept: list[Any] = []

    async def use(number: int) -> str:
        stream = provider.generate_text_stream("text 20 0.001")
        await anext(stream)
        stalled = provider.generate_text_stream("stall 5")
        await anext(stalled)
        kept.extend((stream, stalled))
        answers = await asyncio.gather(*(provider.generate_text(f"run {number}") for _ in range(5)))
        assert set(answers) == {f"You said: run {number}"}
        return answers[0]

    for number in range(3):
        run_on(loop, use(number))
        assert open_sockets() == before, "what a run has opened, its end closes"

    async def read_on() -> None:
        for stream in kept:
            with pytest.raises(StreamInterruptedError):
                await stream.collect()
        await provider.aclose()

    run_on(loop, read_on())
    assert open_sockets() == before


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_calls_streams_breaks_and_cancellations_work_on_either_loop(loop: str, cloud: dict[str, str]) -> None:
    async def main() -> None:
        before = open_sockets()
        async with AzureOpenAIProvider(default_deployment="chat") as azure, BedrockProvider() as bedrock:
            bedrock.default_model = "claude"
            for provider in (azure, bedrock):
                assert await provider.generate_text("Hi") == "You said: Hi"
                assert len((await provider.generate_text_stream("text 20 0").collect()).text) > 20
                async with provider.generate_text_stream("stall 5") as stream:
                    await anext(stream)
                with pytest.raises(StreamInterruptedError):
                    await provider.generate_text_stream("cut 5 0").collect()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await provider.generate_text("stall 0")
        await asyncio.sleep(0.01)
        assert open_sockets() == before

    run_on(loop, main())


def test_eight_threads_through_the_blocking_twin_get_their_own_answers(cloud: dict[str, str]) -> None:
    before = open_sockets()

    def work(number: int) -> int:
        right = 0
        for call in range(12):
            tag = f"thread {number} call {call}"
            right += bedrock.generate_text(tag) == f"You said: {tag}"
            with azure.generate_text_stream(tag) as stream:
                right += next(stream) == "You" if call % 3 == 0 else "".join(stream) == f"You said: {tag}"
        return right

    with (
        apex_llm.sync.BedrockProvider(default_model="claude") as bedrock,
        apex_llm.sync.AzureOpenAIProvider(default_deployment="chat") as azure,
        ThreadPoolExecutor(8) as threads,
    ):
        assert list(threads.map(work, range(8))) == [24] * 8
        for provider in (bedrock, azure):
            opened, idle = connections(provider.async_provider)
            assert opened == idle <= 8

    # The shared loop keeps its own pair of sockets to be woken by.
    assert wait_until(lambda: open_sockets() <= before + 2)


def test_threads_that_come_and_go_with_loops_of_their_own_may_share_a_provider(cloud: dict[str, str]) -> None:
    """Each new loop clears away after those that have ended, while other threads are doing the same."""
    provider = BedrockProvider(default_model="claude")
    until = time.monotonic() + 1.0

    def work(number: int) -> int:
        runs = 0
        while time.monotonic() < until:
            assert asyncio.run(provider.generate_text(f"thread {number}")) == f"You said: thread {number}"
            runs += 1
        return runs

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(12) as threads:
            assert min(threads.map(work, range(12))) > 0
    finally:
        sys.setswitchinterval(interval)
    asyncio.run(provider.aclose())


@pytest.mark.parametrize("sender", ["http11", "httpx"])
async def test_a_stream_that_is_kept_but_not_read_closes_at_its_deadline(sender: str, cloud: dict[str, str]) -> None:
    """Nobody awaits anything of it; still its connection must not stay open for as long as the object lives."""
    before = open_sockets()
    client = httpx.AsyncClient(trust_env=False) if sender == "httpx" else None
    provider = BedrockProvider(default_model="claude", http_client=client, timeout=Timeout(total=0.3))
    stream = provider.generate_text_stream("stall 8")
    assert await anext(stream)
    assert open_sockets() == before + 1

    began = time.monotonic()
    while open_sockets() > before and time.monotonic() - began < 3.0:
        await asyncio.sleep(0.01)

    assert 0.1 < time.monotonic() - began < 3.0
    with pytest.raises(StreamInterruptedError) as caught:
        await stream.collect()
    assert isinstance(caught.value.__cause__, RequestTimeoutError)
    assert caught.value.__cause__.phase == "total"
    await provider.aclose()
    if client is not None:
        await client.aclose()


async def test_a_stream_that_is_dropped_closes_when_it_is_collected(cloud: dict[str, str]) -> None:
    before = open_sockets()
    async with BedrockProvider(default_model="claude") as provider:
        stream = provider.generate_text_stream("stall 8")
        await anext(stream)
        with pytest.warns(ResourceWarning, match=r"dropped before its end"):
            del stream
        await asyncio.sleep(0.01)
        assert connections(provider) == (0, 0)
        assert open_sockets() == before


async def _flood(connection: FaultConnection, request: RecordedRequest) -> None:
    delta = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 1000)
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    await connection.respond(content_type="text/event-stream", chunks=(*([delta * 60] * 400), end))


@pytest.mark.parametrize("sender", ["http11", "httpx"])
async def test_a_slow_reader_of_a_fast_stream_holds_little_and_is_not_called_idle(sender: str) -> None:
    """25 MB are on their way; what the reader does not take must wait with the server. And it is we who are slow."""
    async with FaultServer(_flood) as server:
        client = httpx.AsyncClient(trust_env=False) if sender == "httpx" else None
        azure = AzureOpenAIProvider(
            api_base=server.url,
            api_key="key",
            default_deployment="chat",
            http_client=client,
            timeout=Timeout(idle=0.2, total=60.0),
        )
        received = 0
        async with azure.generate_text_stream("Hi") as stream:
            await anext(stream)
            gc.collect()
            tracemalloc.start()
            await asyncio.sleep(0.5)  # longer than the idle timeout
            for _ in range(2000):
                received += len(await anext(stream))
                if received % 500_000 == 0:
                    await asyncio.sleep(0.05)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            response = await stream.collect()

        assert len(response.text) == 400 * 60 * 1000
        # The text that was handed over is kept, for ``partial``.
        assert peak - received < 4 * MEBIBYTE
        await azure.aclose()
        if client is not None:
            await client.aclose()


async def test_a_server_that_is_silent_is_called_idle(cloud: dict[str, str]) -> None:
    """The other side of the test above."""
    async with BedrockProvider(default_model="claude", timeout=Timeout(idle=0.2, total=60.0)) as provider:
        began = time.monotonic()
        with pytest.raises(IdleTimeoutError):
            await provider.generate_text_stream("stall 8").collect()
        assert time.monotonic() - began < 4.0


@pytest.fixture(autouse=True)
def nothing_is_left_for_the_collector() -> Any:
    """A stream that another test dropped must not warn into this one."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
