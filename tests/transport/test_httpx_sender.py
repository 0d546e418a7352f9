"""What callers bring: mocks, respx, clients with habits of their own, proxies."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import sys
import time
import warnings
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import httpx2
import pytest
import respx
import trustme
from raw_server import RawConnection, Serve, answering, http_answer, threaded_server

from apex_llm.errors import ConfigurationError, ConnectionFailedError, ProtocolError, RequestTimeoutError
from apex_llm.transport.http11_sender import Http11Sender
from apex_llm.transport.httpx_sender import HttpxSender
from apex_llm.transport.select import proxy_for, sender_for
from apex_llm.types.http import HttpRequest, Origin, Timeout

ORIGIN = Origin("https", "bedrock-runtime.us-east-1.amazonaws.com", 443)


def request_to(origin: Origin = ORIGIN, **fields: Any) -> HttpRequest:
    return HttpRequest(**{"method": "POST", "origin": origin, "target": "/model/x:0/converse", "body": b"{}", **fields})


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_mock_transport_serves(library: Any, stream: bool) -> None:
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        seen.append(request)
        return library.Response(200, json={"a": 1}, headers={"x-request-id": "r"})

    async with library.AsyncClient(transport=library.MockTransport(handle)) as client:
        response = await HttpxSender(client)(request_to(stream=stream, headers=(("authorization", "AWS4 x"),)))

        assert response.status == 200
        assert response.headers.get("x-request-id") == "r"
        assert await response.read_all(limit=100) in {b'{"a":1}', b'{"a": 1}'}
        assert await response.read() == b""
    assert str(seen[0].url) == f"{ORIGIN.url}/model/x:0/converse"
    assert seen[0].headers["authorization"] == "AWS4 x"
    assert "user-agent" not in seen[0].headers


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_mock_that_streams_is_read_piece_by_piece(library: Any) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"", b"two"):
            yield piece

    transport = library.MockTransport(lambda _: library.Response(200, content=pieces()))
    async with library.AsyncClient(transport=transport) as client:
        response = await HttpxSender(client)(request_to(stream=True))

        assert [await response.read() for _ in range(3)] == [b"one", b"two", b""]


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize(
    ("name", "kind"), [("ConnectError", "network"), ("ReadError", "reset"), ("ProxyError", "proxy")]
)
async def test_errors_of_both_libraries_are_known_by_name(library: Any, name: str, kind: str) -> None:
    def handle(request: Any) -> Any:
        raise getattr(library, name)("broken")

    async with library.AsyncClient(transport=library.MockTransport(handle)) as client:
        with pytest.raises(ConnectionFailedError) as caught:
            await HttpxSender(client)(request_to())

    assert caught.value.kind == kind
    assert isinstance(caught.value.__cause__, getattr(library, name))


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize(("name", "phase"), [("ConnectTimeout", "connect"), ("ReadTimeout", "head")])
async def test_timeouts_of_the_client_are_ours(library: Any, name: str, phase: str) -> None:
    def handle(request: Any) -> Any:
        raise getattr(library, name)("slow")

    async with library.AsyncClient(transport=library.MockTransport(handle)) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            await HttpxSender(client)(request_to())

    assert caught.value.phase == phase


async def test_a_mistake_in_the_callers_own_code_is_not_dressed_up() -> None:
    def handle(request: Any) -> Any:
        raise KeyError("a bug in the test's handler")

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
        with pytest.raises(KeyError):
            await HttpxSender(client)(request_to())


@respx.mock
async def test_respx_sees_the_request_as_it_is() -> None:
    route = respx.post("https://bedrock-runtime.us-east-1.amazonaws.com/model/x:0/converse").mock(
        return_value=httpx.Response(200, json={"ok": True})
    )
    async with httpx.AsyncClient() as client:
        response = await HttpxSender(client)(request_to(headers=(("content-type", "application/json"),)))

        assert await response.read_all(limit=100) in {b'{"ok":true}', b'{"ok": true}'}
    sent = route.calls.last.request
    assert sent.content == b"{}"
    assert dict(sent.headers) | {"connection": ""} == {
        "host": "bedrock-runtime.us-east-1.amazonaws.com",
        "content-type": "application/json",
        "content-length": "2",
        "accept-encoding": "identity",
        "connection": "",
    }


async def test_a_clients_habits_do_not_reach_the_wire(serve: Serve) -> None:
    """Redirects, credentials, cookies and default headers would break a signature, or leak it."""
    server = await serve(answering(http_answer(headers="Set-Cookie: a=b\r\n", status="302 Found")))
    client = httpx.AsyncClient(
        follow_redirects=True, auth=("user", "password"), headers={"x-gateway": "1"}, trust_env=False
    )
    sender = HttpxSender(client, owns_client=True)

    for _ in range(2):
        response = await sender(request_to(server.origin))
        assert response.status == 302

    for sent in server.requests:
        lower = sent.lower()
        assert b"authorization" not in lower
        assert b"cookie" not in lower
        assert b"user-agent" not in lower
        assert b"\r\naccept: " not in lower
        assert b"x-gateway: 1" in lower
    await sender.aclose()
    assert client.is_closed


async def test_a_client_of_the_caller_is_left_open() -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        sender = HttpxSender(client)
        await sender(request_to())
        await sender.aclose()

        assert not client.is_closed


async def test_a_closed_client_is_a_configuration_error() -> None:
    client = httpx.AsyncClient()
    await client.aclose()

    with pytest.raises(ConfigurationError, match="closed"):
        await HttpxSender(client)(request_to())


async def test_a_mocks_coding_is_refused_like_a_servers() -> None:
    answer = httpx.Response(200, content=b"", headers={"content-encoding": "br"})
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer)) as client:
        with pytest.raises(ProtocolError):
            await HttpxSender(client)(request_to())


# Proxies


class Proxy:
    """Tunnels for CONNECT, and answers everything else itself."""

    def __init__(self, *, refuse: bytes | None = None) -> None:
        self.lines: list[bytes] = []
        self.heads: list[bytes] = []
        self.refuse = refuse

    async def __call__(self, connection: RawConnection) -> None:
        head = await connection.reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        self.lines.append(head.partition(b"\r\n")[0])
        if self.refuse is not None:
            await connection.send(self.refuse)
            return
        if not head.startswith(b"CONNECT"):
            await connection.send(http_answer(b"by the proxy"))
            return
        host, _, port = head.split(b" ")[1].rpartition(b":")
        reader, writer = await asyncio.open_connection(host.decode().replace("model.test", "127.0.0.1"), int(port))
        await connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
                target.close()

        try:
            await asyncio.gather(copy(connection.reader, writer), copy(reader, connection.writer))
        finally:
            writer.close()


async def test_https_goes_through_a_tunnel_and_is_verified(
    serve: Serve, authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("model.test").configure_cert(context)
    server = await serve(answering(http_answer(b"through the tunnel")), tls=context)
    proxy = Proxy()
    proxy_server = await serve(proxy)
    origin = Origin("https", "model.test", server.port)
    sender = sender_for(origin, environ={"HTTPS_PROXY": proxy_server.origin.url}, ssl_context=client_tls)

    response = await sender(request_to(origin, headers=(("authorization", "secret"),)))

    assert await response.read_all(limit=100) == b"through the tunnel"
    assert proxy.lines == [f"CONNECT model.test:{server.port} HTTP/1.1".encode()]
    assert b"secret" not in proxy.heads[0]
    await sender.aclose()
    await asyncio.sleep(0.05)


async def test_plain_http_is_forwarded(serve: Serve, client_tls: ssl.SSLContext) -> None:
    proxy = Proxy()
    proxy_server = await serve(proxy)
    origin = Origin("http", "model.test", 8080)
    sender = sender_for(origin, environ={"http_proxy": proxy_server.origin.url}, ssl_context=client_tls)

    response = await sender(request_to(origin))

    assert await response.read_all(limit=100) == b"by the proxy"
    assert proxy.lines == [b"POST http://model.test:8080/model/x:0/converse HTTP/1.1"]
    await sender.aclose()


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 Connection established\r\n\r\n"])
async def test_a_tunnel_that_does_not_come_about_is_left_at_the_connect_timeout(
    serve: Serve, client_tls: ssl.SSLContext, says: bytes
) -> None:
    """The proxy takes the connection and then says nothing, or nothing comes through what it says it has opened."""

    async def play(connection: RawConnection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        await connection.send(says)
        await connection.wait_closed_by_client()

    proxy_server = await serve(play)
    origin = Origin("https", "model.test", 443)
    sender = sender_for(origin, environ={"HTTPS_PROXY": proxy_server.origin.url}, ssl_context=client_tls)
    began = time.monotonic()

    with pytest.raises(RequestTimeoutError) as caught:
        await sender(request_to(origin, timeout=Timeout(connect=0.2, total=30)))

    assert caught.value.phase == "connect"
    assert time.monotonic() - began < 5
    await sender.aclose()
    assert await proxy_server.drained()


async def test_a_slow_answer_through_a_tunnel_is_not_held_to_the_connect_timeout(
    serve: Serve, authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    async def slowly(connection: RawConnection) -> None:
        while await connection.read_request() is not None:
            await asyncio.sleep(0.4)
            await connection.send(http_answer(b"at last"))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("model.test").configure_cert(context)
    server = await serve(slowly, tls=context)
    proxy_server = await serve(Proxy())
    origin = Origin("https", "model.test", server.port)
    sender = sender_for(origin, environ={"HTTPS_PROXY": proxy_server.origin.url}, ssl_context=client_tls)

    for _ in range(2):  # on a new connection, and on the same one
        response = await sender(request_to(origin, timeout=Timeout(connect=0.3, total=30)))
        assert await response.read_all(limit=100) == b"at last"

    assert proxy_server.accepted == 1
    await sender.aclose()
    await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "retryable"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", True),
    ],
)
async def test_a_proxy_that_refuses_is_named(
    serve: Serve, client_tls: ssl.SSLContext, answer: bytes, retryable: bool
) -> None:
    proxy_server = await serve(Proxy(refuse=answer))
    origin = Origin("https", "model.test", 443)
    sender = sender_for(origin, environ={"ALL_PROXY": proxy_server.origin.url}, ssl_context=client_tls)

    with pytest.raises(ConnectionFailedError) as caught:
        await sender(request_to(origin))

    assert (caught.value.kind, caught.value.retryable) == ("proxy", retryable)
    await sender.aclose()


async def test_a_proxy_of_an_unknown_kind_is_a_configuration_error(client_tls: ssl.SSLContext) -> None:
    sender = sender_for(ORIGIN, environ={"HTTPS_PROXY": "gopher://proxy:70"}, ssl_context=client_tls)

    with pytest.raises(ConfigurationError, match="HTTPS_PROXY"):
        await sender(request_to())


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://model.test", {}, None),
        ("https://model.test", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://model.test", {"https_proxy": "http://q:1", "HTTPS_PROXY": "http://p:1"}, "http://q:1"),
        ("https://model.test", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("https://model.test", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://model.test", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://model.test", {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
        ("https://model.test", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://localhost", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://127.0.0.5", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://::1", {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://169.254.169.254", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://fd00:ec2::254", {"HTTP_PROXY": "http://p:1"}, None),
        *(
            ("https://a.model.test", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": exclusion}, expected)
            for exclusion, expected in [
                ("*", None),
                ("model.test", None),
                (".model.test", None),
                ("*.model.test", None),
                ("a.model.test:443", None),
                ("a.model.test:8443", "http://p:1"),
                ("other.test, model.test", None),
                ("odel.test", "http://p:1"),
                ("b.model.test", "http://p:1"),
                ("", "http://p:1"),
            ]
        ),
        ("https://10.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("https://10.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.1.2.3"}, None),
        ("https://11.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://p:1"),
    ],
)
def test_which_proxy_an_origin_has(url: str, environ: Mapping[str, str], expected: str | None) -> None:
    scheme, _, host = url.partition("://")

    assert proxy_for(Origin(scheme, host, 443 if scheme == "https" else 80), environ=environ) == expected


def test_the_sender_is_chosen_by_client_proxy_and_trust() -> None:
    environ = {"HTTPS_PROXY": "http://p:1"}

    assert isinstance(sender_for(ORIGIN, environ={}), Http11Sender)
    assert isinstance(sender_for(ORIGIN, environ=environ), HttpxSender)
    assert isinstance(sender_for(ORIGIN, environ=environ, trust_env=False), Http11Sender)
    assert isinstance(sender_for(ORIGIN, environ={}, http_client=httpx.AsyncClient()), HttpxSender)


async def test_choosing_a_sender_loads_neither_httpx_nor_certificates() -> None:
    code = (
        "import sys; from apex_llm.transport.select import sender_for; from apex_llm.types.http import Origin;"
        "sender_for(Origin('https', 'model.test', 443), environ={});"
        "print([name for name in ('httpx', 'httpx2', 'httpcore', 'pydantic', 'anyio') if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()

    assert output.strip() == b"[]"


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_client_whose_loop_has_ended_says_what_is_wrong(library: Any) -> None:
    """httpx keeps the connections of the first loop; what comes of that must not be a bare RuntimeError."""
    with threaded_server(answering(http_answer())) as server:
        client = library.AsyncClient(trust_env=False)
        sender = HttpxSender(client)

        async def call() -> bytes:
            return await (await sender(server.request())).read_all(limit=100)

        assert asyncio.run(call()) == b"hello"
        with pytest.raises(ConfigurationError, match="event loop"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            asyncio.run(call())
        gc_quietly(client, sender)


def gc_quietly(*kept: Any) -> None:
    """httpx cannot close sockets of a loop that has ended; that warning is about the caller's client."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for one in kept:
            one.__dict__.clear()
        gc.collect()


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("RemoteProtocolError", "<StreamReset stream_id:1, error_code:2, remote_reset:True>", "reset"),
        (
            "RemoteProtocolError",
            "<ConnectionTerminated error_code:0, last_stream_id:0, additional_data:None>",
            "closed",
        ),
        ("LocalProtocolError", "InvalidBodyLengthError: Expected 274 bytes, received 269", "short"),
    ],
)
async def test_ends_of_http_2_are_failed_connections_and_worth_a_retry(
    library: Any, name: str, text: str, kind: str
) -> None:
    """A load balancer that is drained says GOAWAY to every client, and means: come again."""

    def handle(request: Any) -> Any:
        raise getattr(library, name)(text)

    sender = HttpxSender(library.AsyncClient(transport=library.MockTransport(handle)), owns_client=True)

    with pytest.raises(ConnectionFailedError) as caught:
        await sender(request_to())

    assert (caught.value.kind, caught.value.retryable) == (kind, True)
    await sender.aclose()
