"""Server-sent events: the published vectors, a plain model of the standard, and what hostile servers do."""

from __future__ import annotations

import base64
import copy
import re
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from protocol_helpers import byte_by_byte, load_vectors, pieces_of, sizes

from apex_llm.errors import LimitExceededError
from apex_llm.protocol.sse import ServerSentEvent, SseDecoder

VECTORS: list[dict[str, Any]] = load_vectors("sse")["vectors"]


def reads(vector: dict[str, Any]) -> list[bytes]:
    if vector["chunks_b64"] is not None:
        return [base64.b64decode(chunk) for chunk in vector["chunks_b64"]]
    assert vector["name"] == "long-data-line"
    return [b"data: " + b"a" * 70_000, b"b" * 70_000 + b"\n\n"]


def expected_events(vector: dict[str, Any]) -> list[ServerSentEvent]:
    events = []
    for event in vector["expected"]:
        data = event["data"]
        if isinstance(data, dict):
            data = "".join(text * count for text, count in data["repeat"])
        events.append(ServerSentEvent(event["event"], data, event["id"]))
    return events


def decode(pieces: list[bytes]) -> tuple[list[ServerSentEvent], SseDecoder]:
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)], decoder


def model(body: bytes) -> tuple[list[ServerSentEvent], int | None, str]:
    """The standard read literally, over a whole body at once: events, retry, last event id."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = re.split("\r\n|\r|\n", text)[:-1]
    events: list[ServerSentEvent] = []
    data = event = ""
    id_buffer = last_id = ""
    retry = retry_at_blank = None
    for line in lines:
        if not line:
            last_id, retry_at_blank = id_buffer, retry
            if data:
                events.append(ServerSentEvent(event or "message", data[:-1], last_id))
            data = event = ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data += value + "\n"
        elif field == "event":
            event = value
        elif field == "id" and "\0" not in value:
            id_buffer = value
        elif field == "retry" and re.fullmatch("[0-9]+", value):
            retry = int(value)
    return events, retry_at_blank, last_id


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
@pytest.mark.parametrize("cut", ["as-given", "whole", "byte-by-byte"])
def test_a_published_vector_is_decoded_as_expected(vector: dict[str, Any], cut: str) -> None:
    body = b"".join(reads(vector))
    pieces = {"as-given": reads(vector), "whole": [body], "byte-by-byte": byte_by_byte(body)}[cut]

    events, decoder = decode(pieces)
    accepted = decoder.finish()

    assert events == expected_events(vector)
    assert decoder.retry == vector["expected_retry"]
    assert decoder.last_event_id == vector["expected_last_event_id"]
    # The one deviation: the vector's [DONE] is not lost for its missing blank line.
    deviates = vector["name"] == "trailing-event-without-blank-line"
    assert accepted == ([("message", b"[DONE]")] if deviates else [])
    assert (decoder.discarded > 0) == (vector["discarded_at_eof"] and not deviates)
    assert decoder.replaced_bad_utf8 == (vector["name"] == "invalid-utf8-replaced")


@settings(deadline=None)
@given(vector=st.sampled_from(VECTORS[:-1]), cuts=sizes)
def test_any_cut_of_a_vector_gives_the_same_events(vector: dict[str, Any], cuts: list[int]) -> None:
    events, decoder = decode(pieces_of(b"".join(reads(vector)), cuts))

    assert events == expected_events(vector)
    assert decoder.retry == vector["expected_retry"]


FRAGMENTS = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\ndata: ", b"data: {}\n\n", b"event: delta\ndata: {}\n\n"),
    *(b"data", b"data:", b"data: ", b"event: ", b"event:a", b"id: 7", b"id", b"id: \0", b":", b" ", b": ping"),
    *(b"retry: 12", b"retry: -1", b"retry: 007", b"x", b"[DONE]", b"\x0b", b"\0", b"\xe2\x80\xa8"),
    *(b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xbf", b"\xc3\xa9", b"\xc3", b"\xa9", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80"),
]


@settings(deadline=None, max_examples=500)
@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=40), cuts=sizes)
@example(fragments=[b"data: a\n", b"\n\n\n", b"data: b\n\n"], cuts=[8, 1, 1])
@example(fragments=[b"event: \ndata: a\n\n"], cuts=[])
@example(fragments=[b"event: a\ndata: \n\n"], cuts=[])
def test_any_bytes_in_any_pieces_decode_as_the_standard_says(fragments: list[bytes], cuts: list[int]) -> None:
    body = b"".join(fragments)

    events, decoder = decode(pieces_of(body, cuts))
    decoder.finish()

    expected, retry, last_id = model(body)
    assert events == expected
    if not decoder.pending:
        assert decoder.retry == retry
    # An unfinished [DONE] event may carry an id of its own.
    assert decoder.last_event_id == last_id or b"[DONE]" in body


@settings(deadline=None)
@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=30))
def test_the_raw_form_gives_the_same_events_in_valid_utf8(fragments: list[bytes]) -> None:
    body = b"".join(fragments)

    raw = list(SseDecoder().feed_raw(body))

    assert [(event, data.decode()) for event, data in raw] == [(event.event, event.data) for event in decode([body])[0]]


@pytest.mark.parametrize("body", [b"data: [DONE]\n", b"data: [DONE]", b"data:[DONE]\r\n", b": done\ndata: [DONE]\n"])
def test_done_is_accepted_at_the_end_without_its_blank_line(body: bytes) -> None:
    _, decoder = decode([b"data: a\n\n", body])

    assert decoder.finish() == [("message", b"[DONE]")]
    assert decoder.discarded == 0
    assert decoder.finish() == []


@pytest.mark.parametrize("body", [b"[DONE]", b"[DONE]\n", b"[DONE]\n\n", b": ping\n[DONE]"])
def test_a_bare_done_says_nothing_and_is_no_cut_event(body: bytes) -> None:
    """Some servers leave ``data:`` out; whether the answer was complete, its finish reason says."""
    _, decoder = decode([b"data: a\n\n", body])

    assert decoder.finish() == []
    assert decoder.discarded == 0


@pytest.mark.parametrize(
    ("body", "discarded"),
    [
        (b"data: [DON", 10),
        (b'data: {"a":\ndata: [DONE]\n', 25),
        (b"event: x\n", 9),
        (b"\n\n\n", 0),
        (b"data: a\n\n\n", 0),
        (b": keep-alive\n", 0),
        (b": keep-al", 9),
        (b"\xef\xbb", 2),
    ],
)
def test_what_is_left_at_the_end_is_dropped_and_counted(body: bytes, discarded: int) -> None:
    """A keep-alive that no blank line follows must not make a whole stream look cut."""
    _, decoder = decode([body])

    assert decoder.finish() == []
    assert decoder.discarded == discarded


def test_an_unfinished_event_changes_neither_id_nor_retry() -> None:
    _, decoder = decode([b"id: 1\nretry: 5\ndata: a\n\nid: 2\nretry: 7\ndata: b\n"])

    decoder.finish()

    assert (decoder.last_event_id, decoder.retry) == ("1", 5)


def test_a_retry_of_absurd_length_is_ignored() -> None:
    """Python refuses to read integers of more than 4,300 digits, with a ValueError."""
    events, decoder = decode([b"retry: " + b"9" * 5_000 + b"\ndata: a\n\n"])

    assert len(events) == 1
    assert decoder.retry is None


def test_an_event_over_the_limit_fails_after_those_before_it_were_given() -> None:
    decoder = SseDecoder(max_event_bytes=32)

    events = decoder.feed(b"data: a\n\ndata: " + b"b" * 32 + b"\n\ndata: c\n\n")

    assert next(events).data == "a"
    with pytest.raises(LimitExceededError) as caught:
        next(events)
    assert caught.value.limit == "event"
    with pytest.raises(LimitExceededError):
        list(decoder.feed(b"data: d\n\n"))
    with pytest.raises(LimitExceededError):
        decoder.finish()


def test_an_endless_line_fails_as_soon_as_it_is_over_the_limit_and_is_not_kept() -> None:
    decoder = SseDecoder(max_event_bytes=1_000)
    for _ in range(10):
        list(decoder.feed_raw(b"x" * 100))

    with pytest.raises(LimitExceededError):
        list(decoder.feed_raw(b"x"))

    assert decoder.pending == 0


def test_events_together_may_be_larger_than_the_limit_of_one() -> None:
    decoder = SseDecoder(max_event_bytes=10)

    assert len(list(decoder.feed_raw(b"data: abc\n\n" * 100))) == 100


def test_a_copy_made_between_reads_goes_on_by_itself() -> None:
    decoder = SseDecoder()
    list(decoder.feed(b"id: 1\ndata: a\n\ndata: b"))

    twin = copy.deepcopy(decoder)

    assert list(twin.feed(b"!\r")) == []
    assert list(twin.feed(b"\n\r")) == [ServerSentEvent("message", "b!", "1")]
    assert list(decoder.feed(b"?\n\n")) == [ServerSentEvent("message", "b?", "1")]


def test_an_event_of_8_mb_in_small_reads_takes_linear_time() -> None:
    """Searching the whole buffer at each read would take minutes for this."""
    decoder = SseDecoder()
    started = time.perf_counter()

    events = list(decoder.feed_raw(b"data: "))
    for _ in range(8_192):
        events += decoder.feed_raw(b"a" * 1_024)
    events += decoder.feed_raw(b"\n")
    events += decoder.feed_raw(b"\n")

    assert [(name, len(data)) for name, data in events] == [("message", 8_388_608)]
    assert time.perf_counter() - started < 10
