"""What a caller sees of each fault: the table that the tests hold the code to, and the page is made from.

``EXPECTED`` is written by hand from the rules; ``observe`` makes the call and says what was seen.
A test passes only where the two are equal, so the table, and with it ``docs/reference/faults.md``,
is what the code does.
"""

from __future__ import annotations

__all__ = [
    "BLOCKED_SECONDS",
    "BOUNDS",
    "COLUMNS",
    "EXPECTED",
    "FULL_TEXT",
    "HALF_TEXT",
    "HURRIED",
    "IMPATIENT",
    "IMPOSSIBLE",
    "NOT_APPLICABLE",
    "NOT_HEARD",
    "QUICK",
    "UNTOLD",
    "Bound",
    "Column",
    "Seen",
    "expected",
    "make",
    "observe",
    "play",
    "reseed",
    "served_with",
]

import asyncio
import functools
import ssl
import time
from dataclasses import dataclass, replace
from typing import Any

import httpx
import trustme

import apex_llm
import apex_llm.sync
from apex_llm import ApexLlmError, RetryPolicy, StreamInterruptedError, Timeout
from apex_llm.emulator import FAULTS, Answer, Emulator

QUICK = RetryPolicy(base_delay_transient=0.0, base_delay_throttle=0.0, max_retry_after=0.5)
FULL_TEXT = "The quick brown fox jumps over the lazy dog."
HALF_TEXT = "The quick brown fox jumps"
PATIENT = Timeout(connect=5, first_byte=30, idle=30, total=60)
# Only what the fault should run into is short: a busy machine is late with anything else.
HURRIED = Timeout(connect=5, first_byte=5, idle=5, total=1.0)
IMPATIENT = Timeout(connect=5, first_byte=10, idle=0.5, total=20)
NOT_HEARD = Timeout(connect=5, first_byte=0.3, idle=10, total=2.0)


@dataclass(frozen=True)
class Column:
    """One way of calling."""

    twin: str
    sender: str
    wire: str

    def __str__(self) -> str:
        return f"{self.twin}-{self.sender}-{self.wire}"


COLUMNS = tuple(
    Column(twin, sender, wire)
    for twin, sender in (("async", "http11"), ("async", "httpx"), ("sync", "http11"))
    for wire in ("bedrock", "azure")
)


@dataclass(frozen=True)
class Seen:
    """What became of a call."""

    error: str = ""
    """The class; empty for an answer."""
    detail: str = ""
    """What the class alone does not tell: the cause's class, kind or limit."""
    retryable: bool | None = None
    partial: str | None = None
    """The text that was kept."""
    sends: int = 1


def served_with(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """TLS for a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def make(column: Column, *, emulator: Emulator | None = None, client: Any = None, **arguments: Any) -> Any:
    """A provider of the column's twin and wire, for ``emulator``, or else where the environment points."""
    reached = {} if emulator is None else _reached(emulator, column)
    arguments = {"retry": QUICK, "timeout": PATIENT, "http_client": client, **reached, **arguments}
    module: Any = apex_llm if column.twin == "async" else apex_llm.sync
    if column.wire == "bedrock":
        return module.BedrockProvider(default_model="claude", **arguments)
    return module.AzureOpenAIProvider(api_version="v1", default_deployment="chat", **arguments)


def _reached(emulator: Emulator, column: Column) -> dict[str, Any]:
    """Said to the provider itself, since threads that play to emulators of their own share one environment."""
    if column.wire == "azure":
        return {"api_base": emulator.azure_url, "api_key": emulator.api_key, "trust_env": False}
    return {
        "endpoint_url": emulator.bedrock_url,
        "aws_region": emulator.region,
        "credentials": {
            "aws_access_key_id": emulator.access_key_id,
            "aws_secret_access_key": emulator.secret_access_key,
        },
        "trust_env": False,
    }


@functools.cache
def _roots() -> ssl.SSLContext:
    """httpx reads the machine's certificates for each client, which takes longer than most plays."""
    return ssl.create_default_context()


def reseed(emulator: Emulator, *, seed: int, name: str) -> None:
    """Cut from here on as for the test ``name`` and ``seed``, whatever was played before."""
    emulator._random.seed(f"{seed} {name}")  # type: ignore[union-attr]


@dataclass
class Observation:
    """What was seen, with the values behind it."""

    seen: Seen
    text: str = ""
    """Pieces of the stream, joined, or the whole answer."""
    error: ApexLlmError | None = None
    response: Any = None
    seconds: float = 0.0


def observe(
    emulator: Emulator,
    column: Column,
    fault: Any,
    call: str,
    *,
    times: int | None = None,
    answer: Answer | str | None = None,
    **arguments: Any,
) -> Observation:
    """Play ``fault`` to one call, ``times`` attempts long (``None``: to all), and see what comes of it.

    ``arguments`` are the provider's; ``ssl_context`` is also given to httpx.
    """
    emulator.reset()
    good = FULL_TEXT if answer is None else answer
    emulator.fault(fault, good, times=times)
    if times is not None:
        emulator.script(good)
    began = time.monotonic()
    run = _blocking if column.twin == "sync" else _asynchronous
    observation = run(column, call, {"emulator": emulator, **arguments})
    observation.seconds = time.monotonic() - began
    observation.seen = replace(observation.seen, sends=len(emulator.requests))
    if observation.error is not None:
        _check_facts(observation.error, column, sends=len(emulator.requests))
    return observation


def play(emulator: Emulator, column: Column, name: str, *, once: bool = True, **arguments: Any) -> list[Observation]:
    """Play a fault to each kind of call that it strikes, and hold what is seen to the table.

    Where every attempt fails and all are made, the fault is also played to the first attempt only: the
    second must succeed. Gives what was seen, the first call's first.
    """
    observations = []
    for call in sorted(FAULTS[name].calls):
        observation = observe(emulator, column, name, call, **arguments)
        wanted = expected(name, call, column)
        assert observation.seen == wanted, f"{name}, {call}: {observation.seen}, not {wanted}: {observation.error!r}"
        observations.append(observation)
        if wanted.sends == 3 and once:
            again = observe(emulator, column, name, call, times=1, **arguments)
            assert (again.seen, again.text) == (Seen(sends=2), FULL_TEXT), f"{name}, {call}: {again.error!r}"
            assert again.response.attempts == 2
    return observations


def _check_facts(error: ApexLlmError, column: Column, *, sends: int) -> None:
    """What every error says of itself, whatever it is."""
    assert error.provider == ("bedrock" if column.wire == "bedrock" else "azure_openai")
    assert error.model
    if isinstance(error, StreamInterruptedError) and error.partial is not None:
        assert error.phase == "mid-stream"
        assert error.events_seen > 0
        assert error.attempts == error.partial.attempts
        assert error.__cause__ is not None or isinstance(error, apex_llm.StreamTruncatedError)
    elif not isinstance(error, apex_llm.RequestTimeoutError):
        assert error.phase in {"head", "body"}
    # A deadline may pass before a slow machine has sent what it meant to.
    assert error.attempts == sends or isinstance(error, apex_llm.RequestTimeoutError)
    if error.phase in {"body", "mid-stream"} or error.status:
        assert error.request_id, error


def _asynchronous(column: Column, call: str, arguments: dict[str, Any]) -> Observation:
    pieces: list[str] = []

    async def run() -> Any:
        client = None
        if column.sender == "httpx":
            client = httpx.AsyncClient(trust_env=False, verify=arguments.get("ssl_context") or _roots())
        try:
            async with make(column, client=client, **arguments) as provider:
                if call == "whole":
                    return await provider.chat("Hi")
                async with provider.generate_text_stream("Hi") as stream:
                    async for piece in stream:
                        pieces.append(piece)  # what came before an error counts
                return stream.response
        finally:
            if client is not None:
                await client.aclose()

    return _outcome(lambda: asyncio.run(run()), pieces)


def _blocking(column: Column, call: str, arguments: dict[str, Any]) -> Observation:
    pieces: list[str] = []

    def run() -> Any:
        with make(column, **arguments) as provider:
            if call == "whole":
                return provider.chat("Hi")
            with provider.generate_text_stream("Hi") as stream:
                for piece in stream:
                    pieces.append(piece)  # noqa: PERF402 # what came before an error counts
            return stream.response

    return _outcome(run, pieces)


def _outcome(run: Any, pieces: list[str]) -> Observation:
    try:
        response = run()
    except ApexLlmError as error:
        caught = error
    else:
        caught = None
    if caught is not None:
        if isinstance(caught, StreamInterruptedError) and caught.partial is not None:
            assert caught.partial.text == "".join(pieces), "partial is not what was delivered"
        assert str(caught).strip()
        return Observation(_seen_error(caught), "".join(pieces), caught)
    # Sorted, since blocks that overlap are put in order at the end.
    if pieces:
        assert sorted(response.text) == sorted("".join(pieces))
    return Observation(Seen(), response.text, None, response)


def _seen_error(error: ApexLlmError) -> Seen:
    cause = error.__cause__ if isinstance(error, StreamInterruptedError) else None
    blamed = cause if isinstance(cause, ApexLlmError) else error
    facts = [type(cause).__name__] if blamed is not error else []
    facts += [str(getattr(blamed, name)) for name in ("kind", "limit") if getattr(blamed, name, None)]
    if isinstance(blamed, apex_llm.RequestTimeoutError):
        facts.append(str(blamed.phase))
    return Seen(
        error=type(error).__name__,
        detail=", ".join(facts),
        retryable=error.retryable,
        partial=None if error.partial is None else error.partial.text,
    )


_OK = Seen()
_BROKEN_HTTP = Seen("ProtocolError", "", False)


def _connection(kind: str) -> Seen:
    return Seen("ConnectionFailedError", kind, True, sends=3)


def _limit(limit: str) -> Seen:
    return Seen("LimitExceededError", limit, False)


def _interrupted(detail: str, *, retryable: bool, partial: str = HALF_TEXT) -> Seen:
    return Seen("StreamInterruptedError", detail, retryable, partial)


_TRUNCATED = Seen("StreamTruncatedError", "", True, HALF_TEXT)
_THROTTLED = Seen("RateLimitError", "", True)
_OVERLOADED = Seen("OverloadedError", "", True, sends=3)
_UNREADABLE = Seen("ResponseFormatError", "", False)
_IDLE = Seen("IdleTimeoutError", "RequestTimeoutError, idle", True, HALF_TEXT)

EXPECTED: dict[tuple[str, ...], Seen] = {
    ("reset-before-head",): _connection("reset"),
    ("close-before-head",): _connection("closed"),
    ("reset-in-head",): _connection("reset"),
    ("close-in-head",): _connection("closed"),
    ("endless-header",): _limit("head"),
    ("too-many-headers",): _limit("headers"),
    ("too-many-headers", "httpx"): _limit("head"),
    ("interim-flood",): _limit("interim"),
    ("interim-flood", "httpx"): _OK,
    ("length-and-chunked",): _BROKEN_HTTP,
    ("two-lengths",): _BROKEN_HTTP,
    ("closed-while-idle",): _OK,
    ("glued-answer",): _OK,
    ("short-body", "whole"): _connection("short"),
    ("short-body", "stream"): _interrupted("ConnectionFailedError, short", retryable=True, partial=FULL_TEXT),
    ("bad-chunk-end", "whole"): _BROKEN_HTTP,
    ("bad-chunk-end", "stream", "bedrock"): _interrupted("ProtocolError", retryable=False, partial=""),
    ("bad-chunk-end", "stream", "azure"): _BROKEN_HTTP,
    ("trailer-flood", "whole"): _limit("trailers"),
    ("trailer-flood", "stream"): _interrupted("LimitExceededError, trailers", retryable=False, partial=FULL_TEXT),
    ("one-byte-chunks",): _OK,
    ("gzip-bomb",): _BROKEN_HTTP,
    ("gzip-bomb-on-a-stream",): _BROKEN_HTTP,
    ("login-page",): _UNREADABLE,
    ("deep-json",): _limit("depth"),
    ("huge-integer", "azure"): _OK,
    ("huge-integer", "bedrock"): _UNREADABLE,
    ("lone-surrogate",): _OK,
    ("not-a-number",): _OK,
    ("duplicate-keys",): _OK,
    ("broken-json-body",): _UNREADABLE,
    ("utf-16-label",): _OK,
    ("throttled-until-a-date",): _THROTTLED,
    ("throttled-for-700-ms",): _THROTTLED,
    ("throttled-for-1500-ms",): _THROTTLED,
    ("throttled-for-an-hour",): _THROTTLED,
    ("retry-after-negative",): replace(_THROTTLED, sends=3),
    ("retry-after-nan",): replace(_THROTTLED, sends=3),
    ("retry-after-overflow",): replace(_THROTTLED, sends=3),
    ("retry-after-text",): replace(_THROTTLED, sends=3),
    ("unavailable",): _OVERLOADED,
    ("empty-500",): _OVERLOADED,
    ("error-body-stalls",): replace(_OVERLOADED, sends=1),
    ("error-body-broken",): _OVERLOADED,
    ("model-timeout", "bedrock"): Seen("ModelTimeoutError", "", False),
    ("model-timeout", "azure"): _OVERLOADED,
    ("model-error", "bedrock"): Seen("OverloadedError", "", False),
    ("model-error", "azure"): _OVERLOADED,
    **{(f"status-{status}",): _OVERLOADED for status in (425, 520, 522, 524, 527, 529)},
    ("redirect",): _BROKEN_HTTP,
    ("truncated-stream",): replace(_TRUNCATED, partial=FULL_TEXT),
    ("json-instead-of-stream",): replace(_THROTTLED, sends=3),
    ("page-instead-of-stream",): _UNREADABLE,
    ("empty-stream",): Seen("StreamTruncatedError", "", True, sends=3),
    ("half-event",): _TRUNCATED,
    ("close-without-length",): _TRUNCATED,
    ("drop-without-length",): _OK,
    ("drop-mid-stream",): _interrupted("ConnectionFailedError, closed", retryable=True),
    ("close-mid-stream",): _interrupted("ConnectionFailedError, closed", retryable=True),
    ("reset-mid-stream",): _interrupted("ConnectionFailedError, reset", retryable=True),
    ("reset-after-head",): _connection("reset"),
    ("bad-message-crc",): _interrupted("EventStreamError", retryable=False),
    ("bad-prelude-crc",): _interrupted("EventStreamError", retryable=False),
    ("huge-frame",): _interrupted("LimitExceededError, frame", retryable=False),
    ("huge-frame-headers",): _interrupted("LimitExceededError, frame", retryable=False),
    ("exception-mid-stream",): _interrupted("RateLimitError", retryable=True),
    ("exception-first",): replace(_THROTTLED, sends=3),
    ("model-stream-error",): _interrupted("OverloadedError", retryable=True),
    ("error-event",): _interrupted("OverloadedError", retryable=True),
    ("error-event-first",): _OVERLOADED,
    ("error-data",): _interrupted("RateLimitError", retryable=True),
    ("unknown-events",): _OK,
    ("split-characters",): _OK,
    ("bad-utf-8", "bedrock"): _interrupted("ResponseFormatError", retryable=False),
    ("bad-utf-8", "azure"): _OK,
    ("broken-json",): _interrupted("ResponseFormatError", retryable=False),
    ("stall",): _IDLE,
    ("stall-before-head", "stream"): Seen("RequestTimeoutError", "head", True, sends=3),
    ("stall-before-head", "whole"): Seen("RequestTimeoutError", "total", True),
    ("drip",): _IDLE,
    ("pings-only",): _IDLE,
    ("endless-event", "bedrock"): _interrupted("LimitExceededError, frame", retryable=False),
    ("endless-event", "azure"): _interrupted("LimitExceededError, event", retryable=False),
    ("events-after-end",): _OK,
    ("index-backwards",): _OK,
    ("text-after-block-end",): _OK,
    ("no-done",): _OK,
    ("done-without-line-end",): _OK,
    ("bare-done",): _OK,
    ("bare-done-without-line-end",): _OK,
}
"""Fault, and where it matters call, sender and wire, in this order: what is seen when every attempt meets it."""

UNTOLD = {"cut-anywhere"}
"""Faults whose outcome depends on where they strike; their tests say what must hold."""


@dataclass(frozen=True)
class Bound:
    """What a call that meets a fault may cost the client: peak of memory beyond what it had, and CPU time."""

    mebibytes: float
    seconds: float = 0.5


BOUNDS: dict[tuple[str, str], Bound] = {
    ("huge-frame", "stream"): Bound(1),
    ("gzip-bomb", "whole"): Bound(1),
    ("gzip-bomb-on-a-stream", "stream"): Bound(1),
    ("endless-header", "whole"): Bound(1),
    ("endless-header", "stream"): Bound(1),
    ("trailer-flood", "whole"): Bound(1),
    ("deep-json", "whole"): Bound(4),
    ("one-byte-chunks", "whole"): Bound(4, 1.0),
    ("endless-event", "stream"): Bound(40, 1.0),
}
"""By fault and call, what costs least first."""

BLOCKED_SECONDS = 0.05
"""The longest that the event loop may be kept from other tasks by any of them."""

IMPOSSIBLE = {
    ("interim-flood", "httpx"): "httpx reads interim answers without end and does not show them; "
    "our deadlines bound the time, its buffers the memory",
    ("glued-answer", "httpx"): "h11 keeps the bytes, and gives them out as the answer to the connection's next request",
    (
        "drop-without-length",
        "httpx",
    ): "over TLS httpx does not tell whether the server ended TLS or only the connection",
    ("too-many-headers", "httpx"): "h11 gives up at 100 KiB of head, before the headers can be counted",
    (
        "one-byte-chunks",
        "httpx",
    ): "h11 and httpx spend about 20 µs on each chunk, so 400,000 of them take eight seconds",
}
"""Where the client underneath decides, and why."""


NOT_APPLICABLE = {
    "1 to 8": "One wire stands for both: nothing of it is sent before the connection stands.",
    "40 to 45": "Over TLS a sample is played, with the same outcomes; 43 needs TLS to tell its faults apart.",
    "60, 61": "Credentials are added above the sender: any sender stands for all.",
    "63": "Not for the blocking twin: nothing cancels a blocking call but an interrupt, which is row 69.",
    "66": "Not for the blocking twin: it has a loop of its own, whatever loops its callers run (row 67).",
    "67": "The blocking twin is called inside a running loop; the asynchronous calls where none runs.",
    "68, 71": "Not over httpx: the client that was brought along is its owner's to carry through a fork, and to bound.",
    "69, 70, 72": "Played to processes, and to the key store: once for both wires.",
}
"""Where a row has not all columns, and why."""


def expected(fault: str, call: str, column: Column) -> Seen:
    """What the table says; a fault that does not strike here leaves the good answer."""
    found = FAULTS[fault]
    if column.wire not in found.wires or call not in found.calls:
        return _OK
    for key, seen in sorted(EXPECTED.items(), key=lambda item: -len(item[0])):
        if key[0] == fault and set(key[1:]) <= {call, column.sender, column.wire}:
            return seen
    raise KeyError(fault)
