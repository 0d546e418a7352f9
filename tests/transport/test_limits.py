"""The retry quota's bookkeeping, and what ``Limits`` makes of refusals, failures and headers."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from transport_doubles import FakeResponse, Script, failure, now, request_for, run_virtually

from apex_llm.errors import ConnectionFailedError, OverloadedError, RateLimitError, RequestTimeoutError
from apex_llm.transport.breaker import BreakerPolicy
from apex_llm.transport.classify import ClassifyLayer
from apex_llm.transport.limits import Limits
from apex_llm.transport.pipeline import compose
from apex_llm.transport.throttle import Outcome
from apex_llm.types.responses import Usage

KEY = ("host", "model")


def remaining(limits: Limits, key=KEY) -> int:
    quota = limits.snapshot()["retry_quota"]
    return quota["remaining"].get(key, quota["capacity"])


def test_retries_cost_what_the_aws_sdks_charge():
    limits = Limits()

    assert limits.take_retry(KEY, throttled=False) == 14
    assert limits.take_retry(KEY, throttled=True) == 5
    assert remaining(limits) == 481


def test_the_quota_is_never_overdrawn():
    limits = Limits()

    paid = [limits.take_retry(KEY, throttled=False) for _ in range(100)]

    assert paid.count(14) == 35
    assert paid[35:] == [None] * 65
    assert remaining(limits) == 10
    assert limits.take_retry(KEY, throttled=True) == 5


def test_tokens_come_back_up_to_the_capacity():
    limits = Limits()
    limits.take_retry(KEY, throttled=True)

    limits.give_back(KEY, 1)
    assert remaining(limits) == 496
    limits.give_back(KEY, 14)
    assert remaining(limits) == 500
    limits.give_back(KEY, 14)
    assert remaining(limits) == 500


def test_without_a_quota_every_retry_is_free():
    limits = Limits(retry_quota=None)

    assert [limits.take_retry(KEY, throttled=False) for _ in range(100)] == [0] * 100
    assert limits.snapshot() == {"retry_quota": {"capacity": None, "remaining": {}}, "models": {}}


def test_the_quota_may_be_switched_like_a_feature():
    assert Limits(retry_quota=True).snapshot() == Limits().snapshot() == Limits(retry_quota=500).snapshot()
    assert Limits(retry_quota=False).snapshot() == Limits(retry_quota=None).snapshot()


def test_a_quota_of_zero_refuses_every_retry():
    assert Limits(retry_quota=0).take_retry(KEY, throttled=True) is None


def test_a_negative_quota_is_refused():
    with pytest.raises(ValueError, match="-1"):
        Limits(retry_quota=-1)


def test_memory_is_bounded_however_many_models_are_named():
    limits = Limits()

    for number in range(5000):
        limits.take_retry(("host", f"model-{number}"), throttled=False)

    known = limits.snapshot()["retry_quota"]["remaining"]
    assert len(known) == 1000
    assert ("host", "model-4999") in known


def test_threads_lose_no_tokens():
    limits = Limits(retry_quota=1_000_000)

    def work():
        for _ in range(5000):
            limits.take_retry(KEY, throttled=False)
            limits.give_back(KEY, 13)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert remaining(limits) == 1_000_000 - 8 * 5000


# Everything else -------------------------------------------------------------------------------


def state(limits: Limits, model="anthropic.claude-sonnet-4-6") -> dict:
    return next(found for (_, name), found in limits.snapshot()["models"].items() if name == model)


def pipeline(limits: Limits, *answers):
    script = Script(*answers)
    return script, compose([ClassifyLayer(failure), *limits.layers()], script)


async def call(send, **changes):
    response = await send(request_for(**changes))
    response.close()
    return response


def test_nothing_is_composed_while_nothing_is_on():
    assert Limits().layers() == ()
    assert not Limits().active
    assert len(Limits(learn=True).layers()) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_minute": -1}, "tokens_per_minute"),
        ({"tokens_per_minute": float("inf")}, "tokens_per_minute"),
        ({"tokens_per_minute": float("nan")}, "tokens_per_minute"),
        ({"adaptive_concurrency": -3}, "adaptive_concurrency"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"burst_seconds": 0}, "burst_seconds"),
        ({"burst_seconds": 61}, "burst_seconds"),
    ],
)
def test_a_figure_that_makes_no_sense_is_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        Limits(**arguments)


def test_a_snapshot_is_plain_values():
    limits = Limits(
        tokens_per_minute=1000, requests_per_minute=60, adaptive_concurrency=4, circuit_breaker=True, learn=True
    )

    async def main():
        _, send = pipeline(limits, FakeResponse())
        await call(send, estimated_tokens=100)

    run_virtually(main())

    assert json.loads(json.dumps(state(limits))) == {
        "active": 0,
        "waiting": 0,
        "sent": 1,
        "throttled": 0,
        "refused": 0,
        "concurrency": {"limit": 4, "adaptive": True},
        "breaker": {"state": "closed", "calls": 1, "failures": 0, "retry_after": None},
        "paused_for": 0.0,
        "requests": {"limit": 60, "remaining": 59, "source": "configured"},
        "tokens": {"limit": 1000, "remaining": 900, "source": "configured"},
    }


def test_requests_that_are_to_no_model_pass():
    limits = Limits(requests_per_minute=1, circuit_breaker=True)

    async def main():
        _, send = pipeline(limits, FakeResponse())
        for _ in range(10):
            await call(send, model="")
        assert now() == 0

    run_virtually(main())


def test_each_model_and_endpoint_has_limits_of_its_own():
    limits = Limits(requests_per_minute=1)

    async def main():
        _, send = pipeline(limits, FakeResponse())
        await call(send, model="a")
        await call(send, model="b")
        assert now() == 0
        await call(send, model="a")
        assert now() == pytest.approx(61)

    run_virtually(main())


def test_a_refusal_holds_back_everybody_until_the_service_wants_to_be_asked_again():
    limits = Limits(tokens_per_minute=1_000_000)

    async def main():
        script, send = pipeline(limits, FakeResponse(429, {"retry-after-ms": "7000"}), FakeResponse())
        with pytest.raises(RateLimitError):
            await call(send)
        assert state(limits)["paused_for"] == pytest.approx(7)
        await asyncio.gather(call(send), call(send))
        assert now() == pytest.approx(7)
        assert len(script.requests) == 3

    run_virtually(main())


def test_a_wait_of_a_day_is_not_obeyed_on_behalf_of_others():
    """They would all time out in the queue, and nobody would learn why."""
    limits = Limits(tokens_per_minute=1000)

    async def main():
        _, send = pipeline(limits, FakeResponse(429, {"retry-after": "86400"}), FakeResponse())
        with pytest.raises(RateLimitError):
            await call(send)
        await call(send)
        assert now() == pytest.approx(60)

    run_virtually(main())


def test_the_limits_of_v1_headers_are_taken_over():
    limits = Limits(learn=True)
    told = {"x-ratelimit-limit-tokens": "50000", "x-ratelimit-remaining-tokens": "49900",
            "x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-tokens": "42"}  # fmt: skip

    async def main():
        await call(pipeline(limits, FakeResponse(200, told))[1], estimated_tokens=40)

    run_virtually(main())
    assert state(limits)["tokens"] == {"limit": 50000, "remaining": 49900, "source": "told"}
    assert state(limits)["requests"] == {"limit": 500, "remaining": 499, "source": "told"}


def test_the_remainders_of_dated_deployments_are_taken_over():
    limits = Limits(learn=True)

    async def main():
        for remaining in ("900", "850", "950"):
            await call(
                pipeline(limits, FakeResponse(200, {"X-RateLimit-Remaining-Tokens".lower(): remaining}))[1],
                estimated_tokens=50,
            )

    run_virtually(main())
    assert state(limits)["tokens"] == {"limit": 1000, "remaining": 950, "source": "remainder"}


def test_the_older_refusal_is_understood():
    limits = Limits(learn=True)
    refusal = FakeResponse(429, {"policy-id": "DeploymentRatelimit-Token", "x-rate-limit-reset-tokens": "42"})

    async def main():
        for _ in range(5):
            await call(pipeline(limits, FakeResponse())[1], estimated_tokens=100)
        with pytest.raises(RateLimitError):
            await call(pipeline(limits, refusal)[1], estimated_tokens=100)
        assert state(limits)["paused_for"] == pytest.approx(42)
        assert state(limits)["tokens"] == {"limit": 500, "remaining": 0, "source": "refusal"}
        assert state(limits)["requests"] is None

    run_virtually(main())


def test_a_remainder_that_was_overtaken_is_not_believed():
    limits = Limits(learn=True, tokens_per_minute=1000)

    async def main():
        first = await limits.acquire(request_for(estimated_tokens=100))
        second = await limits.acquire(request_for(estimated_tokens=60))
        headers = FakeResponse(200, {"x-ratelimit-remaining-tokens": "840"}).headers
        second.answered(200, headers)
        first.answered(200, FakeResponse(200, {"x-ratelimit-remaining-tokens": "900"}).headers)
        assert state(limits)["tokens"]["remaining"] == 740

    run_virtually(main())


def test_while_nothing_is_known_one_request_goes_ahead():
    """But not for long: an answer that is not streamed has its head when all of it is written."""
    limits = Limits(learn=True)

    async def main():
        tasks = [asyncio.create_task(limits.acquire(request_for(estimated_tokens=1))) for _ in range(20)]
        await asyncio.sleep(0.5)
        assert sum(task.done() for task in tasks) == 1
        tasks[0].result().answered(200, FakeResponse().headers)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert all(task.done() for task in tasks)

        late = [asyncio.create_task(limits.acquire(request_for(model="b", estimated_tokens=1))) for _ in range(20)]
        await asyncio.sleep(1.01)
        assert all(task.done() for task in late)

    run_virtually(main())


def test_what_was_reserved_and_not_used_comes_back():
    limits = Limits(tokens_per_minute=1000)

    async def main():
        request = request_for(body=b'{"max_tokens":900}')
        request = request_for(body=request.body, estimated_tokens=limits.estimated_tokens(request))
        response = await pipeline(limits, FakeResponse())[1](request)
        assert state(limits)["tokens"]["remaining"] < 100
        response.close()
        limits.settle(request, Usage(input_tokens=10, output_tokens=20))
        assert state(limits)["tokens"]["remaining"] == 970

    run_virtually(main())


def test_what_was_under_way_at_the_first_refusal_shows_how_much_there_was_below_the_limit():
    limits = Limits(learn=True)
    good, refusal = FakeResponse().headers, FakeResponse(429).headers

    async def main():
        leaves = [await limits.acquire(request_for(estimated_tokens=100))]
        leaves[0].answered(200, good)
        leaves += [await limits.acquire(request_for(estimated_tokens=100)) for _ in range(9)]
        leaves[9].answered(429, refusal)
        assert state(limits)["tokens"]["limit"] == 100
        for leave in leaves[1:8]:
            leave.answered(200, good)
        leaves[8].answered(429, refusal)
        assert state(limits)["tokens"] == {"limit": 800, "remaining": 0, "source": "refusal"}

    run_virtually(main())


def test_a_call_that_was_refused_goes_before_those_who_came_later():
    """Else it waits for the whole queue once more, which is several times as long as all others wait."""
    limits = Limits(max_concurrency=1)
    order = []

    async def one(name, attempt):
        leave = await limits.acquire(request_for(attempt=attempt))
        order.append(name)
        leave.over(Outcome())

    async def main():
        holder = await limits.acquire(request_for())
        tasks = []
        for name, attempt in (("c", 1), ("d", 1), ("a", 2), ("b", 3), ("e", 1)):
            tasks.append(asyncio.create_task(one(name, attempt)))
            await asyncio.sleep(0)
        holder.over(Outcome())
        await asyncio.gather(*tasks)

    run_virtually(main())
    assert order == ["a", "b", "c", "d", "e"]


# Breaker, from end to end ------------------------------------------------------------------------

DOWN = [
    lambda request: FakeResponse(503),
    ConnectionFailedError("reset", kind="reset", phase="head"),
    RequestTimeoutError("no connection", phase="connect"),
]


@pytest.mark.parametrize("answer", DOWN, ids=["503", "reset", "timeout"])
def test_a_service_that_fails_is_left_alone_and_found_again(answer):
    limits = Limits(circuit_breaker=True)

    async def main():
        script, send = pipeline(limits, answer)
        for _ in range(10):
            with pytest.raises((OverloadedError, ConnectionFailedError, RequestTimeoutError)):
                await call(send)
        assert state(limits)["breaker"]["state"] == "open"

        with pytest.raises(OverloadedError) as caught:
            await call(send)
        assert caught.value.retry_after == pytest.approx(5)
        assert caught.value.retryable is False
        assert caught.value.status is None
        assert len(script.requests) == 10

        await asyncio.sleep(5)
        with pytest.raises((OverloadedError, ConnectionFailedError, RequestTimeoutError)):
            await call(send)
        assert len(script.requests) == 11
        with pytest.raises(OverloadedError) as caught:
            await call(send)
        assert caught.value.retry_after == pytest.approx(10)

        await asyncio.sleep(10)
        script, send = pipeline(limits, FakeResponse())
        await call(send)
        assert state(limits)["breaker"]["state"] == "closed"
        await call(send)

    run_virtually(main())


def test_only_one_probe_goes_at_a_time():
    limits = Limits(circuit_breaker=BreakerPolicy(min_calls=2))

    async def main():
        _, down = pipeline(limits, DOWN[0])
        for _ in range(2):
            with pytest.raises(OverloadedError):
                await call(down)
        await asyncio.sleep(5)

        async def slow(request):
            await asyncio.sleep(3)
            return FakeResponse()

        send = compose(limits.layers(), slow)
        results = await asyncio.gather(*(call(send) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(result, OverloadedError) for result in results) == 19
        assert state(limits)["breaker"]["state"] == "closed"

    run_virtually(main())


@pytest.mark.parametrize("status", [400, 404, 429])
def test_refusals_do_not_open_the_breaker(status):
    limits = Limits(circuit_breaker=True)

    async def main():
        _, send = pipeline(limits, lambda request: FakeResponse(status))
        for _ in range(50):
            with pytest.raises((OverloadedError, RateLimitError)):
                await call(send)
        assert state(limits)["breaker"]["state"] == "closed"

    run_virtually(main())


def test_cancelled_calls_say_nothing_about_the_service_and_a_cancelled_probe_makes_room():
    limits = Limits(circuit_breaker=BreakerPolicy(min_calls=2))

    async def main():
        async def hang(request):
            await asyncio.Event().wait()

        send = compose(limits.layers(), hang)
        tasks = [asyncio.create_task(call(send)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert state(limits)["breaker"]["calls"] == 0

        for _ in range(2):
            with pytest.raises(OverloadedError):
                await call(pipeline(limits, DOWN[0])[1])
        await asyncio.sleep(5)
        probe = asyncio.create_task(call(send))
        await asyncio.sleep(0)
        probe.cancel()
        await asyncio.wait([probe])
        await call(pipeline(limits, FakeResponse())[1])
        assert state(limits)["breaker"]["state"] == "closed"

    run_virtually(main())


def test_those_who_wait_are_told_when_the_breaker_opens():
    limits = Limits(circuit_breaker=BreakerPolicy(min_calls=1), max_concurrency=1)

    async def main():
        async def fail_slowly(request):
            await asyncio.sleep(1)
            return FakeResponse(503)

        send = compose([ClassifyLayer(failure), *limits.layers()], fail_slowly)
        results = await asyncio.gather(*(call(send) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, OverloadedError) for result in results)
        assert now() == pytest.approx(1)
        assert state(limits)["sent"] == 1

    run_virtually(main())


def test_concurrency_follows_what_the_service_bears():
    limits = Limits(adaptive_concurrency=True)
    active = 0

    async def service(request):
        nonlocal active
        active += 1
        try:
            await asyncio.sleep(0.5)
            return FakeResponse(429 if active > 6 else 200)
        finally:
            active -= 1

    async def caller(send):
        while now() < 300:
            try:
                await call(send)
            except RateLimitError:
                await asyncio.sleep(1)

    async def main():
        send = compose([ClassifyLayer(failure), *limits.layers()], service)
        await asyncio.gather(*(caller(send) for _ in range(30)))

    run_virtually(main())
    found = state(limits)
    assert 3 <= found["concurrency"]["limit"] <= 8
    assert found["throttled"] <= 0.1 * found["sent"]
    assert found["sent"] >= 0.6 * 6 * 300 / 0.5


def test_limits_can_be_shown():
    assert repr(Limits()) == "Limits(retry_quota=500)"
    assert repr(Limits(retry_quota=None, learn=True)) == "Limits(retry_quota=None, learn=True)"
