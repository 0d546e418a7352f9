"""Any cut of the bytes gives the same answer, and no cut lets anything through."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_server import http_answer

from apex_llm.errors import ApexLlmError, ConnectionFailedError, LimitExceededError, ProtocolError
from apex_llm.transport.http11_parser import ResponseParser

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def feed(parser: ResponseParser, pieces: list[bytes]) -> bytes:
    body = b""
    for piece in pieces:
        body += parser.feed(piece)
        if parser.complete or parser.failure is not None:
            break
    return body


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


PLACES = st.lists(st.integers(0, 1 << 16), max_size=12)


@settings(max_examples=300, deadline=None)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=400), max_size=30),
    trailers=st.integers(0, 60),
    interim=st.integers(0, 3),
    places=PLACES,
)
def test_every_cut_of_a_chunked_answer_gives_the_same_body(
    chunks: list[bytes], trailers: int, interim: int, places: list[int]
) -> None:
    answer = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * interim
    answer += http_answer(chunks=chunks)[:-2] + b"X-Trailer: " + b"t" * 100 + b"\r\n"
    answer = answer[:-113] + b"".join(b"X-T: " + b"t" * 100 + b"\r\n" for _ in range(trailers)) + b"\r\n"
    parser = ResponseParser(peer="here")
    parser.begin()
    for _ in range(2):
        parser.begin()
        body = feed(parser, cut(answer, places))

        assert parser.failure is None
        assert parser.complete
        assert parser.reusable
        assert body == b"".join(chunks)
        assert parser.headers == [("transfer-encoding", "chunked")]


@settings(max_examples=100, deadline=None)
@given(size=st.integers(300, 3000), before=st.integers(0, 3), places=PLACES)
def test_a_long_chunk_extension_never_passes(size: int, before: int, places: list[int]) -> None:
    ordinary = b"5\r\nhello\r\n"
    answer = CHUNKED + ordinary * before + b"5;" + b"x" * (size * (before + 1)) + b"\r\nhello\r\n0\r\n\r\n"
    parser = ResponseParser(peer="here")
    parser.begin()

    feed(parser, cut(answer, places))

    assert isinstance(parser.failure, LimitExceededError)
    assert not parser.reusable


@pytest.mark.parametrize("step", [1, 2, 1000, 65536, 1 << 20])
@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"5\r\nhello\r\n0\r\nX: " + b"t" * 9000 + b"\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n" + b"X: t\r\n" * 2000 + b"\r\n",
        CHUNKED + b"5\r\nhello\r\n0;" + b"x" * 20_000 + b"\r\n\r\n",
        CHUNKED + b"0" * 20_000 + b"5\r\nhello\r\n0\r\n\r\n",
        HEAD + b"X: " + b"a" * 66_000 + b"\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"a" * 66_000 + b": x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 " + b"a" * 66_000 + b"\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"X: y\r\n" * 300 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 E\r\n" + b"X: y\r\n" * 300 + b"\r\n" + http_answer(),
        b"HTTP/1.1 103 E\r\n\r\n" * 30_000 + http_answer(),
    ],
    ids=[
        "one trailer",
        "trailers",
        "last extension",
        "zeros",
        "value",
        "name",
        "reason",
        "headers",
        "hints",
        "interim",
    ],
)
def test_sizes_are_bounded_at_every_cut(answer: bytes, step: int) -> None:
    parser = ResponseParser(peer="here")
    parser.begin()

    feed(parser, [answer[start : start + step] for start in range(0, len(answer), step)])

    assert isinstance(parser.failure, ProtocolError), parser.failure
    assert not parser.reusable


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), PLACES, st.sampled_from([b"", HEAD, CHUNKED, HEAD + b"Content-Length: 3\r\n\r\n"]))
def test_no_bytes_raise_anything_of_another_library(noise: bytes, places: list[int], start: bytes) -> None:
    parser = ResponseParser(peer="here")
    parser.begin()

    feed(parser, cut(start + noise, places))
    outcome = parser.finish()

    assert parser.complete or isinstance(outcome, ApexLlmError)


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 400))
def test_an_answer_cut_anywhere_is_never_whole(place: int) -> None:
    for answer in (http_answer(b"x" * 200), http_answer(chunks=[b"x" * 50] * 4)):
        parser = ResponseParser(peer="here")
        parser.begin()
        feed(parser, [answer[: place % len(answer)]])

        assert isinstance(parser.finish(), ConnectionFailedError)
        assert not parser.complete


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body_end_with_their_head(status: str) -> None:
    parser = ResponseParser(peer="here")
    parser.begin()

    assert parser.feed(f"HTTP/1.1 {status}\r\n\r\n".encode()) == b""

    assert parser.complete
    assert parser.reusable


def test_an_answer_to_head_has_no_body_and_ends_the_connection() -> None:
    parser = ResponseParser(peer="here")
    parser.begin(head_only=True)

    assert parser.feed(HEAD + b"Content-Length: 500\r\n\r\n") == b""

    assert parser.complete
    assert not parser.reusable


def test_a_coding_that_was_asked_for_is_let_through() -> None:
    parser = ResponseParser(peer="here")
    parser.begin(request_headers=(("Accept-Encoding", "gzip;q=1, br"),))

    parser.feed(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx")

    assert parser.complete
