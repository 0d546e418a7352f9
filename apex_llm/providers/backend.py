"""What a provider and its ``with_options`` copies share: senders, and the layers in front of them."""

from __future__ import annotations

__all__ = ["Authentication", "Backend", "merge_headers", "query_string"]

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from apex_llm.errors import ApexLlmError, InvalidRequestError
from apex_llm.protocol.sigv4 import percent_encode
from apex_llm.providers.arguments import check_transport
from apex_llm.providers.endpoints import Endpoint, is_metadata
from apex_llm.transport.classify import ClassifyLayer
from apex_llm.transport.http11_request import is_token
from apex_llm.transport.http11_sender import Http11Sender
from apex_llm.transport.observe import ObserveLayer, Observer
from apex_llm.transport.pipeline import compose
from apex_llm.transport.select import Sender, sender_for
from apex_llm.types.http import Headers, HttpRequest, HttpResponse, Layer, Origin, Send

_CLOSING_SECONDS = 1.0
_OURS = frozenset(
    {"authorization", "api-key", "connection", "content-length", "host", "transfer-encoding", "x-amz-date"}
)


class Authentication(Protocol):
    """A layer that signs or adds a key, and can renew what it uses."""

    def __call__(self, request: HttpRequest, send: Send, /) -> Awaitable[HttpResponse]:
        """Send ``request`` with credentials."""
        ...

    async def recover(self, error: ApexLlmError) -> bool:
        """Whether something was renewed that makes another attempt worth it."""
        ...


class Backend:
    """Connections of one provider. Safe to use from one event loop after another."""

    def __init__(
        self,
        *,
        http_client: Any,
        max_connections: int | None,
        trust_env: bool,
        environ: Mapping[str, str],
        ssl_context: ssl.SSLContext | None,
        observers: Sequence[Observer],
        provider: str,
        stream_type: str,
        failure: Callable[[int, Headers, bytes, HttpRequest], ApexLlmError],
        obey_should_retry: bool = False,
    ) -> None:
        def expected_content_type(request: HttpRequest) -> str | None:
            return stream_type if request.stream else None

        def unexpected(headers: Headers, body: bytes, request: HttpRequest) -> ApexLlmError:
            from apex_llm.codecs.failures import unexpected_content

            expected = stream_type if request.stream else "application/json"
            return unexpected_content(headers, body, expected=expected, provider=provider, model=request.model)

        check_transport(
            http_client=http_client, max_connections=max_connections, ssl_context=ssl_context, observers=observers
        )
        self.environ = environ
        self._http_client = http_client
        self._max_connections = max_connections
        self._trust_env = trust_env
        self._ssl_context = ssl_context
        self._observe = ObserveLayer(*observers)
        self._classify = ClassifyLayer(
            failure,
            unexpected=unexpected,
            expected_content_type=expected_content_type,
            obey_should_retry=obey_should_retry,
        )
        self._senders: dict[Origin, Sender] = {}
        self._metadata: Http11Sender | None = None

    def sender(self, origin: Origin) -> Sender:
        """The sender for one origin, made at its first use."""
        sender = self._senders.get(origin)
        if sender is None:
            sender = sender_for(
                origin,
                http_client=self._http_client,
                trust_env=self._trust_env,
                environ=self.environ,
                ssl_context=self._ssl_context,
                max_connections=self._max_connections,
            )
            self._senders[origin] = sender
        return sender

    async def fetch(self, request: HttpRequest) -> HttpResponse:
        """Send without any layer: how credentials are got from metadata services and token endpoints."""
        if is_metadata(request.origin.host):
            if self._metadata is None:
                self._metadata = Http11Sender(allow_link_local=True)
            return await self._metadata(request)
        return await self.sender(request.origin)(request)

    def stack(self, endpoint: Endpoint, authentication: Authentication, *more: Layer) -> Send:
        """All layers over the sender of one endpoint: observe, classify, ``more``, authenticate, send."""
        return compose([self._observe, self._classify, *more, authentication], self.sender(endpoint.origin))

    async def aclose(self) -> None:
        """Close every connection that we opened; a client that the caller gave stays open.

        The senders stay, for they open new ones when asked to: what a call that goes on meanwhile opens is still ours,
        to be used again and to be closed the next time.
        """
        senders: list[Sender] = list(self._senders.values())
        if self._metadata is not None:
            senders.append(self._metadata)
        closing = asyncio.ensure_future(_close(senders))
        cancelled: asyncio.CancelledError | None = None
        until = asyncio.get_running_loop().time() + _CLOSING_SECONDS
        # A cancelled owner must not leave sockets open; a close that hangs must not hold it up.
        while not closing.done() and (seconds := until - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.wait([closing], timeout=seconds)
            except asyncio.CancelledError as error:
                cancelled = error
        failure = closing.exception() if closing.done() else None
        closing.cancel()
        outcome = cancelled or failure
        if outcome is not None:
            raise outcome


async def _close(senders: Sequence[Sender]) -> None:
    failure: Exception | None = None
    for sender in senders:
        try:
            await sender.aclose()
        except Exception as error:  # noqa: BLE001 - the others are to be closed all the same
            failure = failure or error
    if failure is not None:
        raise failure


def merge_headers(headers: Sequence[tuple[str, str]], extra: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Headers with the caller's own put in, which replace ours of the same name.

    Raises:
        InvalidRequestError: A name or value that no header may have, or a header that only we may set.
    """
    if not extra:
        return tuple(headers)
    added: dict[str, str] = {}
    for name, value in extra.items():
        lower = name.lower()
        if lower in _OURS:
            raise InvalidRequestError(
                f"extra_headers may not set {lower!r}.",
                phase="prepare",
                hint="Credentials, host and length are set by the provider; pass credentials to its constructor.",
            )
        if not is_token(name) or any(character in value for character in "\r\n\0"):
            raise InvalidRequestError(
                f"extra_headers has a name or value that no HTTP header may have ({name[:40]!r}).",
                phase="prepare",
                hint="Names are letters, digits and hyphens; values have no line breaks.",
            )
        added[lower] = value
    return (*((name, value) for name, value in headers if name not in added), *added.items())


def query_string(*pairs: tuple[str, str]) -> str:
    """``?a=1&b=2`` with a space as ``%20``, as signatures want it; ``""`` without pairs."""
    if not pairs:
        return ""
    return "?" + "&".join(f"{percent_encode(name)}={percent_encode(value)}" for name, value in pairs)
