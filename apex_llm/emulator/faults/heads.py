"""Faults of the response's head, and of connections between two answers."""

from __future__ import annotations

__all__ = ["HEAD_FAULTS"]

from apex_llm.emulator.faults.base import Fault, FaultCall
from apex_llm.emulator.raw import FaultConnection

_HALF_A_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: appli"


async def _reset_before_head(connection: FaultConnection, call: FaultCall) -> None:
    connection.reset()


async def _close_before_head(connection: FaultConnection, call: FaultCall) -> None:
    connection.close()


async def _reset_in_head(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(_HALF_A_HEAD)
    await connection.reset_after_delivery()


async def _close_in_head(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(_HALF_A_HEAD)


async def _endless_header(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(b"HTTP/1.1 200 OK\r\nx-padding: ")
    for _ in range(80):
        await connection.write(b"a" * 65536)
    await connection.write(b"\r\n\r\n")


async def _too_many_headers(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(b"HTTP/1.1 200 OK\r\n")
    for start in range(0, 200_000, 1000):
        await connection.write(b"".join(b"x-%d: y\r\n" % number for number in range(start, start + 1000)))
    await connection.write(call.message().partition(b"\r\n")[2])


async def _interim_flood(connection: FaultConnection, call: FaultCall) -> None:
    for _ in range(30):
        await connection.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 1000)
    await connection.write(call.message())


async def _length_and_chunked(connection: FaultConnection, call: FaultCall) -> None:
    body = call.body
    await connection.write(call.head(f"content-length: {len(body)}", framing="chunked"))
    await connection.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


async def _two_lengths(connection: FaultConnection, call: FaultCall) -> None:
    body = call.body
    await connection.write(call.head(f"content-length: {len(body) + 7}", framing="length") + body)


async def _closed_while_idle(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.message())


async def _glued_answer(connection: FaultConnection, call: FaultCall) -> None:
    second = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"glued": true}'
    await connection.write(call.message() + second)
    await connection.stall()


HEAD_FAULTS = (
    Fault("reset-before-head", 9, "The connection is reset before a byte of the answer.", _reset_before_head),
    Fault("close-before-head", 9, "The connection is closed before a byte of the answer.", _close_before_head),
    Fault("reset-in-head", 10, "The connection is reset in the middle of the head.", _reset_in_head),
    Fault("close-in-head", 11, "The connection is closed in the middle of the head.", _close_in_head),
    Fault("endless-header", 12, "One header line is 5 MiB long.", _endless_header),
    Fault("too-many-headers", 13, "The head has 200,000 headers.", _too_many_headers),
    Fault("interim-flood", 14, "30,000 interim answers (103) come before the answer.", _interim_flood),
    Fault(
        "length-and-chunked",
        15,
        "The head names a length and a transfer coding, as in request smuggling.",
        _length_and_chunked,
    ),
    Fault("two-lengths", 16, "The head names two different lengths.", _two_lengths),
    Fault(
        "closed-while-idle", 17, "A good answer that promises keep-alive, and a closed connection.", _closed_while_idle
    ),
    Fault("glued-answer", 18, "A second answer that nobody asked for follows the first.", _glued_answer),
)
