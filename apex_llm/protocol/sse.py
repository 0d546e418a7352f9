"""Server-sent events, decoded as bytes arrive.

Follows the WHATWG HTML standard, "Parsing an event stream" and "Interpreting an event stream". One deviation,
which is left to ``finish()``: a body that ends right after ``data: [DONE]``, without the blank line, has said it.
Vectors: ``tests/vectors/sse_vectors.json``.

No I/O. What an event means, reconnecting, and whether a stream was complete are left to others.
"""

from __future__ import annotations

__all__ = ["MAX_EVENT_BYTES", "ServerSentEvent", "SseDecoder"]

from collections.abc import Iterator
from typing import Final, NamedTuple

from apex_llm.errors import LimitExceededError

MAX_EVENT_BYTES: Final = 25_165_824

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_COLON = 0x3A
_LINE_FEED = 0x0A
_MAX_RETRY_DIGITS = 18
_STRAY = frozenset({b"{", b"<"})
_LONGEST_STRAY = 1 << 20


class ServerSentEvent(NamedTuple):
    """One event as the standard dispatches it."""

    event: str = "message"
    data: str = ""
    id: str = ""
    """The last id that the stream named; it holds until another is named."""


class SseDecoder:
    """Events of one stream: fed bytes in any pieces.

    Only new bytes are searched, so an event that arrives in many pieces costs linear time. The state is
    plain data: ``copy.deepcopy`` makes a snapshot between feeds.

    Args:
        max_event_bytes: The longest event, and so the longest line, that is kept.
        usual: How the lines begin of events that are of one line, and that the caller need not look at twice.
    """

    __slots__ = (
        "_after_carriage_return",
        "_error",
        "_held",
        "_max_event_bytes",
        "_single_lines",
        "_started",
        "_usual",
        "begins_astray",
        "discarded",
        "last_event_id",
        "replaced_bad_utf8",
        "retry",
        "stray",
        "usual_only",
    )

    discarded: int
    """Bytes of an unfinished event that ``finish()`` dropped. More than 0: the stream was cut."""
    last_event_id: str
    retry: int | None
    """Milliseconds that the server asked to wait before reconnecting."""
    stray: bytes
    """JSON or markup that stood, bare, where an event should: the first of it, at most 1 MiB."""
    begins_astray: bool
    """Whether the stream began with such."""
    usual_only: bool
    """Whether all events of the last ``feed_raw`` began as ``usual`` says."""
    replaced_bad_utf8: bool
    """Whether something was not UTF-8, and U+FFFD was put in its place."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES, usual: tuple[bytes, ...] = (b"data: ",)) -> None:
        self._usual = usual
        self.usual_only = True
        self.discarded = 0
        self.last_event_id = ""
        self.retry = None
        self.stray = b""
        self.begins_astray = False
        self.replaced_bad_utf8 = False
        self._max_event_bytes = max_event_bytes
        # Bytes since the last blank line, every line end of them turned into LF.
        self._held = bytearray()
        self._single_lines = False
        """Whether each of the events that were taken in last is of one line."""
        self._started = False
        self._after_carriage_return = False
        self._error: LimitExceededError | None = None

    @property
    def pending(self) -> int:
        """Bytes that are kept for an event which is not complete."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """Each event that is complete now. Exhaust it before feeding again.

        Raises:
            LimitExceededError: An event is longer than ``max_event_bytes``; those before it were given.
        """
        blocks, ascii_only = self._take(data)
        return self._dispatched(blocks, ascii_only=ascii_only, error=self._error)

    def feed_raw(self, data: bytes) -> list[tuple[str, bytes]] | Iterator[tuple[str, bytes]]:
        """Name and data, in valid UTF-8, of each event that is complete now: a list, unless it will raise.

        Raises:
            LimitExceededError: An event is longer than ``max_event_bytes``; those before it were given.
        """
        blocks, ascii_only = self._take(data)
        events: list[tuple[str, bytes]] = []
        plain = ascii_only and self._single_lines
        usual = self._usual
        self.usual_only = self._error is None
        for block in blocks:
            if plain and block.startswith(usual):
                events.append(("message", block[6:]))
                continue
            self.usual_only = False
            event = self._event(block, ascii_only=ascii_only)
            if event is not None:
                events.append(event)
        return events if self._error is None else _given(events, self._error)

    def _take(self, data: bytes) -> tuple[list[bytes], bool]:
        """What stands before each blank line that has come, and whether all of it is ASCII."""
        if self._error is not None:
            return [], True
        if not self._started:
            data = self._without_byte_order_mark(data)
        if self._after_carriage_return and data:
            self._after_carriage_return = False
            if data[0] == _LINE_FEED:
                data = data[1:]
        if b"\r" in data:
            self._after_carriage_return = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        held = self._held
        blocks: list[bytes] = []
        if held and b"\n\n" not in data and not (held[-1] == _LINE_FEED and data.startswith(b"\n")):
            held += data
        else:
            if held:
                data = b"".join((held, data))
                held.clear()
            # Searching for one byte is many times as fast as for two, and events are of one line, as a rule.
            lines = data.split(b"\n")
            self._single_lines = len(lines) % 2 == 1 and not any(lines[1::2])
            blocks = lines[::2] if self._single_lines else data.split(b"\n\n")
            held += blocks.pop()
        if len(held) > self._max_event_bytes or len(data) > self._max_event_bytes:
            self._error = self._over_limit(blocks)
        return blocks, data.isascii()

    def finish(self) -> list[tuple[str, bytes]]:
        """Called at the end of the body: ``[("message", b"[DONE]")]`` if only its blank line is missing, else ``[]``.

        Anything else that was left is dropped, as the standard says, and counted in ``discarded``.

        Raises:
            LimitExceededError: What ``feed`` raised, if it failed.
        """
        if self._error is not None:
            raise self._error
        rest = bytes(self._held)
        self._held.clear()
        named_before = self.last_event_id, self.retry
        event = self._read_block(rest)
        if event is not None and event[1].strip() == b"[DONE]":
            return [event]
        self.last_event_id, self.retry = named_before
        # A keep-alive comment without a blank line is complete in itself, and so is the bare [DONE] of some servers.
        *lines, unfinished = rest.split(b"\n")
        self.discarded = sum([len(line) + 1 for line in lines if line not in {b"", b"[DONE]"} and line[0] != _COLON])
        if unfinished != b"[DONE]":
            self.discarded += len(unfinished)
        return []

    def _dispatched(
        self, blocks: list[bytes], *, ascii_only: bool, error: LimitExceededError | None
    ) -> Iterator[ServerSentEvent]:
        for block in blocks:
            event = self._event(block, ascii_only=ascii_only)
            if event is not None:
                yield ServerSentEvent(event[0], event[1].decode(), self.last_event_id)
        if error is not None:
            raise error

    def _event(self, block: bytes, *, ascii_only: bool) -> tuple[str, bytes] | None:
        """The event of the lines between two blank ones; its usual shapes the short way."""
        if block[:6] == b"data: " and b"\n" not in block:
            return "message", block[6:] if ascii_only else self._valid(block[6:])
        head, _, data = block.partition(b"\ndata: ")
        if data and head[:7] == b"event: " and b"\n" not in data and b"\n" not in head:
            return self._text(head[7:]) or "message", data if ascii_only else self._valid(data)
        return self._read_block(block)

    def _read_block(self, block: bytes) -> tuple[str, bytes] | None:
        """The event of the lines between two blank ones: the standard's way, field by field."""
        event = ""
        data: list[bytes] = []
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if value[:1] == b" ":
                value = value[1:]
            if name == b"data":
                data.append(value)
            elif name == b"event":
                event = self._text(value)
            elif name == b"id":
                if b"\0" not in value:
                    self.last_event_id = self._text(value)
            elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
                self.retry = int(value)
        if data:
            return event or "message", self._valid(b"\n".join(data))
        if not self.stray and block.lstrip()[:1] in _STRAY:
            self.stray = block[:_LONGEST_STRAY]
        return None

    def _valid(self, data: bytes) -> bytes:
        """``data`` with U+FFFD for what is not UTF-8. Lines end in ASCII, so each can be looked at alone."""
        if data.isascii():
            return data
        try:
            data.decode()
        except UnicodeDecodeError:
            self.replaced_bad_utf8 = True
            return data.decode(errors="replace").encode()
        return data

    def _text(self, data: bytes) -> str:
        return self._valid(data).decode()

    def _without_byte_order_mark(self, data: bytes) -> bytes:
        """Takes off the mark in front of the stream, which may come in pieces."""
        data = bytes(self._held) + data
        self._held.clear()
        if len(data) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(data):
            self._held += data
            return b""
        self._started = True
        data = data.removeprefix(_BYTE_ORDER_MARK)
        self.begins_astray = data.lstrip()[:1] in _STRAY
        return data

    def _over_limit(self, blocks: list[bytes]) -> LimitExceededError | None:
        """The error if an event is too long; ``blocks`` keeps those before it."""
        most = self._max_event_bytes
        size = len(self._held)
        for index, block in enumerate(blocks):
            if len(block) > most:
                size = len(block)
                del blocks[index:]
                break
        if size <= most:
            return None
        self._held.clear()
        return LimitExceededError(
            f"A server-sent event has {size} bytes or more; at most {most} are read.", limit="event"
        )


def _given(events: list[tuple[str, bytes]], error: LimitExceededError) -> Iterator[tuple[str, bytes]]:
    yield from events
    raise error
