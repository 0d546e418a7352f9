"""The thread behind the blocking surface: what it starts, how interrupts travel, and what it survives."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import sys
import threading
import time
import types
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from sync_helpers import wait_until

from apex_llm.errors import ConnectionFailedError
from apex_llm.sync import _call
from apex_llm.sync._call import Call
from apex_llm.sync._lane import Lane
from apex_llm.sync._loop_thread import LoopThread


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


async def ident() -> int:
    return threading.get_ident()


def loop_of(thread: LoopThread) -> asyncio.AbstractEventLoop:
    return thread.start("test").loop


def test_it_starts_with_the_first_call_and_is_a_daemon_with_a_name() -> None:
    thread = LoopThread()
    assert thread._running is None
    try:
        ran_in = {thread.run(ident) for _ in range(5)}

        assert ran_in == {thread.start("test").thread.ident}
        assert thread.start("test").thread.name == "apex_llm-loop"
        assert thread.start("test").thread.daemon
    finally:
        thread.close()


def test_threads_that_come_at_once_start_it_once() -> None:
    thread = LoopThread()
    barrier = threading.Barrier(8)
    idents: list[int] = []

    def call() -> None:
        barrier.wait()
        idents.append(thread.run(ident))

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    thread.close()

    assert len(idents) == 8
    assert len(set(idents)) == 1


def test_a_thread_that_cannot_be_started_is_a_typed_error_and_leaves_no_loop(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ConnectionFailedError, match="No thread could be started"):
            thread.run(ident)
    gc.collect()  # a loop that was not closed would warn here

    assert isinstance(thread.run(ident), int)


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are not counted there")
def test_a_loop_for_which_there_is_no_descriptor_is_a_typed_error(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's own half-made loops complain on stderr when they are collected."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    for place in ("socket.socketpair", "selectors.DefaultSelector"):
        with monkeypatch.context() as patched:
            patched.setattr(place, refuse)
            with pytest.raises(ConnectionFailedError, match="too many open files"):
                thread.run(ident)
        gc.collect()

    assert isinstance(thread.run(ident), int)


def test_arguments_and_results_pass_through(thread: LoopThread) -> None:
    async def give(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    assert thread.run(give, 1, two=2) == ((1,), {"two": 2})


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_whatever_the_coroutine_raises_is_the_callers_and_the_loop_lives_on(
    thread: LoopThread, error: BaseException
) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        thread.run(fail)

    assert caught.value is error
    assert thread.run(ident) == thread.start("test").thread.ident


def test_a_callback_that_kills_loops_does_not_strand_callers(
    thread: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    def leave() -> None:
        raise SystemExit(1)

    loop = loop_of(thread)
    loop.call_soon_threadsafe(leave)
    loop.call_soon_threadsafe(loop.stop)

    assert thread.run(ident)
    assert "A callback on apex_llm's loop failed" in caplog.text


def test_an_interrupt_cancels_the_task_waits_for_its_clean_up_and_is_raised(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            steps.append("cleaned up")

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        thread.run(work)

    assert steps == ["cleaned up"]
    assert time.monotonic() - began < 5
    assert not thread.start("test").tasks


@pytest.mark.parametrize("begun", [True, False], ids=["after it began", "before it began"])
def test_an_interrupt_between_handing_over_and_waiting_cancels_too(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """The narrow place: the loop has the call, and nobody waits for it yet."""
    steps: list[str] = []
    waits: list[int] = []
    real_wait = Call.wait
    at_rest = threading.Event()

    async def work() -> None:
        steps.append("began")
        at_rest.set()
        try:
            await asyncio.sleep(60)
        finally:
            steps.append("cleaned up")

    def wait(call: Call[Any]) -> None:
        waits.append(1)
        if len(waits) == 1:
            if begun:
                at_rest.wait(10)
            signal.raise_signal(signal.SIGINT)
        real_wait(call)

    held = threading.Event()
    if not begun:
        loop_of(thread).call_soon_threadsafe(held.wait, 10)
        threading.Timer(0.05, held.set).start()
    monkeypatch.setattr(_call.Signal, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        thread.run(work)

    assert steps == (["began", "cleaned up"] if begun else [])
    assert not thread.start("test").tasks


def test_an_interrupt_that_lands_when_the_result_is_there_does_not_hang(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock was taken, the signal handler ran, and the wait is entered a second time."""
    real_wait = Call.wait
    waits: list[int] = []

    def wait(call: Call[Any]) -> None:
        waits.append(1)
        real_wait(call)
        if len(waits) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(_call.Signal, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        thread.run(ident)

    assert len(waits) == 2


def test_a_second_interrupt_does_not_wait_for_a_clean_up_that_hangs(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    async def stubborn() -> None:
        threading.Timer(0.05, interrupt).start()
        try:
            await asyncio.sleep(60)
        finally:
            threading.Timer(0.05, interrupt).start()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        thread.run(stubborn)

    assert time.monotonic() - began < 5


def test_a_failed_call_leaves_no_reference_cycle(thread: LoopThread) -> None:
    """Otherwise prompts and answers in its frames would live until the garbage collector comes by."""

    class Big:
        pass

    async def fail(_: Big) -> None:
        raise ValueError

    gc.collect()
    gc.disable()
    try:
        big = Big()
        reference = weakref.ref(big)
        with contextlib.suppress(ValueError):
            thread.run(fail, big)
        del big
        wait_until(lambda: reference() is None, seconds=5)
    finally:
        gc.enable()


def test_closing_cancels_finishes_generators_and_ends_the_thread() -> None:
    thread = LoopThread()
    steps: list[str] = []

    async def generator() -> Any:
        try:
            yield 1
        finally:
            steps.append("generator finished")

    async def background() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            steps.append("task cancelled")

    async def begin() -> Any:
        kept = generator()
        await anext(kept)
        return kept, asyncio.get_running_loop().create_task(background())

    kept = thread.run(begin)
    thread.run(ident)
    running = thread.start("test")
    thread.close()

    assert steps == ["task cancelled", "generator finished"]
    assert not running.thread.is_alive()
    assert running.loop.is_closed()
    assert thread.ended
    del kept


def test_on_windows_waiting_is_cut_into_slices(thread: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is waited for without a timeout cannot be interrupted there."""
    monkeypatch.setattr(_call, "sys", types.SimpleNamespace(platform="win32"))
    monkeypatch.setattr(_call, "_SLICE_SECONDS", 0.005)

    async def work() -> str:
        await asyncio.sleep(0.05)
        return "done"

    assert thread.run(work) == "done"


def test_a_close_does_not_cut_short_a_clean_up_that_runs_already(thread: LoopThread) -> None:
    steps: list[str] = []

    async def clean_up() -> None:
        steps.append("began")
        await asyncio.sleep(0.05)
        steps.append("cleaned up")

    async def end() -> bool:
        return False

    lane = Lane(thread, clean_up, purpose="test")
    lane.run(end, purpose="test")
    wait_until(lambda: steps)
    lane.close()

    assert steps == ["began", "cleaned up"]


def test_a_lane_ends_with_a_step_that_gives_false(thread: LoopThread) -> None:
    steps: list[str] = []

    async def clean_up() -> None:
        steps.append("clean-up")

    async def go_on() -> bool:
        steps.append("step")
        return True

    async def end() -> bool:
        return False

    lane = Lane(thread, clean_up, purpose="test")
    assert lane.run(go_on, purpose="test")
    assert lane.run(go_on, purpose="test")
    assert not lane.run(end, purpose="test")
    wait_until(lambda: lane.has_ended)

    assert steps == ["step", "step", "clean-up"]
    with pytest.raises(asyncio.CancelledError):
        lane.run(go_on, purpose="test")
    lane.close()


def test_a_lane_that_never_began_cleans_up_when_closed(thread: LoopThread) -> None:
    steps: list[str] = []

    async def clean_up() -> None:
        steps.append("clean-up")

    lane = Lane(thread, clean_up, purpose="test")
    lane.close()
    lane.close()

    assert steps == ["clean-up"]
    assert not thread.start("test").tasks


def test_an_interrupt_in_a_lane_before_its_step_began_closes_it(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_wait = Call.wait
    waits: list[int] = []

    async def clean_up() -> None:
        steps.append("clean-up")

    async def step() -> bool:
        steps.append("step")
        await asyncio.sleep(60)
        return True

    def wait(call: Call[Any]) -> None:
        waits.append(1)
        if len(waits) == 1:
            signal.raise_signal(signal.SIGINT)
        real_wait(call)

    held = threading.Event()
    lane = Lane(thread, clean_up, purpose="test")
    loop_of(thread).call_soon_threadsafe(held.wait, 10)
    threading.Timer(0.05, held.set).start()
    monkeypatch.setattr(_call.Signal, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        lane.run(step, purpose="test")

    assert steps == ["clean-up"]
    assert lane.has_ended
