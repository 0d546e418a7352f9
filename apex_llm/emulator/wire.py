"""What the emulated services have in common: replies, refusals, and the framing of streams.

The frames are made here from their description, not by the code that our client decodes
with, so that an error in one is not hidden by the same error in the other.
"""

from __future__ import annotations

__all__ = [
    "Refusal",
    "Reply",
    "compact",
    "data_event",
    "error_frame",
    "event_frame",
    "exception_frame",
    "int_of",
    "list_of",
    "mapping",
    "strings_of",
    "text_of",
]

import json
import struct
import zlib
from typing import Any, cast

import msgspec


class Reply(msgspec.Struct, kw_only=True):
    """A response before it is played: how fast, and how broken, is not decided here."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    body: bytes = b""
    parts: tuple[bytes, ...] | None = None
    """The events of a stream; ``body`` is then not used."""
    terminal: int | None = None
    """Index of the first event without which the stream is incomplete."""


class Refusal(Exception):  # noqa: N818 # an answer, not a failure of the emulator
    """The service says no. Caught by the service itself, which knows how its cloud says it."""

    def __init__(self, status: int, code: str, message: str, **members: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.members = members
        """Further members of the error object."""


def compact(value: Any) -> bytes:
    """JSON as services write it: no spaces, text as UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def mapping(value: Any) -> dict[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """``value`` if it is a JSON array, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """``value`` if it is a string, else the empty one."""
    return value if isinstance(value, str) else ""


def int_of(value: Any) -> int | None:
    """``value`` if it is a JSON integer, else ``None``."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def strings_of(value: Any) -> tuple[str, ...]:
    """The strings of a JSON array, or a string alone."""
    if isinstance(value, str):
        return (value,)
    return tuple(item for item in list_of(value) if isinstance(item, str))


def event_frame(event_type: str, payload: bytes, *, content_type: str = "application/json") -> bytes:
    """One ``event`` frame of ``application/vnd.amazon.eventstream``."""
    return _frame(((":event-type", event_type), (":content-type", content_type), (":message-type", "event")), payload)


def exception_frame(exception_type: str, payload: bytes) -> bytes:
    """One ``exception`` frame; ``exception_type`` is the member's name, such as ``throttlingException``."""
    return _frame(
        ((":exception-type", exception_type), (":content-type", "application/json"), (":message-type", "exception")),
        payload,
    )


def error_frame(code: str, message: str) -> bytes:
    """One ``error`` frame, which has no payload: what the service does not model."""
    return _frame(((":error-code", code), (":error-message", message), (":message-type", "error")), b"")


def data_event(data: bytes, *, event: str | None = None) -> bytes:
    """One server-sent event with one ``data`` line for each line of ``data``."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"".join(b"data: " + line + b"\n" for line in data.split(b"\n")) + b"\n"


def _frame(headers: tuple[tuple[str, str], ...], payload: bytes) -> bytes:
    encoded = b"".join(
        bytes((len(name),)) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for name, value in headers
    )
    prelude = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + encoded + payload
    return message + struct.pack(">I", zlib.crc32(message))
