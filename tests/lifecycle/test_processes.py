"""The asynchronous surface where processes fork, end, are interrupted, and run short of descriptors.

The blocking twin's own part is in ``tests/sync/test_process_life.py``.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT = 10.0
"""Tenfold what leaving may take."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, signals and descriptor limits of POSIX")


def finish(process: subprocess.Popen[str], *, seconds: float = 60.0) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=seconds)
    return process.returncode, output, errors


def test_a_thousand_calls_of_four_forked_children_do_not_mix(child) -> None:
    """Parent and children share the sockets of the parent's pool; whoever wrote to one would read another's answer."""
    process = child(
        """
        import asyncio, os, warnings
        from apex_llm import AzureOpenAIProvider, BedrockProvider
        warnings.simplefilter("ignore", DeprecationWarning)
        providers = [BedrockProvider(default_model="claude"), AzureOpenAIProvider(default_deployment="chat")]

        async def ask(tag, count):
            async def one(number):
                question = f"{tag} call {number}"
                provider = providers[number % 2]
                if number % 5:
                    answer = await provider.generate_text(question)
                else:
                    answer = (await provider.generate_text_stream(question).collect()).text
                return answer == f"You said: {question}"
            right = 0
            for start in range(0, count, 10):
                right += sum(await asyncio.gather(*(one(number) for number in range(start, start + 10))))
            return right

        with asyncio.Runner() as runner:
            right = runner.run(ask("parent before", 20))
            children = []
            for number in range(4):
                pid = os.fork()
                if not pid:
                    asyncio.events._set_running_loop(None)
                    right = asyncio.new_event_loop().run_until_complete(ask(f"child {number}", 250))
                    os._exit(0 if right == 250 else 1)
                children.append(pid)
            right += runner.run(ask("parent after", 20))
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
            right += runner.run(ask("parent at last", 20))
        print(codes, right)
        """
    )

    assert finish(process, seconds=100) == (0, "[0, 0, 0, 0] 60\n", "")


EXITS = {
    "the main coroutine returns": "return",
    "the interpreter is asked to leave": "sys.exit(0)",
    "a task is reading": (
        "task = asyncio.ensure_future(read(provider.generate_text_stream('stall 8'))); await asyncio.sleep(0.2)"
    ),
}


@pytest.mark.parametrize("flags", [(), ("-X", "dev", "-W", "ignore::ResourceWarning")], ids=["", "dev"])
@pytest.mark.parametrize("how", EXITS)
def test_leaving_with_open_streams_is_quick_and_quiet(child, how: str, flags: tuple[str, ...]) -> None:
    """Kept alive by a global, so that neither its own end nor a collection closes it. (``-X dev`` also says that the
    streams were dropped, which is what it is for; nothing else may be said.)"""
    process = child(
        f"""
        import asyncio, sys
        from apex_llm import AzureOpenAIProvider, BedrockProvider
        kept = []

        async def read(stream):
            async for _ in stream: pass

        async def main():
            for provider in (BedrockProvider(default_model="claude"), AzureOpenAIProvider(default_deployment="chat")):
                await provider.generate_text("warm")
                stream = provider.generate_text_stream("stall 8")
                await anext(stream)
                kept.extend((provider, stream))
            print("leaving")
            {EXITS[how]}

        asyncio.run(main())
        """,
        *flags,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "leaving\n"
    began = time.monotonic()
    code, _, errors = finish(process)

    assert (code, errors) == (0, "")
    assert time.monotonic() - began < LIMIT


def test_an_interrupt_ends_a_stream_and_its_connection(child) -> None:
    """asyncio cancels the main task; that must come through, and nothing may be sent again."""
    process = child(
        """
        import asyncio
        from apex_llm import BedrockProvider

        async def main():
            async with BedrockProvider(default_model="claude") as provider:
                try:
                    async with provider.generate_text_stream("stall 8") as stream:
                        async for text in stream:
                            print("reading")
                finally:
                    print(stream.partial.text != "", provider._backend._senders.popitem()[1].open_connections)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    code, output, errors = finish(process)

    assert (code, output.replace("reading\n", ""), errors) == (0, "True 0\ninterrupted\n", "")
    assert time.monotonic() - began < LIMIT


FEW_DESCRIPTORS = """
    import asyncio, collections, os, resource, sys
    sys.path.insert(0, {here!r})
    from emulator_process import open_sockets
    from apex_llm import ApexLlmError, AzureOpenAIProvider, Limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    async def main():
        async with AzureOpenAIProvider(default_deployment="chat", limits={limits}, retry=None) as provider:
            await provider.generate_text("warm")
            before = len(os.listdir("/dev/fd"))

            async def one(number):
                try:
                    async with provider.generate_text_stream("text 5 0.005") as stream:
                        return "".join([text async for text in stream]).count("word") == 5 or "wrong"
                except ApexLlmError as error:
                    return type(error).__name__, getattr(error, "kind", ""), error.retryable

            ends = collections.Counter(await asyncio.gather(*map(one, range(1000))))
            opened = sum(item.open_connections for item in provider._backend._senders.values())
            idle = sum(item.idle_connections for item in provider._backend._senders.values())
            assert opened == idle, (opened, idle)
            # One more call shows that the shortage is over.
            assert await provider.generate_text("after") == "You said: after"
        await asyncio.sleep(0.05)
        print(len(os.listdir("/dev/fd")) <= before, ends[True], dict(ends))

    asyncio.run(main())
"""


def _with_few_descriptors(child, *, limits: str) -> tuple[bool, int, str]:
    code, output, errors = finish(child(FEW_DESCRIPTORS.format(here=str(Path(__file__).parent), limits=limits)))
    assert (code, errors) == (0, "")
    clean, right, ends = output.split(" ", 2)
    return clean == "True", int(right), ends


def test_a_thousand_streams_with_a_hundred_descriptors_get_a_typed_error_or_an_answer(child) -> None:
    """Without a limit each call opens its own connection; those for which there is no descriptor say so, retryably."""
    clean, right, ends = _with_few_descriptors(child, limits="None")

    assert clean
    assert right >= 50
    assert set(eval(ends)) <= {True, ("ConnectionFailedError", "network", True)}


@pytest.mark.parametrize("provider", ['AzureOpenAIProvider(default_deployment="chat")', "BedrockProvider()"])
def test_what_was_not_loaded_before_descriptors_ran_out_is_a_typed_error(child, provider: str) -> None:
    """A first stream and a first listing load modules, which are files; what importing raises must not come through."""
    process = child(
        f"""
        import asyncio, os, resource, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from apex_llm import AzureOpenAIProvider, BedrockProvider

        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))

        async def end_of(call):
            try:
                await call()
            except Exception as error:
                return type(error).__name__, getattr(error, "kind", ""), getattr(error, "provider", "")

        async def main():
            async with {provider} as provider:
                model = "" if provider.default_model else "amazon.nova-lite-v1:0"
                await provider.chat("warm", model=model)
                held = []
                try:
                    while True:
                        held.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    pass
                ends = [
                    await end_of(provider.chat_stream("first", model=model).collect),
                    await end_of(provider.get_available_models),
                    await end_of(lambda: provider.chat("misspelt", modle=model)),
                ]
                for descriptor in held:
                    os.close(descriptor)
                print(ends, (await provider.chat_stream("after", model=model).collect()).text)

        asyncio.run(main())
        """
    )

    code, output, errors = finish(process)

    assert (code, errors) == (0, "")
    name = "azure_openai" if provider.startswith("Azure") else "bedrock"
    short = ("ConnectionFailedError", "network", name)
    assert output.strip() == f"{[short, short, ('TypeError', '', '')]} You said: after"


def test_a_thousand_streams_with_a_hundred_descriptors_all_succeed_in_a_queue(child) -> None:
    clean, right, ends = _with_few_descriptors(child, limits="Limits(max_concurrency=50)")

    assert (clean, right) == (True, 1000), ends


def test_debug_mode_and_development_mode_have_nothing_to_say(child) -> None:
    """Warnings are errors in the whole process: no resource is left to the collector, no task is forgotten."""
    process = child(
        """
        import asyncio, logging
        from apex_llm import AzureOpenAIProvider, BedrockProvider, StreamInterruptedError
        logging.basicConfig(level=logging.WARNING)

        async def scenario():
            asyncio.get_running_loop().slow_callback_duration = 5.0
            bedrock, azure = BedrockProvider(default_model="claude"), AzureOpenAIProvider(default_deployment="chat")
            async with bedrock, azure:
                for provider in (bedrock, azure):
                    assert await provider.generate_text("Hi") == "You said: Hi"
                    await provider.generate_text_stream("text 20 0.001").collect()
                    async with provider.chat_stream("stall 5") as stream:
                        async for _ in stream: break
                    for broken in ("cut 5 0", "reset 5 0.001", "truncated 0", "inside 5 internal"):
                        try:
                            await provider.generate_text_stream(broken).collect()
                        except StreamInterruptedError as error:
                            assert error.partial is not None
                    try:
                        async with asyncio.timeout(0.05):
                            await provider.generate_text_stream("stall 5").collect()
                    except TimeoutError: pass
                    calls = [asyncio.ensure_future(provider.generate_text("throttle")) for _ in range(5)]
                    await asyncio.sleep(0.01)
                    for call in calls: call.cancel()
                    await asyncio.gather(*calls, return_exceptions=True)
                    await provider.get_available_models()

        asyncio.run(scenario(), debug=True)
        asyncio.run(scenario(), debug=True)
        print("done")
        """,
        "-X",
        "dev",
        "-W",
        "error",
    )

    assert finish(process) == (0, "done\n", "")
