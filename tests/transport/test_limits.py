"""The retry quota's bookkeeping."""

from __future__ import annotations

import threading

import pytest

from apex_llm.transport.limits import Limits

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
    assert limits.snapshot() == {"retry_quota": {"capacity": None, "remaining": {}}}


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
