"""Faults of bodies: their framing, their coding, and JSON that no service should send."""

from __future__ import annotations

__all__ = ["BODY_FAULTS"]

import zlib
from collections.abc import Iterator

from apex_llm.emulator.faults.base import STREAM, WHOLE, Fault, FaultCall
from apex_llm.emulator.raw import FaultConnection

_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in to the network</h1></body></html>"


async def _short_body(connection: FaultConnection, call: FaultCall) -> None:
    body = call.body
    await connection.write(call.head(framing="length", length=len(body) + 32) + body)


async def _bad_chunk_end(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head(framing="chunked"))
    for piece in call.parts:
        await connection.write(b"%x\r\n%bXX" % (len(piece), piece))
    await connection.write(b"0\r\n\r\n")


async def _trailer_flood(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head(framing="chunked"))
    body = call.body
    await connection.write(b"%x\r\n%b\r\n0\r\n" % (len(body), body))
    for start in range(0, 300_000, 1000):
        await connection.write(b"".join(b"x-%d: y\r\n" % number for number in range(start, start + 1000)))
    await connection.write(b"\r\n")


async def _one_byte_chunks(connection: FaultConnection, call: FaultCall) -> None:
    # Spaces around JSON are JSON; on a stream they would not be events, so it is the body's own bytes there.
    body = call.body if call.streamed else b" " * (400_000 - len(call.body)) + call.body
    await connection.write(call.head(framing="chunked", last=True))
    for start in range(0, len(body), 4096):
        await connection.write(b"".join(b"1\r\n%c\r\n" % byte for byte in body[start : start + 4096]))
    await connection.write(b"0\r\n\r\n")


def _bomb() -> Iterator[bytes]:
    """A gzip member of 1 MiB that holds 1 GiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * (1 << 20)
    for _ in range(1 << 10):
        yield packer.compress(block)
    yield packer.flush()


async def _gzip_bomb(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head("content-encoding: gzip", framing="chunked"))
    for piece in _bomb():
        if connection.closed:
            return
        if piece:
            await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    await connection.write(b"0\r\n\r\n")


async def _login_page(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head(framing="length", length=len(_PAGE), content_type="text/html", last=True) + _PAGE)


async def _deep_json(connection: FaultConnection, call: FaultCall) -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    await _replaced(connection, call, b'{"usage":%b,' % deep)


async def _huge_integer(connection: FaultConnection, call: FaultCall) -> None:
    await _replaced(connection, call, b'{"created":%b,"metrics":{"latencyMs":%b},' % (b"9" * 100_000, b"9" * 100_000))


async def _lone_surrogate(connection: FaultConnection, call: FaultCall) -> None:
    await _replaced(connection, call, b'{"extra":"\\ud800",')


async def _not_a_number(connection: FaultConnection, call: FaultCall) -> None:
    await _replaced(connection, call, b'{"extra":NaN,')


async def _duplicate_keys(connection: FaultConnection, call: FaultCall) -> None:
    await _replaced(connection, call, b'{"usage":{"inputTokens":1},"usage":null,')


async def _replaced(connection: FaultConnection, call: FaultCall, beginning: bytes) -> None:
    """The good body with members put before its own."""
    await connection.write(call.message((beginning + call.body.removeprefix(b"{"),), last=True))


async def _broken_json_body(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.message((call.body[: len(call.body) // 2],), last=True))


async def _utf16_label(connection: FaultConnection, call: FaultCall) -> None:
    body = call.body
    await connection.write(
        call.head(framing="length", length=len(body), content_type="application/json; charset=utf-16", last=True) + body
    )


BODY_FAULTS = (
    Fault("short-body", 19, "The body is shorter than its Content-Length.", _short_body),
    Fault("bad-chunk-end", 20, "Chunks end with XX and not with a line end.", _bad_chunk_end),
    Fault("trailer-flood", 21, "300,000 trailers follow the last chunk.", _trailer_flood),
    Fault(
        "one-byte-chunks",
        22,
        "The body comes in chunks of one byte; one that is not streamed has 400,000 of them.",
        _one_byte_chunks,
    ),
    Fault("gzip-bomb", 23, "1 MiB of gzip that nobody asked for and that holds 1 GiB.", _gzip_bomb, WHOLE),
    Fault("gzip-bomb-on-a-stream", 24, "The same where a stream was asked for.", _gzip_bomb, STREAM),
    Fault("login-page", 25, "Status 200 and the HTML page of a captive portal.", _login_page, WHOLE),
    Fault("deep-json", 26, "The answer's JSON is nested 200,000 deep.", _deep_json, WHOLE),
    Fault("huge-integer", 27, "The answer's JSON has an integer of 100,000 digits.", _huge_integer, WHOLE),
    Fault("lone-surrogate", 27, "The answer's JSON has half a surrogate pair in a text.", _lone_surrogate, WHOLE),
    Fault("not-a-number", 27, "The answer's JSON has NaN, which JSON has not.", _not_a_number, WHOLE),
    Fault("duplicate-keys", 27, "The answer's JSON names a member twice.", _duplicate_keys, WHOLE),
    Fault(
        "broken-json-body",
        27,
        "The answer's JSON ends in the middle, in a body that is whole.",
        _broken_json_body,
        WHOLE,
    ),
    Fault("utf-16-label", 28, "The head claims charset=utf-16 for UTF-8.", _utf16_label, WHOLE),
)
