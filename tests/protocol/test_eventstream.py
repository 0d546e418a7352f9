"""Event-stream frames: the published vectors, botocore as oracle, and what damaged streams do."""

from __future__ import annotations

import copy
import struct
import time
import zlib
from typing import Any

import botocore.eventstream
import pytest
from botocore.eventstream import EventStreamBuffer, EventStreamHeaderParser
from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_helpers import byte_by_byte, load_vectors, pieces_of, sizes

from apex_llm.errors import EventStreamError, LimitExceededError, ProtocolError, StreamTruncatedError
from apex_llm.protocol.eventstream import (
    Byte,
    EventStreamDecoder,
    Long,
    Short,
    Timestamp,
    Uuid,
    encode_message,
)

VECTORS: list[dict[str, Any]] = load_vectors("eventstream")["vectors"]
VALID = [vector for vector in VECTORS if vector["valid"]]
INVALID = {vector["name"]: vector for vector in VECTORS if not vector["valid"]}

Frames = list[tuple[dict[str, Any], bytes]]


def decode(pieces: list[bytes]) -> tuple[Frames, EventStreamDecoder, ProtocolError | None]:
    """Frames, and the error that ended them."""
    decoder = EventStreamDecoder()
    frames: Frames = []
    try:
        for piece in pieces:
            for headers, payload in decoder.feed(piece):
                frames.append((dict(headers), payload))
    except ProtocolError as error:
        return frames, decoder, error
    return frames, decoder, None


def botocore_decode(data: bytes) -> tuple[Frames, Exception | None]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    frames: Frames = []
    try:
        for message in buffer:
            frames.append((message.headers, message.payload))
    except (botocore.eventstream.ParserError, UnicodeDecodeError, KeyError, struct.error) as error:
        return frames, error
    return frames, None


def expected_frames(vector: dict[str, Any]) -> Frames:
    def plain(value: Any) -> Any:
        return bytes.fromhex(value["bytes_hex"]) if isinstance(value, dict) else value

    return [
        ({name: plain(value) for name, value in message["headers"]}, bytes.fromhex(message["payload_hex"]))
        for message in vector["messages"]
    ]


def frame(block: bytes, payload: bytes = b"", *, total: int | None = None, headers_bytes: int | None = None) -> bytes:
    """A frame with right checksums over whatever lengths and header block are asked for."""
    lengths = struct.pack(
        ">II",
        16 + len(block) + len(payload) if total is None else total,
        len(block) if headers_bytes is None else headers_bytes,
    )
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + block + payload
    return message + struct.pack(">I", zlib.crc32(message))


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector["name"])
def test_a_valid_vector_is_decoded_whole_byte_by_byte_and_back(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])

    for pieces in ([data], byte_by_byte(data)):
        frames, decoder, error = decode(pieces)
        assert error is None
        assert frames == expected_frames(vector)
        assert [list(headers) for headers, _ in frames] == [[n for n, _ in m["headers"]] for m in vector["messages"]]
        decoder.finish()
        assert b"".join([encode_message(headers, payload) for headers, payload in frames]) == data


def test_each_wire_type_has_a_type_of_its_own() -> None:
    """Otherwise a decoded frame could not be encoded to the same bytes again."""
    [vector] = [vector for vector in VALID if vector["name"] == "every-header-type"]

    [(headers, _)], _, _ = decode([bytes.fromhex(vector["hex"])])

    kinds = [bool, bool, Byte, Short, int, Long, bytes, str, Timestamp, Uuid]
    assert [type(value) for value in headers.values()] == kinds


@settings(deadline=None)
@given(vector=st.sampled_from(VALID), cuts=sizes)
def test_any_cut_of_a_valid_vector_gives_the_same_frames(vector: dict[str, Any], cuts: list[int]) -> None:
    frames, decoder, error = decode(pieces_of(bytes.fromhex(vector["hex"]), cuts))

    assert (frames, decoder.pending, error) == (expected_frames(vector), 0, None)


# The words of the vectors' own "expected", as this decoder says them: frames before, error, a part of its message.
OUTCOMES: dict[str, tuple[int, type[Exception], str]] = {
    "bad-prelude-crc": (0, EventStreamError, "checksum of its lengths"),
    "bad-message-crc": (0, EventStreamError, "checksum of the message"),
    "corrupt-payload-byte": (0, EventStreamError, "checksum of the message"),
    "corrupt-header-byte": (0, EventStreamError, "checksum of the message"),
    "truncated-mid-payload": (0, StreamTruncatedError, "112 of 122 bytes"),
    "truncated-in-prelude": (0, StreamTruncatedError, "7 bytes"),
    "truncated-second-message": (1, StreamTruncatedError, "30 of 122 bytes"),
    "valid-then-corrupt": (1, EventStreamError, "checksum of the message"),
    "headers-length-over-limit": (0, LimitExceededError, "131073 bytes of headers"),
    "payload-length-over-limit": (0, LimitExceededError, "25165825 bytes of payload"),
    "total-length-below-16": (0, EventStreamError, "its length is 15"),
    "headers-length-past-total": (0, EventStreamError, "4 bytes of headers do not fit"),
    "duplicate-header": (0, EventStreamError, "same name"),
    "unknown-header-type-10": (0, EventStreamError, "type 10"),
    "header-value-runs-past-headers": (0, EventStreamError, "past the end"),
    "header-invalid-utf8": (0, EventStreamError, "not UTF-8"),
    "zero-length-header-name": (0, EventStreamError, "name of a header is empty"),
    "json-error-body-instead-of-frames": (0, EventStreamError, "look at the status"),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_vector_is_refused_as_it_asks(name: str) -> None:
    data = bytes.fromhex(INVALID[name]["hex"])
    before, kind, words = OUTCOMES[name]

    for pieces in ([data], byte_by_byte(data)):
        frames, decoder, error = decode(pieces)
        assert len(frames) == before
        if kind is StreamTruncatedError:
            assert error is None
            with pytest.raises(StreamTruncatedError) as caught:
                decoder.finish()
            assert words in str(caught.value)
            assert caught.value.retryable
        else:
            assert type(error) is kind
            assert words in str(error)
            with pytest.raises(kind):
                list(decoder.feed(bytes.fromhex(VALID[0]["hex"])))
            with pytest.raises(kind):
                decoder.finish()


@pytest.mark.parametrize("name", ["headers-length-over-limit", "payload-length-over-limit"])
def test_an_overlong_frame_is_refused_on_its_first_12_bytes(name: str) -> None:
    decoder = EventStreamDecoder()
    prelude = bytes.fromhex(INVALID[name]["hex"])[:12]

    assert list(decoder.feed(prelude[:11])) == []
    with pytest.raises(LimitExceededError) as caught:
        list(decoder.feed(prelude[11:]))

    assert caught.value.limit == "frame"
    assert decoder.pending == 0


def test_a_wrong_prelude_checksum_is_found_even_where_the_message_checksum_fits() -> None:
    """The message checksum covers the prelude's: whoever writes a wrong one can still make the last one fit."""
    message = bytes.fromhex("00000010 00000000 05c248ec".replace(" ", ""))
    data = message + struct.pack(">I", zlib.crc32(message))

    frames, _, error = decode([data])

    assert frames == []
    assert "checksum of its lengths" in str(error)


def test_the_largest_frame_that_is_allowed_is_read() -> None:
    block = b"".join(
        bytes((2,)) + name + b"\x06" + struct.pack(">H", size) + bytes(size)
        for name, size in ((b"a1", 65_535), (b"a2", 65_525))
    )
    data = frame(block, bytes(25_165_824))

    [(headers, payload)], _, error = decode([data[:100], data[100:]])

    assert (len(block), len(headers), len(payload), error) == (131_072, 2, 25_165_824, None)


names = st.text(min_size=1, max_size=20).filter(lambda text: len(text.encode()) <= 255)
values = st.one_of(
    st.booleans(),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-128, 127).map(Byte),
    st.integers(-(2**15), 2**15 - 1).map(Short),
    st.integers(-(2**63), 2**63 - 1).map(Long),
    st.integers(-(2**63), 2**63 - 1).map(Timestamp),
    st.binary(min_size=16, max_size=16).map(Uuid),
)
messages = st.tuples(st.dictionaries(names, values, max_size=6), st.binary(max_size=200))
streams = st.lists(messages, max_size=6)


@settings(deadline=None)
@given(stream=streams, cuts=sizes)
def test_what_is_encoded_is_decoded_the_same_here_and_by_botocore(stream: Frames, cuts: list[int]) -> None:
    data = b"".join([encode_message(headers, payload) for headers, payload in stream])

    frames, decoder, error = decode(pieces_of(data, cuts))

    assert (frames, decoder.pending, error) == (stream, 0, None)
    assert botocore_decode(data) == (stream, None)


@settings(deadline=None, max_examples=300)
@given(stream=streams, data=st.data())
def test_a_corrupted_stream_is_refused_where_botocore_refuses_it(stream: Frames, data: Any) -> None:
    whole = bytearray(b"".join([encode_message(headers, payload) for headers, payload in stream]))
    for _ in range(data.draw(st.integers(0, 3)) if whole else 0):
        index = data.draw(st.integers(0, len(whole) - 1))
        whole[index] ^= data.draw(st.integers(1, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])

    frames, _, error = decode([cut])

    theirs, their_error = botocore_decode(cut)
    assert frames == theirs
    assert (error is None) == (their_error is None)


blocks = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([b"\x01a", b"\x01b", b"\x00", b"\x02\xc3\xa9", b"\x01\xff", b"\x09ab"])).map(
            b"".join
        ),
        st.sampled_from([bytes((code,)) for code in range(12)]),
        st.sampled_from([b"\x00\x01x", b"\x00\x00", b"\x00\x03x", b"\xff\xff", b"\x00" * 8, b"\x00" * 16]),
    ),
    max_size=8,
).map(b"".join)


class OverrunWatch(EventStreamHeaderParser):
    """botocore's parser, which also tells whether a value ended where the block had ended already."""

    overrun = False

    def _advance_data(self, consumed: int) -> None:
        self.overrun |= consumed > len(self._data)
        super()._advance_data(consumed)


@settings(deadline=None, max_examples=500)
@given(block=blocks, payload=st.binary(max_size=4))
def test_header_blocks_are_read_as_botocore_reads_them_but_for_two_things(block: bytes, payload: bytes) -> None:
    """botocore accepts an empty name, and a value that the end of the block cuts short."""
    data = frame(block, payload)

    frames, _, error = decode([data])

    theirs, their_error = botocore_decode(data)
    if their_error is not None:
        assert type(error) is EventStreamError
        return
    watch = OverrunWatch()
    [(headers, _)] = theirs
    assert watch.parse(block) == headers
    if watch.overrun or "" in headers:
        assert type(error) is EventStreamError
        assert "past the end" in str(error) or "is empty" in str(error) or "not UTF-8" in str(error)
    else:
        assert (frames, error) == (theirs, None)


@pytest.mark.parametrize(
    ("total", "headers_bytes"),
    [(0, 0), (12, 0), (15, 0), (16, 1), (20, 5), (16, 2**32 - 1), (15, 2**32 - 1), (2**32 - 1, 2**32 - 1)],
)
def test_impossible_lengths_are_refused_where_botocore_mis_slices(total: int, headers_bytes: int) -> None:
    data = frame(b"", total=total, headers_bytes=headers_bytes)

    frames, _, error = decode([data[:12]])

    assert frames == []
    assert isinstance(error, EventStreamError)


def test_frames_before_a_damaged_one_are_given_before_the_error() -> None:
    good = encode_message({":event-type": "chunk"}, b"{}")
    decoder = EventStreamDecoder()

    frames = decoder.feed(good + good + good[:-1] + b"\0" + good)

    assert [payload for _, payload in (next(frames), next(frames))] == [b"{}", b"{}"]
    with pytest.raises(EventStreamError, match=f"byte {2 * len(good)} "):
        next(frames)


def test_a_copy_made_inside_a_frame_goes_on_by_itself() -> None:
    data = encode_message({":event-type": "chunk"}, b"payload")
    for cut in range(len(data)):
        decoder = EventStreamDecoder()
        list(decoder.feed(data + data[:cut]))

        twin = copy.deepcopy(decoder)

        for each in (twin, decoder):
            assert list(each.feed(data[cut:])) == [({":event-type": "chunk"}, b"payload")]
            each.finish()


def test_a_copy_of_a_failed_decoder_has_failed() -> None:
    decoder = EventStreamDecoder()
    with pytest.raises(EventStreamError):
        list(decoder.feed(bytes(16)))

    with pytest.raises(EventStreamError):
        copy.deepcopy(decoder).finish()


def test_many_different_header_blocks_do_not_pile_up() -> None:
    """A hostile server would otherwise fill the cache of header blocks for as long as the stream lasts."""
    decoder = EventStreamDecoder()

    for number in range(2_000):
        [(headers, _)] = decoder.feed(encode_message({"n": number, "x": "x" * (number % 3_000)}))
        assert headers["n"] == number

    assert len(decoder._blocks) < 100
    assert sum(map(len, decoder._blocks)) < 200_000


@pytest.mark.parametrize("piece", [16_384, 1])
def test_a_large_frame_in_small_reads_takes_linear_time(piece: int) -> None:
    """8 MB in 16 KB reads, 1 MB byte by byte. Joining at each read would take minutes for the latter."""
    payload = bytes(8_388_608 if piece > 1 else 1_048_576)
    data = encode_message({":event-type": "chunk"}, payload)
    decoder = EventStreamDecoder()
    started = time.perf_counter()

    frames = [each for at in range(0, len(data), piece) for each in decoder.feed(data[at : at + piece])]

    assert frames == [({":event-type": "chunk"}, payload)]
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize(
    ("headers", "payload", "kind"),
    [
        ({"": "x"}, b"", EventStreamError),
        ({"é" * 128: "x"}, b"", EventStreamError),
        ({"x": "é" * 32_768}, b"", EventStreamError),
        ({"x": bytes(65_536)}, b"", EventStreamError),
        ({"x": Byte(128)}, b"", EventStreamError),
        ({"x": Short(-32_769)}, b"", EventStreamError),
        ({"x": 2**63}, b"", EventStreamError),
        ({"x": Uuid(b"short")}, b"", EventStreamError),
        ({"x": "\ud800"}, b"", EventStreamError),
        ({str(number): bytes(65_000) for number in range(3)}, b"", LimitExceededError),
        ({}, bytes(25_165_825), LimitExceededError),
    ],
    ids=[
        *("empty name", "name of 256 bytes", "text of 65,536 bytes", "65,536 bytes", "byte", "short", "long", "uuid"),
        *("lone surrogate", "headers over the limit", "payload over the limit"),
    ],
)
def test_what_the_format_cannot_say_is_not_encoded(headers: Any, payload: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        encode_message(headers, payload)
