"""Faults of streams: ends that are none, damage, errors inside a 200, silence, and what comes after the end."""

from __future__ import annotations

__all__ = ["STREAM_FAULTS"]

import asyncio
import base64
import struct
import zlib
from collections.abc import Callable

from apex_llm.emulator.faults.base import AZURE, BEDROCK, STREAM, Fault, FaultCall, Player, Wire, chunked
from apex_llm.emulator.raw import FaultConnection
from apex_llm.emulator.wire import compact, data_event, error_frame, event_frame, exception_frame

_DRIP_SECONDS = 0.05


def _after_half(damage: Callable[[FaultCall], bytes], *, rest: bool = True) -> Player:
    """The first half of the stream, then ``damage``, then (unless told otherwise) the rest and a clean end."""

    async def play(connection: FaultConnection, call: FaultCall) -> None:
        following = call.parts[len(call.begun) :] if rest else ()
        await connection.write(call.head(last=True) + chunked((*call.begun, damage(call), *following)))

    return play


def _instead(first: Callable[[FaultCall], bytes]) -> Player:
    """One event and a clean end, in place of the stream."""

    async def play(connection: FaultConnection, call: FaultCall) -> None:
        await connection.write(call.head(last=True) + chunked((first(call),)))

    return play


# Ends.


async def _truncated(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head(last=True) + chunked(call.parts[: call.reply.terminal]))


async def _half_event(connection: FaultConnection, call: FaultCall) -> None:
    half = call.parts[len(call.begun)]
    await connection.write(call.head(last=True) + chunked((*call.begun, half[: len(half) // 2])))


async def _close_without_length(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head("connection: close", framing="none") + b"".join(call.begun))


async def _drop_without_length(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head("connection: close", framing="none") + call.body)
    await connection.drop_after_delivery()


async def _drop_mid_stream(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head() + chunked(call.begun, ended=False))
    await connection.drop_after_delivery()


async def _close_mid_stream(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head() + chunked(call.begun, ended=False))


async def _reset_mid_stream(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head() + chunked(call.begun, ended=False))
    await connection.reset_after_delivery()


async def _reset_after_head(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head())
    await connection.reset_after_delivery()


async def _cut_anywhere(connection: FaultConnection, call: FaultCall) -> None:
    body = chunked(call.parts)
    await connection.write(call.head() + body[: call.random.randrange(len(body) - 5)])


async def _no_done(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head(last=True) + chunked(part for part in call.parts if b"[DONE]" not in part))


async def _done_without_line_end(connection: FaultConnection, call: FaultCall) -> None:
    kept = (part for part in call.parts if b"[DONE]" not in part)
    await connection.write(call.head(last=True) + chunked((*kept, b"data: [DONE]")))


async def _bare_done(connection: FaultConnection, call: FaultCall) -> None:
    kept = (part for part in call.parts if b"[DONE]" not in part)
    await connection.write(call.head(last=True) + chunked((*kept, b"[DONE]\n\n")))


async def _bare_done_without_line_end(connection: FaultConnection, call: FaultCall) -> None:
    kept = (part for part in call.parts if b"[DONE]" not in part)
    await connection.write(call.head(last=True) + chunked((*kept, b"[DONE]")))


# Something else than a stream.


async def _json_instead(connection: FaultConnection, call: FaultCall) -> None:
    body = compact({"error": {"code": "429", "message": "Too many."}} if call.wire == "azure" else {"message": "No."})
    named = () if call.wire == "azure" else ("x-amzn-errortype: ThrottlingException",)
    head = call.head(*named, framing="length", length=len(body), content_type="application/json", last=True)
    await connection.write(head + body)


async def _page_instead(connection: FaultConnection, call: FaultCall) -> None:
    body = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"
    await connection.write(call.head(framing="length", length=len(body), content_type="text/html", last=True) + body)


async def _empty_stream(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head(framing="length", length=0, last=True))


# Damage.


def _bad_message_crc(call: FaultCall) -> bytes:
    frame = call.parts[len(call.begun)]
    return frame[:-1] + bytes((frame[-1] ^ 1,))


def _bad_prelude_crc(call: FaultCall) -> bytes:
    frame = call.parts[len(call.begun)]
    return frame[:11] + bytes((frame[11] ^ 1,)) + frame[12:]


def _prelude(total: int, headers: int) -> bytes:
    prelude = struct.pack(">II", total, headers)
    return prelude + struct.pack(">I", zlib.crc32(prelude))


def _huge_frame(call: FaultCall) -> bytes:
    return _prelude(0xFFFFFFF0, 100)


def _huge_frame_headers(call: FaultCall) -> bytes:
    return _prelude(1 << 20, (128 << 10) + 1)


def _delta(call: FaultCall, text: bytes, *, index: int = 0) -> bytes:
    """One piece of text, with whatever bytes, on the wire of the call."""
    if call.wire == "azure":
        return data_event(b'{"id":"x","choices":[{"index":%d,"delta":{"content":"%b"}}]}' % (index, text))
    if call.request.operation == "converse-stream":
        return event_frame("contentBlockDelta", b'{"delta":{"text":"%b"},"contentBlockIndex":%d}' % (text, index))
    return _claude(
        b'{"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":"%b"}}' % (index, text)
    )


def _claude(event: bytes) -> bytes:
    """One event of Claude's native format."""
    return event_frame("chunk", b'{"bytes":"%b"}' % base64.b64encode(event))


def _bad_utf8(call: FaultCall) -> bytes:
    return _delta(call, b" bad:\xff\xfe")


def _broken_json(call: FaultCall) -> bytes:
    if call.wire == "azure":
        return data_event(b'{"choices":[{"index":0,"delta":{"content":"half')
    name = "contentBlockDelta" if call.request.operation == "converse-stream" else "chunk"
    return event_frame(name, b'{"delta":{"text":"half')


async def _split_characters(connection: FaultConnection, call: FaultCall) -> None:
    body = call.body
    await connection.write(call.head())
    for start in range(0, len(body), 3):
        await connection.write(chunked((body[start : start + 3],), ended=False))
        await asyncio.sleep(0)
    await connection.write(b"0\r\n\r\n")


def _backwards(call: FaultCall) -> bytes:
    if call.wire == "azure":
        calls = b'{"id":"x","choices":[{"index":0,"delta":{"tool_calls":[%b]}}]}'
        one = b'{"index":%d,"id":"call_%d","function":{"name":"look_up","arguments":"{}"}}'
        return data_event(calls % (one % (1, 1))) + data_event(calls % (one % (0, 0)))
    started = b""
    if call.request.operation != "converse-stream":  # where text has no start
        started = _claude(b'{"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}')
    return started + _delta(call, b" later", index=2) + _delta(call, b" earlier", index=1)


def _after_block_end(call: FaultCall) -> bytes:
    if call.wire == "azure":
        end = data_event(b'{"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
    elif call.request.operation == "converse-stream":
        end = event_frame("contentBlockStop", b'{"contentBlockIndex":0}')
    else:
        end = _claude(b'{"type":"content_block_stop","index":0}')
    return end + _delta(call, b" and on")


# Errors inside a 200.


def _exception(call: FaultCall) -> bytes:
    if call.wire == "azure":
        return data_event(compact({"error": {"code": "429", "message": "Too many requests.", "type": None}}))
    return exception_frame("throttlingException", compact({"message": "Too many requests."}))


def _model_stream_error(call: FaultCall) -> bytes:
    return exception_frame(
        "modelStreamErrorException", compact({"message": "The model failed.", "originalStatusCode": 500})
    )


def _error_event(call: FaultCall) -> bytes:
    if call.wire == "azure":
        return data_event(compact({"message": "The server had an error.", "code": "server_error"}), event="error")
    return error_frame("InternalFailure", "The server had an error.")


def _unknown_events(call: FaultCall) -> bytes:
    if call.wire == "azure":
        return b": ping\n\n" + data_event(compact({"object": "future.thing", "choices": [], "novelty": 1}))
    return event_frame("futureEvent", compact({"novelty": 1}))


# Silence and excess.


async def _stall(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head() + chunked(call.begun, ended=False))
    await connection.stall()


async def _stall_before_head(connection: FaultConnection, call: FaultCall) -> None:
    await connection.stall()


async def _drip(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head() + chunked(call.begun, ended=False))
    rest = b"".join(call.parts[len(call.begun) :])
    for position in range(len(rest)):
        await connection.write(chunked((rest[position : position + 1],), ended=False))
        if await connection.left_within(_DRIP_SECONDS):
            return
    await connection.write(b"0\r\n\r\n")


async def _pings_only(connection: FaultConnection, call: FaultCall) -> None:
    ping = b": ping\n\n" if call.wire == "azure" else event_frame("ping", b"{}")
    await connection.write(call.head() + chunked(call.begun, ended=False))
    while not await connection.left_within(_DRIP_SECONDS):
        await connection.write(chunked((ping,), ended=False))


async def _endless_event(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head() + chunked(call.begun, ended=False))
    beginning = b"data: " if call.wire == "azure" else _prelude(100 << 20, 0)
    await connection.write(chunked((beginning,), ended=False))
    block = chunked((b"a" * 65536,), ended=False)
    for _ in range(1600):
        if connection.closed:
            return
        await connection.write(block)
    await connection.write(b"0\r\n\r\n")


async def _events_after_end(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head(last=True) + chunked((*call.parts, _delta(call, b" and more"))))


def _fault(
    name: str,
    row: int,
    summary: str,
    play: Player,
    *,
    wires: frozenset[Wire] = BEDROCK | AZURE,
) -> Fault:
    return Fault(name, row, summary, play, STREAM, wires)


STREAM_FAULTS = (
    _fault("truncated-stream", 40, "A clean end without the terminal event.", _truncated),
    _fault("json-instead-of-stream", 41, "Status 200 and a JSON error where a stream was asked for.", _json_instead),
    _fault("page-instead-of-stream", 41, "Status 200 and HTML where a stream was asked for.", _page_instead),
    _fault("empty-stream", 41, "A stream of zero bytes.", _empty_stream),
    _fault("half-event", 42, "A frame or SSE line is cut in half, then a clean end.", _half_event),
    _fault("close-without-length", 43, "A body without length is closed in the middle.", _close_without_length),
    Fault(
        "drop-without-length",
        43,
        "A body without length is whole, but TLS is not ended before the connection (no close_notify).",
        _drop_without_length,
    ),
    _fault("drop-mid-stream", 44, "The same in the middle of a chunked stream.", _drop_mid_stream),
    _fault("close-mid-stream", 44, "The connection is closed in the middle of a chunked stream.", _close_mid_stream),
    _fault("reset-mid-stream", 44, "The connection is reset in the middle of a chunked stream.", _reset_mid_stream),
    _fault("reset-after-head", 44, "The connection is reset between the head and the first event.", _reset_after_head),
    _fault("cut-anywhere", 45, "The connection is closed at a random byte of the body.", _cut_anywhere),
    _fault("bad-message-crc", 46, "One frame fails its checksum.", _after_half(_bad_message_crc), wires=BEDROCK),
    _fault(
        "bad-prelude-crc", 46, "One frame's prelude fails its checksum.", _after_half(_bad_prelude_crc), wires=BEDROCK
    ),
    _fault("huge-frame", 47, "A frame claims a length of 0xFFFFFFF0.", _after_half(_huge_frame), wires=BEDROCK),
    _fault(
        "huge-frame-headers",
        47,
        "A frame claims 128 KiB of headers and one byte more.",
        _after_half(_huge_frame_headers),
        wires=BEDROCK,
    ),
    _fault(
        "exception-mid-stream",
        48,
        "A throttling error in the middle of the stream.",
        _after_half(_exception, rest=False),
    ),
    _fault("exception-first", 48, "A throttling error in place of the first event.", _instead(_exception)),
    _fault(
        "model-stream-error",
        48,
        "A modelStreamErrorException in the middle of the stream.",
        _after_half(_model_stream_error, rest=False),
        wires=BEDROCK,
    ),
    _fault(
        "error-event",
        49,
        "A frame of message type error; on Azure an event named error whose data has no error member.",
        _after_half(_error_event, rest=False),
    ),
    _fault("error-event-first", 49, "The same in place of the first event.", _instead(_error_event)),
    _fault(
        "error-data",
        50,
        "An error object as data, and the stream goes on after it.",
        _after_half(_exception),
        wires=AZURE,
    ),
    _fault("unknown-events", 51, "An event of an unknown kind, and on Azure a comment.", _after_half(_unknown_events)),
    _fault("split-characters", 52, "Every chunk has three bytes, whatever characters they cut.", _split_characters),
    _fault("bad-utf-8", 52, "A piece of text with bytes that are no UTF-8.", _after_half(_bad_utf8)),
    _fault("broken-json", 53, "One event whose JSON ends in the middle.", _after_half(_broken_json)),
    _fault("stall", 54, "Silence in the middle of the stream.", _stall),
    Fault("stall-before-head", 54, "Silence instead of an answer.", _stall_before_head),
    _fault("drip", 55, "From the middle on one byte every 50 ms.", _drip),
    _fault("pings-only", 55, "From the middle on keep-alives without end.", _pings_only),
    _fault("endless-event", 56, "A line or frame of 100 MiB.", _endless_event),
    _fault("events-after-end", 57, "More text after the terminal event.", _events_after_end),
    _fault(
        "index-backwards", 57, "Text for block 2, then block 1; on Azure tool call 1, then 0.", _after_half(_backwards)
    ),
    _fault(
        "text-after-block-end",
        57,
        "Text for a block, on Azure a choice, that has ended.",
        _after_half(_after_block_end),
    ),
    _fault("no-done", 58, "A finish reason, but no [DONE].", _no_done, wires=AZURE),
    _fault("done-without-line-end", 58, "[DONE] without the line end after it.", _done_without_line_end, wires=AZURE),
    _fault("bare-done", 58, "[DONE] without data: before it.", _bare_done, wires=AZURE),
    _fault(
        "bare-done-without-line-end",
        58,
        "[DONE] without data: before it and without a line end after it.",
        _bare_done_without_line_end,
        wires=AZURE,
    ),
)
