"""What is played: faults of the emulator, three of our own, and the waits that a server asks for."""

from __future__ import annotations

__all__ = ["CASES", "GOOD_TEXT", "PlayedCase"]

import zlib
from dataclasses import dataclass

from apex_llm.emulator import FAULTS, Fault, FaultCall, FaultConnection
from apex_llm.emulator.faults.base import chunked
from apex_llm.emulator.wire import data_event, event_frame

GOOD_TEXT = "The quick brown fox jumps over the lazy dog."
_BOMB_MEBIBYTES = 64


@dataclass(frozen=True, slots=True)
class PlayedCase:
    """One row of the table."""

    group: str
    """``stream``, ``whole`` or ``retry``."""
    fault: Fault | None
    """``None`` plays nothing: the row that shows that the client works."""
    told: float | None = None
    """Seconds for which the server asks the client to wait."""

    @property
    def name(self) -> str:
        """Of the row, within its group."""
        return "nothing" if self.fault is None else self.fault.name

    @property
    def call(self) -> str:
        """``stream`` or ``whole``."""
        return "stream" if self.group == "stream" else "whole"

    def strikes(self, wire: str) -> bool:
        """Whether there is such a fault on this wire."""
        return self.fault is None or wire in self.fault.wires


async def _half_stream(connection: FaultConnection, call: FaultCall) -> None:
    await connection.write(call.head(last=True) + chunked(call.begun))


async def _broken_event(connection: FaultConnection, call: FaultCall) -> None:
    if call.wire == "azure":
        broken = data_event(b'{"choices":[{"index":0,"delta":{"content":" over')
    else:
        name = "contentBlockDelta" if call.request.operation == "converse-stream" else "chunk"
        broken = event_frame(name, b'{"delta":{"text":" over')
    middle = len(call.begun)
    parts = (*call.parts[:middle], broken, *call.parts[middle + 1 :])
    await connection.write(call.head(last=True) + chunked(parts))


async def _gzip_bomb(connection: FaultConnection, call: FaultCall) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(_BOMB_MEBIBYTES))
    packed += packer.compress(call.body) + packer.flush()
    head = call.head("content-encoding: gzip", framing="length", length=len(packed), last=True)
    await connection.write(head + packed)


_HALF_STREAM = Fault("half-stream", 40, "A clean end after half of the events.", _half_stream)
_BROKEN_EVENT = Fault("broken-event", 53, "In the JSON of one event, the end is missing.", _broken_event)
_GZIP_BOMB = Fault(
    "small-gzip-bomb",
    23,
    f"The answer comes as gzip, behind {_BOMB_MEBIBYTES} MiB of spaces that take 64 KiB on the wire.",
    _gzip_bomb,
)


def _stream(*faults: str | Fault) -> tuple[PlayedCase, ...]:
    return tuple(PlayedCase("stream", FAULTS[fault] if isinstance(fault, str) else fault) for fault in faults)


def _whole(*faults: str | Fault) -> tuple[PlayedCase, ...]:
    return tuple(PlayedCase("whole", FAULTS[fault] if isinstance(fault, str) else fault) for fault in faults)


CASES = (
    PlayedCase("stream", None),
    *_stream(
        _HALF_STREAM,
        "half-event",
        "truncated-stream",
        "close-without-length",
        "close-mid-stream",
        "reset-mid-stream",
        "short-body",
        "bad-message-crc",
        "huge-frame",
        "exception-mid-stream",
        "error-event",
        "json-instead-of-stream",
        "page-instead-of-stream",
        "empty-stream",
        "bad-utf-8",
        _BROKEN_EVENT,
        "stall",
        "pings-only",
    ),
    PlayedCase("whole", None),
    *_whole(
        "short-body",
        "length-and-chunked",
        _GZIP_BOMB,
        "login-page",
        "broken-json-body",
        "reset-before-head",
        "stall-before-head",
        "redirect",
    ),
    PlayedCase("retry", FAULTS["throttled-for-700-ms"], 0.7),
    PlayedCase("retry", FAULTS["throttled-for-1500-ms"], 1.5),
    PlayedCase("retry", FAULTS["throttled-for-an-hour"], 3600.0),
)
