"""The audit log: one line of JSON for each use of the store, chained so that changes show.

``mac`` is HMAC-SHA256 over the line as it stands without it; ``prev`` is the ``mac`` of the line
before. The key is in the store, and so is the head: what was cut off behind the last saved head is
found too. Lines written since then can be cut off unseen, until the next save. A change's own line is
written just before the store is replaced, and vouched for by it.

Putting the log away begins with the store, which then says where the present log begins; the file is cut
there afterwards. A process that dies in between leaves a log that begins earlier, which is no damage.
"""

from __future__ import annotations

__all__ = ["CREATION", "AuditEntry", "AuditLog", "fingerprint", "tells_of_no_store"]

import contextlib
import hashlib
import hmac
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from apex_llm.errors import KeyStoreError, TamperedError
from apex_llm.keys.document import AuditHead, Document, Value
from apex_llm.keys.files import Directory
from apex_llm.keys.layout import AUDIT_FILE
from apex_llm.keys.os_errors import translated
from apex_llm.keys.os_layer import OsLayer
from apex_llm.types.decoders import decoder_for

CREATION = "create"
"""The operation of a store's first line."""
_TAIL_BYTES = 8 << 10  # at first
_CHUNK = 1 << 20
_MAX_PROBLEMS = 20
_MAX_MODEL = 200
_MAX_SERVICES = 100_000  # characters; a line must be found again at the end of the log: see _tail
_MAC = re.compile(rb'\A(\{.*),"mac":"([0-9a-f]{64})"\}\Z', re.DOTALL)
_ENCODER = msgspec.json.Encoder(order="deterministic")


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the log, without its ``mac``."""

    seq: int
    time: float
    plugin: str | None
    """Who asked; ``None`` for the application itself."""
    operation: str
    service: str | None
    decision: str
    """``allowed``, ``denied: `` and why, or ``failed: `` and the error: of the same change as the line before it."""
    fingerprint: str | None
    """Keyed: tells two secrets apart, but cannot be tested against guesses without the store."""
    prev: str
    model: str | None = None
    """For which model, where that was said; left out of the line otherwise."""


class _Last(msgspec.Struct, frozen=True):
    seq: int
    mac: str


def fingerprint(key: bytes, value: Value) -> str:
    """Twelve hexadecimal digits that stand for ``value`` in this store's log."""
    content = value.encode() if isinstance(value, str) else _ENCODER.encode(value)
    return hmac.digest(key, b"fingerprint\0" + content, hashlib.sha256).hex()[:12]


def _mac(key: bytes, line: bytes) -> str:
    return hmac.digest(key, b"line\0" + line, hashlib.sha256).hex()


def tells_of_no_store(content: bytes) -> bool:
    """Whether a log holds nothing but a creation: one that was cut short then, or of a store that held nothing yet."""
    line, end, more = content.partition(b"\n")
    if not end:
        return True
    try:
        entry = decoder_for(AuditEntry).decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return entry.seq == 1 and entry.operation == CREATION and b"\n" not in more


class AuditLog:
    """The log of one store. Any number of threads and processes may append."""

    def __init__(self, path: Path, layer: OsLayer) -> None:
        self._path = path
        self._layer = layer
        self._seen = _Last(0, "")
        self._before = _Last(0, "")
        self._suspicious = False

    def begin(self) -> None:
        """Remove what a creation that was cut short left: the new store has another key."""
        self._seen = self._before = _Last(0, "")
        self._suspicious = False
        with contextlib.suppress(OSError, KeyStoreError), Directory.opened(self._path, self._layer) as directory:
            directory.discard(AUDIT_FILE)

    @property
    def last(self) -> AuditHead:
        """The last line that this process has seen."""
        return AuditHead(seq=self._seen.seq, mac=self._seen.mac)

    @property
    def before_last(self) -> AuditHead:
        """The line that the last one of this process follows."""
        return AuditHead(seq=self._before.seq, mac=self._before.mac)

    @property
    def suspicious(self) -> bool:
        """Whether an append found something that is not how the log was left; ``verify`` says what."""
        return self._suspicious

    def append(
        self,
        document: Document,
        *,
        time: float,
        plugin: str | None,
        operation: str,
        service: str | None,
        decision: str,
        fingerprint: str | None = None,
        model: str | None = None,
        strict: bool = False,
    ) -> None:
        """Write one line.

        Args:
            document: Holds the key and the head.
            time: Seconds since the epoch.
            plugin: Who asked.
            operation: What for, such as ``get_api_key``.
            service: Of which credential.
            decision: What was decided.
            fingerprint: Of the value that was handed out.
            model: For which model.
            strict: Refuse to go on where the log is not as it was left.

        Raises:
            KeyStoreError: It could not be written.
            TamperedError: ``strict``, and the log was changed.
        """
        key = document.audit_key_bytes()
        try:
            with Directory.opened(self._path, self._layer) as directory, directory.appending(AUDIT_FILE) as descriptor:
                last = self._resume(descriptor, key, document, strict=strict)
                entry = AuditEntry(
                    seq=last.seq + 1,
                    time=round(time, 3),
                    plugin=plugin,
                    operation=operation,
                    service=None if service is None else service[:_MAX_SERVICES],
                    decision=decision,
                    fingerprint=fingerprint,
                    prev=last.mac,
                    model=None if model is None else model[:_MAX_MODEL],
                )
                line = _ENCODER.encode(entry)
                mac = _mac(key, line)
                whole = line[:-1] + b',"mac":"' + mac.encode() + b'"}\n'
                self._write(descriptor, whole)
                self._seen, self._before = _Last(entry.seq, mac), last
        except OSError as error:
            raise translated(error, f"Writing the audit log {self._path / AUDIT_FILE}") from error

    def _write(self, descriptor: int, whole: bytes) -> None:
        before = self._layer.status(descriptor).st_size
        left = whole
        try:
            while left:
                left = left[self._layer.write(descriptor, left) :]
        except OSError:
            # Half a line would end up in the middle of the next one.
            self._layer.truncate(descriptor, before)
            raise

    def _resume(self, descriptor: int, key: bytes, document: Document, *, strict: bool) -> _Last:
        """The line to chain to."""
        size = self._layer.status(descriptor).st_size
        tail = self._tail(descriptor, size)
        if tail and not tail.endswith(b"\n"):
            # A writer that was killed; it had not handed anything out yet.
            size -= len(tail.rpartition(b"\n")[2])
            self._layer.truncate(descriptor, size)
            tail = self._tail(descriptor, size)
        head, start = document.audit_head, document.audit_start
        known = max(self._seen, _Last(head.seq, head.mac), key=lambda last: last.seq)
        found = _read_line(tail[:-1].rpartition(b"\n")[2], key) if tail else _Last(start.seq, start.mac)
        if found is not None and (found.seq > known.seq or found == known):
            return found
        self._suspicious = True
        if strict:
            raise TamperedError(
                f"The audit log {self._path / AUDIT_FILE} is not as it was left: lines are missing or were changed.",
                hint="apex-llm keys verify says which, and apex-llm keys audit --archive --damaged begins a new one.",
            )
        return known  # the gap stays visible to verify()

    def _tail(self, descriptor: int, size: int) -> bytes:
        """The end of the log, with the whole of the last line."""
        length = _TAIL_BYTES
        while True:
            at = max(0, size - length)
            tail = self._layer.read_at(descriptor, size - at, at) if size else b""
            if not at or b"\n" in tail[:-1] or length >= _CHUNK:
                return tail
            length *= 8

    def head(self, document: Document) -> AuditHead:
        """The newest line that chains, for the store to vouch for; the old head where the log cannot be read."""
        key = document.audit_key_bytes()
        try:
            with Directory.opened(self._path, self._layer) as directory, directory.appending(AUDIT_FILE) as descriptor:
                last = self._resume(descriptor, key, document, strict=False)
        except (OSError, KeyStoreError):
            return document.audit_head
        return AuditHead(seq=last.seq, mac=last.mac)

    def cut(self, start: AuditHead, name: str) -> None:
        """Put away what comes before the line that follows ``start``. Only for who holds the store's lock.

        Args:
            start: Where the store says that the log begins; the line behind it must be there.
            name: Of the file that gets the rest.

        Raises:
            KeyStoreError: It could not be written. The log is as it was.
        """
        try:
            with Directory.opened(self._path, self._layer) as directory:
                with directory.appending(AUDIT_FILE) as descriptor:
                    content = self._whole(descriptor)
                    follows = content.rfind(b'"prev":"%s"' % start.mac.encode())
                    at = content.rfind(b"\n", 0, max(follows, 0)) + 1
                    directory.replace_content(name, content[:at])
                    if sys.platform != "win32":
                        directory.replace_content(AUDIT_FILE, content[at:])
                if sys.platform == "win32":  # where an open file cannot be replaced
                    directory.replace_content(AUDIT_FILE, content[at:])
                directory.sync()
        except OSError as error:
            raise translated(error, f"Putting the audit log {self._path / AUDIT_FILE} away") from error
        self._suspicious = False

    def _whole(self, descriptor: int) -> bytes:
        size = self._layer.status(descriptor).st_size
        pieces: list[bytes] = []
        at = 0
        while at < size and (piece := self._layer.read_at(descriptor, min(_CHUNK, size - at), at)):
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces)

    def entries(self) -> Iterator[AuditEntry]:
        """The lines that can be read, oldest first; ``verify`` says whether they are genuine."""
        for line in self._lines():
            try:
                yield decoder_for(AuditEntry).decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue

    def verify(self, document: Document) -> tuple[int, list[str]]:
        """How many lines there are, and what is wrong with them, in words.

        Raises:
            KeyStoreError: The log cannot be read.
        """
        key = document.audit_key_bytes()
        head = document.audit_head
        problems: list[str] = []
        start = previous = _Last(document.audit_start.seq, document.audit_start.mac)
        count = 0
        head_found = head.seq <= previous.seq
        for count, line in enumerate(self._lines(), 1):
            if len(problems) >= _MAX_PROBLEMS:
                problems.append("and perhaps more")
                break
            last = _read_line(line, key)
            if last is None:
                problems.append(f"Line {count} was changed or is not ours.")
                continue
            if count == 1 and last.seq <= start.seq:
                pass  # what was put away is still there: see cut()
            elif last.seq != previous.seq + 1:
                problems.append(f"Line {count} has number {last.seq} where {previous.seq + 1} was expected.")
            elif _previous_of(line) != previous.mac:
                problems.append(f"Line {count} does not follow the line before it.")
            if last.seq == start.seq and last != start:
                problems.append(f"Line {count} is not the one that the log was put away with.")
            if last.seq == head.seq:
                head_found = last.mac == head.mac
            previous = last
        if not head_found:
            problems.append(f"Line {head.seq}, the last one that the store vouches for, is missing or another one.")
        return count, problems

    def _lines(self) -> Iterator[bytes]:
        try:
            with Directory.opened(self._path, self._layer) as directory:
                if AUDIT_FILE not in directory.names():
                    return
                # One open file from end to end: the log may be put away meanwhile.
                with directory.reading(AUDIT_FILE) as (descriptor, size):
                    pending = b""
                    at = 0
                    while at < size and (piece := self._layer.read_at(descriptor, min(_CHUNK, size - at), at)):
                        at += len(piece)
                        *lines, pending = (pending + piece).split(b"\n")
                        yield from lines
                        if len(pending) > _CHUNK:
                            pending = pending[:_CHUNK]
                    if pending:
                        yield pending
        except FileNotFoundError:
            return
        except OSError as error:
            raise translated(error, f"Reading the audit log {self._path / AUDIT_FILE}") from error


def _read_line(line: bytes, key: bytes) -> _Last | None:
    """Number and mac of a genuine line."""
    match = _MAC.match(line)
    if match is None or not hmac.compare_digest(_mac(key, match[1] + b"}").encode(), match[2]):
        return None
    try:
        return _Last(decoder_for(AuditEntry).decode(line).seq, match[2].decode())
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _previous_of(line: bytes) -> str:
    return decoder_for(AuditEntry).decode(line).prev
