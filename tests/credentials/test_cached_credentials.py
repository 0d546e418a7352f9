"""One refresh for all, early, in the background, and never in the way."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import timeit

import pytest
from credential_fakes import Clock

from apex_llm.credentials.cached import CachedCredentials, Fetched, StaticCredentials
from apex_llm.credentials.threads import run_in_thread
from apex_llm.errors import ConnectionFailedError, KeyAccessDeniedError, MissingCredentialsError
from apex_llm.types.secrets import AwsCredentials, Secret


class Source:
    """Gives numbered credentials; ``gate`` holds them back, ``failure`` replaces them."""

    def __init__(self, clock: Clock, life: float | None = 3600.0) -> None:
        self.clock, self.life = clock, life
        self.calls = 0
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> AwsCredentials:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        else:
            await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return AwsCredentials(
            access_key_id=f"KEY{self.calls}",
            secret_access_key=Secret("s"),
            expires_at=None if self.life is None else self.clock.now + self.life,
        )


def made(clock: Clock, **options):
    source = Source(clock, **options)
    return source, CachedCredentials(source, name="Test credentials", clock=clock)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_hundred_waiters_make_one_fetch() -> None:
    source, cached = made(Clock())

    values = await asyncio.gather(*(cached.get() for _ in range(100)))

    assert source.calls == 1
    assert {value.access_key_id for value in values} == {"KEY1"}
    assert cached.current() is values[0]


async def test_waiters_survive_the_cancellation_of_the_one_who_began() -> None:
    source, cached = made(Clock())
    source.gate = asyncio.Event()
    leader = asyncio.create_task(cached.get())
    await settle()
    others = [asyncio.create_task(cached.get()) for _ in range(5)]
    await settle()

    leader.cancel()
    await settle()
    source.gate.set()

    assert {value.access_key_id for value in await asyncio.gather(*others)} == {"KEY1"}
    assert leader.cancelled()
    assert source.calls == 1


async def test_a_refresh_goes_on_when_every_waiter_has_left() -> None:
    source, cached = made(Clock())
    source.gate = asyncio.Event()
    lonely = asyncio.create_task(cached.get())
    await settle()
    lonely.cancel()
    await settle()
    source.gate.set()
    await settle()

    assert cached.current() is not None


async def test_in_the_advisory_window_nobody_waits() -> None:
    clock = Clock()
    source, cached = made(clock)
    old = await cached.get()
    source.gate = asyncio.Event()
    clock.now += 3600 - 899

    assert cached.current() is None, "the caller is asked to look in"
    assert await asyncio.wait_for(cached.get(), 1) is old
    assert cached.current() is old, "the next one signs inline while the refresh runs"
    await settle()
    assert source.calls == 2

    source.gate.set()
    await settle()
    assert cached.current().access_key_id == "KEY2"


async def test_in_the_mandatory_window_callers_wait() -> None:
    clock = Clock()
    source, cached = made(clock)
    await cached.get()
    clock.now += 3600 - 599

    values = await asyncio.gather(*(cached.get() for _ in range(100)))

    assert {value.access_key_id for value in values} == {"KEY2"}
    assert source.calls == 2


@pytest.mark.parametrize("left", [899, 599, 1])
async def test_the_old_value_serves_while_its_source_is_down(left: float, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    source, cached = made(clock)
    old = await cached.get()
    source.failure = ConnectionFailedError("no route")
    clock.now += 3600 - left

    with caplog.at_level(logging.WARNING, "apex_llm.credentials"):
        for _ in range(20):
            assert await cached.get() is old
            await settle()

    assert source.calls == 2, "a source that is down is left alone for a while"
    assert "no route" in caplog.text
    assert cached.current() is old


async def test_a_source_that_comes_back_is_noticed() -> None:
    clock = Clock()
    source, cached = made(clock)
    await cached.get()
    source.failure = ConnectionFailedError("no route")
    clock.now += 3600 - 800
    await cached.get()
    await settle()
    source.failure = None
    clock.now += 31
    await cached.get()
    await settle()

    assert cached.current().access_key_id == "KEY3"


async def test_once_the_old_value_has_expired_the_error_says_what_failed() -> None:
    clock = Clock()
    source, cached = made(clock)
    await cached.get()
    source.failure = ConnectionFailedError("no route to the agent")
    clock.now += 3601

    with pytest.raises(
        MissingCredentialsError, match="Test credentials could not be obtained: no route to the agent"
    ) as e:
        await cached.get()

    assert e.value.retryable
    assert isinstance(e.value.__cause__, ConnectionFailedError)


async def test_each_waiter_gets_an_error_of_its_own() -> None:
    source, cached = made(Clock())
    source.failure = MissingCredentialsError("nothing there")

    errors = await asyncio.gather(*(cached.get() for _ in range(3)), return_exceptions=True)

    assert source.calls == 1
    assert {str(error) for error in errors} == {"nothing there"}
    assert len({id(error) for error in errors}) == 3


async def test_foreign_errors_are_translated_without_their_text() -> None:
    source, cached = made(Clock())
    source.failure = ValueError("secret-canary")

    with pytest.raises(MissingCredentialsError) as caught:
        await cached.get()

    assert "secret-canary" not in str(caught.value)
    assert "ValueError" in str(caught.value)


async def test_access_that_was_taken_away_ends_at_once() -> None:
    clock = Clock()
    source, cached = made(clock)
    await cached.get()
    source.failure = KeyAccessDeniedError("no longer yours")
    clock.now += 3600 - 500

    with pytest.raises(KeyAccessDeniedError):
        await cached.get()
    assert cached.current() is None


@pytest.mark.parametrize("life", [720.0, 300.0, 30.0])
async def test_short_lived_credentials_are_not_fetched_for_every_call(life: float) -> None:
    clock = Clock()
    source, cached = made(clock, life=life)
    for _ in range(50):
        await cached.get()
        await settle()

    assert source.calls == 2, "one more look, as its source may hold younger ones; then they last a while"
    clock.now += life * 0.8
    await cached.get()
    assert source.calls == 3


async def test_credentials_near_their_end_are_looked_for_again_at_once() -> None:
    """Twelve minutes left is inside the advisory window, as in botocore."""
    clock = Clock()
    source, cached = made(clock, life=720.0)
    first = await cached.get()
    source.life = 7200.0

    assert await cached.get() is first
    await settle()
    assert cached.current().access_key_id == "KEY2"
    assert source.calls == 2


async def test_what_is_expired_on_arrival_is_refused() -> None:
    _, cached = made(Clock(), life=-5.0)

    with pytest.raises(MissingCredentialsError, match="expired 5 s ago") as caught:
        await cached.get()
    assert "clock" in caught.value.hint


async def test_invalidate_makes_the_next_call_fetch_unless_somebody_else_already_did() -> None:
    source, cached = made(Clock(), life=None)
    first = await cached.get()
    cached.invalidate(first)
    assert cached.current() is None
    second = await cached.get()
    cached.invalidate(first)

    assert cached.current() is second
    assert source.calls == 2
    cached.invalidate()
    assert (await cached.get()).access_key_id == "KEY3"


async def test_a_source_can_say_when_to_look_again() -> None:
    clock = Clock()
    calls = 0
    value = AwsCredentials(access_key_id="K", secret_access_key=Secret("s"))

    async def fetch():
        nonlocal calls
        calls += 1
        return Fetched(AwsCredentials(access_key_id="K", secret_access_key=Secret("s")), refresh_at=clock.now + 5)

    cached = CachedCredentials(fetch, clock=clock)
    first = await cached.get()
    clock.now += 4
    assert cached.current() is first
    clock.now += 2
    assert await cached.get() is first
    await settle()
    assert calls == 2
    assert cached.current() is first, "equal values keep their identity"
    assert first == value


def test_a_second_event_loop_uses_and_refreshes_the_same_cache() -> None:
    clock = Clock()
    source, cached = made(clock)
    asyncio.run(cached.get())
    clock.now += 3600

    assert asyncio.run(cached.get()).access_key_id == "KEY2"
    assert source.calls == 2


def test_a_refresh_left_behind_by_a_dead_loop_is_begun_anew() -> None:
    clock = Clock()
    source, cached = made(clock)
    asyncio.run(cached.get())
    clock.now += 3600 - 800

    async def leave_early():
        source.gate = asyncio.Event()
        await cached.get()
        await settle()

    asyncio.run(leave_early())
    source.gate = None
    clock.now += 300

    assert asyncio.run(asyncio.wait_for(cached.get(), 5)).access_key_id == "KEY3"


def test_a_loop_closed_over_a_refresh_leaves_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Without ``asyncio.run``, nobody cancels the task that is under way."""
    clock = Clock()
    source, cached = made(clock)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(cached.get())
    clock.now += 3600 - 800

    async def leave_early():
        source.gate = asyncio.Event()
        await cached.get()
        await settle()

    loop.run_until_complete(leave_early())
    loop.close()
    source.gate = None
    clock.now += 300
    assert asyncio.run(asyncio.wait_for(cached.get(), 5)).access_key_id == "KEY3"
    cached = None
    gc.collect()

    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_threads_with_loops_of_their_own_share_one_fetch() -> None:
    source, cached = made(Clock())
    begun = threading.Event()
    proceed = threading.Event()
    fetch = cached._fetch

    async def slow():
        begun.set()
        await run_in_thread(proceed.wait, 5)
        return await fetch()

    cached._fetch = slow
    values = []
    threads = [threading.Thread(target=lambda: values.append(asyncio.run(cached.get()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(5)
    proceed.set()
    for thread in threads:
        thread.join(10)

    assert len(values) == 8
    assert source.calls == 1


def test_a_waiter_on_another_loop_starts_again_when_the_first_loop_ends() -> None:
    source, cached = made(Clock())
    hold = threading.Event()

    async def lead():
        source.gate = asyncio.Event()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await cached.get()
        source.gate = None

    async def follow():
        hold.wait(5)
        return await cached.get()

    values = []
    second = threading.Thread(target=lambda: values.append(asyncio.run(follow())))
    second.start()

    async def both():
        running = asyncio.create_task(lead())
        await asyncio.sleep(0.05)
        hold.set()
        await running

    asyncio.run(both())
    second.join(10)

    assert values[0].access_key_id == "KEY2"


async def test_a_refresh_cancelled_before_its_first_step_does_not_strand_its_waiters() -> None:
    source, cached = made(Clock())
    waiting = asyncio.create_task(cached.get())
    await asyncio.sleep(0)
    for task in asyncio.all_tasks():
        if "refresh" in task.get_name():
            task.cancel()

    assert (await asyncio.wait_for(waiting, 5)).access_key_id == "KEY1"
    assert source.calls == 1


async def test_a_source_that_waits_for_something_cancelled_is_an_error_and_no_endless_loop() -> None:
    """A token callback may await a task of its own that somebody has cancelled."""
    calls = 0

    async def fetch() -> AwsCredentials:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError

    cached = CachedCredentials(fetch, name="Test credentials")

    with pytest.raises(MissingCredentialsError, match="CancelledError was raised"):
        await asyncio.wait_for(cached.get(), 5)
    assert calls == 1


async def test_a_thread_that_cannot_be_started_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    with pytest.raises(MissingCredentialsError, match="No thread") as caught:
        await run_in_thread(threading.get_ident)
    assert caught.value.retryable


async def test_current_is_cheap() -> None:
    _, cached = made(Clock())
    cached._clock = __import__("time").time
    cached._fetch = Source(Clock(cached._clock()))
    await cached.get()

    best = min(timeit.repeat(cached.current, number=20_000, repeat=5)) / 20_000

    assert best < 2e-6


async def test_static_credentials_reload_only_when_the_used_ones_were_refused() -> None:
    first = AwsCredentials(access_key_id="A", secret_access_key=Secret("s"))
    second = AwsCredentials(access_key_id="B", secret_access_key=Secret("s"))
    static = StaticCredentials(first, reload=lambda: second)
    static.invalidate(second)
    assert static.current() is first
    static.invalidate()
    assert await static.get() is second


async def test_tasks_that_start_at_once_do_not_lock_up() -> None:
    """Python 3.12 can run the first step of a task where it is created."""
    source, cached = made(Clock())

    def eager(loop, coroutine, **options):
        task = asyncio.Task(coroutine, loop=loop, **options)
        if "refresh" in task.get_name():
            raise AssertionError("the refresh must not go through the task factory")
        return task

    asyncio.get_running_loop().set_task_factory(eager)

    assert (await asyncio.wait_for(cached.get(), 5)).access_key_id == "KEY1"
    assert source.calls == 1
