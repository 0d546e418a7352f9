"""A cancelled call leaves nothing behind: no socket, no task, no slot, wherever it was cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

import anyio
import pytest
from cancelling import Rig, at_await, random_cancellations
from emulator_process import open_sockets

from apex_llm import ApexLlmError, BedrockProvider, RetryPolicy, StreamInterruptedError, TextStream, Timeout

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets are counted by /proc or /dev/fd")

OPERATIONS = ("call", "retried_call", "stream", "left_early", "bare_stream", "broken_stream", "listing")
PROVIDERS = ("bedrock-http11", "azure-http11", "azure-httpx2")
LIMIT = 2.0
"""More than tenfold what anything here takes, and far below the deadlines that would end it otherwise."""


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_cancelled_at_any_await_it_leaves_nothing_open(
    provider: str, operation: str, cloud: dict[str, str]
) -> None:
    """The first time with a cold pool, then with whatever the time before left in it."""
    before = open_sockets()
    async with Rig(cloud) as rig:
        run = rig.operations(provider)[operation]
        number, reached = 0, True
        while reached and number < 200:
            try:
                reached = await at_await(run(), number)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                while task.cancelling():
                    task.uncancel()
            except ApexLlmError:
                reached = False  # it ended as it does when nobody cancels it
            await rig.come_to_rest()
            number += 1
        assert 2 < number < 200

    assert open_sockets() == before


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_closed_by_another_task_at_any_step_it_leaves_nothing_open(provider: str, cloud: dict[str, str]) -> None:
    """A stop button: the task that reads is told, goes on, and is not itself cancelled."""

    async def read(stream: TextStream) -> str:
        pieces: list[str] = []
        try:
            async for text in stream:
                pieces.append(text)
        except StreamInterruptedError as error:
            return "told" if error.partial and error.partial.text == "".join(pieces) else f"told wrong: {error.partial}"
        return "ended"

    before = open_sockets()
    async with Rig(cloud) as rig:
        ends: set[str] = set()
        for steps in range(40):
            stream = rig.providers[provider].generate_text_stream("text 5 0.001")
            reader = asyncio.ensure_future(read(stream))
            for _ in range(steps):
                await asyncio.sleep(0.0002 if steps % 2 else 0)
            await stream.aclose()
            async with asyncio.timeout(LIMIT):
                ends.add(await reader)
            assert reader.cancelling() == 0
            await rig.come_to_rest()

    assert open_sockets() == before
    assert "told" in ends
    assert ends <= {"told", "ended"}


async def test_five_hundred_random_cancellations_leave_nothing_open(cloud: dict[str, str]) -> None:
    """Ten thousand of them: ``scripts/check-soak --cancellations 10000``."""
    before = open_sockets()
    async with Rig(cloud) as rig:
        outcomes = await random_cancellations(rig, 500, seed=3)

        quota = rig.limits.snapshot()["retry_quota"]
        assert min(quota["remaining"].values(), default=quota["capacity"]) > 0
        assert rig.connections[0] <= 16

    assert open_sockets() == before
    assert outcomes["cancelled"] > 100


async def _stalled(provider: BedrockProvider, where: str) -> None:
    match where:
        case "head":
            await provider.generate_text("stall 0")
        case "first event":
            await provider.generate_text_stream("stall 0").collect()
        case "body":
            await provider.generate_text_stream("stall 5").collect()
        case _:
            await provider.generate_text("error internal")


@pytest.mark.parametrize("where", ["head", "first event", "body", "retry"])
@pytest.mark.parametrize("scope", ["asyncio.timeout", "fail_after", "move_on_after", "task group", "wait_for"])
async def test_the_callers_own_scopes_end_a_call_wherever_it_waits(
    scope: str, where: str, cloud: dict[str, str]
) -> None:
    """Their timeout comes out as theirs: no error of ours, no retry, and no task that is left cancelled."""
    policy = RetryPolicy(base_delay_transient=20.0, random=lambda: 1.0)
    began = time.monotonic()
    async with BedrockProvider(default_model="claude", retry=policy, timeout=Timeout(total=60.0)) as provider:
        await provider.generate_text("warm")
        match scope:
            case "asyncio.timeout":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await _stalled(provider, where)
            case "fail_after":
                with pytest.raises(TimeoutError), anyio.fail_after(0.05):
                    await _stalled(provider, where)
            case "move_on_after":
                with anyio.move_on_after(0.05) as moved:
                    await _stalled(provider, where)
                assert moved.cancelled_caught
            case "task group":
                async with anyio.create_task_group() as group:
                    group.start_soon(_stalled, provider, where)
                    await asyncio.sleep(0.05)
                    group.cancel_scope.cancel()
            case _:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(_stalled(provider, where), 0.05)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        assert time.monotonic() - began < LIMIT
        assert await provider.generate_text("still well") == "You said: still well"
        (sender,) = provider._backend._senders.values()
        assert sender.open_connections == sender.idle_connections == 1


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_a_cancelled_close_closes_all_the_same(how: str, cloud: dict[str, str]) -> None:
    """The owner is often cancelled already when it comes to close, as at the end of a task group that failed."""
    before = open_sockets()
    for number in range(4):
        provider = BedrockProvider(default_model="claude")
        stream = provider.generate_text_stream("stall 5")
        await anext(stream)
        await provider.generate_text("warm")
        if how == "scope":
            with anyio.CancelScope() as scope:
                scope.cancel()
                await provider.aclose()
        else:
            with contextlib.suppress(asyncio.CancelledError):
                await at_await(provider.aclose(), number)
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        await asyncio.sleep(0.01)
        assert open_sockets() == before
        await stream.aclose()
