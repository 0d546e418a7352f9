"""Rows 19 to 28: bodies that are not what they promise."""

from __future__ import annotations

from typing import Any

from fault_cases import FULL_TEXT, Column, observe

from apex_llm.emulator import Emulator


def test_row_19_a_body_shorter_than_its_length_is_retried(play: Any) -> None:
    play("short-body")


def test_row_20_a_chunk_that_does_not_end_is_refused(play: Any) -> None:
    play("bad-chunk-end")


def test_row_21_trailers_without_end_are_refused(play: Any, frugal: Any) -> None:
    play("trailer-flood")
    assert frugal("trailer-flood", "whole").error == "LimitExceededError"


def test_row_22_very_many_small_chunks_are_read_in_little_memory(
    emulator: Emulator, column: Column, frugal: Any
) -> None:
    """400,000 of them; 20,000 through httpx, whose cost for each chunk is its own."""
    assert observe(emulator, column, "one-byte-chunks", "stream").text == FULL_TEXT
    assert frugal("one-byte-chunks", "whole").text == FULL_TEXT


def test_row_23_a_compressed_bomb_is_refused_before_it_is_unpacked(play: Any, frugal: Any) -> None:
    play("gzip-bomb")
    assert frugal("gzip-bomb", "whole").error == "ProtocolError"


def test_row_24_a_compressed_bomb_on_a_stream_is_refused(play: Any, frugal: Any) -> None:
    (observation,) = play("gzip-bomb-on-a-stream")
    assert "gzip" in str(observation.error)
    assert frugal("gzip-bomb-on-a-stream", "stream").error == "ProtocolError"


def test_row_25_a_login_page_is_named_as_what_it_is(play: Any) -> None:
    (observation,) = play("login-page")
    assert observation.error is not None
    assert "text/html" in str(observation.error)
    assert "Sign in" in str(observation.error)
    assert len(str(observation.error)) < 600


def test_row_26_json_nested_too_deep_is_a_limit_and_no_recursion_error(play: Any, frugal: Any) -> None:
    play("deep-json")
    assert frugal("deep-json", "whole").error == "LimitExceededError"


def test_row_27_strange_json_has_a_defined_result(play: Any) -> None:
    for name in ("huge-integer", "lone-surrogate", "not-a-number", "duplicate-keys", "broken-json-body"):
        for observation in play(name):
            assert observation.error is not None or observation.text == FULL_TEXT


def test_row_28_a_wrong_charset_changes_nothing(play: Any) -> None:
    (observation,) = play("utf-16-label", answer="Gr\u00fc\u00dfe \u2713")
    assert observation.text == "Gr\u00fc\u00dfe \u2713"
