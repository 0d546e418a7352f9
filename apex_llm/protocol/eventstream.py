"""Frames of ``application/vnd.amazon.eventstream``, decoded as bytes arrive, and encoded.

Follows the "Amazon Event Stream" specification of Smithy and the limits of botocore's ``EventStreamBuffer``,
which is the oracle, but for what that lets pass: impossible lengths, values that run past the header block,
empty header names. CRC is CRC-32 as in zlib. Vectors: ``tests/vectors/eventstream_vectors.json``.

No I/O. What a frame means (event, exception, error) is left to others.
"""

from __future__ import annotations

__all__ = [
    "MAX_HEADERS_BYTES",
    "MAX_PAYLOAD_BYTES",
    "Byte",
    "EventStreamDecoder",
    "FrameDecoder",
    "HeaderValue",
    "Long",
    "Short",
    "Timestamp",
    "Uuid",
    "encode_message",
]

import functools
from collections.abc import Iterator, Mapping
from struct import Struct
from struct import error as struct_error
from typing import Final, Generic, TypeAlias, TypeVar
from zlib import crc32

from apex_llm.errors import EventStreamError, LimitExceededError, ProtocolError, StreamTruncatedError

MAX_HEADERS_BYTES: Final = 131_072
MAX_PAYLOAD_BYTES: Final = 25_165_824

_PRELUDE = Struct(">III")
_CHECKSUM = Struct(">I")
_PRELUDE_BYTES = 12
_FRAME_OVERHEAD = 16  # prelude and message checksum
_MAX_NAME_BYTES = 255
_MAX_VALUE_BYTES = 65_535
_MAX_CACHED_BLOCKS = 64
_MAX_CACHED_BLOCK_BYTES = 1_024


class Byte(int):
    """A header value of 8 bits, signed."""

    __slots__ = ()


class Short(int):
    """A header value of 16 bits, signed."""

    __slots__ = ()


class Long(int):
    """A header value of 64 bits, signed."""

    __slots__ = ()


class Timestamp(int):
    """A header value in milliseconds since the epoch."""

    __slots__ = ()


class Uuid(bytes):
    """A header value of 16 bytes."""

    __slots__ = ()


HeaderValue: TypeAlias = bool | int | bytes | str
"""Each of the ten wire types has its own Python type, which compares as the plain value does:
``bool`` (two wire types), ``Byte``, ``Short``, ``int`` for the 32-bit integer, ``Long``, ``bytes``,
``str``, ``Timestamp``, ``Uuid``. So what was decoded is encoded to the same bytes again.
"""

_INTEGERS: dict[int, tuple[type[int], Struct]] = {
    2: (Byte, Struct(">b")),
    3: (Short, Struct(">h")),
    4: (int, Struct(">i")),
    5: (Long, Struct(">q")),
    8: (Timestamp, Struct(">q")),
}
_INTEGER_CODES = {kind: (code, packer) for code, (kind, packer) in _INTEGERS.items()}


H = TypeVar("H")


class FrameDecoder(Generic[H]):
    """Frames of one stream: fed bytes in any pieces, gives ``interpret(headers)`` and payload of each whole frame.

    Streams repeat a few header blocks word for word, so each of them is interpreted once.
    Each byte is looked at a fixed number of times, however small the pieces are. A frame's lengths are
    checked as soon as its first 12 bytes are there, before anything is kept for it. Once it has failed it
    stays failed. The state is plain data: ``copy.deepcopy`` makes a snapshot between feeds.

    Args:
        blocks: Where interpretations are remembered, under the bytes of the headers. Streams may share it, as
            they have the same few blocks.
    """

    __slots__ = ("_blocks", "_error", "_held", "_needed", "_offset")

    def __init__(self, blocks: dict[bytes, H] | None = None) -> None:
        self._held = bytearray()
        self._needed = _PRELUDE_BYTES
        self._offset = 0
        self._error: ProtocolError | None = None
        self._blocks: dict[bytes, H] = {} if blocks is None else blocks

    def interpret(self, headers: Mapping[str, HeaderValue]) -> H:
        """What is given for the headers of a frame."""
        raise NotImplementedError

    def remember(self, block: bytes, interpreted: H) -> None:
        """Keep what the headers in ``block`` mean for the next frames that have them."""
        if len(self._blocks) >= _MAX_CACHED_BLOCKS:
            self._blocks.clear()
        self._blocks[block] = interpreted

    @property
    def pending(self) -> int:
        """Bytes that are kept for a frame which is not complete."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[tuple[H, bytes]]:
        """Interpreted headers and payload of each frame that is complete now.

        Frames before a damaged one are given before the error is raised. Headers of one content are
        one object, shared between frames: read them only.

        Raises:
            EventStreamError: A checksum does not fit, or a length or header is impossible.
            LimitExceededError: A frame has more than 131,072 bytes of headers or 25,165,824 of payload.
        """
        frames: list[tuple[H, bytes]] = []
        if self._error is not None:
            return _given(frames, self._error)
        held = self._held
        if held:
            if len(held) + len(data) < self._needed:
                held += data
                return iter(frames)
            data = b"".join((held, data))
            held.clear()
        position = 0
        size = len(data)
        blocks, prelude_at, checksum_at = self._blocks, _PRELUDE.unpack_from, _CHECKSUM.unpack_from
        needed = _PRELUDE_BYTES
        try:
            while size - position >= _PRELUDE_BYTES:
                total, headers_bytes, checksum = prelude_at(data, position)
                end = position + total
                if (
                    end > size
                    or headers_bytes > MAX_HEADERS_BYTES
                    or not _FRAME_OVERHEAD <= total - headers_bytes <= _FRAME_OVERHEAD + MAX_PAYLOAD_BYTES
                ):
                    self._check_prelude(total, headers_bytes, data, position)
                    needed = total
                    break
                # One pass proves both checksums: the message's is the prelude's carried on, so with
                # a prelude that does not fit its own checksum the message cannot fit either.
                if crc32(data[position + 8 : end - 4], checksum) != checksum_at(data, end - 4)[0]:
                    self._check_prelude(total, headers_bytes, data, position)
                    raise self._damaged(position, "the checksum of the message does not fit")
                payload_at = position + _PRELUDE_BYTES + headers_bytes
                block = data[position + _PRELUDE_BYTES : payload_at]
                headers = blocks.get(block)
                if headers is None:
                    headers = self._read_headers(block, position)
                frames.append((headers, data[payload_at : end - 4]))
                position = end
        except ProtocolError as error:
            self._error = error
            return _given(frames, error)
        if position < size:
            held += data[position:] if position else data
        self._needed = needed
        self._offset += position
        return iter(frames)

    def finish(self) -> None:
        """Called at the end of the body.

        Raises:
            StreamTruncatedError: The stream ended inside a frame.
            ProtocolError: What ``feed`` raised, if it failed.
        """
        if self._error is not None:
            raise self._error
        if self._held:
            of = f" of {self._needed}" if self._needed > _PRELUDE_BYTES else ""
            raise StreamTruncatedError(
                f"The event stream ended inside a frame: {len(self._held)}{of} bytes of it had arrived, "
                f"after {self._offset} bytes of whole frames.",
                retryable=True,
            )

    def _check_prelude(self, total: int, headers_bytes: int, data: bytes, position: int) -> None:
        """Raise for a prelude that is damaged, or asks for more than is read."""
        if crc32(data[position : position + 8]) != _CHECKSUM.unpack_from(data, position + 8)[0]:
            hint = None
            if self._offset + position == 0:
                hint = "The body may not be an event stream at all; look at the status and the content-type."
            raise self._damaged(position, "the checksum of its lengths does not fit", hint=hint)
        if total < _FRAME_OVERHEAD:
            raise self._damaged(position, f"its length is {total}, less than the smallest frame's {_FRAME_OVERHEAD}")
        payload_bytes = total - _FRAME_OVERHEAD - headers_bytes
        if payload_bytes < 0:
            raise self._damaged(position, f"{headers_bytes} bytes of headers do not fit into {total} bytes")
        if headers_bytes > MAX_HEADERS_BYTES:
            what, size, most = "headers", headers_bytes, MAX_HEADERS_BYTES
        elif payload_bytes > MAX_PAYLOAD_BYTES:
            what, size, most = "payload", payload_bytes, MAX_PAYLOAD_BYTES
        else:
            return
        raise LimitExceededError(
            f"The frame at byte {self._offset + position} of the event stream has {size} bytes of {what}; "
            f"at most {most} are read.",
            limit="frame",
        )

    def _read_headers(self, block: bytes, position: int) -> H:
        try:
            headers = _decode_headers(block) if len(block) > _MAX_CACHED_BLOCK_BYTES else _decode_known(block)
        except (IndexError, struct_error) as error:
            raise self._damaged(position, "a header runs past the end of the header block") from error
        except UnicodeDecodeError as error:
            raise self._damaged(position, "a header is not UTF-8") from error
        except _HeaderError as error:
            raise self._damaged(position, str(error)) from None
        interpreted = self.interpret(headers)
        if len(block) <= _MAX_CACHED_BLOCK_BYTES:
            self.remember(block, interpreted)
        return interpreted

    def _damaged(self, position: int, problem: str, *, hint: str | None = None) -> EventStreamError:
        return EventStreamError(
            f"The frame at byte {self._offset + position} of the event stream is damaged: {problem}.", hint=hint
        )


class EventStreamDecoder(FrameDecoder[Mapping[str, HeaderValue]]):
    """Gives the headers as they are."""

    __slots__ = ()

    def interpret(self, headers: Mapping[str, HeaderValue]) -> Mapping[str, HeaderValue]:
        """The headers."""
        return headers


def encode_message(headers: Mapping[str, HeaderValue], payload: bytes = b"") -> bytes:
    """One frame.

    A plain ``int`` becomes a 32-bit integer where it fits, else a 64-bit one; ``Byte``, ``Short``, ``Long``,
    ``Timestamp`` and ``Uuid`` choose the other wire types.

    Raises:
        EventStreamError: A name or value cannot be said in the format.
        LimitExceededError: Headers or payload are larger than decoders read.
    """
    block = b"".join([_encode_header(name, value) for name, value in headers.items()])
    if len(block) > MAX_HEADERS_BYTES:
        raise LimitExceededError(f"{len(block)} bytes of headers; at most {MAX_HEADERS_BYTES} are read.", limit="frame")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise LimitExceededError(
            f"{len(payload)} bytes of payload; at most {MAX_PAYLOAD_BYTES} are read.", limit="frame"
        )
    lengths = _PRELUDE.pack(_FRAME_OVERHEAD + len(block) + len(payload), len(block), 0)[:8]
    message = b"".join((lengths, _CHECKSUM.pack(crc32(lengths)), block, payload))
    return message + _CHECKSUM.pack(crc32(message))


class _HeaderError(Exception):
    """A header block that its checksum vouches for, and that the format does not allow."""


def _given(frames: list[tuple[H, bytes]], error: ProtocolError) -> Iterator[tuple[H, bytes]]:
    yield from frames
    raise error


def _decode_headers(block: bytes) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    position = 0
    while position < len(block):
        name_bytes = block[position]
        if not name_bytes:
            raise _HeaderError("the name of a header is empty")
        position += 1
        code_at = position + name_bytes
        name = block[position:code_at].decode()
        code = block[code_at]
        position = code_at + 1
        value: HeaderValue
        if code in {6, 7, 9}:
            size = 16
            if code != 9:
                size = (block[position] << 8) | block[position + 1]
                position += 2
            raw = block[position : position + size]
            if len(raw) < size:
                raise _HeaderError("a header runs past the end of the header block")
            position += size
            value = raw.decode() if code == 7 else raw if code == 6 else Uuid(raw)
        elif code <= 1:
            value = code == 0
        elif code in _INTEGERS:
            kind, packer = _INTEGERS[code]
            value = kind(packer.unpack_from(block, position)[0])
            position += packer.size
        else:
            raise _HeaderError(f"the type {code} of a header is not known")
        if name in headers:
            raise _HeaderError("two headers have the same name")
        headers[name] = value
    return headers


# Every stream of a service has the same few header blocks; a new one need not read them anew.
_decode_known = functools.lru_cache(maxsize=_MAX_CACHED_BLOCKS)(_decode_headers)


def _encode_header(name: str, value: HeaderValue) -> bytes:
    try:
        raw_name = name.encode()
        if not 0 < len(raw_name) <= _MAX_NAME_BYTES:
            raise EventStreamError(
                f"The name of a header has {len(raw_name)} bytes; 1 to {_MAX_NAME_BYTES} are allowed."
            )
        return bytes((len(raw_name),)) + raw_name + _encode_value(name, value)
    except UnicodeEncodeError as error:
        raise EventStreamError("A header has a lone surrogate, which UTF-8 cannot say.") from error
    except struct_error as error:
        raise EventStreamError(f"The value of header {name!r} does not fit its integer type.") from error


def _encode_value(name: str, value: HeaderValue) -> bytes:
    if isinstance(value, bool):
        return b"\x00" if value else b"\x01"
    if isinstance(value, int):
        kind = type(value)
        if kind is int and not -(2**31) <= value < 2**31:
            kind = Long
        code, packer = _INTEGER_CODES[kind]
        return bytes((code,)) + packer.pack(value)
    if isinstance(value, Uuid):
        if len(value) != 16:
            raise EventStreamError(f"The value of header {name!r} has {len(value)} bytes; a UUID has 16.")
        return b"\x09" + value
    raw = value.encode() if isinstance(value, str) else value
    if len(raw) > _MAX_VALUE_BYTES:
        raise EventStreamError(
            f"The value of header {name!r} has {len(raw)} bytes; at most {_MAX_VALUE_BYTES} are allowed."
        )
    return bytes((7 if isinstance(value, str) else 6,)) + len(raw).to_bytes(2, "big") + raw
