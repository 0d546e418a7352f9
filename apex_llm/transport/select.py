"""Which sender serves an origin: the caller's client, a proxy, or our own connections."""

from __future__ import annotations

__all__ = ["Sender", "proxy_for", "sender_for"]

import contextlib
import os
import ssl
from collections.abc import Mapping
from typing import Any, Protocol

from apex_llm.protocol.addresses import is_loopback
from apex_llm.transport.http11_sender import Http11Sender
from apex_llm.transport.resolver import is_link_local
from apex_llm.transport.tls import ContextLoader, trust_roots
from apex_llm.types.http import HttpRequest, HttpResponse, Origin


class Sender(Protocol):
    """A ``Send`` that holds connections."""

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """Send ``request``."""
        ...

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        ...

    def close(self) -> None:
        """Close what can be closed without waiting."""
        ...


def sender_for(
    origin: Origin,
    *,
    http_client: Any = None,
    trust_env: bool = True,
    environ: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    max_connections: int | None = None,
) -> Sender:
    """The sender for ``origin``.

    Args:
        origin: The provider's endpoint.
        http_client: The caller's ``httpx.AsyncClient`` or ``httpx2.AsyncClient``; it stays theirs to close.
        trust_env: Whether proxies and certificate roots named in ``environ`` are used.
        environ: ``os.environ`` unless given.
        ssl_context: Replaces the default TLS set-up, also towards a proxy.
        max_connections: To the origin, or to the proxy before it; see ``Http11Sender``.
    """
    if http_client is not None:
        from apex_llm.transport.httpx_sender import HttpxSender

        return HttpxSender(http_client)
    variables: Mapping[str, str] = os.environ if environ is None else environ
    if not trust_env:
        variables = dict[str, str]()
    trust = trust_roots(variables)
    proxy = proxy_for(origin, environ=variables)
    if proxy is None:
        return Http11Sender(ssl_context=ssl_context, trust=trust, max_connections=max_connections)

    from apex_llm.transport.httpx_sender import HttpxSender, proxied_client

    load_context = ContextLoader(trust)

    async def client() -> Any:
        return await proxied_client(proxy, ssl_context or await load_context(), max_connections=max_connections)

    return HttpxSender(client_factory=client, proxy=proxy.rpartition("@")[2].rpartition("://")[2].partition("/")[0])


def proxy_for(origin: Origin, *, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL for ``origin``, from ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.

    Lower-case names win, as everywhere. ``HTTP_PROXY`` is not read inside a CGI script, where a
    client's ``Proxy`` header becomes that variable. Loopback and metadata addresses never have one.
    """
    host = origin.host
    if _is_loopback(host) or is_link_local(host):
        return None
    names = [f"{origin.scheme}_proxy", "all_proxy"]
    if "REQUEST_METHOD" in environ and origin.scheme == "http":
        candidates = [environ.get("http_proxy"), _either(environ, "all_proxy")]
    else:
        candidates = [_either(environ, name) for name in names]
    proxy = next((candidate for candidate in candidates if candidate), None)
    if proxy is None or _is_excluded(origin, _either(environ, "no_proxy") or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _either(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name) or environ.get(name.upper()) or None


def _is_loopback(host: str) -> bool:
    return is_loopback(host) or host == "localhost" or host.endswith(".localhost")


def _is_excluded(origin: Origin, exclusions: str) -> bool:
    import ipaddress

    for exclusion in exclusions.replace(" ", ",").split(","):
        if not exclusion:
            continue
        if exclusion == "*":
            return True
        name, port = _split_port(exclusion.lower())
        if port is not None and port != origin.port:
            continue
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(origin.host) in ipaddress.ip_network(name.strip("[]"), strict=False):
                return True
        name = name.removeprefix("*").lstrip(".")
        if name and (origin.host == name or origin.host.endswith(f".{name}")):
            return True
    return False


def _split_port(exclusion: str) -> tuple[str, int | None]:
    name, colon, port = exclusion.rpartition(":")
    if colon and port.isdecimal() and (":" not in name or name.endswith("]")):
        return name, int(port)
    return exclusion, None
