"""Rows 40 to 44 once more, over TLS: its records are cut where nobody expects it, and its end may be missing."""

from __future__ import annotations

import ssl

import pytest
from fault_cases import FULL_TEXT, IMPOSSIBLE, Column, Seen, expected, observe

from apex_llm import StreamInterruptedError
from apex_llm.emulator import FAULTS, Emulator, Fault, FaultCall, FaultConnection

SAMPLED = [
    "reset-before-head",
    "close-in-head",
    "short-body",
    "bad-chunk-end",
    "truncated-stream",
    "empty-stream",
    "half-event",
    "close-without-length",
    "drop-mid-stream",
    "close-mid-stream",
    "reset-mid-stream",
    "reset-after-head",
    "glued-answer",
    "split-characters",
]


@pytest.mark.parametrize("fault", SAMPLED)
def test_rows_40_41_42_43_44_are_the_same_over_tls(
    sealed: Emulator, column: Column, client_tls: ssl.SSLContext, fault: str
) -> None:
    for call in FAULTS[fault].calls:
        observation = observe(sealed, column, fault, call, ssl_context=client_tls)
        assert observation.seen == expected(fault, call, column), repr(observation.error)


async def _whole_without_length(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head("connection: close", framing="none") + call.body)


def test_row_43_a_body_that_only_the_connection_ends_must_end_tls_too(
    sealed: Emulator, column: Column, client_tls: ssl.SSLContext
) -> None:
    """Anybody on the way can end a connection; what ends TLS is sealed."""
    ended = Fault("ended", 43, "", _whole_without_length)
    for call in ("whole", "stream"):
        assert observe(sealed, column, ended, call, ssl_context=client_tls).text == FULL_TEXT
        observation = observe(sealed, column, "drop-without-length", call, ssl_context=client_tls)
        if ("drop-without-length", column.sender) in IMPOSSIBLE:
            assert observation.text == FULL_TEXT
        elif call == "whole":
            assert observation.seen == Seen("ConnectionFailedError", "closed", True, sends=3)
        else:
            wanted = Seen("StreamInterruptedError", "ConnectionFailedError, closed", True, FULL_TEXT)
            assert observation.seen == wanted


def test_row_45_a_cut_at_any_byte_keeps_exactly_what_was_delivered_over_tls(
    sealed: Emulator, column: Column, client_tls: ssl.SSLContext
) -> None:
    for _ in range(4):
        observation = observe(sealed, column, "cut-anywhere", "stream", times=1, ssl_context=client_tls)
        if observation.error is None:
            assert (observation.seen, observation.text) == (Seen(sends=2), FULL_TEXT)
        else:
            assert isinstance(observation.error, StreamInterruptedError)
            assert observation.seen.sends == 1
            assert FULL_TEXT.startswith(observation.text)
