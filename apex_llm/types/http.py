"""One HTTP exchange as values, and the type that every transport layer shares.

``Send`` is the whole transport seen from above: a request in, a response out. A ``Layer``
wraps one ``Send`` into another, so retry, signing, limits and observation combine freely.
"""

from __future__ import annotations

__all__ = [
    "Framing",
    "Headers",
    "HttpRequest",
    "HttpResponse",
    "Layer",
    "Origin",
    "Send",
    "Timeout",
]

import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, TypeAlias

import msgspec


class Origin(msgspec.Struct, frozen=True):
    """Scheme, host and port: what a connection, and a credential, is bound to."""

    scheme: str
    host: str
    """Lower case; an IPv6 address without its brackets."""
    port: int

    @property
    def authority(self) -> str:
        """The ``Host`` header: the port is left out where it is the scheme's own."""
        return _authority(self)

    @property
    def url(self) -> str:
        """``https://host[:port]``, without a path."""
        return f"{self.scheme}://{self.authority}"


@functools.lru_cache(maxsize=256)  # each call asks for the same one
def _authority(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return host if origin.port == (443 if origin.scheme == "https" else 80) else f"{host}:{origin.port}"


class Timeout(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines of one call, in seconds; ``None`` waits for ever.

    A call that is not streamed has only ``connect`` and ``total``.
    """

    connect: float | None = 5.0
    """Name look-up, TCP and TLS together."""
    first_byte: float | None = 60.0
    """From the request being sent to the first semantic event, for streams; 300 with reasoning unless set."""
    idle: float | None = 60.0
    """Between semantic events of a stream (pings and empty deltas do not count); 300 with reasoning unless set."""
    total: float | None = 600.0
    """The whole call: retries, waiting and streaming included."""

    def __post_init__(self) -> None:
        for name in ("connect", "first_byte", "idle", "total"):
            seconds: object = getattr(self, name)
            if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
                raise ValueError(f"{name}={seconds!r} is not a positive number of seconds, or None.")


class Headers:
    """Response headers: looked up without regard to case, repeated names kept in order."""

    __slots__ = ("_map", "raw")

    raw: tuple[tuple[str, str], ...]
    """Name and value pairs as they came, names in lower case."""

    def __init__(self, raw: tuple[tuple[str, str], ...] = ()) -> None:
        self.raw = raw
        self._map: dict[str, str] | None = None

    def to_dict(self) -> dict[str, str]:
        """Lower-case name to value; values of a repeated name are joined with ``", "``."""
        known = self._map
        if known is None:
            known = dict(self.raw)
            if len(known) != len(self.raw):
                known.clear()
                for name, value in self.raw:
                    known[name] = f"{known[name]}, {value}" if name in known else value
            self._map = known
        return known

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value of one header, or ``default``."""
        return self.to_dict().get(name.lower(), default)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self.to_dict()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.raw)

    def __repr__(self) -> str:
        return f"Headers({list(self.raw)!r})"


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request, complete but for what lower layers add (signature, ``Host``, ``Content-Length``)."""

    method: str
    origin: Origin
    target: str
    """Path and query exactly as they go on the wire, percent-encoded already."""
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case. ``host``, ``content-length`` and ``connection`` belong to the sender."""
    body: bytes = b""
    stream: bool = False
    """Whether the caller reads the body as it arrives. Otherwise senders may hold the whole body before returning."""
    timeout: Timeout = Timeout()
    deadline: float | None = None
    """The call's total deadline on the event loop's clock (``loop.time()``); every layer that waits honours it."""
    operation: str = ""
    """For logs and limits, such as ``converse-stream``."""
    model: str = ""
    """For logs and limits: the model or deployment."""
    attempt: int = 1
    """From 1; set by the retry loop for each attempt."""
    max_attempts: int = 1
    invocation_id: str = ""
    """A UUID, constant over the attempts of one call."""
    estimated_tokens: int = 0
    """What to reserve of a limit on tokens; set only where one is kept."""
    account: object | None = None
    """Where limits keep what became of this attempt; theirs alone, and set only where some are on."""
    secret_headers: frozenset[str] = frozenset({"authorization", "api-key", "x-amz-security-token"})
    """Never logged, never shown in a repr."""

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.origin.url}{self.target}, {len(self.body)} bytes)"


class HttpResponse(Protocol):
    """An answer whose head has arrived. Whoever holds it must read it to its end or close it.

    Two deadlines, both times of ``loop.time()``, are plain attributes that the reader may move
    at any moment; one lazily re-armed timer of the sender enforces them. ``deadline`` holds
    always, whether or not anybody reads; ``read_deadline`` only while a ``read()`` waits.
    When one passes, the connection is closed and ``read()`` raises ``RequestTimeoutError``
    (``phase`` is ``"total"`` or ``"idle"``). They begin as the request's: its ``deadline``, and for a
    stream ``timeout.first_byte`` after it was sent.
    """

    status: int
    headers: Headers
    deadline: float | None
    read_deadline: float | None

    async def read(self) -> bytes:
        """All bytes that have arrived and were not read yet; waits for some if there are none.

        ``b""`` means that the body ended as its framing promised. A body that broke raises:
        ``ConnectionFailedError`` (``kind`` is ``reset``, ``closed`` or ``short``), ``ProtocolError``
        or ``RequestTimeoutError``. A second read after the end gives ``b""`` again.
        """
        ...

    async def read_all(self, *, limit: int) -> bytes:
        """The rest of the body; ``LimitExceededError`` beyond ``limit`` bytes."""
        ...

    def close(self) -> None:
        """Be done with it, at once and without waiting; safe to call twice, and from a finaliser.

        A body that was read to its end gives its connection back to the pool; any other closes it.
        """
        ...

    def add_release(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, when the body has ended, failed or was closed.

        By it a layer learns that a stream is over. Called at once if it is over already.
        """
        ...


Send: TypeAlias = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Sends one request; every layer of the transport has this type."""


class Layer(Protocol):
    """Wraps a ``Send``: looks at the request going down, at the response coming up."""

    def __call__(self, request: HttpRequest, send: Send, /) -> Awaitable[HttpResponse]:
        """Answer ``request``, usually by calling ``send`` with it or with a changed copy."""
        ...


class Framing(Protocol):
    """Bytes to payloads, for one stream: event-stream frames, or server-sent events.

    Unwraps what is only packaging (Bedrock's base64 ``chunk``, the ``[DONE]`` line) and raises
    the typed error for an error that was sent inside the stream.
    """

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """Event name and payload of each event that is complete, lazily.

        Lazily, so that events before a damaged one are delivered before the error is raised.
        """
        ...

    def finish(self) -> Iterator[tuple[str, bytes]]:
        """Called once, at the clean end of the body; raises ``StreamTruncatedError`` for half an event left over."""
        ...
