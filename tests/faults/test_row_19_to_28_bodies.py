"""Rows 19 to 28: bodies that are not what they promise."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

from fault_cases import FULL_TEXT, Column, observe

from apex_llm.emulator import Emulator, Fault, FaultCall, FaultConnection

MiB = 1 << 20


def test_row_19_a_body_shorter_than_its_length_is_retried(play: Any) -> None:
    play("short-body")


def test_row_20_a_chunk_that_does_not_end_is_refused(play: Any) -> None:
    play("bad-chunk-end")


def test_row_21_trailers_without_end_are_refused(play: Any) -> None:
    play("trailer-flood")


async def _fewer_chunks(connection: FaultConnection, call: FaultCall) -> None:
    body = b" " * (20_000 - len(call.body)) + call.body
    await connection.write(call.head(framing="chunked", last=True))
    await connection.write(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")


def test_row_22_very_many_small_chunks_are_read_in_little_memory(emulator: Emulator, column: Column) -> None:
    """400,000 of them; 20,000 through httpx, whose cost for each chunk is its own."""
    name = "one-byte-chunks"
    fault: Any = name if column.sender == "http11" else Fault(name, 22, "", _fewer_chunks)
    assert observe(emulator, column, name, "stream").text == FULL_TEXT
    began = time.process_time()
    assert observe(emulator, column, fault, "whole").text == FULL_TEXT
    assert time.process_time() - began < 10, "client and server together take about one second"

    tracemalloc.start()
    try:
        reduced = Fault(name, 22, "", _fewer_chunks)
        assert observe(emulator, column, reduced, "whole").text == FULL_TEXT
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MiB


def test_row_23_a_compressed_bomb_is_refused_before_it_is_unpacked(play: Any) -> None:
    play("gzip-bomb")
    tracemalloc.start()
    try:
        play("gzip-bomb")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MiB, "the server packs 1 MiB at a time"


def test_row_24_a_compressed_bomb_on_a_stream_is_refused(play: Any) -> None:
    (observation,) = play("gzip-bomb-on-a-stream")
    assert "gzip" in str(observation.error) or observation.error is None


def test_row_25_a_login_page_is_named_as_what_it_is(play: Any) -> None:
    (observation,) = play("login-page")
    assert observation.error is not None
    assert "text/html" in str(observation.error)
    assert "Sign in" in str(observation.error)
    assert len(str(observation.error)) < 600


def test_row_26_json_nested_too_deep_is_a_limit_and_no_recursion_error(play: Any) -> None:
    play("deep-json")


def test_row_27_strange_json_has_a_defined_result(play: Any) -> None:
    for name in ("huge-integer", "lone-surrogate", "not-a-number", "duplicate-keys", "broken-json-body"):
        for observation in play(name):
            assert observation.error is not None or observation.text == FULL_TEXT


def test_row_28_a_wrong_charset_changes_nothing(play: Any) -> None:
    (observation,) = play("utf-16-label", answer="Gr\u00fc\u00dfe \u2713")
    assert observation.text == "Gr\u00fc\u00dfe \u2713"
