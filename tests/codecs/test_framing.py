"""Framing: what is packaging and what is an error, over both kinds of stream."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_llm.codecs.base import DONE
from apex_llm.codecs.framing import ChunkFraming, EventStreamFraming, SseFraming
from apex_llm.errors import (
    ApexLlmError,
    ContentFilteredError,
    EventStreamError,
    InvalidRequestError,
    LimitExceededError,
    ModelTimeoutError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ResponseFormatError,
    StreamTruncatedError,
)
from apex_llm.protocol.eventstream import encode_message

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "eventstream_vectors.json").read_text(encoding="utf-8")
)["vectors"]


def drain(framing: Any, pieces: Iterable[bytes]) -> tuple[list[tuple[str, bytes]], ApexLlmError | None]:
    """Everything that a body gives, and the error that ends it, if one does."""
    events: list[tuple[str, bytes]] = []
    try:
        for piece in pieces:
            events.extend(framing.feed(piece))
        events.extend(framing.finish())
    except ApexLlmError as error:
        return events, error
    return events, None


def frame(name: str, payload: bytes, *, kind: str = "event") -> bytes:
    header = ":exception-type" if kind == "exception" else ":event-type"
    return encode_message({header: name, ":content-type": "application/json", ":message-type": kind}, payload)


def chunk(model_json: bytes) -> bytes:
    return frame("chunk", json.dumps({"bytes": base64.b64encode(model_json).decode(), "p": "abcdef"}).encode())


IN_STREAM = {
    "exception-throttling": (RateLimitError, "throttlingException", True),
    "exception-modelStreamError": (OverloadedError, "modelStreamErrorException", True),
    "exception-internalServer": (OverloadedError, "internalServerException", True),
    "exception-validation": (InvalidRequestError, "validationException", False),
    "exception-serviceUnavailable": (OverloadedError, "serviceUnavailableException", True),
    "exception-modelTimeout": (ModelTimeoutError, "modelTimeoutException", False),
    "exception-unknown-name": (ApexLlmError, "somethingNewException", False),
    "unmodelled-error-frame": (OverloadedError, "InternalFailure", True),
}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
@pytest.mark.parametrize("framing", [EventStreamFraming, ChunkFraming])
def test_every_vector_ends_in_events_or_in_one_typed_error(vector: dict[str, Any], framing: Any) -> None:
    data = bytes.fromhex(vector["hex"])

    for pieces in (
        [data],
        [data[i : i + 1] for i in range(len(data))],
        [data[i : i + 7] for i in range(0, len(data), 7)],
    ):
        events, error = drain(framing(), pieces)

        if vector["name"] in IN_STREAM:
            kind, code, retryable = IN_STREAM[vector["name"]]
            assert type(error) is kind
            assert (error.code, error.retryable, error.provider) == (code, retryable, "bedrock")
            assert str(error)
            assert events == []
        elif vector["name"] == "json-error-body-instead-of-frames":
            assert error is not None
            assert error.message == "The provided model identifier is invalid."
        elif not vector["valid"]:
            assert isinstance(error, EventStreamError | LimitExceededError | StreamTruncatedError)
        elif framing is EventStreamFraming:
            assert error is None
            assert events == [
                (dict(message["headers"]).get(":event-type", ""), bytes.fromhex(message["payload_hex"]))
                for message in vector["messages"]
            ]


@pytest.mark.parametrize("name", IN_STREAM)
def test_events_before_an_exception_frame_are_given_first(name: str) -> None:
    vector = next(vector for vector in VECTORS if vector["name"] == name)
    before = frame("messageStart", b'{"role":"assistant"}') + frame("contentBlockDelta", b"{}")

    events, error = drain(EventStreamFraming(model="some.model"), [before + bytes.fromhex(vector["hex"])])

    assert [name for name, _ in events] == ["messageStart", "contentBlockDelta"]
    assert error is not None
    assert error.model == "some.model"


@pytest.mark.parametrize("name", ["throttlingException", "ThrottlingException", "THROTTLINGEXCEPTION"])
def test_exception_names_are_compared_without_case_and_kept_as_they_came(name: str) -> None:
    _, error = drain(EventStreamFraming(), [frame(name, b'{"message":"Too many tokens"}', kind="exception")])

    assert type(error) is RateLimitError
    assert error.code == name


def test_an_exception_frame_without_json_still_says_what_happened() -> None:
    for payload in (b"", b"not json", b"[]", b'{"Message":null}'):
        _, error = drain(EventStreamFraming(), [frame("internalServerException", payload, kind="exception")])

        assert isinstance(error, OverloadedError)
        assert error.message


def test_an_initial_response_is_packaging() -> None:
    events, error = drain(EventStreamFraming(), [frame("initial-response", b"{}") + frame("messageStart", b"{}")])

    assert (events, error) == ([("messageStart", b"{}")], None)


def test_an_initial_response_is_packaging_whatever_else_its_headers_say() -> None:
    headers = {":event-type": "initial-response", ":message-type": "event", ":error-code": "0"}
    data = encode_message(headers, b"{}") + frame("messageStart", b"{}")

    assert drain(EventStreamFraming(), [data]) == ([("messageStart", b"{}")], None)


def test_streams_that_share_what_headers_mean_notice_an_exception_each() -> None:
    names: dict[bytes, str] = {}
    body = frame("contentBlockDelta", b"{}") + frame("throttlingException", b"{}", kind="exception")

    for _ in range(3):
        events, error = drain(EventStreamFraming(names=names), [body])

        assert events == [("contentBlockDelta", b"{}")]
        assert isinstance(error, RateLimitError)
    assert list(names.values()) == ["contentBlockDelta"]


def test_chunks_are_unwrapped() -> None:
    events, error = drain(ChunkFraming(), [chunk(b'{"a":1}') + frame("newer", b"{}") + chunk("é".encode())])

    assert events == [("chunk", b'{"a":1}'), ("newer", b"{}"), ("chunk", "é".encode())]
    assert error is None


@pytest.mark.parametrize("payload", [b"{}", b'{"bytes":null}', b'{"bytes":"%%%"}', b"{", b"[]", b'{"bytes":"\xff"}'])
def test_a_chunk_that_is_not_base64_in_json_is_a_format_error(payload: bytes) -> None:
    events, error = drain(ChunkFraming(), [chunk(b"{}") + frame("chunk", payload)])

    assert events == [("chunk", b"{}")]
    assert isinstance(error, ResponseFormatError)


def test_half_a_frame_left_over_is_a_truncated_stream() -> None:
    whole = frame("messageStart", b"{}")

    for cut in range(1, len(whole)):
        events, error = drain(EventStreamFraming(), [whole + whole[:cut]])
        assert events == [("messageStart", b"{}")]
        assert isinstance(error, StreamTruncatedError)


def test_sse_events_keep_their_names_and_done_is_marked() -> None:
    body = b'data: {"a":1}\n\nevent: response.created\ndata: {"b":2}\n\n: ping\n\ndata: [DONE]\n\n'

    events, error = drain(SseFraming(), [body])

    assert events == [("message", b'{"a":1}'), ("response.created", b'{"b":2}'), (DONE, b"")]
    assert error is None


@pytest.mark.parametrize("ending", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n", b"data:[DONE]"])
def test_done_counts_without_its_blank_line(ending: bytes) -> None:
    events, error = drain(SseFraming(), [b"data: {}\n\n" + ending])

    assert events == [("message", b"{}"), (DONE, b"")]
    assert error is None


def test_half_an_sse_event_left_over_is_a_truncated_stream() -> None:
    events, error = drain(SseFraming(), [b'data: {}\n\ndata: {"choi'])

    assert events == [("message", b"{}")]
    assert isinstance(error, StreamTruncatedError)
    assert error.retryable


THROTTLED, OVERLOADED = (RateLimitError, True), (OverloadedError, True)
ERRORS_IN_SSE = [
    (b'data: {"error":{"message":"Rate limit","type":"rate_limit_error","code":"rate_limit_exceeded"}}', *THROTTLED),
    (b'data: {"error":{"code":"429","message":"Please retry after 7 seconds."}}', *THROTTLED),
    (b'data: {"error":{"code":429,"message":"slow down"}}', *THROTTLED),
    (b'data: {"error":{"message":"The server had an error","type":"server_error","code":null}}', *OVERLOADED),
    (b'data: {"error":{"code":"500","message":"Internal"}}', *OVERLOADED),
    (b'data: {"error":"the model is overloaded"}', *OVERLOADED),
    (b'data: { "error" : {"code":"content_filter","message":"blocked"}}', ContentFilteredError, False),
    (b'event: error\ndata: {"message":"Internal server error","code":"server_error"}', *OVERLOADED),
    (b'event: error\ndata: {"type":"error","code":"rate_limit_exceeded","message":"m"}', *THROTTLED),
    (b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', *OVERLOADED),
    (b'event: error\ndata: {"error":{"code":"BadRequest","message":"no","status":400}}', InvalidRequestError, False),
    (b"event: error\ndata: upstream connect error: unavailable", *OVERLOADED),
    (b"event: error\ndata: {}", ApexLlmError, False),
    (b'data: {"type":"error","code":"server_error","message":"m"}', *OVERLOADED),
    (b'data: {"error":{"message":"cut \\ud83d","type":"server_error"}}', *OVERLOADED),
]  # fmt: skip


@pytest.mark.parametrize(("event", "kind", "retryable"), ERRORS_IN_SSE)
def test_an_error_sent_as_an_event_is_raised_typed(event: bytes, kind: type[ApexLlmError], retryable: bool) -> None:
    events, error = drain(SseFraming(model="chat"), [b"data: {}\n\n" + event + b"\n\ndata: [DONE]\n\n"])

    assert events == [("message", b"{}")]
    assert type(error) is kind
    assert (error.retryable, error.model, error.phase) == (retryable, "chat", "mid-stream")
    assert error.message


@pytest.mark.parametrize(
    "data",
    [
        b'{"error":null,"choices":[]}',
        b'{"error":{},"choices":[]}',
        b'{"x":{"error":{"code":"1","message":"the filter failed"}}}',
        b'{"delta":"\\"error\\": not one"}',
        b'{"broken "error" json',
    ],
)
def test_the_word_error_alone_is_not_an_error(data: bytes) -> None:
    events, error = drain(SseFraming(), [b"data: " + data + b"\n\n"])

    assert (events, error) == ([("message", data)], None)


def test_bad_utf8_is_replaced_and_told() -> None:
    framing = SseFraming()

    events, error = drain(framing, [b'data: {"t":"\xff"}\n\n'])

    assert events == [("message", '{"t":"�"}'.encode())]
    assert error is None
    assert framing.warnings


BODY = b"".join(b'data: {"n":%d,"t":"\xc3\xa9"}\n\n' % n for n in range(6)) + b"data: [DONE]\n\n"
FRAMES = b"".join(chunk(b'{"n":%d}' % n) for n in range(6))


@given(st.lists(st.integers(1, 40), max_size=30), st.sampled_from([(SseFraming, BODY), (ChunkFraming, FRAMES)]))
def test_any_split_of_the_bytes_gives_the_same_events(sizes: list[int], wire: tuple[Any, bytes]) -> None:
    framing, body = wire
    pieces: list[bytes] = []
    rest = body
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]

    assert drain(framing(), [*pieces, rest]) == drain(framing(), [body])


@pytest.mark.parametrize(("framing", "body"), [(SseFraming, BODY), (ChunkFraming, FRAMES)])
def test_a_copy_goes_on_where_the_original_was(framing: Any, body: bytes) -> None:
    original = framing()
    before = list(original.feed(body[:100]))

    twin = copy.deepcopy(original)

    assert drain(original, [body[100:]]) == drain(twin, [body[100:]])
    assert before + drain(copy.deepcopy(framing()), [body])[0][len(before) :] == drain(framing(), [body])[0]


@given(st.binary(max_size=200))
def test_any_bytes_end_in_events_or_in_an_error_of_ours(data: bytes) -> None:
    for framing in (SseFraming, ChunkFraming, EventStreamFraming):
        _, error = drain(framing(), [data])
        assert error is None or isinstance(error, ProtocolError | ApexLlmError)
