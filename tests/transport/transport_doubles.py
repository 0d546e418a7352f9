"""What the tests of the layers share: a virtual clock, and responses and requests without a network."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from apex_llm.errors import ApexLlmError, AuthenticationError, OverloadedError, PermissionDeniedError, RateLimitError
from apex_llm.types.http import Headers, HttpRequest, Origin

ORIGIN = Origin("https", "bedrock-runtime.us-east-1.amazonaws.com", 443)


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting, moves the loop's clock to the moment that it would have waited for."""

    now = 0.0

    def select(self, timeout: float | None = None):
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("Deadlock: everybody waits, and no timer is set.")
            self.now += max(timeout, 0)
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop in which hours pass in milliseconds."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtually(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def request_for(**changes: Any) -> HttpRequest:
    return HttpRequest(
        **{
            "method": "POST",
            "origin": ORIGIN,
            "target": "/model/anthropic.claude-sonnet-4-6/converse?secret-query=1",
            "headers": (("content-type", "application/json"),),
            "body": b'{"messages":[]}',
            "operation": "converse",
            "model": "anthropic.claude-sonnet-4-6",
            "invocation_id": "11111111-2222-4333-8444-555555555555",
            "max_attempts": 3,
        }
        | changes
    )


class FakeResponse:
    """An answer made of pieces; an exception among them is raised by the read that meets it."""

    def __init__(
        self, status: int = 200, headers: dict[str, str] | None = None, pieces: Iterable[bytes | BaseException] = ()
    ) -> None:
        self.status = status
        self.headers = Headers(tuple((headers or {}).items()))
        self.deadline: float | None = None
        self.read_deadline: float | None = None
        self.closed = False
        self.bytes_read = 0
        self._pieces = list(pieces)
        self._callbacks: list[Callable[[], None]] = []

    async def read(self) -> bytes:
        if not self._pieces:
            self._over()
            return b""
        piece = self._pieces.pop(0)
        if isinstance(piece, BaseException):
            self._over()
            raise piece
        self.bytes_read += len(piece)
        return piece

    async def read_all(self, *, limit: int) -> bytes:
        return b"".join([piece for piece in self._pieces if isinstance(piece, bytes)])[:limit]

    def close(self) -> None:
        self.closed = True
        self._over()

    def add_release(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        if self.closed:
            self._over()

    def _over(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Script:
    """A sender that plays answers in order, the last one for ever, and remembers what it was sent."""

    def __init__(self, *answers: FakeResponse | BaseException | Callable[[HttpRequest], FakeResponse]) -> None:
        self._answers = list(answers)
        self.requests: list[HttpRequest] = []

    async def __call__(self, request: HttpRequest) -> FakeResponse:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, FakeResponse) else answer(request)


def failure(status: int, headers: Headers, body: bytes, request: HttpRequest) -> ApexLlmError:
    """A provider's error table, in small."""
    kind = {401: AuthenticationError, 403: PermissionDeniedError, 429: RateLimitError}.get(status, OverloadedError)
    return kind(
        body[:40].decode(errors="replace"),
        code=headers.get("x-amzn-errortype"),
        retryable=status == 429 or status >= 500,
    )
