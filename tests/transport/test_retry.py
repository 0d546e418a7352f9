"""The retry loop, on a clock that does not wait."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest
from transport_doubles import now, run_virtually

from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    ConnectionFailedError,
    InvalidRequestError,
    MissingCredentialsError,
    ModelTimeoutError,
    OverloadedError,
    RateLimitError,
    StreamInterruptedError,
    StreamTruncatedError,
)
from apex_llm.protocol.backoff import retry_after_hint
from apex_llm.transport.limits import Limits
from apex_llm.transport.retry import RetryPolicy, run_attempts

KEY = ("bedrock-runtime.us-east-1.amazonaws.com", "model")


class Attempts:
    """An attempt that fails with the given errors in order and then succeeds; notes when it was made."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.times: list[float] = []
        self.numbers: list[int] = []

    async def __call__(self, number: int) -> str:
        self.times.append(now())
        self.numbers.append(number)
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def always(error: type[ApexLlmError], **facts):
    async def attempt(number: int) -> str:
        attempt.sends += 1
        raise error("again", **facts)

    attempt.sends = 0
    return attempt


def test_a_call_that_succeeds_is_made_once():
    attempt = Attempts()

    assert run_virtually(run_attempts(attempt, policy=RetryPolicy(), quota=Limits(), key=KEY)) == "answer"
    assert attempt.numbers == [1]


@pytest.mark.parametrize(
    "error",
    [
        OverloadedError("503"),
        RateLimitError("429"),
        ConnectionFailedError("reset", kind="reset"),
        StreamTruncatedError("cut before the first event"),
        StreamInterruptedError("cut before the first event"),
    ],
)
def test_transient_failures_are_tried_again(error):
    attempt = Attempts(error, error)

    assert run_virtually(run_attempts(attempt, policy=RetryPolicy())) == "answer"
    assert attempt.numbers == [1, 2, 3]


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequestError("400"),
        AuthenticationError("403"),
        ModelTimeoutError("408: it would be billed again"),
        ConnectionFailedError("bad certificate", kind="certificate", retryable=False),
        StreamTruncatedError("cut after an event", events_seen=1),
        StreamInterruptedError("cut after an event", events_seen=3, retryable=True),
    ],
)
def test_what_cannot_be_repeated_is_raised_as_it_is(error):
    attempt = Attempts(error)

    with pytest.raises(ApexLlmError) as caught:
        run_virtually(run_attempts(attempt, policy=RetryPolicy()))

    assert caught.value is error
    assert error.attempts == 1


def test_the_last_error_is_raised_with_its_cause_and_the_number_of_attempts():
    cause = OSError("reset")
    last = ConnectionFailedError("reset", kind="reset")
    last.__cause__ = cause

    with pytest.raises(ConnectionFailedError) as caught:
        run_virtually(
            run_attempts(Attempts(OverloadedError("one"), OverloadedError("two"), last), policy=RetryPolicy())
        )

    assert caught.value is last
    assert caught.value.__cause__ is cause
    assert caught.value.attempts == 3


def test_without_a_policy_there_is_one_attempt():
    attempt = always(OverloadedError)

    with pytest.raises(OverloadedError) as caught:
        run_virtually(run_attempts(attempt, policy=None))

    assert attempt.sends == caught.value.attempts == 1


def test_nothing_was_attempted_when_the_set_up_is_wrong():
    with pytest.raises(MissingCredentialsError) as caught:
        run_virtually(run_attempts(always(MissingCredentialsError), policy=RetryPolicy()))

    assert caught.value.attempts == 0


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_is_not_ours_passes_untouched(error):
    async def attempt(number: int) -> str:
        attempt.sends += 1
        raise error

    attempt.sends = 0

    async def main():
        try:
            await run_attempts(attempt, policy=RetryPolicy())
        except BaseException as caught:
            return caught
        return None

    assert run_virtually(main()) is error
    assert attempt.sends == 1


def test_waits_grow_from_a_twentieth_of_a_second_and_from_one_second_when_throttled():
    policy = RetryPolicy(max_attempts=5, random=lambda: 1.0)

    for error, waits in ((OverloadedError, [0.05, 0.1, 0.2, 0.4]), (RateLimitError, [1, 2, 4, 8])):
        attempt = Attempts(*[error("again") for _ in waits])
        run_virtually(run_attempts(attempt, policy=policy))
        assert [
            later - earlier for earlier, later in zip(attempt.times, attempt.times[1:], strict=False)
        ] == pytest.approx(waits)


@pytest.mark.parametrize(
    ("headers", "earliest", "latest"),
    [
        ({"retry-after-ms": "700"}, 0.70, 0.88),
        ({"x-ms-retry-after-ms": "1500"}, 1.5, 1.88),
        (
            {"retry-after": "Sun, 22 Nov 2026 12:00:02 GMT", "date": "Sun, 22 Nov 2026 12:00:00 GMT"},
            2.0,
            2.5,
        ),
        ({"retry-after": "-5"}, 0.0, 1.0),
        ({"retry-after": "NaN"}, 0.0, 1.0),
        ({"retry-after": "1e400"}, 0.0, 1.0),
        ({"retry-after": "soon"}, 0.0, 1.0),
    ],
)
def test_the_next_attempt_comes_in_the_window_that_the_service_named(headers, earliest, latest):
    for seed in range(200):
        hint = retry_after_hint(headers, now=0.0)
        attempt = Attempts(RateLimitError("429", retry_after=hint))
        run_virtually(run_attempts(attempt, policy=RetryPolicy(random=random.Random(seed).random)))
        assert earliest <= attempt.times[1] <= latest


def test_a_wait_of_an_hour_is_not_obeyed_but_reported_at_once():
    async def main():
        with pytest.raises(RateLimitError) as caught:
            await run_attempts(Attempts(RateLimitError("429", retry_after=3600.0)), policy=RetryPolicy())
        return caught.value, now()

    error, when = run_virtually(main())

    assert error.retry_after == 3600.0
    assert error.attempts == 1
    assert when == 0.0


@pytest.mark.parametrize("facts", [{"retry_after": 5.0}, {}])
def test_a_wait_beyond_the_deadline_is_not_begun(facts):
    """Sleeping up to a deadline only to fail there gives the caller its error late and nothing else."""

    async def main():
        with pytest.raises(RateLimitError) as caught:
            await run_attempts(
                always(RateLimitError, **facts), policy=RetryPolicy(random=lambda: 1.0), deadline=now() + 0.9
            )
        return caught.value, now()

    error, when = run_virtually(main())

    assert error.retry_after == facts.get("retry_after")
    assert error.attempts == 1
    assert when == 0.0


def test_three_hints_of_two_seconds_stay_within_a_deadline_of_five():
    async def main():
        with pytest.raises(RateLimitError):
            await run_attempts(
                always(RateLimitError, retry_after=2.0), policy=RetryPolicy(max_attempts=9), deadline=now() + 5
            )
        return now()

    assert 4.0 <= run_virtually(main()) <= 5.0


class TestRecovery:
    """Renewed credentials and a corrected clock: once, at once, and not counted."""

    def test_a_recovered_call_is_repeated_at_once_and_outside_the_count(self):
        attempt = Attempts(AuthenticationError("expired"))
        asked = []

        async def recover(error):
            asked.append(error)
            return True

        assert run_virtually(run_attempts(attempt, policy=None, recover=recover)) == "answer"
        assert attempt.times == [0.0, 0.0]
        assert attempt.numbers == [1, 1]
        assert len(asked) == 1

    def test_recovery_is_used_once_only(self):
        async def recover(error):
            return True

        attempt = always(AuthenticationError)
        with pytest.raises(AuthenticationError) as caught:
            run_virtually(run_attempts(attempt, policy=RetryPolicy(), recover=recover))

        assert attempt.sends == caught.value.attempts == 2

    def test_a_recovery_that_declines_is_asked_again_about_the_next_error(self):
        async def recover(error):
            return isinstance(error, AuthenticationError)

        attempt = Attempts(OverloadedError("503"), AuthenticationError("expired"), OverloadedError("503"))

        assert run_virtually(run_attempts(attempt, policy=RetryPolicy(), recover=recover)) == "answer"
        assert attempt.numbers == [1, 2, 2, 3]
        assert attempt.times[2] == attempt.times[1] > 0

    def test_recovery_cannot_hold_up_a_call_beyond_its_deadline(self):
        async def recover(error):
            await asyncio.sleep(3600)
            return True

        async def main():
            with pytest.raises(AuthenticationError):
                await run_attempts(
                    always(AuthenticationError), policy=RetryPolicy(), recover=recover, deadline=now() + 5
                )
            return now()

        assert run_virtually(main()) == pytest.approx(5.0, abs=0.01)


class TestQuota:
    def test_a_service_that_is_down_gets_at_most_35_retries_from_a_thousand_calls(self):
        sends, errors = run_virtually(storm(1000, OverloadedError))

        assert sends <= 1035
        assert all(error.quota_exhausted for error in errors[-900:])
        assert all(error.attempts == 1 for error in errors[-900:])

    def test_a_service_that_throttles_gets_at_most_100_retries_from_a_thousand_calls(self):
        sends, _ = run_virtually(storm(1000, RateLimitError))

        assert sends <= 1100

    def test_one_failure_in_ten_is_hidden_from_callers_without_much_more_load(self):
        chance = random.Random(20261122)
        limits = Limits()
        lowest = 500
        sends = successes = 0

        async def attempt(number: int) -> str:
            nonlocal sends, lowest
            sends += 1
            lowest = min(lowest, limits.snapshot()["retry_quota"]["remaining"].get(KEY, 500))
            if chance.random() < 0.1:
                raise OverloadedError("503")
            return "answer"

        async def main():
            nonlocal successes
            for _ in range(10_000):
                try:
                    await run_attempts(attempt, policy=RetryPolicy(random=chance.random), quota=limits, key=KEY)
                    successes += 1
                except OverloadedError:
                    pass

        run_virtually(main())

        assert successes >= 9980
        assert sends <= 11_200
        assert lowest >= 0

    def test_a_retry_that_succeeds_gives_back_what_it_cost(self):
        limits = Limits()

        run_virtually(run_attempts(Attempts(OverloadedError("503")), policy=RetryPolicy(), quota=limits, key=KEY))

        assert limits.snapshot()["retry_quota"]["remaining"] == {}

    def test_a_call_that_is_cancelled_while_it_waits_pays_nothing(self):
        limits = Limits()

        async def main():
            call = asyncio.create_task(
                run_attempts(
                    Attempts(RateLimitError("429", retry_after=30.0)), policy=RetryPolicy(), quota=limits, key=KEY
                )
            )
            await asyncio.sleep(10)
            assert limits.snapshot()["retry_quota"]["remaining"] == {KEY: 495}
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

        run_virtually(main())

        assert limits.snapshot()["retry_quota"]["remaining"] == {}

    def test_models_do_not_pay_for_each_other(self):
        limits = Limits(retry_quota=14)

        with pytest.raises(OverloadedError) as caught:
            run_virtually(run_attempts(always(OverloadedError), policy=RetryPolicy(), quota=limits, key=("a", "x")))
        assert caught.value.attempts == 2

        attempt = Attempts(OverloadedError("503"))
        assert run_virtually(run_attempts(attempt, policy=RetryPolicy(), quota=limits, key=("a", "y"))) == "answer"


async def storm(calls: int, kind: type[ApexLlmError]) -> tuple[int, list[ApexLlmError]]:
    limits = Limits()
    attempt = always(kind)
    errors = []
    for _ in range(calls):
        try:
            await run_attempts(attempt, policy=RetryPolicy(), quota=limits, key=KEY)
        except kind as error:
            errors.append(error)
    return attempt.sends, errors


def test_two_hundred_clients_told_the_same_second_do_not_return_together():
    async def main():
        calls = [Attempts(RateLimitError("429", retry_after=1.0)) for _ in range(200)]
        policy = RetryPolicy(random=random.Random(7).random)
        await asyncio.gather(*(run_attempts(call, policy=policy) for call in calls))
        return sorted(call.times[1] for call in calls)

    returns = run_virtually(main())

    assert returns[0] >= 1.0
    assert returns[-1] <= 1.25
    busiest = max(sum(start <= other < start + 0.05 for other in returns) for start in returns)
    assert busiest / len(returns) <= 0.35


def test_each_retry_is_logged_at_info_and_told_to_the_hook(caplog):
    caplog.set_level(logging.INFO, logger="apex_llm.transport")
    told = []

    run_virtually(
        run_attempts(
            Attempts(OverloadedError("the body, which may hold a prompt", status=503)),
            policy=RetryPolicy(),
            operation="converse",
            on_retry=lambda *facts: told.append(facts),
        )
    )

    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert "retrying converse in" in record.getMessage()
    assert "prompt" not in record.getMessage()
    ((error, number, delay),) = told
    assert isinstance(error, OverloadedError)
    assert number == 1
    assert 0 <= delay <= 0.05


def test_a_hook_that_raises_does_not_break_the_call(caplog):
    def hook(*facts):
        raise ValueError("a bug in the hook")

    assert (
        run_virtually(run_attempts(Attempts(OverloadedError("503")), policy=RetryPolicy(), on_retry=hook)) == "answer"
    )
    assert "on_retry raised ValueError" in caplog.text


def test_a_policy_of_ones_own_needs_no_base_class():
    class Patient:
        max_attempts = 5

        def next_delay(self, error, *, attempt, elapsed):
            asked.append((attempt, elapsed))
            return 10.0 if attempt < 3 else None

    asked = []

    with pytest.raises(InvalidRequestError):
        run_virtually(run_attempts(always(InvalidRequestError), policy=Patient()))

    assert asked == [(1, 0.0), (2, 10.0), (3, 20.0)]


@pytest.mark.parametrize("delay", [float("nan"), float("inf")])
@pytest.mark.parametrize("deadline", [None, 600.0])
def test_a_policy_that_names_no_finite_wait_gives_up(delay, deadline):
    """Not a number, slept on, never ends, and leaves the loop's other timers out of order."""

    class Confused:
        max_attempts = 3

        def next_delay(self, error, *, attempt, elapsed):
            return delay

    attempt = always(OverloadedError)

    with pytest.raises(OverloadedError):
        run_virtually(run_attempts(attempt, policy=Confused(), deadline=deadline))

    assert attempt.sends == 1


def test_a_policy_of_ones_own_is_held_to_its_number_of_attempts():
    class Stubborn:
        max_attempts = 4

        def next_delay(self, error, *, attempt, elapsed):
            return 0.0

    attempt = always(OverloadedError)

    with pytest.raises(OverloadedError) as caught:
        run_virtually(run_attempts(attempt, policy=Stubborn()))

    assert (attempt.sends, caught.value.attempts) == (4, 4)


def test_a_policy_without_attempts_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        RetryPolicy(max_attempts=0)


@pytest.mark.parametrize("name", ["base_delay_transient", "base_delay_throttle", "max_delay", "max_retry_after"])
@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_policy_with_impossible_waits_is_refused(name, seconds):
    with pytest.raises(ValueError, match=f"{name} must be at least 0 seconds"):
        RetryPolicy(**{name: seconds})
