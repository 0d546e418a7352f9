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
from apex_llm import ApexLlmError, AuthenticationError, ConfigurationError, ConnectionFailedError, Limits, Timeout
from apex_llm.emulator import Answer, Emulator
from apex_llm.transport.authenticate import SigV4Authentication
from apex_llm.transport.http11_response import Http11Response

ASYNC = [column for column in COLUMNS if column.twin == "async"]
SYNC = [column for column in COLUMNS if column.twin == "sync"]
on_each_sender = pytest.mark.parametrize("column", ASYNC, ids=str)
on_each_wire = pytest.mark.parametrize("column", SYNC, ids=str)


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


def soon_blocking(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("off", [-600, 600])
def test_row_59_a_wrong_clock_is_learned_from_the_service(
    off: int, column: Column, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One more send for the first call, none for the second, and one line in the log. Azure's requests have no time."""
    with Emulator(clock=lambda: time.time() + off) as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)

        async def calls() -> list[int]:
            sends = []
            async with provider_for(column, retry=None) as provider:
                for _ in range(2):
                    assert (await provider.chat("Hi")).text
                    sends.append(len(emulator.requests))
            return sends

        if column.twin == "async":
            sends = asyncio.run(calls())
        else:
            sends = []
            with make(column, retry=None) as provider:
                for _ in range(2):
                    assert provider.chat("Hi").text
                    sends.append(len(emulator.requests))

    assert sends == ([2, 3] if column.wire == "bedrock" else [1, 2])
    said = [record for record in caplog.records if "clock" in record.getMessage()]
    assert len(said) == (column.wire == "bedrock")


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

    async def run() -> None:
        async with provider_for(column, **wrong) as provider:
            await provider.generate_text("Hi")

    with pytest.raises(AuthenticationError) as caught:
        if column.twin == "async":
            asyncio.run(run())
        else:
            with make(column, **wrong) as provider:
                provider.generate_text("Hi")

    assert len(emulator.requests) == 1
    assert secret not in f"{caught.value!r} {caught.value} {caught.value.__dict__}"


@on_each_sender
def test_row_63_cancellation_passes_unchanged_and_closes_the_connection(emulator: Emulator, column: Column) -> None:
    """Two hundred of them; ten thousand at random places are cancelled by scripts/check-soak."""
    limits = Limits(max_concurrency=40)

    def at_rest() -> bool:
        return sockets_to(emulator) == 0 and not any(
            model[name] for model in limits.snapshot()["models"].values() for name in ("active", "waiting")
        )

    async def run() -> None:
        async with provider_for(column, limits=limits) as provider:
            for wave in range(5):
                reached = [asyncio.Event() for _ in range(40)]

                async def read(reached: asyncio.Event) -> None:
                    async with provider.generate_text_stream("Hi") as stream:
                        async for _ in stream:
                            reached.set()

                for _ in reached:
                    emulator.fault("stall", FULL_TEXT)
                tasks = [asyncio.create_task(read(event)) for event in reached]
                await asyncio.gather(*(event.wait() for event in reached))
                assert sockets_to(emulator) == 40
                for number, task in enumerate(tasks):
                    task.cancel(f"{wave}.{number}")
                began = time.monotonic()
                for number, task in enumerate(tasks):
                    with pytest.raises(asyncio.CancelledError) as caught:
                        await task
                    assert caught.value.args == (f"{wave}.{number}",)
                await soon(at_rest)
                assert time.monotonic() - began < 1.0, "50 ms, and twenty times that for a busy machine"
            assert await provider.generate_text("Still there?")
            assert len(asyncio.all_tasks()) == 1
            quota = limits.snapshot()["retry_quota"]
            assert all(left == quota["capacity"] for left in quota["remaining"].values()), "cancelled is not retried"

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


@on_each_wire
def test_row_64_a_blocking_stream_that_is_dropped_warns_once_and_closes(emulator: Emulator, column: Column) -> None:
    with make(column) as provider:
        emulator.fault("stall", FULL_TEXT)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stream = provider.generate_text_stream("Hi")
            next(stream)
            assert sockets_to(emulator) == 1
            del stream
            gc.collect()
            soon_blocking(lambda: sockets_to(emulator) == 0)
        assert [warning.category for warning in caught] == [ResourceWarning]


@on_each_wire
def test_row_64_a_blocking_stream_that_is_kept_closes_at_its_deadline(emulator: Emulator, column: Column) -> None:
    with make(column, timeout=Timeout(total=0.4)) as provider:
        emulator.fault("stall", FULL_TEXT)
        stream = provider.generate_text_stream("Hi")
        next(stream)
        soon_blocking(lambda: sockets_to(emulator) == 0)
        with pytest.raises(ApexLlmError):
            list(stream)


@on_each_wire
def test_row_65_an_error_of_the_blocking_consumer_passes_and_closes(emulator: Emulator, column: Column) -> None:
    with make(column) as provider:
        emulator.fault("stall", FULL_TEXT)
        with pytest.raises(ZeroDivisionError), provider.generate_text_stream("Hi") as stream:
            for _ in stream:
                raise ZeroDivisionError
        soon_blocking(lambda: sockets_to(emulator) == 0)


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


@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_row_67_a_blocking_call_inside_a_running_loop_works(emulator: Emulator, column: Column) -> None:
    """And an asynchronous one where no asyncio loop runs (trio, or nothing at all) says so."""
    if column.twin == "sync":

        async def inside(provider: Any) -> str:
            return provider.generate_text("Hi")

        with make(column) as provider:
            assert provider.generate_text("Hi")
            assert asyncio.run(inside(provider))
            assert asyncio.run(inside(provider)), "row 66: the callers' loops are not its own"
        return
    provider = make(column)
    for call in (provider.generate_text("Hi"), provider.generate_text_stream("Hi").__anext__(), provider.initialize()):
        with pytest.raises(ConfigurationError, match="no running asyncio event loop"):
            call.send(None)
    assert emulator.requests == []


def child(code: str, *arguments: str, seconds: float = 60) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code), *arguments],
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
def test_row_68_forked_children_of_the_blocking_twin_never_see_each_others_answers() -> None:
    """A thousand calls by four children. The emulator repeats what was said, so a tag must come back."""
    printed = child(
        """
        import os
        from apex_llm.sync import AzureOpenAIProvider, BedrockProvider
        providers = [BedrockProvider(default_model="claude"), AzureOpenAIProvider(default_deployment="chat")]
        def tagged(name, count):
            for number in range(count):
                tag = f"{name} call {number}"
                if number % 5:
                    answer = providers[number % 2].generate_text(tag)
                else:
                    with providers[number % 2].generate_text_stream(tag) as stream:
                        answer = "".join(stream)
                assert answer == f"You said: {tag}", answer
        tagged("before", 10)
        children = []
        for name in range(4):
            pid = os.fork()
            if pid == 0:
                tagged(f"child {name}", 250)
                os._exit(0)
            children.append(pid)
        tagged("parent", 50)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
        tagged("after", 10)
        print("good")
        """
    )
    assert printed.strip() == "good"


_MANY_STREAMS = """
import asyncio, gc, os, resource, sys, time
from concurrent.futures import ThreadPoolExecutor
import apex_llm, apex_llm.sync
from apex_llm import ApexLlmError, ConnectionFailedError
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
twin, wire = sys.argv[1:]
module = apex_llm if twin == "async" else apex_llm.sync
make = lambda: (module.BedrockProvider(default_model="claude", retry=None) if wire == "bedrock" else
                module.AzureOpenAIProvider(default_deployment="chat", retry=None))
opened = lambda: len(os.listdir("/proc/self/fd"))
def check(outcomes):
    wrong = [o for o in outcomes if not isinstance(o, str) and not isinstance(o, ConnectionFailedError)]
    assert not wrong, wrong
    assert len(outcomes) == 1000
async def main():
    async def one(provider):
        try:
            async with provider.generate_text_stream("Hi") as stream:
                return "".join([piece async for piece in stream])
        except ApexLlmError as error:
            return error
    async with make() as provider:
        await one(provider)
        before = opened()
        check(await asyncio.gather(*(one(provider) for _ in range(1000))))
        assert isinstance(await one(provider), str)
    await asyncio.sleep(0.1)
    assert opened() <= before
def main_of_threads():
    def one(_):
        try:
            with provider.generate_text_stream("Hi") as stream:
                return "".join(stream)
        except ApexLlmError as error:
            return error
    with make() as provider:
        one(0)
        before = opened()
        with ThreadPoolExecutor(200) as threads:
            check(list(threads.map(one, range(1000))))
        assert isinstance(one(0), str)
    time.sleep(0.1)
    assert opened() <= before
asyncio.run(main()) if twin == "async" else main_of_threads()
print("good")
"""


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("column", [column for column in COLUMNS if column.sender == "http11"], ids=str)
def test_row_71_a_thousand_streams_and_a_hundred_descriptors_are_typed_errors_and_leak_nothing(column: Column) -> None:
    assert child(_MANY_STREAMS, column.twin, column.wire).strip() == "good"


@pytest.mark.parametrize("column", COLUMNS, ids=str)
@pytest.mark.parametrize("jump", [-86_400, 86_400])
def test_row_73_a_jump_of_the_wall_clock_ends_no_call(
    column: Column, jump: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines are monotonic. Signatures use the wall clock, which the service corrects once (row 59): no storm."""
    real = time.time
    leaps: list[int] = []

    def leap() -> None:
        leaps[:] = [jump]
        monkeypatch.setattr(time, "time", wall)

    def wall() -> float:
        return real() + sum(leaps)

    # Its default is the function itself, which a patched module does not change.
    monkeypatch.setitem(SigV4Authentication.__init__.__kwdefaults__, "clock", wall)
    with Emulator(clock=real) as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        emulator.script(Answer.text(chunks=["a", "b", "c"], delay=0.02), "Again.")

        async def run() -> str:
            text = ""
            async with provider_for(column, timeout=Timeout(total=30)) as provider:
                async with provider.generate_text_stream("Hi") as stream:
                    async for piece in stream:
                        text += piece
                        leap()
                return text + await provider.generate_text("Hi")

        def run_blocking() -> str:
            text = ""
            with make(column, timeout=Timeout(total=30)) as provider:
                with provider.generate_text_stream("Hi") as stream:
                    for piece in stream:
                        text += piece
                        leap()
                return text + provider.generate_text("Hi")

        assert (run_blocking() if column.twin == "sync" else asyncio.run(run())) == "abcAgain."
        assert len(emulator.requests) == (3 if column.wire == "bedrock" else 2)


_PIECE = "x" * 4096


def queued(stream: Any) -> int:
    """Bytes that were taken from the socket and not decoded yet."""
    response = getattr(stream, "_inner", stream)._exchange._response
    if isinstance(response, Http11Response):
        return response._exchange.queued
    return sum(map(len, response._pieces))


@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_row_74_a_slow_reader_holds_little_and_is_no_idle_stream(emulator: Emulator, column: Column) -> None:
    """8 MB could be sent while the reader sleeps for longer than the idle timeout; 256 KiB may be taken in."""
    emulator.script(Answer.text(chunks=[_PIECE] * 2000))
    timeout = Timeout(idle=0.3, total=60)

    async def run() -> tuple[int, list[int]]:
        held = []
        async with provider_for(column, timeout=timeout) as provider, provider.generate_text_stream("Hi") as stream:
            length = len(await anext(stream))
            for _ in range(3):
                await asyncio.sleep(0.35)
                held.append(queued(stream))
                length += len(await anext(stream))
            async for text in stream:
                length += len(text)
        return length, held

    def run_blocking() -> tuple[int, list[int]]:
        held = []
        with make(column, timeout=timeout) as provider, provider.generate_text_stream("Hi") as stream:
            length = len(next(stream))
            for _ in range(3):
                time.sleep(0.35)
                held.append(queued(stream))
                length += len(next(stream))
            length += sum(map(len, stream))
        return length, held

    length, held = run_blocking() if column.twin == "sync" else asyncio.run(run())
    assert length == 2000 * len(_PIECE)
    assert max(held) <= 256 * 1024
    if column.sender == "http11":
        assert max(held) > 64 * 1024, "or it would not have been slower than the server"
