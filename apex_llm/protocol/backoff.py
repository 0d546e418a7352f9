"""How long to wait before trying again: full jitter, and the delays that servers ask for.

The shape of the jitter and its constants are those of the AWS SDKs' standard retry mode;
dates are RFC 9110 section 5.6.7. Pure arithmetic: no clock, no sleeping, and no opinion on
whether to try again at all, which is ``apex_llm.transport.retry``.
"""

from __future__ import annotations

__all__ = ["clock_offset", "full_jitter", "hinted_delay", "parse_http_date", "retry_after_hint"]

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite, ldexp
from typing import Final

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH: Final = "|".join(_MONTHS)
_TIME: Final = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
# Compiled at the first date, by re, which remembers: most processes never read one.
_DATE_FORMS: Final = (
    rf"\w{{3}}, (?P<day>\d\d) (?P<month>{_MONTH}) (?P<year>\d{{4}}) {_TIME} GMT",
    rf"\w{{6,9}}, (?P<day>\d\d)-(?P<month>{_MONTH})-(?P<year>\d\d) {_TIME} GMT",  # RFC 850
    rf"\w{{3}} (?P<month>{_MONTH}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",  # asctime
)
_MILLISECOND_HINTS: Final = ("retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after")
_RESET_HINTS: Final = ("x-ratelimit-reset-tokens", "x-ratelimit-reset-requests", "x-rate-limit-reset-tokens")
_MAX_DOUBLINGS: Final = 64


def full_jitter(attempt: int, *, base_delay: float, max_delay: float, random: Callable[[], float]) -> float:
    """A uniform draw from ``[0, min(max_delay, base_delay * 2**(attempt - 1))]``, in seconds.

    Args:
        attempt: Attempts made so far, from 1.
        base_delay: The longest wait after the first attempt.
        max_delay: The longest wait after any attempt.
        random: A uniform draw from ``[0, 1)``.
    """
    return random() * min(max_delay, ldexp(base_delay, min(attempt - 1, _MAX_DOUBLINGS)))


def hinted_delay(hint: float, *, random: Callable[[], float]) -> float:
    """The delay that a server named, and up to a quarter (at most two seconds) more.

    Never less than it said; more, so that clients that were told the same do not return
    in the same instant. A hint of zero asks for no wait, and gets none.
    """
    return hint + random() * min(2.0, hint / 4)


def retry_after_hint(headers: Mapping[str, str], *, now: float, rate_limited: bool = False) -> float | None:
    """Seconds that the response asks to wait; ``None`` where it says nothing that makes sense.

    In order: ``retry-after-ms``, ``x-ms-retry-after-ms``, ``x-amz-retry-after`` (all in
    milliseconds), ``retry-after`` as seconds, ``retry-after`` as a date. Negative, infinite
    or half-numeric values are passed over, and the next header is asked.

    Args:
        headers: Names in lower case.
        now: Local time in seconds since the epoch. Used for dates only, and only where the
            response has no ``date`` of its own: a server's date minus a server's date is
            right however wrong our clock is.
        rate_limited: Whether this answers a rate limit. Only then do Azure's
            ``x-ratelimit-reset-*`` (seconds; sent with every answer, 0 and -1 when unknown)
            say how long to wait; they come last.
    """
    for name in _MILLISECOND_HINTS:
        if (text := headers.get(name)) is not None and (milliseconds := _number(text)) is not None:
            return milliseconds / 1000
    if (text := headers.get("retry-after")) is not None:
        if (seconds := _number(text)) is not None:
            return seconds
        if (date := parse_http_date(text)) is not None:
            sent = parse_http_date(headers.get("date", ""))
            wait = date - (now if sent is None else sent)
            if wait >= 0:
                return wait
    if rate_limited:
        for name in _RESET_HINTS:
            if (text := headers.get(name)) is not None and (seconds := _number(text)):
                return seconds
    return None


def clock_offset(date: str | None, *, now: float) -> float | None:
    """Seconds to add to the local clock to get the server's, to the second; ``None`` without a valid ``date``.

    Args:
        date: The response's ``date`` header.
        now: Local time in seconds since the epoch.
    """
    server = parse_http_date(date or "")
    return None if server is None else server - now


def parse_http_date(text: str) -> float | None:
    """Seconds since the epoch of an HTTP date in any of its three forms; ``None`` for anything else."""
    text = text.strip()
    for form in _DATE_FORMS:
        match = re.fullmatch(form, text, re.ASCII)
        if match is None:
            continue
        year = int(match["year"])
        if len(match["year"]) == 2:
            # RFC 9110 reads a two-digit year that seems over 50 years ahead as past. Without
            # a clock, the POSIX pivot says the same for every date that a server now sends.
            year += 1900 if year >= 69 else 2000
        # Seconds are added apart, because 60 is a legal leap second here and not in datetime.
        try:
            moment = datetime(
                year,
                _MONTHS.index(match["month"]) + 1,
                int(match["day"]),
                int(match["hour"]),
                int(match["minute"]),
                tzinfo=UTC,
            ) + timedelta(seconds=min(int(match["second"]), 60))
        except (ValueError, OverflowError):
            return None
        return moment.timestamp()
    return None


def _number(text: str) -> float | None:
    """A finite number that is not negative and takes up the whole text."""
    # float() also takes 1_000 and the digits of other scripts, which no server means.
    if not text.isascii() or "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0 else None
