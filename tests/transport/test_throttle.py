"""Waiting for leave to send: fair, bounded by the deadline, and without lost slots."""

from __future__ import annotations

import asyncio
import gc
import random
import threading

import pytest
from transport_doubles import FakeResponse, Script, now, request_for, run_virtually

from apex_llm.errors import OverloadedError, QueueFullError, RequestTimeoutError
from apex_llm.transport.limits import Limits
from apex_llm.transport.pipeline import compose
from apex_llm.transport.throttle import Outcome, ThrottleLayer


class Notes:
    """A throttle that lets everything pass and notes how it ended."""

    def __init__(self) -> None:
        self.heads: list[int] = []
        self.outcomes: list[Outcome] = []

    async def acquire(self, request):
        return self

    def answered(self, status, headers):
        self.heads.append(status)

    def over(self, outcome):
        self.outcomes.append(outcome)


def state(limits: Limits) -> dict:
    (only,) = limits.snapshot()["models"].values()
    return only


async def test_leave_to_send_lasts_until_the_body_is_over():
    notes = Notes()
    answer = FakeResponse(200, {"x-ratelimit-remaining-tokens": "7"}, [b"one", b"two"])

    response = await compose([ThrottleLayer(notes)], Script(answer))(request_for())
    assert notes.heads == [200]
    await response.read()
    await response.read()
    assert notes.outcomes == []
    assert await response.read() == b""

    (outcome,) = notes.outcomes
    assert outcome.status == 200
    assert outcome.headers.get("x-ratelimit-remaining-tokens") == "7"
    assert outcome.error is None
    response.close()
    assert len(notes.outcomes) == 1


@pytest.mark.parametrize("error", [OverloadedError("503"), asyncio.CancelledError(), ValueError("a bug")])
async def test_a_send_that_fails_gives_its_leave_back(error):
    notes = Notes()

    with pytest.raises(type(error)):
        await compose([ThrottleLayer(notes)], Script(error))(request_for())

    assert [outcome.error for outcome in notes.outcomes] == [error]


@pytest.mark.parametrize("throttle", [Notes, lambda: Limits(max_concurrency=5, learn=True, circuit_breaker=True)])
async def test_a_response_that_is_dropped_is_not_kept_alive_by_its_throttle(throttle):
    """Or its finaliser, which closes the connection, would wait for the cycle collector."""
    finalised = []

    class Dropped(FakeResponse):
        def __del__(self):
            finalised.append(True)

    gc.disable()
    try:
        await compose([ThrottleLayer(throttle())], lambda request: _ready(Dropped()))(request_for())
        assert finalised == [True]
    finally:
        gc.enable()


async def _ready(response):
    return response


def test_no_more_than_the_limit_are_under_way_and_they_go_in_order():
    limits = Limits(max_concurrency=3)
    order: list[int] = []
    most = 0

    async def call(number: int) -> None:
        nonlocal most
        leave = await limits.acquire(request_for())
        order.append(number)
        most = max(most, state(limits)["active"])
        await asyncio.sleep(random.Random(number).random())
        leave.over(Outcome())

    async def main():
        await asyncio.gather(*(call(number) for number in range(100)))

    run_virtually(main())

    assert most == 3
    assert order == list(range(100))
    assert state(limits)["active"] == state(limits)["waiting"] == 0


def test_nobody_overtakes_those_who_wait():
    async def main():
        limits = Limits(max_concurrency=1)
        first = await limits.acquire(request_for())
        waiting = asyncio.create_task(limits.acquire(request_for()))
        await asyncio.sleep(0)
        first.over(Outcome())
        late = asyncio.create_task(limits.acquire(request_for()))
        second = await waiting
        await asyncio.sleep(1)
        assert not late.done()
        second.over(Outcome())
        (await late).over(Outcome())
        assert state(limits)["active"] == 0

    run_virtually(main())


def test_a_large_request_is_not_passed_by_small_ones():
    """Or a stream of small ones could keep it waiting for ever."""

    async def main():
        limits = Limits(tokens_per_minute=600)
        order = []

        async def call(name, tokens):
            await limits.acquire(request_for(estimated_tokens=tokens))
            order.append(name)

        tasks = [asyncio.create_task(call("first", 90)), asyncio.create_task(call("large", 300))]
        tasks += [asyncio.create_task(call(f"small {number}", 1)) for number in range(5)]
        await asyncio.gather(*tasks)
        assert order == ["first", "large", *(f"small {number}" for number in range(5))]

    run_virtually(main())


def test_waiting_ends_at_the_deadline():
    async def main():
        limits = Limits(max_concurrency=1)
        await limits.acquire(request_for())
        with pytest.raises(RequestTimeoutError) as caught:
            await limits.acquire(request_for(deadline=now() + 5))
        assert now() == pytest.approx(5)
        assert caught.value.phase == "queue"
        assert state(limits)["waiting"] == 0
        assert state(limits)["active"] == 1

    run_virtually(main())


def test_a_wait_may_be_cancelled_at_its_very_deadline():
    async def main():
        complaints = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context))
        limits = Limits(max_concurrency=1)
        await limits.acquire(request_for())
        waiting = asyncio.create_task(limits.acquire(request_for(deadline=5.0)))
        loop.call_at(4.9999999999, waiting.cancel)
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        await asyncio.sleep(1)
        assert complaints == []
        assert state(limits)["waiting"] == 0

    run_virtually(main())


def test_a_queue_that_is_full_refuses_at_once():
    async def main():
        limits = Limits(max_concurrency=1, max_waiting=1)
        await limits.acquire(request_for())
        waiting = asyncio.create_task(limits.acquire(request_for()))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as caught:
            await limits.acquire(request_for())
        assert caught.value.retryable is False
        assert caught.value.phase == "queue"
        assert caught.value.model == request_for().model
        waiting.cancel()
        await asyncio.wait([waiting])
        assert state(limits)["waiting"] == 0
        assert state(limits)["refused"] == 1

    run_virtually(main())


def test_when_the_first_in_line_gives_up_the_next_is_served_in_time():
    """The timer of the first is gone with it."""

    async def main():
        limits = Limits(tokens_per_minute=600)
        await limits.acquire(request_for(estimated_tokens=100))
        first = asyncio.create_task(limits.acquire(request_for(estimated_tokens=90)))
        second = asyncio.create_task(limits.acquire(request_for(estimated_tokens=20)))
        await asyncio.sleep(0.5)
        first.cancel()
        await second
        assert now() == pytest.approx(2)

    run_virtually(main())


@pytest.mark.parametrize(
    "options",
    [
        {"max_concurrency": 5},
        {"adaptive_concurrency": 5},
        {"max_concurrency": 5, "tokens_per_minute": 60_000_000, "requests_per_minute": 6_000_000},
        {"max_concurrency": 5, "learn": True, "circuit_breaker": True},
    ],
    ids=lambda options: "+".join(options),
)
def test_ten_thousand_cancellations_at_every_moment_lose_no_slot(options):
    """Waiting, just granted, and sending: cancelled and timed out in each state."""
    chance = random.Random(63)
    limits = Limits(max_waiting=100_000, **options)

    async def send(request):
        await asyncio.sleep(chance.choice([0, 0, 0.01]))
        if chance.random() < 0.1:
            raise OverloadedError("503")
        return FakeResponse()

    pipeline = compose(limits.layers(), send)

    async def call():
        deadline = now() + chance.choice([0.01, 0.02, 100])
        response = await pipeline(request_for(deadline=deadline))
        try:
            await asyncio.sleep(0)
        finally:
            response.close()

    async def main():
        tasks = []
        for _ in range(10_000):
            tasks.append(asyncio.create_task(call()))
            if chance.random() < 0.5:
                chance.choice(tasks[-20:]).cancel()
            if chance.random() < 0.2:
                await asyncio.sleep(chance.choice([0, 0, 0.01]))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = {type(result) for result in results}
        assert kinds <= {type(None), asyncio.CancelledError, OverloadedError, RequestTimeoutError}
        assert {type(None), asyncio.CancelledError, OverloadedError} <= kinds
        await asyncio.sleep(1)

    run_virtually(main())

    assert state(limits)["active"] == state(limits)["waiting"] == 0


async def test_a_slot_given_back_by_another_thread_wakes_who_waits():
    """A finaliser runs in whatever thread the garbage collector happens to use."""
    limits = Limits(max_concurrency=1)
    leave = await limits.acquire(request_for())
    waiting = asyncio.create_task(limits.acquire(request_for()))
    await asyncio.sleep(0)
    asyncio.get_running_loop().set_debug(True)

    thread = threading.Timer(0.05, leave.over, args=(Outcome(),))
    thread.start()

    (await asyncio.wait_for(waiting, 5)).over(Outcome())
    thread.join()
    assert state(limits)["active"] == 0


def test_loops_one_after_the_other_may_share_limits():
    limits = Limits(max_concurrency=1)
    abandoned = []

    async def leave_somebody_waiting():
        leave = await limits.acquire(request_for())
        abandoned.append(asyncio.create_task(limits.acquire(request_for())))
        await asyncio.sleep(0)
        return leave

    asyncio.run(leave_somebody_waiting()).over(Outcome())

    async def use():
        (await limits.acquire(request_for())).over(Outcome())

    asyncio.run(use())
    assert state(limits)["active"] == state(limits)["waiting"] == 0


def test_a_loop_that_stands_still_does_not_hold_up_the_others_and_keeps_its_place():
    limits = Limits(max_concurrency=1)
    still = asyncio.new_event_loop()

    async def wait_here():
        (await limits.acquire(request_for())).over(Outcome())

    async def begin():
        leave = await limits.acquire(request_for())
        task = asyncio.create_task(wait_here())
        await asyncio.sleep(0)
        return leave, task

    leave, task = still.run_until_complete(begin())
    leave.over(Outcome())

    async def use():
        (await asyncio.wait_for(limits.acquire(request_for()), 5)).over(Outcome())

    asyncio.run(use())
    assert state(limits)["waiting"] == 1

    still.run_until_complete(asyncio.wait_for(task, 5))
    still.close()
    assert state(limits)["active"] == state(limits)["waiting"] == 0


def test_a_clock_that_begins_again_is_another_clock():
    """Each virtual loop begins at zero; limits that outlive one must not wait for its time to come back."""
    limits = Limits(requests_per_minute=6)

    async def use():
        began = now()
        for _ in range(3):
            (await limits.acquire(request_for())).over(Outcome())
        await asyncio.sleep(100)
        return now() - began

    assert all(119 <= run_virtually(use()) <= 140 for _ in range(3))


def test_eight_threads_with_loops_of_their_own_keep_one_limit():
    limits = Limits(max_concurrency=3, max_waiting=1000)
    lock = threading.Lock()
    active = most = served = 0

    async def call():
        nonlocal active, most, served
        leave = await limits.acquire(request_for())
        with lock:
            active += 1
            most = max(most, active)
        try:
            await asyncio.sleep(0)
        finally:
            with lock:
                active -= 1
                served += 1
            leave.over(Outcome())

    async def main(seed):
        chance = random.Random(seed)
        tasks = [asyncio.create_task(call()) for _ in range(100)]
        for _ in range(20):
            await asyncio.sleep(0)
            chance.choice(tasks).cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)

    threads = [threading.Thread(target=lambda seed=seed: asyncio.run(main(seed))) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most <= 3
    assert served >= 8 * 80
    assert state(limits)["active"] == state(limits)["waiting"] == 0


def test_threads_share_a_rate():
    """Two loops in two threads: the timer of one must not be forgotten by the other."""
    limits = Limits(requests_per_minute=6000, burst_seconds=0.01)
    times = []

    async def main():
        for _ in range(10):
            leave = await asyncio.wait_for(limits.acquire(request_for()), 30)
            times.append(asyncio.get_running_loop().time())
            leave.over(Outcome())

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(times) == 20
    assert max(times) - min(times) >= 0.15


def test_giving_back_in_a_finaliser_in_the_middle_of_a_change_is_safe():
    """The collector may run while the very same thread holds the lock."""
    limits = Limits(max_concurrency=2, tokens_per_minute=1e9)

    async def main():
        for _ in range(300):
            leave = await limits.acquire(request_for(estimated_tokens=1))

            class Holder:
                def __init__(self, leave):
                    self.leave = leave
                    self.me = self

                def __del__(self):
                    self.leave.over(Outcome())

            Holder(leave)
            del leave
            if state(limits)["active"] == 2:
                gc.collect()
        gc.collect()
        assert state(limits)["active"] == 0

    threshold = gc.get_threshold()
    gc.set_threshold(3, 2, 2)
    try:
        run_virtually(main())
    finally:
        gc.set_threshold(*threshold)
