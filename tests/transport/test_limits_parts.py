"""The parts of the limits, each on its own: concurrency, breaker, headers, estimates."""

from __future__ import annotations

import random

import pytest
from transport_doubles import request_for

from apex_llm.transport.adaptive import AdaptiveConcurrency
from apex_llm.transport.breaker import BreakerPolicy, CircuitBreaker
from apex_llm.transport.estimate import TokenEstimate, largest_answer
from apex_llm.transport.rate_headers import RateFacts, read_rate_headers
from apex_llm.types.responses import Usage

# Concurrency ---------------------------------------------------------------------------------


def test_the_limit_grows_by_one_with_each_window_of_successes():
    adaptive = AdaptiveConcurrency(4)
    for _ in range(4):
        adaptive.saturated()
        adaptive.succeeded()
    assert adaptive.limit == 5
    for _ in range(4):
        adaptive.saturated()
        adaptive.succeeded()
    assert adaptive.limit == 5


def test_a_limit_that_nobody_needs_is_not_raised():
    adaptive = AdaptiveConcurrency(4)
    for _ in range(100):
        adaptive.succeeded()
    assert adaptive.limit == 4


def test_throttling_leaves_seven_tenths_and_never_less_than_one():
    adaptive = AdaptiveConcurrency(10)
    seen = []
    for number in range(1, 8):
        adaptive.throttled(number, newest=number)
        seen.append(adaptive.limit)
    assert seen == [7, 4, 2, 1, 1, 1, 1]


def test_a_burst_of_refusals_counts_once():
    adaptive = AdaptiveConcurrency(20)
    for number in range(1, 21):
        adaptive.throttled(number, newest=20)
    assert adaptive.limit == 14
    adaptive.throttled(21, newest=21)
    assert adaptive.limit == 9


@pytest.mark.parametrize("start", [1, 50])
def test_concurrency_converges_to_what_the_service_bears(start: int):
    """From below and from above; the service bears twelve exchanges at a time."""
    adaptive = AdaptiveConcurrency(start)
    seen, number = [], 0
    for _ in range(400):
        adaptive.saturated()
        first, newest = number + 1, number + adaptive.limit
        for number in range(first, newest + 1):
            if number - first < 12:
                adaptive.succeeded()
            else:
                adaptive.throttled(number, newest=newest)
        seen.append(adaptive.limit)
    settled = seen[100:]
    assert max(settled) <= 13
    assert min(settled) >= 8
    assert 9 <= sum(settled) / len(settled) <= 12


# Breaker -------------------------------------------------------------------------------------


def test_nine_failures_prove_nothing_and_ten_do():
    breaker = CircuitBreaker(BreakerPolicy())
    for second in range(9):
        breaker.ended(failed=True, probe=False, now=second)
    assert breaker.state(9) == "closed"
    breaker.ended(failed=True, probe=False, now=9)
    assert breaker.state(9) == "open"
    assert breaker.refusal(9) == 5
    assert breaker.refusal(11) == 3


@pytest.mark.parametrize(("failures", "opens"), [(49, False), (50, True)])
def test_half_of_the_calls_must_have_failed(failures: int, opens: bool):
    breaker = CircuitBreaker(BreakerPolicy())
    outcomes = [False] * (100 - failures) + [True] * failures
    for failed in outcomes:
        breaker.ended(failed=failed, probe=False, now=1)
    assert (breaker.state(1) == "open") is opens


def test_failures_are_forgotten_after_the_window():
    breaker = CircuitBreaker(BreakerPolicy())
    for _ in range(9):
        breaker.ended(failed=True, probe=False, now=0)
    assert breaker.counts(29.9) == (9, 9)
    breaker.ended(failed=True, probe=False, now=30.5)
    assert breaker.state(30.5) == "closed"
    assert breaker.counts(30.5) == (1, 1)


def test_the_time_doubles_with_each_probe_that_fails_up_to_a_minute():
    breaker = CircuitBreaker(BreakerPolicy())
    for _ in range(10):
        breaker.ended(failed=True, probe=False, now=0)
    now, waits = 0.0, []
    for _ in range(6):
        wait = breaker.refusal(now)
        assert wait is not None
        waits.append(wait)
        now += wait
        assert breaker.state(now) == "half_open"
        assert breaker.refusal(now) is None
        assert breaker.admitted()
        assert breaker.refusal(now) is not None, "one probe at a time"
        breaker.ended(failed=True, probe=True, now=now)
    assert waits == [5, 10, 20, 40, 60, 60]

    now += 60
    assert breaker.admitted()
    breaker.ended(failed=False, probe=True, now=now)
    assert breaker.state(now) == "closed"
    assert breaker.counts(now) == (0, 0)
    for _ in range(10):
        breaker.ended(failed=True, probe=False, now=now)
    assert breaker.refusal(now) == 5


def test_a_probe_that_is_cancelled_leaves_room_for_another():
    breaker = CircuitBreaker(BreakerPolicy())
    for _ in range(10):
        breaker.ended(failed=True, probe=False, now=0)
    assert breaker.admitted()
    breaker.abandoned()
    assert breaker.refusal(5) is None


def test_a_success_that_turns_out_to_be_a_failure_counts_as_one():
    breaker = CircuitBreaker(BreakerPolicy())
    for _ in range(10):
        breaker.ended(failed=False, probe=False, now=0)
    for _ in range(5):
        breaker.failed_late(now=0)
    assert breaker.state(0) == "open"


@pytest.mark.parametrize(
    "figures",
    [{"window": 0}, {"min_calls": 0}, {"failure_ratio": 0}, {"failure_ratio": 1.1}, {"open_seconds": 0}, {"probes": 0},
     {"open_seconds": 61}],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused(figures: dict[str, float]):
    with pytest.raises(ValueError, match="must be"):
        BreakerPolicy(**figures)


# Headers -------------------------------------------------------------------------------------


def test_the_headers_of_dated_deployments_tell_remainders():
    told = read_rate_headers({"x-ratelimit-remaining-requests": "9", "x-ratelimit-remaining-tokens": "975"})
    assert told.requests == RateFacts(remaining=9)
    assert told.tokens == RateFacts(remaining=975)


def test_the_headers_of_v1_tell_limits_remainders_and_resets():
    told = read_rate_headers(
        {
            "x-ratelimit-limit-requests": "10",
            "x-ratelimit-remaining-requests": "9",
            "x-ratelimit-reset-requests": "6",
            "x-ratelimit-limit-tokens": "1000",
            "x-ratelimit-remaining-tokens": "975",
            "x-ratelimit-reset-tokens": "42",
        }
    )
    assert told.requests == RateFacts(limit=10, remaining=9, reset=6)
    assert told.tokens == RateFacts(limit=1000, remaining=975, reset=42)


def test_the_older_refusal_tells_only_which_limit_and_when():
    told = read_rate_headers(
        {"x-rate-limit-reset-tokens": "42", "policy-id": "DeploymentRatelimit-Token"}, refused=True
    )
    assert told.tokens == RateFacts(reset=42)
    assert not told.blames_requests
    assert read_rate_headers({"policy-id": "DeploymentRatelimit-Request"}, refused=True).blames_requests


@pytest.mark.parametrize("value", ["-1", "", "many", "1e9", "nan", "inf", "٣", "1_000", "9" * 400])
def test_what_is_no_number_is_unknown(value: str):
    told = read_rate_headers({"x-ratelimit-limit-tokens": value, "x-ratelimit-remaining-tokens": value})
    assert told.tokens == RateFacts()


def test_zero_means_unknown_except_where_something_else_says_that_it_is_meant():
    zero = {"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "0"}
    assert read_rate_headers(zero).tokens == RateFacts()
    assert read_rate_headers(zero, refused=True).tokens == RateFacts(remaining=0)
    assert read_rate_headers(zero | {"x-ratelimit-limit-tokens": "1000"}).tokens == RateFacts(limit=1000, remaining=0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("6m0s", 360), ("20ms", 0.02), ("1s", 1), ("1h2m3s", 3723), ("7.66s", 7.66), ("18", 18)]
)
def test_resets_may_be_durations(text: str, seconds: float):
    assert read_rate_headers({"x-ratelimit-reset-tokens": text}).tokens.reset == pytest.approx(seconds)


# Estimates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "most"),
    [
        (b'{"messages":[],"max_tokens":100}', 100),
        (b'{"messages":[],"max_completion_tokens": 7}', 7),
        (b'{"inferenceConfig":{"maxTokens":500}}', 500),
        (b'{"textGenerationConfig":{"maxTokenCount":30}}', 30),
        (b'{"max_gen_len":12}', 12),
        (b'{"messages":[]}', None),
        (b'{"messages":[{"content":"say \\"max_tokens\\":5"}]}', None),
        (b'{"tools":[{"properties":{"max_tokens":{"type":"integer"}}}]}', None),
    ],
)
def test_the_largest_answer_is_read_from_the_body(body: bytes, most: int | None):
    assert largest_answer(body) == most


def test_an_image_counts_as_some_tokens_and_not_as_its_bytes():
    image = "".join(random.Random(1).choices("abcdefghABCDEFGH0123456789+/", k=400_000))
    estimate = TokenEstimate().tokens(request_for(body=b'{"max_tokens":100,"image":"%s"}' % image.encode()))
    assert 1500 <= estimate <= 1700


def test_estimates_get_better_with_each_answer():
    estimate = TokenEstimate()
    request = request_for(body=b"x" * 1000)
    for _ in range(30):
        estimate.learn(request, Usage(input_tokens=100, output_tokens=20))
    assert estimate.tokens(request) == pytest.approx(120, abs=3)


def test_what_is_charged_depends_on_whether_the_service_gives_back():
    request = request_for(body=b'{"max_tokens":1000}')
    usage = Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60)
    assert TokenEstimate().charged(request, usage, at_admission=True) == 1100
    assert TokenEstimate().charged(request, usage, at_admission=False) == 60
