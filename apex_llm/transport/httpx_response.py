"""An httpx response behind our contract: deadlines by one timer, errors by name.

Reads happen in the caller's task. A deadline that passes cancels that task's wait and turns the
cancellation into ``RequestTimeoutError``; httpx's own timeouts, which cost a scope per read, are off.
"""

from __future__ import annotations

__all__ = ["HttpxResponse", "is_foreign", "translate"]

import asyncio
import contextlib
import math
import ssl
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, cast

from apex_llm.errors import (
    ApexLlmError,
    ConfigurationError,
    ConnectionFailedError,
    LimitExceededError,
    ProtocolError,
    RequestTimeoutError,
)
from apex_llm.transport.deadline import LazyTimer
from apex_llm.transport.http11_parser import MAX_HEAD_BYTES, MAX_HEADERS
from apex_llm.transport.http11_response import HELD
from apex_llm.transport.network_errors import connection_failed, root_cause
from apex_llm.types.http import Headers, HttpRequest

_PIECES_A_TURN = 256
"""httpx hands out what has arrived chunk by chunk without ever waiting; other tasks must get their turn."""

_FOREIGN_ROOMS = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "anyio", "h11", "h2", "ssl"})


def is_foreign(error: BaseException) -> bool:
    """Whether ``error`` comes from the client or from what it stands on, not from the caller's own code."""
    if isinstance(error, OSError):
        return True
    if isinstance(error, RuntimeError) and "Event loop is closed" in str(error):
        return True
    if isinstance(error, RuntimeError) and "client has been closed" in str(error):
        return True
    return any(kind.__module__.partition(".")[0] in _FOREIGN_ROOMS for kind in type(error).__mro__)


def translate(error: BaseException, *, host: str, phase: str, proxy: str | None = None) -> ApexLlmError:
    """The typed error for one of httpx's or httpx2's, by the names that both have.

    With ``proxy``, the address of one, what kept us from connecting was the proxy, unless it was TLS.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if "ConnectTimeout" in names or "PoolTimeout" in names:
        return RequestTimeoutError(f"No connection to {host} in time.", phase="connect")
    if "TimeoutException" in names:
        return RequestTimeoutError(f"{host} did not answer in time.", phase=phase)
    if "ProxyError" in names:
        refused = text[:1] == "4"
        return ConnectionFailedError(
            f"The proxy did not connect to {host}: {text[:200]}.",
            kind="proxy",
            phase="connect",
            retryable=not refused,
            hint="Check the proxy's address and credentials." if refused else None,
        )
    if "RemoteProtocolError" in names or "InvalidBodyLengthError" in text:
        return _remote_protocol_error(text, host=host, phase=phase)
    if "ConnectError" in names:
        if proxy is None or isinstance(root_cause(error), ssl.SSLError):
            return connection_failed(error, host=host, phase="connect")
        failure = connection_failed(error, host=f"{proxy} (the proxy)", phase="connect")
        failure.kind, failure.hint = "proxy", "Check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY."
        return failure
    if "NetworkError" in names or (isinstance(error, OSError) and not isinstance(error, ssl.SSLError)):
        failure = connection_failed(error, host=host, phase="send" if "WriteError" in names else phase)
        if root_cause(error) is None:
            failure.kind = "reset"
        return failure
    if isinstance(error, RuntimeError):
        return ConfigurationError(
            "The http_client belongs to an event loop that has ended, or was closed.",
            phase="prepare",
            hint="Make one client per event loop, or pass none and let the package make its own connections.",
        )
    if "DecodingError" in names or "ProtocolError" in names:
        return ProtocolError(f"The exchange with {host} broke HTTP: {text[:200]}.", phase=phase)
    if "UnsupportedProtocol" in names or "InvalidURL" in names:
        return ConfigurationError(f"The client cannot reach {host}: {text[:200]}.", phase="prepare")
    return connection_failed(error, host=host, phase=phase)


def _remote_protocol_error(text: str, *, host: str, phase: str) -> ApexLlmError:
    if "incomplete chunked read" in text or ("unexpectedly closed" in text and phase == "body"):
        return ConnectionFailedError(
            f"{host} closed the connection in the middle of a chunked body.", kind="closed", phase="body"
        )
    # HTTP/2, in the words of h2's events: the end of one exchange, and of the connection (in good order too).
    if "StreamReset" in text:
        return ConnectionFailedError(f"{host} reset the exchange.", kind="reset", phase=phase)
    if "ConnectionTerminated" in text:
        return ConnectionFailedError(f"{host} ended the connection.", kind="closed", phase=phase)
    if "without sending complete message body" in text or "InvalidBodyLengthError" in text:
        return ConnectionFailedError(
            f"{host} closed the connection before the body was whole.", kind="short", phase="body"
        )
    if "without sending a response" in text or "Server disconnected" in text or "unexpectedly closed" in text:
        return ConnectionFailedError(f"{host} closed the connection before it answered.", kind="closed", phase="head")
    if "too long" in text or "Receive buffer" in text:
        if phase == "body":
            return LimitExceededError(
                f"{host} sent a chunk line or trailers that are too long.", limit="trailers", phase=phase
            )
        return LimitExceededError(f"The response head of {host} is too long.", limit="head", phase=phase)
    return ProtocolError(f"The answer of {host} breaks HTTP: {text[:200]}.", phase=phase)


class HttpxResponse:
    """The answer as the caller holds it; see ``apex_llm.types.http.HttpResponse``."""

    def __init__(
        self,
        answer: Any,
        *,
        loop: asyncio.AbstractEventLoop,
        host: str,
        deadline: float,
        read_deadline: float,
        closings: set[asyncio.Task[None]],
    ) -> None:
        raw: list[tuple[bytes, bytes]] = answer.headers.raw
        self.status: int = answer.status_code
        self.headers: Headers = Headers(
            tuple((name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in raw)
        )
        self._answer = answer
        self._loop = loop
        self._host = host
        self._closings = closings
        self._deadline = deadline
        self._read_deadline = read_deadline
        self._pieces: list[bytes | bytearray] = []
        self._taken = 0
        self._body: AsyncGenerator[bytes] | None = None
        self._over = False
        self._error: ApexLlmError | None = None
        self._reader: asyncio.Task[Any] | None = None
        self._releases: list[Callable[[], None]] = []
        self._timer = LazyTimer(loop, _Weakly(self))
        if answer.is_stream_consumed:
            # A mock's answer is whole from the start, and refuses to be read raw.
            if answer.content:
                self._pieces.append(answer.content)
            self._end(None)
        else:
            self._body = _raw(answer)
            self._timer.arm(deadline)

    def check_head(self, request: HttpRequest) -> ApexLlmError | None:
        """What the other sender would have refused, as far as httpx lets it be seen."""
        headers = self.headers
        if len(headers.raw) > MAX_HEADERS:
            return LimitExceededError(f"{self._host} sent over {MAX_HEADERS} headers.", limit="headers", phase="head")
        if sum(len(name) + len(value) + 4 for name, value in headers.raw) > MAX_HEAD_BYTES:
            return LimitExceededError(f"The response head of {self._host} is over 64 KiB.", limit="head", phase="head")
        codings = headers.get("transfer-encoding")
        if codings is not None and "content-length" in headers:
            return ProtocolError(f"{self._host} sent both a length and a transfer coding.", phase="head")
        if codings is not None and codings.strip().lower() != "chunked":
            return ProtocolError(f"{self._host} sent the transfer coding {codings[:40]!r}.", phase="head")
        if not 200 <= self.status < 300:
            return None  # a refusal says enough by its status; its body is left alone, coded or not
        asked = {"", "identity"}
        for name, value in request.headers:
            if name.lower() == "accept-encoding":
                asked.update(part.partition(";")[0].strip().lower() for part in value.split(","))
        coding = headers.get("content-encoding") or ""
        if not all(part.strip().lower() in asked for part in coding.split(",")):
            return ProtocolError(f"{self._host} sent the content coding {coding[:40]!r}, unasked.", phase="head")
        return None

    async def prefetch(self) -> None:
        """Hold the body, up to what a reader that is slow may leave waiting."""
        try:
            held = await self._gather(HELD)
        except ApexLlmError as error:
            error.headers = self.headers.to_dict()
            raise
        self._pieces = [held] if held else []

    def _get_deadline(self) -> float | None:
        return None if self._deadline == math.inf else self._deadline

    def _set_deadline(self, when: float | None) -> None:
        self._deadline = math.inf if when is None else when
        if not self._over:
            self._timer.arm(self._deadline)

    def _get_read_deadline(self) -> float | None:
        return None if self._read_deadline == math.inf else self._read_deadline

    def _set_read_deadline(self, when: float | None) -> None:
        self._read_deadline = math.inf if when is None else when
        if self._reader is not None:
            self._timer.arm(self._read_deadline)

    deadline: float | None = cast("Any", property(_get_deadline, _set_deadline))
    """When the call must be over, on the loop's clock."""
    read_deadline: float | None = cast("Any", property(_get_read_deadline, _set_read_deadline))
    """When a waiting ``read()`` must have got something."""

    async def read(self) -> bytes:
        """The next bytes; ``b""`` at the end."""
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            return data
        if self._error is not None:
            raise self._error
        if self._over:
            return b""
        task = asyncio.current_task()
        assert task is not None
        if self._reader is not None:
            raise RuntimeError("Two tasks read the same response.")
        self._reader = task
        cancellations = task.cancelling()
        self._timer.arm(self._read_deadline)
        body = self._body
        assert body is not None
        try:
            async for data in body:
                if data:
                    self._taken += 1
                    if not self._taken % _PIECES_A_TURN:
                        await asyncio.sleep(0)
                    return data
            self._end(None)
            # Giving the connection back takes several steps; cancelled between them, it would never be free again.
            await asyncio.shield(self._start_closing())
            return b""
        except asyncio.CancelledError as error:
            if isinstance(self._error, RequestTimeoutError) and task.uncancel() <= cancellations:
                raise self._error from error
            self.close()
            raise
        except Exception as error:
            if self._error is None:
                if not is_foreign(error):
                    self.close()
                    raise
                self._end(translate(error, host=self._host, phase="body"))
                self._hang_up()
            assert self._error is not None
            raise self._error from error
        finally:
            self._reader = None

    async def read_all(self, *, limit: int) -> bytes:
        """The rest of the body; ``LimitExceededError`` beyond ``limit`` bytes."""
        body = await self._gather(limit)
        if len(body) > limit:
            self.close()
            raise LimitExceededError(f"The response body is larger than {limit} bytes.", limit="body", phase="body")
        return bytes(body)

    async def _gather(self, limit: int) -> bytes | bytearray:
        """What comes until the end, or until there is more than ``limit``.

        In one buffer: kept apart, chunks of one byte would take fifty times their size.
        """
        gathered: bytes | bytearray = await self.read()
        if gathered and len(gathered) <= limit and (data := await self.read()):
            gathered = bytearray(gathered) + data
            while len(gathered) <= limit and (data := await self.read()):
                gathered += data
        return gathered

    def close(self) -> None:
        """Be done with it; a body that has not ended closes its connection."""
        self._pieces.clear()
        if self._over:
            return
        self._end(ConnectionFailedError("The response was closed.", kind="closed", phase="body"))
        self._hang_up()

    def add_release(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, when the body has ended, failed or was closed."""
        if self._over:
            callback()
        else:
            self._releases.append(callback)

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self.close()

    def __repr__(self) -> str:
        return f"<HttpxResponse {self.status}>"

    def _end(self, error: ApexLlmError | None) -> None:
        if self._over:
            return
        self._over = True
        self._error = error
        self._timer.disarm()
        releases, self._releases = self._releases, []
        for release in releases:
            try:
                release()
            except Exception as failure:  # noqa: BLE001 - a layer's mistake must not hide the answer
                self._loop.call_exception_handler({"message": "a release callback failed", "exception": failure})

    def _start_closing(self) -> asyncio.Task[None]:
        return _start(self._loop, _close_answer(self._answer, self._body), self._closings)

    def _hang_up(self) -> None:
        """Start closing; httpx can only do that by waiting, so a task does it."""
        loop, closings, coroutine = self._loop, self._closings, _close_answer(self._answer, self._body)
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        try:
            if here:
                _start(loop, coroutine, closings)
            else:
                loop.call_soon_threadsafe(_start, loop, coroutine, closings)
        except RuntimeError:  # the loop is closed, and its sockets with it
            coroutine.close()

    def on_timer(self, now: float) -> float:
        """Do what is due at ``now``; say when to come again."""
        due, phase = self._deadline, "total"
        reader = self._reader
        if reader is not None and self._read_deadline < due:
            due, phase = self._read_deadline, "idle"
        if due > now:
            return due
        text = "sent nothing for too long" if phase == "idle" else "was not done by the call's deadline"
        self._pieces.clear()
        self._end(RequestTimeoutError(f"{self._host} {text}.", phase=phase))
        if reader is not None:
            reader.cancel()
        self._hang_up()
        return math.inf


class _Weakly:
    """The timer's way to its response, which must not keep a dropped one alive."""

    def __init__(self, response: HttpxResponse) -> None:
        self._response = weakref.ref(response)

    def __call__(self, now: float) -> float:
        response = self._response()
        return math.inf if response is None else response.on_timer(now)


def _start(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]
) -> asyncio.Task[None]:
    task = loop.create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def _raw(answer: Any) -> AsyncGenerator[bytes]:
    """The body as it comes. httpx's own ``aiter_raw`` also closes, in the task of whoever reads."""
    async for data in answer.stream:
        yield data


async def _close_answer(answer: Any, body: AsyncGenerator[bytes] | None) -> None:
    with contextlib.suppress(Exception):
        if body is not None:
            await body.aclose()
    with contextlib.suppress(Exception):
        await answer.aclose()
