"""Delays: the jitter's distribution, and every way in which servers ask for time."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_llm.protocol.backoff import clock_offset, full_jitter, hinted_delay, parse_http_date, retry_after_hint

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()
DATE = "Sun, 22 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize("attempt", range(1, 13))
@pytest.mark.parametrize("base_delay", [0.05, 1.0])
def test_delays_are_uniform_up_to_a_bound_that_doubles_and_stops_at_twenty_seconds(attempt, base_delay):
    """botocore's own criterion: each fifth of the range holds about a fifth of 10,000 draws."""
    generator = random.Random(attempt)
    bound = min(20.0, base_delay * 2 ** (attempt - 1))

    draws = [
        full_jitter(attempt, base_delay=base_delay, max_delay=20.0, random=generator.random) for _ in range(10_000)
    ]

    assert all(0 <= draw < bound for draw in draws)
    for fifth in range(5):
        share = sum(fifth / 5 <= draw / bound < (fifth + 1) / 5 for draw in draws) / len(draws)
        assert share == pytest.approx(0.2, abs=0.02)


def test_the_bound_is_reached_at_the_tenth_attempt_and_never_overflows():
    def longest(attempt: int) -> float:
        return full_jitter(attempt, base_delay=0.05, max_delay=20.0, random=lambda: 1.0)

    assert longest(1) == 0.05
    assert longest(9) == pytest.approx(12.8)
    assert longest(10) == 20.0
    assert longest(1_000_000) == 20.0


@pytest.mark.parametrize(
    ("hint", "longest"), [(0.7, 0.875), (1.5, 1.875), (2.0, 2.5), (8.0, 10.0), (60.0, 62.0), (0.0, 0.0)]
)
def test_a_hint_is_obeyed_and_exceeded_by_at_most_a_quarter_and_two_seconds(hint, longest):
    assert hinted_delay(hint, random=lambda: 0.0) == hint
    assert hinted_delay(hint, random=lambda: 1.0) == pytest.approx(longest)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "700"}, 0.7),
        ({"retry-after-ms": "0.5"}, 0.0005),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"x-amz-retry-after": "2500"}, 2.5),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 3 "}, 3.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "3600"}, 3600.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:02 GMT", "date": DATE}, 2.0),
        ({"retry-after": "Sunday, 22-Nov-26 12:00:02 GMT", "date": DATE}, 2.0),
        ({"retry-after": "Sun Nov 22 12:00:02 2026", "date": DATE}, 2.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:05 GMT"}, 5.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:05 GMT", "date": "nonsense"}, 5.0),
        ({}, None),
    ],
)
def test_each_form_of_hint_is_understood(headers, seconds):
    assert retry_after_hint(headers, now=NOW) == seconds


def test_milliseconds_outrank_seconds_and_openais_form_the_others():
    everything = {
        "retry-after-ms": "100",
        "x-ms-retry-after-ms": "200",
        "x-amz-retry-after": "300",
        "retry-after": "4",
        "x-ratelimit-reset-tokens": "5",
        "x-ratelimit-reset-requests": "6",
        "x-rate-limit-reset-tokens": "7",
    }
    order = []
    while everything:
        order.append(retry_after_hint(everything, now=NOW, rate_limited=True))
        everything.pop(next(iter(everything)))

    assert order == [0.1, 0.2, 0.3, 4.0, 5.0, 6.0, 7.0]


@pytest.mark.parametrize(
    "value",
    [
        "-5", "-0.001", "NaN", "nan", "inf", "Infinity", "1e400", "soon", "", " ", "3 seconds", "3s", "1_000", "0x10",
        "３", "1, 2", "Sun, 22 Nov 2026 12:00:02 GMT or so", "Sun, 22 Nov 2026 11:59:00 GMT",  # noqa: RUF001
        "Sun, 31 Feb 2026 12:00:02 GMT", "Sun, 22 Nov 2026 25:00:00 GMT", "2026-11-22T12:00:02Z",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after", "retry-after"])
def test_hints_that_make_no_sense_are_passed_over(name, value):
    assert retry_after_hint({name: value, "date": DATE}, now=NOW) is None
    if name != "retry-after":
        assert retry_after_hint({name: value, "retry-after": "2"}, now=NOW) == 2.0


def test_a_date_is_measured_on_the_servers_clock_when_ours_is_wrong():
    headers = {"retry-after": "Sun, 22 Nov 2026 12:00:02 GMT", "date": DATE}

    assert retry_after_hint(headers, now=NOW - 3600) == 2.0
    assert retry_after_hint(headers, now=NOW + 3600) == 2.0


@pytest.mark.parametrize("value", ["0", "-1", "6m0s", "unknown"])
def test_reset_headers_that_say_unknown_are_not_hints(value):
    assert retry_after_hint({"x-ratelimit-reset-tokens": value}, now=NOW, rate_limited=True) is None


def test_reset_headers_count_only_for_rate_limits():
    """Azure sends them with every answer: after a 500 they would hold up the retry for a minute."""
    headers = {"x-ratelimit-reset-tokens": "58"}

    assert retry_after_hint(headers, now=NOW) is None
    assert retry_after_hint(headers, now=NOW, rate_limited=True) == 58.0


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 12, 30)))
def test_dates_agree_with_the_standard_library(moment):
    moment = moment.replace(tzinfo=UTC, microsecond=0)

    assert parse_http_date(format_datetime(moment, usegmt=True)) == moment.timestamp()


@given(st.text())
def test_no_text_makes_the_parsers_raise(text):
    retry_after_hint({"retry-after": text, "retry-after-ms": text, "date": text}, now=NOW, rate_limited=True)
    clock_offset(text, now=NOW)


def test_a_leap_second_is_a_date():
    assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == datetime(2017, 1, 1, tzinfo=UTC).timestamp()


def test_the_clock_offset_is_what_must_be_added_to_our_clock():
    assert clock_offset(DATE, now=NOW - 600) == 600.0
    assert clock_offset(DATE, now=NOW + 600) == -600.0
    assert clock_offset(None, now=NOW) is None
    assert clock_offset("yesterday", now=NOW) is None
