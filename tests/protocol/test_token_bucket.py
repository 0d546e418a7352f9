"""A token bucket in front of a rolling window: what may be spent, and when."""

from __future__ import annotations

import math
import random

import pytest

from apex_llm.protocol.token_bucket import TokenBucket


def spend_greedily(bucket: TokenBucket, amounts: list[float], *, until: float) -> list[tuple[float, float]]:
    """Spend as early as the bucket allows; the times and amounts."""
    now, spent = 0.0, []
    for amount in amounts:
        while (wait := bucket.wait(amount, now)) > 1e-9:
            now += wait
        if now > until:
            break
        bucket.take(amount, now)
        spent.append((now, amount))
    return spent


@pytest.mark.parametrize("seed", range(20))
def test_no_minute_ever_sees_more_than_the_limit(seed: int) -> None:
    """Whenever the minutes of the service begin, and even if requests arrive up to three quarters of a second late."""
    chance = random.Random(seed)
    bucket = TokenBucket(1000, burst=chance.choice([1, 10, 60]))

    spent = spend_greedily(bucket, [chance.randint(1, 200) for _ in range(300)], until=600)

    arrived = [(at + chance.uniform(0, 0.7), amount) for at, amount in spent]
    for start, _ in arrived:
        assert sum(amount for at, amount in arrived if start <= at < start + 60) <= 1000


@pytest.mark.parametrize("amount", [10, 25, 100, 300])
def test_nearly_all_of_the_limit_is_used(amount: int) -> None:
    spent = spend_greedily(TokenBucket(1000), [amount] * 1000, until=600)

    assert sum(amount for _, amount in spent) >= 0.9 * 10_000


def test_after_a_rest_a_burst_may_go_and_the_rest_is_paced() -> None:
    bucket = TokenBucket(600, burst=10)

    times = [at for at, _ in spend_greedily(bucket, [10] * 30, until=60)]

    assert times[:10] == [0.0] * 10
    assert times[10:13] == pytest.approx([1.0, 2.0, 3.0])


def test_what_is_larger_than_the_bucket_waits_for_a_full_one_and_leaves_a_debt() -> None:
    bucket = TokenBucket(600, burst=10)

    assert bucket.wait(300, 0) == 0
    bucket.take(300, 0)

    assert bucket.wait(1, 0) == pytest.approx(20.1)


def test_more_than_the_whole_limit_waits_for_an_empty_window_and_no_longer() -> None:
    bucket = TokenBucket(100, burst=60)
    bucket.take(1, 0)

    assert bucket.wait(5000, 10) == pytest.approx(51)
    assert bucket.wait(5000, 61) == 0


def test_what_was_reserved_and_not_used_can_be_spent_at_once() -> None:
    bucket = TokenBucket(100, burst=60)
    bucket.take(90, 0)
    assert bucket.wait(50, 1) > 0

    bucket.give_back(80, 1)

    assert bucket.remaining(1) == 90
    assert bucket.wait(50, 1) == 0


def test_reservations_that_come_back_do_not_lower_what_is_used() -> None:
    """A service that gives back what was not written must be usable to its limit, however much is reserved."""
    bucket = TokenBucket(1000)
    now, used, open_reservations = 0.0, 0, []
    while now < 600:
        while open_reservations and open_reservations[0] <= now:
            open_reservations.pop(0)
            bucket.give_back(90, now, paced=0)
        if bucket.wait(100, now, paced=10) == 0 and len(open_reservations) < 20:
            bucket.take(100, now, paced=10)
            used += 10
            open_reservations.append(now + 1)
        now += 0.05

    assert used >= 0.85 * 10_000


def test_the_service_is_believed_when_less_is_left_than_was_counted() -> None:
    bucket = TokenBucket(1000, burst=60)

    bucket.synchronise(30, 5)

    assert bucket.remaining(5) == 30
    assert bucket.wait(40, 5) > 0
    assert bucket.remaining(66.1) == 1000


def test_the_service_is_believed_when_more_is_left_than_was_counted() -> None:
    bucket = TokenBucket(1000, burst=60)
    bucket.take(600, 0)
    bucket.take(300, 1)

    bucket.synchronise(975, 2)

    assert bucket.remaining(2) == 975


def test_a_drained_bucket_fills_at_its_usual_rate() -> None:
    bucket = TokenBucket(600)
    bucket.drain(0)

    assert bucket.wait(10, 0) == pytest.approx(1)


def test_a_limit_that_is_not_known_only_counts() -> None:
    bucket = TokenBucket(math.inf)

    for second in range(100):
        assert bucket.wait(1e6, second) == 0
        bucket.take(10, second)
    bucket.drain(100)
    assert bucket.wait(1e6, 100) == 0
    assert bucket.spent(100) == pytest.approx(610, abs=10)

    bucket.change_limit(1000, 100)
    assert bucket.remaining(100) == pytest.approx(390, abs=10)


def test_a_new_limit_applies_to_what_was_spent_before() -> None:
    bucket = TokenBucket(1000, burst=60)
    bucket.take(500, 0)

    bucket.change_limit(400, 1)

    assert bucket.remaining(1) == 0
    assert bucket.wait(1, 1) == pytest.approx(60)


def test_memory_does_not_grow_with_the_number_of_requests() -> None:
    bucket = TokenBucket(1e9, burst=60)

    for number in range(100_000):
        bucket.take(1, number / 1000)

    assert len(bucket._slots) <= 250


@pytest.mark.parametrize(
    "arguments", [{"limit": 0}, {"limit": -1}, {"limit": 1, "period": 0}, {"limit": 1, "burst": 0}]
)
def test_figures_that_make_no_sense_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(**arguments)
