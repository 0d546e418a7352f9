"""Response bytes to head and body, strictly, with every size bounded.

RFC 9112, read by llhttp (through httptools), which refuses most of what smuggling needs: two
lengths, length with chunking, bare line feeds, folded lines, bad chunk ends. What it leaves open is
closed here: sizes of head, trailers and chunk lines, interim answers, transfer codings it would read
to the end of the connection, content codings nobody asked for, a second answer behind the first.
No I/O; the connection feeds it.
"""

from __future__ import annotations

__all__ = ["MAX_HEADERS", "MAX_HEAD_BYTES", "MAX_INTERIM_ANSWERS", "MAX_TRAILER_BYTES", "ResponseParser"]

from collections.abc import Callable
from functools import partial

import httptools

from apex_llm.errors import ApexLlmError, ConnectionFailedError, LimitExceededError, ProtocolError

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
MAX_INTERIM_ANSWERS = 20
MAX_TRAILER_BYTES = 8 * 1024
MAX_CHUNK_EXTENSION_BYTES = 256
_CHUNK_LINE = 20
"""The end of the chunk before, sixteen hexadecimal digits, and the line's own end."""

_WATCHED = frozenset({"content-length", "transfer-encoding", "content-encoding"})


class _Stop(Exception):  # noqa: N818 - it never leaves this module
    """Stops llhttp; the reason is in ``failure``, or the answer is over."""


class ResponseParser:
    """Reads one answer after another from one connection.

    ``begin`` it for each request, ``feed`` it what arrives, and look at ``head_complete``,
    ``complete`` and ``failure`` after each feeding.

    Args:
        peer: The server's name, for error messages.
        names: Where the names of headers are remembered, as they came and in lower case; bounded.
    """

    __slots__ = (
        "_body_length",
        "_chunked",
        "_fed",
        "_fields",
        "_head_only",
        "_head_size",
        "_head_tail",
        "_in_trailers",
        "_interim",
        "_interims",
        "_llhttp",
        "_names",
        "_peer",
        "_pending",
        "_received",
        "_request_headers",
        "_trailer_size",
        "complete",
        "failure",
        "head_complete",
        "headers",
        "on_body",
        "on_chunk_header",
        "reusable",
        "status",
    )

    status: int
    headers: list[tuple[str, str]]
    """Names in lower case, in the order in which they came."""
    head_complete: bool
    complete: bool
    """The body has ended as its framing promised."""
    reusable: bool
    """Once complete: whether another request may follow on the connection."""
    failure: ApexLlmError | None
    """Why nothing more can be read; body bytes that came before it were given out."""

    def __init__(self, *, peer: str, names: dict[bytes, str] | None = None) -> None:
        self._peer = peer
        self._names = {} if names is None else names
        # llhttp's body pieces go straight into this list, with an empty piece at the start of each
        # chunk: no Python code runs per chunk, joining ignores the marks, and counting them gives the chunks.
        self._fed: list[bytes] = []
        self.on_body: Callable[[bytes], None] | None = self._fed.append
        self.on_chunk_header: Callable[[], None] | None = partial(self._fed.append, b"")
        self._llhttp: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def begin(self, *, request_headers: tuple[tuple[str, str], ...] = (), head_only: bool = False) -> None:
        """Expect a new answer; ``head_only`` for one to ``HEAD``."""
        self._request_headers = request_headers
        self._head_only = head_only
        self._head_size = 0
        self._head_tail = b""
        self._interim = False
        self._interims = 0
        self._chunked = False
        self._in_trailers = False
        self._pending = 0
        self._trailer_size = 0
        self._body_length: int | None = None
        self._received = 0
        self.status = 0
        self._fields: list[tuple[str, str]] = []
        self.headers = self._fields
        self.head_complete = False
        self.complete = False
        self.reusable = False
        self.failure = None

    def dispose(self) -> None:
        """Break the reference cycle with llhttp."""
        self._llhttp = None
        self.on_body = self.on_chunk_header = None

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take what arrived; give the body bytes in it, copied: the caller may overwrite ``data`` afterwards."""
        if not self.head_complete:
            return self._feed_start(bytes(data))
        self._parse(data)
        fed = self._fed
        if len(fed) == 2 and not fed[0]:
            # One event, one chunk, one read: how most pieces of a stream arrive. All of its line is here.
            body = fed[1]
            if body and len(data) - len(body) <= _CHUNK_LINE and self.failure is None:
                self._received += len(body)
                self._pending = 0
                fed.clear()
                return body
        body = fed[0] if len(fed) == 1 else b"".join(fed)
        self._received += len(body)
        if self._chunked and self.failure is None:
            self._measure_chunk_lines(len(data), len(body))
        fed.clear()
        return body

    def _feed_start(self, data: bytes) -> bytes:
        if self._head_size + len(data) <= MAX_HEAD_BYTES:
            return self._feed_head(data)
        # Never more than the limit is fed before the head is known to have ended.
        allowed = MAX_HEAD_BYTES - self._head_size
        body = self._feed_head(data[:allowed]) if allowed else b""
        if self.failure is None and not self.head_complete:
            self._fail(LimitExceededError(f"The response head of {self._peer} is over 64 KiB.", limit="head"))
        if self.failure is not None or self.complete:
            self.reusable = False
            return body
        rest = self.feed(data[allowed:])
        return body + rest if body else rest

    def finish(self) -> ApexLlmError | None:
        """The peer has closed its side: the error that this means, or ``None`` if the answer is whole."""
        if self.complete:
            return None
        if self.failure is not None:
            return self.failure
        if not self.head_complete:
            begun = "in the middle of the response head" if self._head_size else "before it answered"
            return ConnectionFailedError(f"{self._peer} closed the connection {begun}.", kind="closed", phase="head")
        if self._chunked:
            return ConnectionFailedError(
                f"{self._peer} closed the connection in the middle of a chunked body, after {self._received} bytes.",
                kind="closed",
                phase="body",
            )
        if self._body_length is not None:
            return ConnectionFailedError(
                f"{self._peer} sent {self._received} of {self._body_length} bytes and closed the connection.",
                kind="short",
                phase="body",
            )
        self.complete = True
        return None

    def _feed_head(self, data: bytes) -> bytes:
        interims = self._interims
        self._parse(data)
        fed = self._fed
        if not self.head_complete:
            if self.failure is None and (failure := self._too_many_headers()):
                self._fail(failure)
            # Interim answers count as part of the head: a server may not send them without end.
            self._head_size += len(data)
            self._head_tail = (self._head_tail + data)[-3:]
            fed.clear()
            return b""
        if not fed and (not self._chunked or data.endswith(b"\r\n\r\n")):
            return b""  # nothing stands behind the head
        body = fed[0] if len(fed) == 1 else b"".join(fed)
        self._received = len(body)
        if self._chunked and self.failure is None:
            self._measure_chunk_lines(self._length_after_head(data, self._interims - interims), len(body))
        fed.clear()
        return body

    def _parse(self, data: bytes | memoryview) -> None:
        llhttp = self._llhttp
        if llhttp is None or self.failure is not None:
            return
        try:
            llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            self._fail(ProtocolError(f"{self._peer} switched protocols without being asked."), error)
        except httptools.HttpParserError as error:
            if self.complete:
                # Whatever stands behind a whole answer does not touch it, but ends the connection.
                self.reusable = False
            elif self.failure is None:
                self._fail(ProtocolError(f"The answer of {self._peer} breaks HTTP: {error}."), error)

    def _fail(self, failure: ApexLlmError, cause: BaseException | None = None) -> None:
        failure.phase = "body" if self.head_complete else "head"
        failure.__cause__ = cause
        self.failure = failure

    # Called by llhttp.

    def on_message_begin(self) -> None:
        """A message starts: the answer, or one too many."""
        if self.complete:
            self.reusable = False
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer."""
        self._fields.append((self._names.get(name) or self._learn(name), value.decode("latin-1")))

    def _learn(self, name: bytes) -> str:
        text = name.lower().decode("latin-1")
        if len(self._names) < MAX_HEADERS:
            self._names[name] = text
        return text

    def on_headers_complete(self) -> None:
        """A head is whole: check what the framing stands on."""
        llhttp = self._llhttp
        assert llhttp is not None
        status = llhttp.get_status_code()
        if status < 200:
            self._begin_interim(status)
            return
        failure = self._too_many_headers() or self._check_framing(status)
        if failure is not None:
            self._fail(failure)
            raise _Stop
        self.status = status
        self.head_complete = True
        self._fields = []  # of trailers, from here on
        if self._head_only:
            self.complete = True
            raise _Stop

    def _too_many_headers(self) -> ApexLlmError | None:
        if len(self.headers) <= MAX_HEADERS:
            return None
        self.headers.clear()
        return LimitExceededError(f"{self._peer} sent over {MAX_HEADERS} headers.", limit="headers")

    def _begin_interim(self, status: int) -> None:
        self._interim = True
        self._interims += 1
        failure = self._too_many_headers()
        self.headers = self._fields = []
        if failure is not None:
            self._fail(failure)
            raise _Stop
        if status == 101 or status < 100:
            self._fail(ProtocolError(f"{self._peer} answered with status {status}, which nobody asked for."))
            raise _Stop
        if self._interims > MAX_INTERIM_ANSWERS:
            self._fail(
                LimitExceededError(f"{self._peer} sent over {MAX_INTERIM_ANSWERS} interim answers.", limit="interim")
            )
            raise _Stop

    def _check_framing(self, status: int) -> ApexLlmError | None:
        codings = ""
        headers = self.headers
        by_name = dict(headers)
        if "content-encoding" not in by_name:
            coding = by_name.get("transfer-encoding")
            if coding is None:
                length = by_name.get("content-length")  # llhttp refuses a second one
                if length is not None:
                    self._body_length = int(length)
                return None
            if coding == "chunked" and len(by_name) == len(headers):
                self._chunked = True
                return None
        for name, value in headers:
            if name not in _WATCHED:
                continue
            if name == "content-length":
                self._body_length = int(value)
            elif name == "transfer-encoding":
                codings = f"{codings},{value}" if codings else value
            elif 200 <= status < 300 and not self._asked_for(value):
                # Of a refusal the status says enough; its body is left alone.
                return ProtocolError(f"{self._peer} sent the content coding {value[:40]!r}, unasked.")
        if codings:
            self._chunked = True
            if codings.strip().lower() != "chunked":
                return ProtocolError(f"{self._peer} sent the transfer coding {codings[:40]!r}; only chunked is read.")
        return None

    def _asked_for(self, coding: str) -> bool:
        asked = {"", "identity"}
        for name, value in self._request_headers:
            if name.lower() == "accept-encoding":
                asked.update(part.partition(";")[0].strip().lower() for part in value.split(","))
        return all(part.strip().lower() in asked for part in coding.split(","))

    def on_message_complete(self) -> None:
        """A body has ended."""
        if self._interim:
            self._interim = False
            return
        llhttp = self._llhttp
        assert llhttp is not None
        self.complete = True
        self.reusable = llhttp.should_keep_alive()

    # llhttp skips chunk extensions without a word, so their length is what is left of the bytes once
    # the bodies are taken away, less what each chunk needs.

    def _length_after_head(self, data: bytes, interims: int) -> int:
        """How much of ``data`` lies behind the head that ended in it."""
        text = self._head_tail + data
        end = 0
        for _ in range(interims + 1):
            end = text.find(b"\r\n\r\n", end) + 4
        return len(text) - end

    def _measure_chunk_lines(self, length: int, body_length: int) -> None:
        """Bound extensions (256 bytes a chunk on average over one feeding, and each across feedings) and trailers."""
        fed = self._fed
        marks = fed.count(b"")
        if marks and fed[-1] and length - body_length <= _CHUNK_LINE * marks:
            self._pending = 0  # no line is longer than it has to be, and the last one's body has begun
            return
        if self._fields:
            self._trailer_size = sum([len(name) + len(value) + 4 for name, value in self._fields])
        limit = MAX_CHUNK_EXTENSION_BYTES * max(1, marks - 1)
        if fed and fed[0]:
            # A body: so what was pending was the line of its chunk, and no trailer.
            excess = self._pending
            self._pending = 0
        else:
            excess = 0
        self._pending += length - body_length - _CHUNK_LINE * marks
        if marks:
            self._in_trailers = not fed[-1]
        if self._in_trailers and not self.complete:
            limit += MAX_TRAILER_BYTES
        elif self._in_trailers:
            excess = max(excess, self._pending - self._trailer_size)
        if max(excess, 0 if self.complete else self._pending) > limit or self._trailer_size > MAX_TRAILER_BYTES:
            self.complete = self.reusable = False
            what = "trailers" if self._in_trailers and excess <= limit else "chunk"
            named = "trailers" if what == "trailers" else "chunk extensions"
            self._fail(LimitExceededError(f"{self._peer} sent {named} that are too long.", limit=what))
        if (marks and not self._in_trailers) or self._pending < 0:
            self._pending = 0
