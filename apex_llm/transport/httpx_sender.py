"""Any ``httpx.AsyncClient``, or ``httpx2.AsyncClient``, as a sender.

For callers who bring a client of their own (tests with respx or MockTransport, HTTP/2, special
networks) and for proxies. Works by interface and never imports httpx, except to build the client
for a proxy. What the client would add or change on its own is taken back: redirects, codings,
default headers, credentials from files.

Where httpx is more lenient than ``http11_sender``, what can still be seen is checked here. What
cannot: chunk extensions, trailers, interim answers, and a second answer glued to the first, which
httpx keeps and takes for the answer to the next request.
"""

from __future__ import annotations

__all__ = ["HttpxSender", "proxied_client"]

import asyncio
import contextlib
import math
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from apex_llm.errors import (
    ConfigurationError,
    ConnectionFailedError,
    InvalidEndpointError,
    InvalidRequestError,
    RequestTimeoutError,
)
from apex_llm.transport.http11_request import sender_headers
from apex_llm.transport.httpx_response import HttpxResponse, is_foreign, translate
from apex_llm.transport.resolver import is_link_local
from apex_llm.types.http import HttpRequest, HttpResponse

_ADDED_BY_CLIENTS = ("accept", "user-agent", "cookie")


class HttpxSender:
    """Sends requests through an httpx client; a ``Send``.

    Args:
        client: The client; it must have been made for the event loop that it is used on.
        owns_client: Whether closing this sender closes the client.
        client_factory: Instead of ``client``: makes one for each event loop, and owns them.
        proxy: Host and port of the proxy that the clients connect to, for messages.
    """

    def __init__(
        self,
        client: Any = None,
        *,
        owns_client: bool = False,
        client_factory: Callable[[], Awaitable[Any]] | None = None,
        proxy: str | None = None,
    ) -> None:
        if (client is None) == (client_factory is None):
            raise ConfigurationError("HttpxSender takes either a client or a client_factory.")
        self._client = client
        self._owns_client = owns_client
        self._client_factory = client_factory
        self._proxy = proxy
        self._guards: dict[asyncio.AbstractEventLoop, AsyncGenerator[Any]] = {}
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        self._closings: set[asyncio.Task[None]] = set()

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """Send ``request``; return when the head is there, and the body too unless it is streamed.

        Raises:
            InvalidRequestError: it cannot be sent safely, or the client would change its target; nothing was sent.
            ConnectionFailedError: no connection, or it broke; ``kind`` and ``phase`` tell.
            RequestTimeoutError: a deadline passed; ``phase`` is ``connect``, ``head`` or ``total``.
            ProtocolError: the answer cannot be trusted.
            ConfigurationError: the client was made for another event loop, or is closed.
        """
        loop = asyncio.get_running_loop()
        host = request.origin.host
        if is_link_local(host):
            raise InvalidEndpointError(f"{host} is a link-local address, where no model answers.", phase="prepare")
        outgoing_headers = sender_headers(request)
        client = self._client or await self._client_for(loop)
        outgoing = _build(client, request, outgoing_headers)
        now = loop.time()
        timeout = request.timeout
        if request.deadline is not None:
            deadline = request.deadline
        else:
            deadline = math.inf if timeout.total is None else now + timeout.total
        if deadline <= now:
            raise RequestTimeoutError("The deadline had passed before the request was sent.", phase="total")
        head_deadline = now + timeout.first_byte if request.stream and timeout.first_byte is not None else math.inf
        answer = await _send(
            client,
            outgoing,
            host=host,
            proxy=self._proxy,
            connect=timeout.connect,
            deadline=deadline,
            head_deadline=head_deadline,
        )
        response = HttpxResponse(
            answer, loop=loop, host=host, deadline=deadline, read_deadline=head_deadline, closings=self._closings
        )
        failure = response.check_head(request)
        if failure is not None:
            response.close()
            raise failure
        if not request.stream and 200 <= response.status < 300:
            await response.prefetch()  # a refusal is decided by its status, whatever becomes of its body
        return response

    async def aclose(self) -> None:
        """Wait for responses that are being closed; close the client if it is ours."""
        loop = asyncio.get_running_loop()
        mine = [closing for closing in list(self._closings) if closing.get_loop() is loop]
        if mine:
            await asyncio.wait(mine)
        guard = self._guards.pop(loop, None)
        self._clients.pop(loop, None)
        if guard is not None:
            await guard.aclose()
        if self._owns_client and self._client is not None:
            with contextlib.suppress(RuntimeError):
                await self._client.aclose()

    def close(self) -> None:
        """Nothing that can be done without waiting; ``aclose`` closes the clients, and so does the loop's end."""

    async def _client_for(self, loop: asyncio.AbstractEventLoop) -> Any:
        client = self._clients.get(loop)
        if client is None:
            assert self._client_factory is not None
            for other in list(self._clients):  # other threads may be beginning with loops of their own
                if other.is_closed():
                    self._clients.pop(other, None)
                    self._guards.pop(other, None)
            made = await self._client_factory()
            client = self._clients.get(loop)
            if client is not None:
                await made.aclose()  # another call was faster
                return client
            self._clients[loop] = client = made
            # Closed by asyncio.run, while the loop still turns; see http11_sender.
            guard = self._guards[loop] = _guard(made)
            await anext(guard)
        return client


async def _guard(client: Any) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            await client.aclose()


def _build(client: Any, request: HttpRequest, headers: list[tuple[str, str]]) -> Any:
    """An ``httpx.Request`` that carries exactly ours."""
    timeout = request.timeout.connect
    try:
        outgoing = client.build_request(
            request.method,
            f"{request.origin.url}{request.target}",
            content=request.body or None,
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            timeout=(timeout, None, None, None),
        )
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            "A header value holds characters that HTTP cannot carry (only Latin-1 can be sent).", phase="prepare"
        ) from error
    except Exception as error:
        if is_foreign(error):
            raise InvalidRequestError("The client refused the request's URL or headers.", phase="prepare") from error
        raise
    if outgoing.url.raw_path != request.target.encode("ascii"):
        raise InvalidRequestError(
            "The client would send another path than the one that was signed.",
            phase="prepare",
            hint="Percent-encode everything in the target that RFC 3986 reserves.",
        )
    ours = {name.lower() for name, _ in headers}
    for name in _ADDED_BY_CLIENTS:
        if name not in ours:
            outgoing.headers.pop(name, None)
    return outgoing


class _Tunnel:
    """Bounds the way through a proxy as one: httpx bounds some steps of it each, and the proxy's own answer not at all.

    httpx calls it as the ``trace`` of a request.
    """

    def __init__(self, scope: asyncio.Timeout, *, when: float, seconds: float) -> None:
        self._scope = scope
        self._when = when
        self._seconds = seconds
        self.until: float = math.inf
        """When the connection must stand; infinite while none is being made."""

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("connect_tcp.started"):
            self.until = asyncio.get_running_loop().time() + self._seconds
            self._scope.reschedule(min(self.until, self._when))
        elif event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
            self.until = math.inf
            self._scope.reschedule(None if self._when == math.inf else self._when)


async def _send(
    client: Any,
    outgoing: Any,
    *,
    host: str,
    proxy: str | None,
    connect: float | None,
    deadline: float,
    head_deadline: float,
) -> Any:
    when = min(deadline, head_deadline)
    scope = asyncio.timeout_at(None if when == math.inf else when)
    tunnel: _Tunnel | None = None
    if proxy is not None and connect is not None:
        tunnel = outgoing.extensions["trace"] = _Tunnel(scope, when=when, seconds=connect)
    try:
        async with scope:
            # An authentication of the client's own would replace the signature.
            return await client.send(outgoing, stream=True, auth=None, follow_redirects=False)
    except TimeoutError as error:
        if not scope.expired():
            raise ConnectionFailedError(f"The connection to {host} failed.", kind="network", phase="head") from error
        if tunnel is not None and tunnel.until <= when:
            raise RequestTimeoutError(
                f"No connection to {host} by way of the proxy {proxy} within {connect:g} s.", phase="connect"
            ) from error
        if head_deadline < deadline:
            raise RequestTimeoutError(f"{host} did not begin to answer in time.", phase="head") from error
        raise RequestTimeoutError(f"The call to {host} was not over by its deadline.", phase="total") from error
    except Exception as error:
        if is_foreign(error):
            raise translate(error, host=host, phase="head", proxy=proxy) from error
        raise


async def proxied_client(proxy_url: str, ssl_context: ssl.SSLContext, *, max_connections: int | None = None) -> Any:
    """An ``httpx.AsyncClient`` that sends everything through ``proxy_url`` and reads nothing from the environment.

    Raises:
        ConfigurationError: the proxy's URL is of a kind that httpx cannot use.
    """
    import httpx

    try:
        return httpx.AsyncClient(
            proxy=httpx.Proxy(proxy_url, ssl_context=ssl_context if proxy_url.startswith("https:") else None),
            verify=ssl_context,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=100, keepalive_expiry=50.0),
        )
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            "The configured proxy cannot be used; it must be an http://, https:// or (with socksio) socks5:// URL.",
            hint="Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or pass trust_env=False.",
        ) from error
