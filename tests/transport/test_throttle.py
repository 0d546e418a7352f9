"""Waiting for leave to send: fair, bounded by the deadline, and without lost slots."""

from __future__ import annotations

import asyncio
import gc
import random
import threading

import pytest
from transport_doubles import FakeResponse, Script, now, request_for, run_virtually

from apex_llm.errors import OverloadedError, RateLimitError, RequestTimeoutError
from apex_llm.transport.pipeline import compose
from apex_llm.transport.throttle import ConcurrencyThrottle, Outcome, ThrottleLayer


class Notes:
    """A throttle that lets everything pass and notes how it ended."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    async def acquire(self, request):
        return self.outcomes.append


async def test_leave_to_send_lasts_until_the_body_is_over():
    notes = Notes()
    answer = FakeResponse(200, {"x-ratelimit-remaining-tokens": "7"}, [b"one", b"two"])

    response = await compose([ThrottleLayer(notes)], Script(answer))(request_for())
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


async def test_a_response_that_is_dropped_is_not_kept_alive_by_its_throttle():
    """Or its finaliser, which closes the connection, would wait for the cycle collector."""
    finalised = []

    class Dropped(FakeResponse):
        def __del__(self):
            finalised.append(True)

    gc.disable()
    try:
        await compose([ThrottleLayer(Notes())], lambda request: _ready(Dropped()))(request_for())
        assert finalised == [True]
    finally:
        gc.enable()


async def _ready(response):
    return response


def test_no_more_than_the_limit_are_under_way_and_they_go_in_order():
    throttle = ConcurrencyThrottle(3)
    order: list[int] = []
    most = 0

    async def call(number: int) -> None:
        nonlocal most
        release = await throttle.acquire(request_for())
        order.append(number)
        most = max(most, throttle.active)
        await asyncio.sleep(random.Random(number).random())
        release(Outcome())

    async def main():
        await asyncio.gather(*(call(number) for number in range(100)))

    run_virtually(main())

    assert most == 3
    assert order == list(range(100))
    assert throttle.active == throttle.waiting == 0


def test_nobody_overtakes_those_who_wait():
    async def main():
        throttle = ConcurrencyThrottle(1)
        first = await throttle.acquire(request_for())
        waiting = asyncio.create_task(throttle.acquire(request_for()))
        await asyncio.sleep(0)
        first(Outcome())
        late = asyncio.create_task(throttle.acquire(request_for()))
        second = await waiting
        await asyncio.sleep(1)
        assert not late.done()
        second(Outcome())
        (await late)(Outcome())
        assert throttle.active == 0

    run_virtually(main())


def test_waiting_ends_at_the_deadline():
    async def main():
        throttle = ConcurrencyThrottle(1)
        await throttle.acquire(request_for())
        with pytest.raises(RequestTimeoutError) as caught:
            await throttle.acquire(request_for(deadline=now() + 5))
        assert now() == pytest.approx(5)
        assert caught.value.phase == "queue"
        assert throttle.waiting == 0
        assert throttle.active == 1

    run_virtually(main())


def test_a_wait_may_be_cancelled_at_its_very_deadline():
    async def main():
        complaints = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context))
        throttle = ConcurrencyThrottle(1)
        await throttle.acquire(request_for())
        waiting = asyncio.create_task(throttle.acquire(request_for(deadline=5.0)))
        loop.call_at(4.9999999999, waiting.cancel)
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        await asyncio.sleep(1)
        assert complaints == []
        assert throttle.waiting == 0

    run_virtually(main())


def test_a_queue_that_is_full_refuses_at_once():
    async def main():
        throttle = ConcurrencyThrottle(1, max_waiting=1)
        await throttle.acquire(request_for())
        waiting = asyncio.create_task(throttle.acquire(request_for()))
        await asyncio.sleep(0)
        with pytest.raises(RateLimitError) as caught:
            await throttle.acquire(request_for())
        assert caught.value.retryable is False
        waiting.cancel()
        await asyncio.wait([waiting])
        assert throttle.waiting == 0

    run_virtually(main())


def test_ten_thousand_cancellations_at_every_moment_lose_no_slot():
    """Waiting, just granted, and sending: cancelled and timed out in each state."""
    chance = random.Random(63)
    throttle = ConcurrencyThrottle(5, max_waiting=100_000)

    async def send(request):
        await asyncio.sleep(chance.choice([0, 0, 0.01]))
        if chance.random() < 0.1:
            raise OverloadedError("503")
        return FakeResponse()

    pipeline = compose([ThrottleLayer(throttle)], send)

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
        assert {type(None), asyncio.CancelledError, OverloadedError, RequestTimeoutError} <= kinds
        await asyncio.sleep(1)

    run_virtually(main())

    assert throttle.active == throttle.waiting == 0


async def test_a_slot_given_back_by_another_thread_wakes_who_waits():
    """A finaliser runs in whatever thread the garbage collector happens to use."""
    throttle = ConcurrencyThrottle(1)
    release = await throttle.acquire(request_for())
    waiting = asyncio.create_task(throttle.acquire(request_for()))
    await asyncio.sleep(0)
    asyncio.get_running_loop().set_debug(True)

    thread = threading.Timer(0.05, release, args=(Outcome(),))
    thread.start()

    (await asyncio.wait_for(waiting, 5))(Outcome())
    thread.join()
    assert throttle.active == 0


def test_loops_one_after_the_other_may_share_a_throttle():
    throttle = ConcurrencyThrottle(1)
    abandoned = []

    async def leave_somebody_waiting():
        release = await throttle.acquire(request_for())
        abandoned.append(asyncio.create_task(throttle.acquire(request_for())))
        await asyncio.sleep(0)
        return release

    release = asyncio.run(leave_somebody_waiting())
    release(Outcome())

    async def use():
        (await throttle.acquire(request_for()))(Outcome())

    asyncio.run(use())
    assert throttle.active == throttle.waiting == 0


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        ConcurrencyThrottle(0)
