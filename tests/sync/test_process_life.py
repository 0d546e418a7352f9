"""Interrupts, forks and exits, in processes of their own: the places where background threads go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from sync_helpers import Spawn, wait_until

from apex_llm.emulator import Answer, Emulator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks as POSIX has them")

WORDS = ("The", " quick", " brown", " fox")
LIMIT = 10.0  # seconds for a whole child; what is promised are fractions of one


def finish(child: subprocess.Popen[str], *, seconds: float = LIMIT) -> tuple[int, str, str]:
    output, errors = child.communicate(timeout=seconds)
    return child.returncode, output, errors


def test_ctrl_c_in_a_long_call_cancels_it_and_is_raised(emulator: Emulator, spawn: Spawn) -> None:
    emulator.script(Answer.text("late", first_delay=60))
    child = spawn(
        """
        import asyncio, time
        import apex_llm
        from apex_llm.sync import SyncLlmProvider

        class Watched(apex_llm.BedrockProvider):
            async def generate_text(self, *args, **options):
                try:
                    return await super().generate_text(*args, **options)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.01)
                    print("cleaned up")
                    raise

        provider = SyncLlmProvider(Watched())
        try:
            provider.generate_text("Hi", "claude")
        except KeyboardInterrupt:
            print("interrupted")
        print(provider.generate_text("again", "claude"))
        """
    )
    wait_until(lambda: emulator.requests)
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    code, output, errors = finish(child)

    assert (code, output.splitlines(), errors) == (0, ["cleaned up", "interrupted", "You said: again"], "")
    assert time.monotonic() - began < 5


def test_ctrl_c_in_the_middle_of_a_stream_keeps_what_arrived(emulator: Emulator, spawn: Spawn) -> None:
    emulator.script(Answer.stall(Answer.text(chunks=WORDS), after_events=5))
    child = spawn(
        """
        from apex_llm.errors import StreamInterruptedError
        from apex_llm.sync import BedrockProvider

        provider = BedrockProvider()
        stream = provider.generate_text_stream("Hi", "claude")
        try:
            for text in stream:
                print(text)
        except KeyboardInterrupt:
            print("interrupted", stream.partial.text)
        try:
            next(stream)
        except StreamInterruptedError as error:
            print("and that was no end:", error.partial.text)
        """
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    code, output, errors = finish(child)
    lines = output.splitlines()

    assert (code, errors, first) == (0, "", "The\n")
    assert lines[-2].startswith("interrupted The")
    assert lines[-1] == lines[-2].replace("interrupted", "and that was no end:")


def test_an_interrupt_that_nobody_catches_ends_the_program_as_usual(emulator: Emulator, spawn: Spawn) -> None:
    emulator.script(Answer.stall(after_events=2))
    child = spawn(
        """
        from apex_llm.sync import BedrockProvider
        for text in BedrockProvider().generate_text_stream("Hi", "claude"):
            print(text)
        """
    )
    wait_until(lambda: emulator.requests)
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    code, _, errors = finish(child)

    assert code == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "destroyed" not in errors
    assert "ResourceWarning" not in errors


def test_interrupts_at_any_moment_leave_a_working_loop_and_no_task(emulator: Emulator, spawn: Spawn) -> None:
    """Two hundred interrupts by a timer, wherever they land: handing over, waiting, cleaning up, or afterwards."""
    child = spawn(
        """
        import asyncio, random, signal
        import apex_llm
        from apex_llm.sync import SyncLlmProvider
        from apex_llm.sync._loop_thread import SHARED

        class Slow(apex_llm.BedrockProvider):
            async def generate_text(self, prompt, *args, **options):
                await asyncio.sleep(float(prompt))
                return prompt

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        draw = random.Random(7)
        provider = SyncLlmProvider(Slow())
        provider.generate_text("0")
        struck = 0
        for _ in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.00002, 0.002))
                for _ in range(100):
                    provider.generate_text("0.0002")
            except KeyboardInterrupt:
                struck += 1
            assert provider.generate_text("0") == "0"
        running = SHARED.start("test")
        print(struck, len(running.tasks), provider.generate_text("0"))
        """
    )
    code, output, errors = finish(child, seconds=60)

    # Python itself loses an interrupt that lands in a finaliser, and says so.
    lost = errors.count("Exception ignored")
    assert (code, output) == (0, f"{200 - lost} 0 0\n")
    assert lost < 20


def test_interrupts_at_any_moment_of_a_stream_leave_nothing_open(emulator: Emulator, spawn: Spawn) -> None:
    child = spawn(
        """
        import random, signal, time
        from apex_llm.sync import BedrockProvider
        from apex_llm.sync._loop_thread import SHARED

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        draw = random.Random(7)
        provider = BedrockProvider(default_model="claude")
        provider.generate_text("Hi")
        whole = 0
        for _ in range(100):
            try:
                with provider.generate_text_stream("one two three four") as stream:
                    signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.00002, 0.004))
                    for text in stream:
                        assert stream.partial.text.endswith(text)
                    time.sleep(1)
            except KeyboardInterrupt:
                whole += stream.partial.text == "You said: one two three four"
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert provider.generate_text("Hi") == "You said: Hi"
        del stream  # an interrupt inside close() leaves the rest to whoever closes again, or to collection
        running = SHARED.start("test")
        deadline = time.monotonic() + 5
        while running.tasks and time.monotonic() < deadline:
            time.sleep(0.01)
        print(len(running.tasks))
        """
    )
    code, output, errors = finish(child, seconds=60)

    assert (code, output) == (0, "0\n")
    assert "Exception ignored" in errors or errors == "", "an interrupt inside a finaliser is lost, as Python has it"


@pytest.mark.parametrize("flags", [[], ["-X", "dev"]], ids=["", "dev"])
def test_exit_with_open_streams_is_quick_and_quiet(
    emulator: Emulator, spawn: Spawn, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    """Streams that are kept, a call and a stream in daemon threads, connections in the pool; nothing was closed."""
    stalled = Answer.stall(Answer.text(chunks=WORDS), after_events=4)
    emulator.script("warm", stalled, stalled, stalled)
    if flags:
        monkeypatch.setenv("PYTHONDEVMODE", "1")
    child = spawn(
        """
        import threading, time
        from apex_llm.sync import BedrockProvider

        provider = BedrockProvider(default_model="claude")
        provider.generate_text("warm")
        stream = provider.generate_text_stream("kept")
        next(stream)
        waiting = threading.Event()

        def read():
            with provider.generate_text_stream("in a thread") as other:
                next(other)
                waiting.set()
                for text in other: pass

        def call():
            waiting.set()
            provider.generate_text("in a thread")

        for work in (read, call):
            threading.Thread(target=work, daemon=True).start()
            waiting.wait()
            waiting.clear()
        time.sleep(0.2)
        print("leaving")
        """
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "leaving\n"
    began = time.monotonic()
    code, _, errors = finish(child)

    assert (code, errors) == (0, "")
    assert time.monotonic() - began < LIMIT


def test_exit_keeps_its_code_and_exit_handlers_may_still_close(emulator: Emulator, spawn: Spawn) -> None:
    """Handlers that were registered before ours run after it, when the thread has ended already."""
    child = spawn(
        """
        import atexit, sys
        def late():
            provider.close()
            print("closed")
        atexit.register(late)
        from apex_llm.sync import BedrockProvider
        provider = BedrockProvider()
        print(provider.generate_text("Hi", "claude"))
        sys.exit(3)
        """
    )

    assert finish(child) == (3, "You said: Hi\nclosed\n", "")


def test_a_forked_child_makes_a_thread_and_connections_of_its_own(emulator: Emulator, spawn: Spawn) -> None:
    """The parent has a pooled connection and an open stream at the fork; both go on as if nothing had happened."""
    emulator.script("before", Answer.text(chunks=WORDS, delay=0.02))
    child = spawn(
        """
        import os, sys, warnings
        from apex_llm.sync import BedrockProvider
        warnings.simplefilter("ignore", DeprecationWarning)

        provider = BedrockProvider(default_model="claude")
        provider.generate_text("before")
        with provider.generate_text_stream("across") as stream:
            texts = [next(stream)]
            children = []
            for number in range(4):
                pid = os.fork()
                if not pid:
                    try:
                        next(stream)
                    except RuntimeError as error:
                        assert "parent process" in str(error), error
                    answers = {provider.generate_text(f"child {number} call {call}") for call in range(10)}
                    assert answers == {f"You said: child {number} call {call}" for call in range(10)}, answers
                    del stream
                    sys.exit(0)
                children.append(pid)
            texts += stream
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print("".join(texts), codes, provider.generate_text("after"))
        """
    )

    code, output, errors = finish(child, seconds=30)

    assert (code, errors) == (0, "")
    assert output == "The quick brown fox [0, 0, 0, 0] You said: after\n"
    assert len(emulator.requests) == 43


def test_a_fork_waits_until_the_loop_stands_still(emulator: Emulator, spawn: Spawn) -> None:
    """A lock that the loop thread holds at the fork would be held in the child for ever."""
    child = spawn(
        """
        import asyncio, os, threading, time, warnings
        from apex_llm.sync._loop_thread import SHARED
        warnings.simplefilter("ignore", DeprecationWarning)
        lock = threading.Lock()

        async def hold():
            for _ in range(400):
                with lock:
                    time.sleep(0.0005)
                await asyncio.sleep(0)

        async def begin():
            return asyncio.get_running_loop().create_task(hold())

        task = SHARED.run(begin)
        stuck = 0
        for _ in range(30):
            pid = os.fork()
            if not pid:
                os._exit(0 if lock.acquire(timeout=5) else 1)
            stuck += os.waitpid(pid, 0)[1] != 0
        print(stuck)
        """
    )

    assert finish(child, seconds=60) == (0, "0\n", "")


def test_importing_the_blocking_surface_starts_nothing() -> None:
    code = (
        "import apex_llm.sync, sys, threading\n"
        "assert 'asyncio' not in sys.modules\n"
        "from apex_llm.sync import BedrockProvider\n"
        "BedrockProvider()\n"
        "assert threading.active_count() == 1\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))

    assert (run.returncode, run.stderr) == (0, "")
