"""Rows 40 to 58: a stream never lies about its end, and never hangs."""

from __future__ import annotations

from typing import Any

import pytest
from fault_cases import FULL_TEXT, HALF_TEXT, IMPATIENT, NOT_HEARD, Column, Seen, observe

from apex_llm import StreamInterruptedError, StreamTruncatedError, Timeout
from apex_llm.emulator import Emulator


def test_row_40_a_clean_end_without_the_terminal_event_is_truncated(play: Any) -> None:
    play("truncated-stream")


def test_row_41_something_else_than_a_stream_is_told_as_what_it_is(play: Any) -> None:
    play("json-instead-of-stream")
    (page,) = play("page-instead-of-stream")
    assert "text/html" in str(page.error)
    play("empty-stream")


def test_row_42_half_an_event_is_truncated(play: Any) -> None:
    (observation,) = play("half-event")
    assert "bytes" in str(observation.error)


def test_row_43_a_body_without_length_that_ends_early_is_truncated(play: Any) -> None:
    play("close-without-length")
    play("drop-without-length")  # over TLS in another file; without it there is nothing amiss


def test_row_44_an_end_or_a_reset_in_the_middle_is_interrupted(play: Any) -> None:
    play("close-mid-stream")
    play("drop-mid-stream")
    play("reset-mid-stream")
    play("reset-after-head")


def test_row_45_a_cut_at_any_byte_keeps_exactly_what_was_delivered(emulator: Emulator, column: Column) -> None:
    """At random bytes over sockets; at every byte on decoders, in tests/recordings."""
    for _ in range(8):
        observation = observe(emulator, column, "cut-anywhere", "stream", times=1)
        if observation.error is None:
            # Before the first event, so that it was retried.
            assert observation.seen == Seen(sends=2)
            assert observation.text == FULL_TEXT
        else:
            assert isinstance(observation.error, StreamInterruptedError)
            assert observation.seen.sends == 1
            assert FULL_TEXT.startswith(observation.text)
            assert observation.error.partial is not None
            assert observation.error.partial.text == observation.text


def test_row_46_a_damaged_frame_is_refused_after_what_came_before_it(play: Any) -> None:
    play("bad-message-crc")
    play("bad-prelude-crc")


def test_row_47_a_length_beyond_reason_is_refused_at_once(play: Any, frugal: Any, column: Column) -> None:
    play("huge-frame-headers")
    play("huge-frame")
    assert frugal("huge-frame", "stream").error == ("LimitExceededError" if column.wire == "bedrock" else "")


def test_row_48_an_exception_in_the_stream_is_typed_and_keeps_the_text(play: Any) -> None:
    play("exception-mid-stream")
    play("exception-first")
    play("model-stream-error")


def test_row_49_an_error_frame_or_error_event_is_an_error(play: Any) -> None:
    (observation,) = play("error-event")
    assert "The server had an error." in str(observation.error)
    play("error-event-first")


def test_row_50_an_error_as_data_is_an_error(play: Any, column: Column) -> None:
    (observation,) = play("error-data")
    if column.wire == "azure":
        assert observation.error is not None
        assert observation.error.code == "429"


def test_row_51_what_is_unknown_is_passed_over(play: Any) -> None:
    (observation,) = play("unknown-events")
    assert observation.text == FULL_TEXT


def test_row_52_characters_may_be_split_and_bad_text_is_told(play: Any, column: Column) -> None:
    text = "Gr\u00fc\u00dfe \u2713 \U0001f642."
    (observation,) = play("split-characters", answer=text)
    assert observation.text == text
    (observation,) = play("bad-utf-8")
    if column.wire == "azure":
        assert observation.text.startswith(f"{HALF_TEXT} bad:\ufffd\ufffd")
        assert "not UTF-8" in observation.response.warnings[0]


def test_row_53_broken_json_in_one_event_keeps_what_came_before(play: Any) -> None:
    play("broken-json")


def test_row_54_silence_is_an_idle_timeout(play: Any) -> None:
    (observation,) = play("stall", timeout=IMPATIENT)
    assert observation.seconds < 5
    for observation in play("stall-before-head", timeout=NOT_HEARD, once=False):
        assert observation.seconds < 10


def test_row_55_bytes_without_meaning_do_not_keep_a_stream_alive(play: Any) -> None:
    for name in ("drip", "pings-only"):
        (observation,) = play(name, timeout=IMPATIENT)
        assert observation.seconds < 5


@pytest.mark.parametrize("fault", ["drip", "pings-only", "stall", "stall-before-head"])
def test_row_55_the_total_deadline_holds_whatever_the_server_does(
    emulator: Emulator, column: Column, fault: str
) -> None:
    timeout = Timeout(connect=5, first_byte=None, idle=None, total=0.4)
    observation = observe(emulator, column, fault, "stream", timeout=timeout)

    assert observation.error is not None
    assert 0.3 < observation.seconds < 4
    assert observation.seen.sends == 1


def test_row_56_an_event_without_end_is_refused_at_24_mib(play: Any, frugal: Any, column: Column) -> None:
    play("endless-event")
    cost = frugal("endless-event", "stream")
    assert cost.error == "LimitExceededError"
    if column.wire == "bedrock":
        assert cost.peak < 1 << 20, "a frame says in advance how long it is"


def test_row_57_what_follows_the_end_is_ignored_with_a_warning(play: Any, column: Column) -> None:
    (observation,) = play("events-after-end")
    assert observation.text == FULL_TEXT
    assert "ignored" in observation.response.warnings[0]
    (observation,) = play("events-after-end", strict_streams=True)
    assert observation.text == FULL_TEXT


def test_row_57_blocks_out_of_order_are_taken_as_they_come_or_refused_where_that_is_asked_for(
    emulator: Emulator, column: Column
) -> None:
    for api in ("chat",) if column.wire == "azure" else ("converse", "invoke"):
        # Claude's native stream has one event more in front of its text.
        half = HALF_TEXT.removesuffix(" jumps") if api == "invoke" else HALF_TEXT
        for fault, before, after in (
            ("index-backwards", " later", " earlier"),
            ("text-after-block-end", "", " and on"),
        ):
            in_calls = api == "chat" and fault == "index-backwards"
            lenient = observe(emulator, column, fault, "stream", api=api)
            assert lenient.error is None
            # Sorted, since blocks are put in their order at the end.
            assert sorted(lenient.text) == sorted(FULL_TEXT + ("" if in_calls else before + after))
            assert [call.id for call in lenient.response.tool_calls] == (["call_1", "call_0"] if in_calls else [])

            strict = observe(emulator, column, fault, "stream", api=api, strict_streams=True)
            kept = half if in_calls else half + before
            assert strict.seen == Seen("StreamInterruptedError", "ProtocolError", False, kept)
            assert "out of order" in str(strict.error)


def test_row_58_a_missing_or_careless_done_is_no_truncation(play: Any) -> None:
    for name in ("no-done", "done-without-line-end", "bare-done", "bare-done-without-line-end"):
        (observation,) = play(name)
        assert observation.text == FULL_TEXT


def test_a_truncated_stream_is_a_kind_of_interruption() -> None:
    assert issubclass(StreamTruncatedError, StreamInterruptedError)
