"""Rows 29 to 39: refusals, the waits they ask for, and redirects."""

from __future__ import annotations

from typing import Any

import pytest
from fault_cases import HURRIED, Column, observe

from apex_llm import Limits, RateLimitError, RetryPolicy
from apex_llm.emulator import Emulator


@pytest.mark.parametrize(
    ("name", "earliest", "latest"),
    [
        pytest.param("throttled-until-a-date", 2.0, 2.5, id="row_29_a_date_is_read_by_the_servers_own_clock"),
        pytest.param("throttled-for-700-ms", 0.7, 0.88, id="row_30_retry_after_ms"),
        pytest.param("throttled-for-1500-ms", 1.5, 1.88, id="row_31_x_ms_retry_after_ms"),
    ],
)
def test_rows_29_30_31_the_wait_that_is_asked_for_is_kept(play: Any, name: str, earliest: float, latest: float) -> None:
    """The policy of these tests gives up where the default one would wait; what it would wait is asked here."""
    for observation in play(name):
        assert isinstance(observation.error, RateLimitError)
        for draw in (0.0, 0.999999):
            delay = RetryPolicy(random=lambda draw=draw: draw).next_delay(observation.error, attempt=1, elapsed=0)
            assert delay is not None
            assert earliest <= delay <= latest


def test_row_32_a_wait_of_an_hour_is_an_error_at_once(emulator: Emulator, column: Column) -> None:
    for call in ("whole", "stream"):
        observation = observe(emulator, column, "throttled-for-an-hour", call, retry=RetryPolicy())
        assert observation.seen.error == "RateLimitError"
        assert observation.seen.sends == 1
        assert observation.error is not None
        assert observation.error.retry_after == 3600
        assert observation.seconds < 2, "it did not wait; the slack is for a busy machine"


@pytest.mark.parametrize("kind", ["negative", "nan", "overflow", "text"])
def test_row_33_a_nonsensical_wait_falls_back_to_jitter(play: Any, kind: str) -> None:
    for observation in play(f"retry-after-{kind}"):
        assert observation.error is not None
        assert observation.error.retry_after is None


def test_row_34_a_service_that_is_down_is_asked_three_times_and_then_less(
    play: Any, emulator: Emulator, column: Column
) -> None:
    play("unavailable")
    if column.twin == "async":
        limits = Limits()
        drained = [observe(emulator, column, "unavailable", "whole", limits=limits) for _ in range(20)]
        assert sum(observation.seen.sends for observation in drained) <= 20 + 500 // 14
        assert drained[-1].seen.sends == 1
        assert getattr(drained[-1].error, "quota_exhausted", False)


def test_row_35_an_error_without_a_body_is_retried_and_says_something(play: Any) -> None:
    for observation in play("empty-500"):
        assert "500" in str(observation.error)


def test_row_35_a_refusal_whose_body_breaks_or_stalls_is_decided_by_its_status(play: Any) -> None:
    play("error-body-broken")
    for observation in play("error-body-stalls", timeout=HURRIED):
        assert observation.seconds < 10
        assert observation.error is not None
        assert observation.error.status == 503


def test_row_36_a_model_that_timed_out_or_failed_is_not_asked_again_on_bedrock(play: Any, column: Column) -> None:
    for name, code in (("model-timeout", "ModelTimeoutException"), ("model-error", "ModelErrorException")):
        for observation in play(name):
            assert observation.error is not None
            if column.wire == "bedrock":
                assert observation.error.code == code


@pytest.mark.parametrize("status", [425, 520, 522, 524, 527, 529])
def test_row_37_uncommon_statuses_of_overload_are_transient(play: Any, status: int) -> None:
    for observation in play(f"status-{status}"):
        assert observation.error is not None
        assert observation.error.status == status


def test_row_38_a_redirect_is_never_followed(play: Any, emulator: Emulator) -> None:
    """It points to the same server under another name, which would see a request with that name."""
    for observation in play("redirect"):
        assert "localhost" in str(observation.error)
        assert "/model/" not in str(observation.error)
        assert [str(request.headers.get("host")).partition(":")[0] for request in emulator.requests] == ["127.0.0.1"]


def test_row_39_a_storm_of_clients_does_not_return_at_once() -> None:
    """Two hundred clients told the same second; on a virtual clock in tests/transport as well."""
    draws = iter(index / 200 for index in range(200))
    policy = RetryPolicy(random=lambda: next(draws))
    error = RateLimitError("Slow down.", retry_after=1.0)

    delays = sorted(policy.next_delay(error, attempt=1, elapsed=0) or 0.0 for _ in range(200))

    assert delays[0] >= 1.0
    assert delays[-1] - delays[0] > 0.2
    assert max(sum(start <= other < start + 0.05 for other in delays) for start in delays) <= 70
