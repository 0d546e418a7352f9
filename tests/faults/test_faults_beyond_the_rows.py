"""Faults that no row names, played like those that one does: on both wires, through each way of calling.

Each of them was found by somebody else's server: a gateway that packs its apology, an error without the
packaging of the stream it stands in, a header that was added twice, bytes after the last word.
"""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from fault_cases import COLUMNS, FULL_TEXT, HALF_TEXT, QUICK, Column, Observation, observe

from apex_llm.emulator import Emulator, Fault, FaultCall, FaultConnection
from apex_llm.emulator.faults.base import AZURE, STREAM, chunked

THROTTLED = {
    "bedrock": b'{"__type":"com.amazon.coral.service#ThrottlingException",\n"message":"Too many requests"}',
    "azure": b'{\n  "error": {"code": "429", "message": "Rate limit is exceeded."}\n}',
}

OVER_SSE = [column for column in COLUMNS if column.wire == "azure"]


def see(
    emulator: Emulator, column: Column, play: Any, call: str, *, times: int | None = 1, **facts: Any
) -> Observation:
    return observe(emulator, column, Fault("unlisted", 0, "", play, **facts), call, times=times, retry=QUICK)


def answered_at_the_second_attempt(observation: Observation) -> bool:
    return observation.error is None and observation.text == FULL_TEXT and observation.seen.sends == 2


@pytest.mark.parametrize("call", ["whole", "stream"])
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_refusal_in_a_coding_that_nobody_asked_for_is_decided_by_its_status(
    emulator: Emulator, column: Column, coding: str, call: str
) -> None:
    """Content networks pack their apologies whatever they were asked; a packed 503 is as transient as a bare one."""
    body = gzip.compress(b"<html>Service Unavailable</html>" * 1000)

    async def play(connection: FaultConnection, fault: FaultCall) -> None:
        head = fault.head(f"content-encoding: {coding}", status=503, framing="length", length=len(body))
        await connection.write(head + body)

    assert answered_at_the_second_attempt(see(emulator, column, play, call))
    observation = see(emulator, column, play, call, times=None)
    assert observation.seen.error == "OverloadedError"
    assert observation.error is not None
    assert (observation.error.status, observation.seen.sends) == (503, 3)


@pytest.mark.parametrize("content_type", ["application/json", None, ""])
@pytest.mark.parametrize("call", ["whole", "stream"])
def test_an_error_in_json_under_status_200_is_the_services_error(
    emulator: Emulator, column: Column, call: str, content_type: str | None
) -> None:
    """Whatever type it claims: the right one for an error, that of a good answer, or none."""

    async def play(connection: FaultConnection, fault: FaultCall) -> None:
        body = THROTTLED[fault.wire]
        head = fault.head(framing="length", length=len(body), content_type=content_type, last=True)
        if content_type == "":
            head = head.replace(b"content-type: \r\n", b"")
        await connection.write(head)
        for start in range(0, len(body), 30):
            await connection.write(body[start : start + 30])

    assert answered_at_the_second_attempt(see(emulator, column, play, call))
    observation = see(emulator, column, play, call, times=None)
    assert observation.seen.error == "RateLimitError"
    assert observation.seen.sends == 3


@pytest.mark.parametrize("column", OVER_SSE, ids=str)
@pytest.mark.parametrize("blank", [b"", b"\n\n"])
def test_an_error_in_bare_json_in_the_middle_of_a_stream_is_the_services_error(
    emulator: Emulator, column: Column, blank: bytes
) -> None:
    async def play(connection: FaultConnection, fault: FaultCall) -> None:
        await connection.write(fault.head(last=True) + chunked([*fault.begun, THROTTLED["azure"] + blank]))

    observation = see(emulator, column, play, "stream", times=None)

    assert observation.seen.error == "StreamInterruptedError"
    assert type(getattr(observation.error, "__cause__", None)).__name__ == "RateLimitError"
    assert observation.text == HALF_TEXT


@pytest.mark.parametrize("column", OVER_SSE, ids=str)
@pytest.mark.parametrize("page", [b"<html>\n\n<body>Sign in</body></html>", b'{"choices": [], "said": "a secret"}'])
def test_a_page_that_calls_itself_an_event_stream_is_told_as_what_it_is(
    emulator: Emulator, column: Column, page: bytes
) -> None:
    async def play(connection: FaultConnection, fault: FaultCall) -> None:
        await connection.write(fault.head(last=True) + chunked([page]))

    observation = see(emulator, column, play, "stream", times=None)

    assert (observation.seen.error, observation.seen.sends) == ("ResponseFormatError", 1)
    assert "secret" not in str(observation.error), "JSON may hold what a model or a user said"


@pytest.mark.parametrize("call", ["whole", "stream"])
def test_a_content_type_that_was_added_twice_is_the_same_content_type(
    emulator: Emulator, column: Column, call: str
) -> None:
    async def play(connection: FaultConnection, fault: FaultCall) -> None:
        again = next(f"content-type: {value}" for name, value in fault.headers if name == "content-type")
        body = chunked(fault.parts) if fault.streamed else fault.body
        await connection.write(fault.head(again, last=True) + body)

    observation = see(emulator, column, play, call, times=None)

    assert (observation.error, observation.text) == (None, FULL_TEXT)


def test_bytes_after_done_are_no_truncation(emulator: Emulator, column: Column) -> None:
    """The terminal event was seen and the body ended cleanly: nothing of the answer can be missing."""

    async def play(connection: FaultConnection, fault: FaultCall) -> None:
        await connection.write(fault.head(last=True) + chunked([*fault.parts, b": half a comm"]))

    observation = see(emulator, column, play, "stream", times=None, calls=STREAM, wires=AZURE)

    assert (observation.error, observation.text) == (None, FULL_TEXT)
    if column.wire == "azure":
        assert observation.response.warnings == ("13 bytes after [DONE] are no event and were ignored.",)


def test_spaces_before_done_are_no_fault(emulator: Emulator, column: Column) -> None:
    async def play(connection: FaultConnection, fault: FaultCall) -> None:
        body = fault.body.replace(b"data: [DONE]", b"data:  [DONE] ")
        await connection.write(fault.head(last=True) + chunked([body]))

    observation = see(emulator, column, play, "stream", times=None, calls=STREAM, wires=AZURE)

    assert (observation.error, observation.text) == (None, FULL_TEXT)


@pytest.mark.parametrize(("status", "wants"), [(407, "A proxy in between"), (511, "The network in between")])
def test_a_refusal_by_what_stands_in_between_says_so(
    emulator: Emulator, column: Column, status: int, wants: str
) -> None:
    """No key of ours is wrong, and no other model helps."""

    async def play(connection: FaultConnection, fault: FaultCall) -> None:
        await connection.write(fault.head(status=status, framing="length", length=0, last=True))

    observation = see(emulator, column, play, "whole", times=None)

    assert observation.error is not None
    assert (observation.error.hint or "").startswith(wants)
    assert observation.seen.sends == 1
