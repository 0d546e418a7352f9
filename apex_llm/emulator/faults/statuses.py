"""Faults that are answers in good order: refusals, waits that are asked for, redirects."""

from __future__ import annotations

__all__ = ["STATUS_FAULTS"]

from collections.abc import Callable
from email.utils import formatdate

from apex_llm.emulator.answers import Failure
from apex_llm.emulator.failures import azure_failure, bedrock_failure
from apex_llm.emulator.faults.base import Fault, FaultCall, Player
from apex_llm.emulator.raw import FaultConnection
from apex_llm.emulator.wire import compact

_SERVER_CLOCK = 1_800_000_000
"""A server whose clock is years off: only its own Date header makes sense of its own dates."""


def _refusal(kind: str, *lines: str, status: int | None = None) -> Player:
    """An error in the words of each cloud, with header lines of its own."""

    async def play(connection: FaultConnection, call: FaultCall) -> None:
        failure = Failure(kind=kind, status=status)
        if call.wire == "azure":
            worded = azure_failure(failure, model=call.request.model)
            body = compact({"error": {"code": worded.code, "message": worded.message}})
            named: tuple[str, ...] = ()
        else:
            worded = bedrock_failure(failure)
            body = compact({"message": worded.message})
            named = (f"x-amzn-errortype: {worded.code}:http://internal.amazon.com/coral/com.amazon.bedrock/",)
        await _answer(connection, call, worded.status, body, *named, *lines)

    return play


def _bare(status: int) -> Player:
    """A status and nothing else, as a proxy in between says it."""

    async def play(connection: FaultConnection, call: FaultCall) -> None:
        await _answer(connection, call, status, b"")

    return play


async def _answer(connection: FaultConnection, call: FaultCall, status: int, body: bytes, *lines: str) -> None:
    if any(line.startswith("date:") for line in lines):
        call = FaultCall(
            request=call.request,
            reply=call.reply,
            headers=tuple(pair for pair in call.headers if pair[0] != "date"),
            random=call.random,
        )
    head = call.head(
        *lines, status=status, framing="length", length=len(body), content_type="application/json", last=True
    )
    await connection.write(head + body)


async def _redirect(connection: FaultConnection, call: FaultCall) -> None:
    # The same server under another name is another origin, and records whatever follows.
    port = (call.request.headers.get("host") or "").rpartition(":")[2]
    await _answer(connection, call, 307, b"", f"location: http://localhost:{port}{call.request.path}")


async def _error_body_dripped(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head(status=503, framing="length", length=4096, content_type="application/json"))
    await connection.write(b'{"message":"')
    await connection.stall()


async def _error_body_broken(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head(status=503, framing="length", length=4096, content_type="application/json"))
    await connection.write(b'{"message":"')


def _throttled(name: str, row: int, summary: str, *lines: str) -> Fault:
    return Fault(name, row, summary, _refusal("throttled", *lines))


def _wait_until() -> tuple[str, str]:
    return (
        f"date: {formatdate(_SERVER_CLOCK, usegmt=True)}",
        f"retry-after: {formatdate(_SERVER_CLOCK + 2, usegmt=True)}",
    )


_kinds: tuple[tuple[str, str], ...] = (
    ("negative", "-5"),
    ("nan", "NaN"),
    ("overflow", "1e400"),
    ("text", "soon"),
)
_with_status: Callable[[int], Fault] = lambda status: Fault(  # noqa: E731 # one line a row, as everywhere below
    f"status-{status}", 37, f"Status {status}, without a body.", _bare(status)
)

STATUS_FAULTS = (
    _throttled(
        "throttled-until-a-date", 29, "429 with a Retry-After date of +2 s by a clock that is off.", *_wait_until()
    ),
    _throttled("throttled-for-700-ms", 30, "429 with retry-after-ms: 700.", "retry-after-ms: 700"),
    _throttled("throttled-for-1500-ms", 31, "429 with x-ms-retry-after-ms: 1500.", "x-ms-retry-after-ms: 1500"),
    _throttled("throttled-for-an-hour", 32, "429 with Retry-After: 3600.", "retry-after: 3600"),
    *(
        _throttled(f"retry-after-{name}", 33, f"429 with Retry-After: {value}.", f"retry-after: {value}")
        for name, value in _kinds
    ),
    Fault("unavailable", 34, "503 in the cloud's own words.", _refusal("unavailable")),
    Fault("empty-500", 35, "500 without a body.", _bare(500)),
    Fault("error-body-stalls", 35, "503 whose body begins and never ends.", _error_body_dripped),
    Fault("error-body-broken", 35, "503 whose body is shorter than its Content-Length.", _error_body_broken),
    Fault("model-timeout", 36, "408: the model took too long.", _refusal("timeout")),
    Fault("model-error", 36, "424 (on Azure 500): the model failed.", _refusal("model_error")),
    *(_with_status(status) for status in (425, 520, 522, 524, 527, 529)),
    Fault("redirect", 38, "307 to another origin.", _redirect),
)
