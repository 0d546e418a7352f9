"""From a status code to a typed error.

What an error body means is the provider's knowledge, and comes in as a function. This layer
does what is the same for all: it reads a bounded piece of the body, never lets a body that
breaks hide the status, finds the delay that the service asks for, and gives the connection back.
"""

from __future__ import annotations

__all__ = ["ClassifyLayer"]

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from apex_llm.errors import ApexLlmError
from apex_llm.protocol.backoff import retry_after_hint
from apex_llm.types.http import Headers, HttpRequest, HttpResponse, Send

Failure: TypeAlias = Callable[[int, Headers, bytes, HttpRequest], ApexLlmError]
Unexpected: TypeAlias = Callable[[Headers, bytes, HttpRequest], ApexLlmError]

_BODY_LIMIT: Final = 1 << 20
_RATE_LIMIT_STATUS: Final = 429
_NO_TYPE: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})
"""What servers say that do not know, or were not told, what they send."""


class ClassifyLayer:
    """Lets answers with a 2xx status through, and raises a typed error for every other.

    Args:
        failure: Makes the error from status, headers, body (perhaps empty or cut) and request.
        unexpected: Makes the error for a 2xx answer of the wrong kind, such as a login page or a JSON
            error where a stream was asked for. Needed where ``expected_content_type`` is given.
        expected_content_type: The media type that a good answer to the request has; ``None`` to accept
            any but HTML. An answer that does not name its type, or says only that it is bytes, is accepted too:
            its framing will tell.
        provider: For the error's ``provider``, where ``failure`` leaves it out.
        obey_should_retry: Whether ``x-should-retry: true`` or ``false`` overrides the error's
            ``retryable``. OpenAI's routes send it, and mean it; elsewhere it is nobody's promise.
        body_seconds: How long an error's body may take. A server that drips one must not hold up the
            status, and so the retry, until the call's deadline.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        failure: Failure,
        *,
        unexpected: Unexpected | None = None,
        expected_content_type: Callable[[HttpRequest], str | None] | None = None,
        provider: str | None = None,
        obey_should_retry: bool = False,
        body_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if (unexpected is None) != (expected_content_type is None):
            raise ValueError("unexpected= and expected_content_type= belong together; give both or neither.")
        self._failure = failure
        self._unexpected = unexpected
        self._expected_content_type = expected_content_type
        self._provider = provider
        self._obey_should_retry = obey_should_retry
        self._body_seconds = body_seconds
        self._clock = clock

    async def __call__(self, request: HttpRequest, send: Send, /) -> HttpResponse:
        """The answer, if it is a good one.

        Raises:
            ApexLlmError: Whatever ``failure`` or ``unexpected`` made of it, with ``status``, ``headers``,
                ``provider``, ``model`` and ``phase`` filled in where they were left empty, and
                ``retry_after`` as the headers have it.
        """
        response = await send(request)
        status = response.status
        if 200 <= status < 300:
            if self._unexpected is None or self._is_expected(request, response):
                return response
            body = await _error_body(response, seconds=self._body_seconds)
            error = self._unexpected(response.headers, body, request)
        else:
            body = await _error_body(response, seconds=self._body_seconds)
            error = self._failure(status, response.headers, body, request)
        self._add_facts(error, request, status=status, headers=response.headers)
        raise error

    def _is_expected(self, request: HttpRequest, response: HttpResponse) -> bool:
        if self._expected_content_type is None:
            return True
        actual = _media_type(response.headers.get("content-type") or "")
        if actual in _NO_TYPE:
            return True
        expected = self._expected_content_type(request)
        # Where any type will do, a page for humans will not: it is a login or a proxy's apology.
        return actual != "text/html" if expected is None else actual == expected

    def _add_facts(self, error: ApexLlmError, request: HttpRequest, *, status: int, headers: Headers) -> None:
        facts = headers.to_dict()
        if error.status is None:
            error.status = status
        if error.provider is None:
            error.provider = self._provider
        if error.model is None:
            error.model = request.model or None
        if not error.headers:
            error.headers = facts
        if error.phase is None:
            error.phase = "head"
        # A header outranks what `failure` may have read in the text of the body.
        hint = retry_after_hint(facts, now=self._clock(), rate_limited=status == _RATE_LIMIT_STATUS)
        if hint is not None:
            error.retry_after = hint
        if self._obey_should_retry:
            advice = facts.get("x-should-retry", "").strip().lower()
            if advice in {"true", "false"}:
                error.retryable = advice == "true"


@functools.lru_cache(maxsize=64)  # pure, and a service has few types
def _media_type(text: str) -> str:
    # Some gateways add the header a second time, and repeated ones are joined by commas.
    return text.partition(";")[0].partition(",")[0].strip().lower()


async def _error_body(response: HttpResponse, *, seconds: float) -> bytes:
    """At most 1 MiB of the body, or as much of it as came; nothing of one that is packed. The response is closed."""
    if (response.headers.get("content-encoding") or "identity").strip().lower() != "identity":
        # Nobody asked for it, and nobody unpacks it: what unfolds may have any size.
        response.close()
        return b""
    pieces: list[bytes] = []
    room = _BODY_LIMIT
    response.read_deadline = asyncio.get_running_loop().time() + seconds
    try:
        while room > 0 and (piece := await response.read()):
            pieces.append(piece[:room])
            room -= len(piece)
    except ApexLlmError:
        # The status is known, and says more than the way in which its explanation broke off.
        pass
    finally:
        response.close()
    return b"".join(pieces)
