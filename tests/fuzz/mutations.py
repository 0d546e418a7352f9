"""Good bytes to nearly good ones, by a seeded dice: what a parser meets on a bad day, and from a bad peer."""

from __future__ import annotations

__all__ = ["junk", "mutate_bytes", "mutate_frames", "mutate_http", "mutate_json", "mutate_sse", "pieces_of"]

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from struct import pack, unpack_from
from typing import Any
from zlib import crc32

JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    2**31,
    2**63,
    -(2**70),
    float("inf"),
    float("nan"),
    "",
    "0",
    "x" * 300,
    "\ud83d",
    "\x00",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"type": None},
    {"text": 5},
    {"error": "no"},
    [{"index": -1}],
    "[DONE]",
    "\udfff" * 3,
)
TEXT_TOKENS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\n\n",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b'"',
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"1e999",
    b"-",
    b"9" * 30,
    b"[" * 3000,
    b'{"a":' * 3000,
)
SSE_TOKENS = (
    b"data: ",
    b"data:",
    b"event: error\n",
    b"id: 1\x00\n",
    b"retry: 9\n",
    b":\n",
    b"data: [DONE]",
    b"data\n",
    b"\n\n",
)
HTTP_TOKENS = (
    b"\r\n\r\n",
    b"\r\n",
    b"\n",
    b" ",
    b"\t",
    b"\x00",
    b"\x0b",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 101 Up\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 ",
    b"HTTP/2 200\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"X: " + b"y" * 9000 + b"\r\n",
    b"a: b\r\n" * 250,
    b"0\r\n\r\n",
    b"0\r\n",
    b"ffffffffffffffff\r\n",
    b"fffffffffffffffff\r\n",
    b"5;" + b"e" * 600 + b"\r\nhello\r\n",
    b"-5\r\n",
    b"\xff\xfe",
)


def junk(dice: Random) -> Any:
    """A value that nobody sends."""
    return copy.deepcopy(dice.choice(JUNK))


def pieces_of(data: bytes, dice: Random) -> list[bytes]:
    """``data`` as a socket might deliver it: whole, in a few pieces, or byte by byte for a while."""
    if dice.random() < 0.3 or len(data) < 2:
        return [data]
    step = dice.choice((1, 2, 7, 64, 1024))
    steps = range(0, min(len(data), 400 * step), step)
    return [*(data[start : start + step] for start in steps), data[len(steps) * step :]]


def mutate_bytes(data: bytes, dice: Random, *, tokens: Sequence[bytes] = TEXT_TOKENS) -> bytes:
    """A few local changes: flips, cuts, copies, tokens put in."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 12))):
        at = dice.randrange(len(changed) + 1)
        until = min(len(changed), at + dice.choice((1, 1, 2, 8, 100)))
        match dice.randrange(7):
            case 0 if at < until:
                changed[at] ^= 1 << dice.randrange(8)
            case 1:
                del changed[at:until]
            case 2:
                changed[at:at] = changed[at:until]
            case 3:
                changed[at:at] = dice.choice(tokens)
            case 4:
                changed[at:until] = dice.choice(tokens)
            case 5:
                changed[at:at] = dice.randbytes(dice.choice((1, 4, 16)))
            case _ if dice.random() < 0.3:
                del changed[at:]
            case _:
                pass
    return bytes(changed)


def mutate_json(text: bytes, dice: Random) -> bytes:
    """The JSON with members replaced by junk, dropped, doubled or under other names; and sometimes broken besides."""
    try:
        value = json.loads(text)
    except ValueError:
        return mutate_bytes(text, dice)
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        places: list[tuple[Any, Any]] = []
        _collect(value, places)
        if not places:
            value = junk(dice)
            break
        parent, key = dice.choice(places)
        other, other_key = dice.choice(places)
        match dice.randrange(6):
            case 0 | 1:
                parent[key] = junk(dice)
            case 2:
                del parent[key]
            case 3 if parent is not other[other_key] and isinstance(
                other[other_key], (str, int, float, bool, type(None))
            ):
                parent[key] = other[other_key]
            case 4 if isinstance(parent, dict) and isinstance(other, dict):
                parent[other_key] = parent.pop(key)
            case _:
                parent[key] = [parent[key]] * dice.choice((1, 2, 3))
    written = json.dumps(value, ensure_ascii=dice.random() < 0.9).encode("utf-8", "surrogatepass")
    return mutate_bytes(written, dice) if dice.random() < 0.2 else written


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        places.append((value, key))
        _collect(member, places)


def mutate_frames(data: bytes, dice: Random, change: Callable[[bytes, Random], bytes] = mutate_json) -> bytes:
    """Event-stream frames with other headers or payloads, whose checksums fit: what bit errors alone never reach."""
    frames: list[bytes] = []
    position = 0
    while position + 16 <= len(data):
        total, size = unpack_from(">II", data, position)
        end = position + total
        frames.append(data[position + 12 : end - 4])
        position = end
        if dice.random() < 1.5 / (len(data) // max(total, 1) + 1):
            block, payload = frames[-1][:size], frames[-1][size:]
            match dice.randrange(5):
                case 0:
                    block = mutate_bytes(
                        block, dice, tokens=(b"\x07\x00\x05", b"\x0d:message-type", b"error", b"exception", b"\x09")
                    )
                case 1:
                    payload = mutate_bytes(payload, dice)
                case _:
                    payload = change(payload, dice)
            frames[-1] = block + payload
            size = len(block)
        lengths = pack(">II", len(frames[-1]) + 16, size)
        message = lengths + pack(">I", crc32(lengths)) + frames[-1]
        frames[-1] = message + pack(">I", crc32(message))
    return b"".join(_shuffled(frames, dice))


def mutate_sse(data: bytes, dice: Random) -> bytes:
    """Server-sent events with other payloads, or in another order; sometimes broken lines besides."""
    events = data.split(b"\n\n")
    for index, event in enumerate(events):
        if dice.random() < 1.5 / len(events):
            head, mark, payload = event.partition(b"data: ")
            events[index] = head + mark + mutate_json(payload, dice)
    written = b"\n\n".join(_shuffled(events, dice))
    return mutate_bytes(written, dice, tokens=TEXT_TOKENS + SSE_TOKENS) if dice.random() < 0.4 else written


def mutate_http(data: bytes, dice: Random) -> bytes:
    """A whole HTTP answer, changed in its head more often than in its body."""
    head, mark, body = data.partition(b"\r\n\r\n")
    if dice.random() < 0.6:
        return mutate_bytes(head + mark, dice, tokens=HTTP_TOKENS) + body
    return head + mark + mutate_bytes(body, dice, tokens=HTTP_TOKENS)


def _shuffled(items: list[bytes], dice: Random) -> list[bytes]:
    if items and dice.random() < 0.3:
        index = dice.randrange(len(items))
        match dice.randrange(4):
            case 0:
                items.insert(dice.randrange(len(items)), items[index])
            case 1:
                del items[index]
            case 2:
                dice.shuffle(items)
            case _:
                del items[index + 1 :]
    return items
