"""Rows 59 to 74: credentials, clocks, cancellation, loops, processes, slow readers.

Rows 61, 69, 70 and 72 are held by the rooms that they are about; ``ELSEWHERE`` in ``page`` names their tests.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import time
import tracemalloc
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fault_cases import COLUMNS, FULL_TEXT, Column, make

import apex_llm
import apex_llm.sync
from apex_llm import ApexLlmError, AuthenticationError, ConfigurationError, ConnectionFailedError, Timeout
from apex_llm.emulator import Answer, Emulator

MiB = 1 << 20
ASYNC = [column for column in COLUMNS if column.twin == "async"]
on_each_sender = pytest.mark.parametrize("column", ASYNC, ids=str)


@asynccontextmanager
async def provider_for(column: Column, **arguments: Any) -> AsyncIterator[Any]:
    client = httpx.AsyncClient(trust_env=False) if column.sender == "httpx" else None
    try:
        async with make(column, client=client, **arguments) as provider:
            yield provider
    finally:
        if client is not None:
            await client.aclose()


def sockets_to(emulator: Emulator) -> int:
    """Connections of this process to the emulator, on the client's side."""
    port = int(emulator.url.rpartition(":")[2])
    found = 0
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        remote, state = line.split()[2:4]
        found += int(remote.partition(":")[2], 16) == port and state in {"01", "02", "08"}
    return found


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("off", [-600, 600])
def test_row_59_a_wrong_clock_is_learned_from_the_service(
    off: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Emulator(clock=lambda: time.time() + off) as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        with apex_llm.sync.BedrockProvider(default_model="claude") as provider:
            assert provider.chat("Hi").text
            assert len(emulator.requests) == 2
            assert provider.chat("Hi").text
            assert len(emulator.requests) == 3

    assert len([record for record in caplog.records if "clock" in record.getMessage()]) == 1


@pytest.mark.parametrize("twin", ["async", "sync"])
def test_row_60_an_expired_token_is_renewed_once_for_everybody(twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: list[str] = []
    count = 50 if twin == "async" else 1

    with Emulator(session_token="new") as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)

        def credentials() -> dict[str, str]:
            tokens.append("new" if tokens else "old")
            time.sleep(0.02)
            return {
                "aws_access_key_id": emulator.access_key_id,
                "aws_secret_access_key": emulator.secret_access_key,
                "aws_session_token": tokens[-1],
            }

        async def storm() -> list[str]:
            async with apex_llm.BedrockProvider(default_model="claude", credentials=credentials) as provider:
                return await asyncio.gather(*(provider.generate_text("Hi") for _ in range(count)))

        if twin == "async":
            assert len(asyncio.run(storm())) == count
        else:
            with apex_llm.sync.BedrockProvider(default_model="claude", credentials=credentials) as provider:
                assert provider.generate_text("Hi")

        assert tokens == ["old", "new"]
        assert len(emulator.requests) == 2 * count


def test_row_62_a_wrong_key_is_refused_once_and_never_told(emulator: Emulator, column: Column) -> None:
    secret = "wrong-secret-value/+kept"
    wrong = (
        {"credentials": {"aws_access_key_id": emulator.access_key_id, "aws_secret_access_key": secret}}
        if column.wire == "bedrock"
        else {"api_key": secret}
    )
    if column.sender == "httpx":
        pytest.skip("credentials are added above the sender")
    emulator.reset()
    provider = make(column, **wrong)
    with pytest.raises(AuthenticationError) as caught:
        if column.twin == "sync":
            provider.generate_text("Hi")
        else:
            asyncio.run(_one(provider))
    if column.twin == "sync":
        provider.close()

    assert len(emulator.requests) == 1
    assert secret not in f"{caught.value!r} {caught.value} {caught.value.__dict__}"


async def _one(provider: Any) -> str:
    async with provider:
        return await provider.generate_text("Hi")


@on_each_sender
def test_row_63_cancellation_passes_unchanged_and_closes_the_connection(emulator: Emulator, column: Column) -> None:
    async def run() -> None:
        async with provider_for(column) as provider:
            for number in range(20):
                emulator.fault("stall", FULL_TEXT)
                reached = asyncio.Event()

                async def read(reached: asyncio.Event = reached) -> None:
                    async with provider.generate_text_stream("Hi") as stream:
                        async for _ in stream:
                            reached.set()

                task = asyncio.create_task(read())
                await reached.wait()
                task.cancel(f"number {number}")
                with pytest.raises(asyncio.CancelledError, match=f"number {number}"):
                    await task
                await soon(lambda: sockets_to(emulator) == 0)
            assert await provider.generate_text("Still there?")
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


@on_each_sender
def test_row_64_a_stream_that_is_dropped_warns_once_and_closes(emulator: Emulator, column: Column) -> None:
    async def run() -> None:
        async with provider_for(column) as provider:
            emulator.fault("stall", FULL_TEXT)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                stream = provider.generate_text_stream("Hi")
                async for _ in stream:
                    break
                assert sockets_to(emulator) == 1
                del stream
                gc.collect()
                await soon(lambda: sockets_to(emulator) == 0)
            assert [warning.category for warning in caught] == [ResourceWarning]

    asyncio.run(run())


@on_each_sender
def test_row_64_a_stream_that_is_kept_closes_at_its_deadline(emulator: Emulator, column: Column) -> None:
    async def run() -> None:
        async with provider_for(column, timeout=Timeout(total=0.4)) as provider:
            emulator.fault("stall", FULL_TEXT)
            stream = provider.generate_text_stream("Hi")
            async for _ in stream:
                break
            await soon(lambda: sockets_to(emulator) == 0)
            with pytest.raises(ApexLlmError):
                async for _ in stream:
                    pass

    asyncio.run(run())


@on_each_sender
def test_row_65_an_error_of_the_consumer_passes_and_closes(emulator: Emulator, column: Column) -> None:
    async def run() -> None:
        async with provider_for(column) as provider:
            emulator.fault("stall", FULL_TEXT)
            with pytest.raises(ZeroDivisionError):
                async with provider.generate_text_stream("Hi") as stream:
                    async for _ in stream:
                        raise ZeroDivisionError
            await soon(lambda: sockets_to(emulator) == 0)

    asyncio.run(run())


@on_each_sender
@pytest.mark.filterwarnings("ignore:unclosed")
def test_row_66_a_second_loop_works_or_is_told_clearly(emulator: Emulator, column: Column) -> None:
    """Our own connections belong to a loop each; a client that was brought along belongs to its first one."""
    client = httpx.AsyncClient(trust_env=False) if column.sender == "httpx" else None
    provider = make(column, client=client)
    assert asyncio.run(provider.generate_text("Hi"))
    if client is None:
        assert asyncio.run(provider.generate_text("Hi"))
        asyncio.run(provider.aclose())
        return
    with pytest.raises((ConfigurationError, ConnectionFailedError)):
        asyncio.run(provider.with_options(retry=None).generate_text("Hi"))
    gc.collect()


def test_row_67_a_blocking_call_inside_a_running_loop_works(emulator: Emulator) -> None:
    async def run(provider: Any) -> str:
        return provider.generate_text("Hi")

    with apex_llm.sync.BedrockProvider(default_model="claude") as provider:
        assert asyncio.run(run(provider))


def child(code: str, *, seconds: float = 60) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.usefixtures("emulator")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_row_68_forked_children_never_see_each_others_answers() -> None:
    """The emulator repeats what was said, so a tag in the prompt must come back in the answer."""
    printed = child(
        """
        import asyncio, os
        from apex_llm import BedrockProvider
        provider = BedrockProvider(default_model="claude")
        async def tagged(name):
            answers = [await provider.generate_text(f"{name}-{number}") for number in range(25)]
            assert all(f"{name}-{number}" in answer for number, answer in enumerate(answers)), answers
        asyncio.run(tagged("before"))
        children = []
        for name in range(4):
            pid = os.fork()
            if pid == 0:
                asyncio.run(tagged(f"child{name}"))
                os._exit(0)
            children.append(pid)
        asyncio.run(tagged("parent"))
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
        asyncio.run(provider.aclose())
        print("good")
        """
    )
    assert printed.strip() == "good"


@pytest.mark.usefixtures("emulator")
def test_row_71_more_streams_than_descriptors_are_typed_errors_and_leak_nothing() -> None:
    printed = child(
        """
        import asyncio, os, resource
        from apex_llm import ApexLlmError, BedrockProvider, ConnectionFailedError
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        async def one(provider):
            try:
                async with provider.generate_text_stream("Hi") as stream:
                    return "".join([piece async for piece in stream])
            except ApexLlmError as error:
                return error
        async def main():
            async with BedrockProvider(default_model="claude", retry=None) as provider:
                await one(provider)
                before = len(os.listdir("/proc/self/fd"))
                outcomes = await asyncio.gather(*(one(provider) for _ in range(300)))
                wrong = [o for o in outcomes if not isinstance(o, str) and not isinstance(o, ConnectionFailedError)]
                assert not wrong, wrong
                assert isinstance(await one(provider), str)
            await asyncio.sleep(0.1)
            assert len(os.listdir("/proc/self/fd")) <= before
        asyncio.run(main())
        print("good")
        """
    )
    assert printed.strip() == "good"


@on_each_sender
@pytest.mark.parametrize("jump", [-86_400, 86_400])
def test_row_73_a_jump_of_the_wall_clock_ends_no_call(
    emulator: Emulator, column: Column, jump: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines are monotonic. Signatures use the wall clock, which the service corrects (row 59)."""
    emulator.script(Answer.text(chunks=["a", "b", "c"], delay=0.02))
    real = time.time

    async def run() -> str:
        text = ""
        async with (
            provider_for(column, timeout=Timeout(total=30)) as provider,
            provider.generate_text_stream("Hi") as stream,
        ):
            async for piece in stream:
                text += piece
                monkeypatch.setattr(time, "time", lambda: real() + jump)
        return text

    assert asyncio.run(run()) == "abc"
    assert len(emulator.requests) == 1


@on_each_sender
def test_row_74_a_slow_reader_holds_little_and_is_no_idle_stream(emulator: Emulator, column: Column) -> None:
    piece = "x" * 4096
    emulator.script(Answer.text(chunks=[piece] * 2000))

    async def run() -> tuple[int, int]:
        async with (
            provider_for(column, timeout=Timeout(idle=0.3, total=60)) as provider,
            provider.generate_text_stream("Hi") as stream,
        ):
            await anext(stream)
            await asyncio.sleep(0.7)  # longer than the idle timeout, while the server could send everything
            tracemalloc.start()
            length = len(piece)
            async for text in stream:
                length += len(text)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return length, peak

    length, peak = asyncio.run(run())
    assert length == 2000 * len(piece)
    # The text itself is kept for .response: 8 MB of it.
    assert peak < 48 * MiB
