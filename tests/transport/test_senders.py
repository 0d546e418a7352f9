"""Both senders keep one contract: the same answers, the same errors, nothing left open.

Every test runs over ``Http11Sender`` and over ``HttpxSender`` with a client of httpx and of
httpx2, against a server that speaks raw bytes. Where httpx is more lenient on the wire, and does
not let us see it, the parametrisation says so.
"""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import httpx2
import pytest
import trustme
from raw_server import RawConnection, RawServer, Serve, answering, http_answer

from apex_llm.errors import (
    ApexLlmError,
    ConnectionFailedError,
    InvalidEndpointError,
    InvalidRequestError,
    LimitExceededError,
    ProtocolError,
    RequestTimeoutError,
)
from apex_llm.transport.http11_sender import Http11Sender
from apex_llm.transport.httpx_sender import HttpxSender
from apex_llm.types.http import HttpRequest, HttpResponse, Origin, Timeout

KINDS = ["http11", "httpx", "httpx2"]
Make = Callable[..., Any]


def build(kind: str, *, verify: ssl.SSLContext | bool = False) -> Any:
    match kind:
        case "httpx":
            return HttpxSender(httpx.AsyncClient(verify=verify, trust_env=False, limits=LIMITS), owns_client=True)
        case "httpx2":
            return HttpxSender(httpx2.AsyncClient(verify=verify, trust_env=False, limits=LIMITS2), owns_client=True)
        case _:
            return Http11Sender(ssl_context=verify if isinstance(verify, ssl.SSLContext) else None)


LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)
LIMITS2 = httpx2.Limits(max_connections=None, max_keepalive_connections=None)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def sender(kind: str) -> AsyncIterator[Any]:
    made = build(kind)
    yield made
    await made.aclose()


async def everything(response: HttpResponse) -> bytes:
    return await response.read_all(limit=1 << 30)


async def failure(awaitable: Any) -> ApexLlmError:
    """The typed error of a call, or of reading its body to the end."""
    try:
        response = await awaitable
        await everything(response)
    except ApexLlmError as error:
        return error
    raise AssertionError("the call succeeded")


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pieces", [None, 1, 7])
@pytest.mark.parametrize(
    ("answer", "close"),
    [
        (http_answer(b"hello world"), False),
        (http_answer(chunks=[b"hello", b" ", b"world"]), False),
        (HEAD + b"\r\nhello world", True),
        (HEAD + b"Connection: close\r\nContent-Length: 11\r\n\r\nhello world", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\nhello world", True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + http_answer(b"hello world"), False),
        (CHUNKED + b"b;name=value\r\nhello world\r\n0\r\nX-Trailer: 1\r\n\r\n", False),
    ],
    ids=["length", "chunked", "until-close", "close", "http10", "interim", "extension-and-trailer"],
)
async def test_a_body_arrives_whole_however_it_is_framed_and_cut(
    sender: Any, serve: Serve, answer: bytes, close: bool, pieces: int | None, stream: bool
) -> None:
    server = await serve(answering(answer, close=close, pieces=pieces))

    response = await sender(server.request(stream=stream))

    assert response.status == 200
    assert await everything(response) == b"hello world"
    assert await response.read() == b""


async def test_the_wire_carries_exactly_the_request(sender: Any, serve: Serve) -> None:
    """A signature covers the target and headers; what changes them on the way breaks it."""
    server = await serve(answering(http_answer()))
    target = "/model/us.anthropic.claude:0/arn%3Aaws%2Fx/converse?a=%20b&c=d%2Fe"

    await sender(server.request(target=target, headers=(("x-one", "1"), ("x-two", "é")), body=b'{"a": 1}'))

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == f"POST {target} HTTP/1.1".encode()
    assert body == b'{"a": 1}'
    fields = {line.partition(b":")[0].lower(): line.partition(b":")[2].strip() for line in lines[1:]}
    fields.pop(b"connection", None)
    assert fields == {
        b"host": f"127.0.0.1:{server.port}".encode(),
        b"x-one": b"1",
        b"x-two": "é".encode("latin-1"),
        b"accept-encoding": b"identity",
        b"content-length": b"8",
    }


async def test_a_get_has_neither_body_nor_length(sender: Any, serve: Serve) -> None:
    server = await serve(answering(http_answer()))

    await sender(server.request(method="GET", body=b""))

    assert b"content-length" not in server.requests[0].lower()


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": (("x-a", "1\r\nx-b: 2"),)},
        {"headers": (("x-a", "1\n"),)},
        {"headers": (("x-a", "\0"),)},
        {"headers": (("x-a", "→"),)},
        {"headers": (("x a", "1"),)},
        {"headers": (("x-a:", "1"),)},
        {"headers": (("", "1"),)},
        {"headers": (("transfer-encoding", "chunked"),)},
        {"target": "/a b"},
        {"target": "/a\r\nx: y"},
        {"target": "/é"},
        {"target": "http://elsewhere/"},
        {"target": ""},
        {"method": "GET /x HTTP/1.1\r\n"},
    ],
)
async def test_what_could_write_a_second_header_is_refused_before_a_byte_is_sent(
    sender: Any, serve: Serve, fields: dict[str, Any]
) -> None:
    server = await serve(answering(http_answer()))

    with pytest.raises(InvalidRequestError):
        await sender(server.request(**fields))

    assert server.accepted == 0


async def test_headers_come_in_order_and_in_lower_case(sender: Any, serve: Serve) -> None:
    server = await serve(answering(http_answer(headers="X-A: 1\r\nx-a: 2\r\nX-B: \xe9\r\n")))

    response = await sender(server.request())

    assert [pair for pair in response.headers if pair[0].startswith("x-")][:2] == [("x-a", "1"), ("x-a", "2")]
    assert response.headers.get("X-A") == "1, 2"


async def test_connections_are_used_again(sender: Any, serve: Serve) -> None:
    server = await serve(answering(http_answer(), http_answer(chunks=[b"a", b"b"])))

    for index in range(6):
        response = await sender(server.request(stream=index % 2 == 0))
        await everything(response)

    assert server.accepted == 1


async def test_a_hundred_calls_at_once_get_their_own_answers(sender: Any, serve: Serve) -> None:
    async def echo(connection: RawConnection) -> None:
        while (request := await connection.read_request()) is not None:
            await connection.send(http_answer(request.partition(b"\r\n\r\n")[2]))

    server = await serve(echo)

    async def call(index: int) -> None:
        body = f"call {index}".encode()
        assert await everything(await sender(server.request(body=body, stream=index % 2 == 0))) == body

    for _ in range(2):
        await asyncio.gather(*(call(index) for index in range(100)))

    if isinstance(sender, Http11Sender):
        # httpx may open one more: it drops connections by its own clock.
        assert server.accepted <= 100


@pytest.mark.parametrize("status", ["301 Moved", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirect_is_returned_and_never_followed(sender: Any, serve: Serve, status: str) -> None:
    other = await serve(answering(http_answer()))
    server = await serve(answering(http_answer(status=status, headers=f"Location: {other.origin.url}/\r\n")))

    response = await sender(server.request())

    assert response.status == int(status[:3])
    assert other.accepted == 0


STRICT_ONLY = {
    "interim": "h11 reads any number of interim answers, and httpx does not show them",
    "trailers": "h11 drops trailers unread; their size is bounded only by its buffer",
    "extension": "h11 skips chunk extensions unseen",
    "terminator-lf": "h11 accepts a bare line feed after a chunk size",
    "bare-lf": "h11 accepts bare line feeds in heads",
    "fold": "h11 unfolds continuation lines",
    "two-equal-lengths": "h11 accepts a repeated length if both are equal",
    "chunk-size-huge": "h11 takes sizes of twenty digits, and waits for that many bytes",
}


@pytest.mark.parametrize("pieces", [None, 11])
@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        (
            "length-and-chunked",
            HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ProtocolError,
        ),
        (
            "chunked-and-length",
            HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            ProtocolError,
        ),
        ("two-lengths", HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", ProtocolError),
        ("two-equal-lengths", HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", ProtocolError),
        ("negative-length", HEAD + b"Content-Length: -5\r\n\r\nhello", ProtocolError),
        ("chunk-end", CHUNKED + b"5\r\nhelloXX0\r\n\r\n", ProtocolError),
        ("terminator-lf", CHUNKED + b"5\nhello\r\n0\r\n\r\n", ProtocolError),
        ("chunk-size", CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", ProtocolError),
        ("chunk-size-huge", CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", ApexLlmError),
        ("bare-lf", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", ProtocolError),
        ("fold", HEAD + b"X-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello", ProtocolError),
        ("space-before-colon", HEAD + b"X-A : b\r\nContent-Length: 5\r\n\r\nhello", ProtocolError),
        ("chunked-gzip", HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ProtocolError),
        ("gzip-chunked", HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ProtocolError),
        ("gzip", HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", ProtocolError),
        ("switch", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello", ProtocolError),
        ("not-http", b"SSH-2.0-OpenSSH_9.6\r\nmore\r\n\r\n", ProtocolError),
        ("headers", HEAD + b"X: y\r\n" * 201 + b"Content-Length: 0\r\n\r\n", LimitExceededError),
        ("interim", b"HTTP/1.1 103 E\r\n\r\n" * 21 + http_answer(), LimitExceededError),
        ("head-line", HEAD + b"X-A: " + b"a" * 200_000, LimitExceededError),
        ("head", HEAD + b"X-A: " + b"a" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n", LimitExceededError),
        ("trailers", CHUNKED + b"5\r\nhello\r\n0\r\n" + b"X-Trailer: 1\r\n" * 700 + b"\r\n", LimitExceededError),
        ("extension", CHUNKED + b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n", LimitExceededError),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_answer_that_breaks_http_is_refused_and_its_connection_closed(
    sender: Any, kind: str, serve: Serve, name: str, answer: bytes, expected: type[ApexLlmError], pieces: int | None
) -> None:
    if kind != "http11" and name in STRICT_ONLY:
        pytest.skip(STRICT_ONLY[name])

    async def handle(connection: RawConnection) -> None:
        if await connection.read_request() is not None:
            await connection.send(answer, pieces=pieces if len(answer) < 20_000 else None)
            await connection.wait_closed_by_client()

    server = await serve(handle)
    for stream in (False, True):
        error = await failure(sender(server.request(stream=stream)))

        assert isinstance(error, expected), error
        assert not error.retryable or not isinstance(error, ProtocolError)
    assert await server.drained()


async def test_events_before_the_damage_are_given_out_first(serve: Serve) -> None:
    server = await serve(answering(CHUNKED + b"5\r\nhello\r\n5\r\nworldXX"))
    sender = Http11Sender()

    response = await sender(server.request(stream=True))

    assert await response.read() == b"helloworld"
    with pytest.raises(ProtocolError):
        await response.read()
    with pytest.raises(ProtocolError):
        await response.read()
    await sender.aclose()


async def test_a_second_answer_glued_to_the_first_is_never_seen(serve: Serve) -> None:
    """Http11Sender only: httpx keeps the bytes, and gives them out as the next request's answer."""
    sender = Http11Sender()

    async def handle(connection: RawConnection) -> None:
        first = connection.server.accepted == 1
        while await connection.read_request() is not None:
            await connection.send(http_answer(b"first") + http_answer(b"poison") if first else http_answer(b"second"))
            first = False

    server = await serve(handle)

    assert await everything(await sender(server.request())) == b"first"
    assert await everything(await sender(server.request())) == b"second"
    assert server.accepted == 2
    await sender.aclose()


async def test_bytes_on_an_idle_connection_close_it(sender: Any, serve: Serve) -> None:
    said = asyncio.Event()

    async def handle(connection: RawConnection) -> None:
        first = connection.server.accepted == 1
        while await connection.read_request() is not None:
            await connection.send(http_answer(b"first" if first else b"second"))
            if first:
                await asyncio.sleep(0.05)
                await connection.send(http_answer(b"poison"))
                said.set()

    server = await serve(handle)

    assert await everything(await sender(server.request())) == b"first"
    await said.wait()
    await asyncio.sleep(0.05)
    assert await everything(await sender(server.request())) == b"second"


async def test_a_connection_that_the_server_closed_while_idle_costs_no_attempt(sender: Any, serve: Serve) -> None:
    server = await serve(answering(http_answer(), close=True))

    for _ in range(3):
        await everything(await sender(server.request()))
        await asyncio.sleep(0.02)

    assert len(server.requests) == 3


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_stale_connection_that_breaks_on_use_is_replaced_once(serve: Serve, how: str) -> None:
    """Http11Sender only: httpx looks whether the socket is readable, and loses the race when it is not yet."""

    async def handle(connection: RawConnection) -> None:
        first = connection.server.accepted == 1
        while await connection.read_request() is not None:
            if first and len(connection.server.requests) == 2:
                if how == "rst":
                    connection.reset()
                return
            await connection.send(http_answer())

    server = await serve(handle)
    sender = Http11Sender()

    for _ in range(3):
        assert await everything(await sender(server.request())) == b"hello"

    assert server.accepted == 2
    assert len(server.requests) == 4
    await sender.aclose()


async def test_a_fresh_connection_that_breaks_is_not_replaced(sender: Any, serve: Serve) -> None:
    async def handle(connection: RawConnection) -> None:
        await connection.read_request()

    server = await serve(handle)

    error = await failure(sender(server.request()))

    assert isinstance(error, ConnectionFailedError)
    assert error.kind == "closed"
    assert error.phase == "head"
    assert error.retryable
    assert server.accepted == 1


async def cut_after(connection: RawConnection, data: bytes, how: str) -> None:
    if await connection.read_request() is not None:
        await connection.send(data)
        await asyncio.sleep(0.03)
        if how == "rst":
            connection.reset()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("data", "how", "kinds", "phase"),
    [
        (b"", "rst", {"reset"}, "head"),
        (HEAD + b"Content-Le", "rst", {"reset"}, "head"),
        (HEAD + b"Content-Le", "fin", {"closed"}, "head"),
        (HEAD + b"Content-Length: 10\r\n\r\nhello", "fin", {"short"}, "body"),
        (HEAD + b"Content-Length: 10\r\n\r\nhello", "rst", {"reset"}, "body"),
        (CHUNKED + b"5\r\nhello\r\n", "fin", {"closed"}, "body"),
        (CHUNKED + b"5\r\nhel", "fin", {"closed"}, "body"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", "fin", {"closed"}, "body"),
        (CHUNKED + b"5\r\nhello\r\n", "rst", {"reset"}, "body"),
        (HEAD + b"\r\nhello", "rst", {"reset"}, "body"),
    ],
)
async def test_a_broken_connection_says_how_and_where_it_broke(
    sender: Any, serve: Serve, data: bytes, how: str, kinds: set[str], phase: str, stream: bool
) -> None:
    server = await serve(lambda connection: cut_after(connection, data, how))

    error = await failure(sender(server.request(stream=stream)))

    assert isinstance(error, ConnectionFailedError), error
    assert error.kind in kinds
    assert error.phase == phase
    assert error.retryable


async def test_what_arrived_before_the_cut_is_read_first(sender: Any, serve: Serve) -> None:
    server = await serve(lambda connection: cut_after(connection, CHUNKED + b"5\r\nhello\r\n", "fin"))

    response = await sender(server.request(stream=True))

    assert await response.read() == b"hello"
    with pytest.raises(ConnectionFailedError):
        await response.read()


async def test_a_refused_connection_is_told_as_such(sender: Any, serve: Serve) -> None:
    server = await serve(answering(http_answer()))
    request = server.request()
    await server.stop()

    error = await failure(sender(request))

    assert isinstance(error, ConnectionFailedError)
    assert (error.kind, error.phase, error.retryable) == ("refused", "connect", True)


async def test_a_name_that_does_not_exist_is_told_as_such(sender: Any) -> None:
    request = HttpRequest(method="GET", origin=Origin("http", "nothing.invalid", 80), target="/")

    error = await failure(sender(request))

    assert isinstance(error, ConnectionFailedError)
    assert (error.kind, error.phase, error.retryable) == ("dns", "connect", True)
    assert "nothing.invalid" in str(error)


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "::ffff:169.254.169.254"])
async def test_metadata_addresses_are_no_model_endpoints(sender: Any, host: str) -> None:
    request = HttpRequest(method="GET", origin=Origin("http", host, 80), target="/", timeout=Timeout(connect=0.5))

    with pytest.raises(InvalidEndpointError):
        await sender(request)


async def silent(connection: RawConnection) -> None:
    await connection.read_request()
    await connection.wait_closed_by_client()


async def starting(connection: RawConnection) -> None:
    if await connection.read_request() is not None:
        await connection.send(CHUNKED + b"5\r\nhello\r\n")
        await connection.wait_closed_by_client()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_deadline_holds_while_the_head_is_awaited(sender: Any, serve: Serve, stream: bool) -> None:
    server = await serve(silent)
    started = time.monotonic()

    with pytest.raises(RequestTimeoutError) as caught:
        await sender(server.request(stream=stream, deadline=asyncio.get_running_loop().time() + 0.1))

    assert caught.value.phase == "total"
    assert 0.08 < time.monotonic() - started < 1
    assert await server.drained()


async def test_the_deadline_holds_while_the_body_is_awaited(sender: Any, serve: Serve) -> None:
    server = await serve(starting)

    with pytest.raises(RequestTimeoutError) as caught:
        await sender(server.request(deadline=asyncio.get_running_loop().time() + 0.1))

    assert caught.value.phase == "total"
    assert await server.drained()


async def test_without_a_deadline_the_total_timeout_holds(sender: Any, serve: Serve) -> None:
    server = await serve(silent)

    with pytest.raises(RequestTimeoutError) as caught:
        await sender(server.request(timeout=Timeout(total=0.1)))

    assert caught.value.phase == "total"


async def test_a_deadline_that_has_passed_sends_nothing(sender: Any, serve: Serve) -> None:
    server = await serve(answering(http_answer()))

    with pytest.raises(RequestTimeoutError):
        await sender(server.request(deadline=asyncio.get_running_loop().time() - 1))

    assert server.accepted == 0


async def test_the_first_byte_of_a_stream_has_its_own_deadline(sender: Any, serve: Serve) -> None:
    server = await serve(silent)

    with pytest.raises(RequestTimeoutError) as caught:
        await sender(server.request(stream=True, timeout=Timeout(first_byte=0.1)))

    assert caught.value.phase == "head"
    assert await server.drained()


async def test_deadlines_begin_as_the_request_has_them(sender: Any, serve: Serve) -> None:
    """And that of the first byte at the earliest when it is sent: what comes before has times of its own."""
    server = await serve(starting)
    began = asyncio.get_running_loop().time()
    deadline = began + 50

    response = await sender(server.request(stream=True, deadline=deadline, timeout=Timeout(first_byte=30)))

    assert response.deadline == deadline
    assert 30 <= response.read_deadline - began < 40
    response.close()
    assert await server.drained()


async def test_a_call_that_is_not_streamed_has_no_first_byte_deadline(sender: Any, serve: Serve) -> None:
    async def slow(connection: RawConnection) -> None:
        await connection.read_request()
        await asyncio.sleep(0.2)
        await connection.send(http_answer())

    server = await serve(slow)

    response = await sender(server.request(timeout=Timeout(first_byte=0.05)))

    assert await everything(response) == b"hello"


async def test_a_read_deadline_interrupts_a_waiting_read(sender: Any, serve: Serve) -> None:
    server = await serve(starting)
    response = await sender(server.request(stream=True))
    assert await response.read() == b"hello"

    response.read_deadline = asyncio.get_running_loop().time() + 0.1
    with pytest.raises(RequestTimeoutError) as caught:
        await response.read()

    assert caught.value.phase == "idle"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await server.drained()
    with pytest.raises(RequestTimeoutError):
        await response.read()


async def test_a_read_deadline_counts_only_while_somebody_waits(sender: Any, serve: Serve) -> None:
    """A consumer that takes its time is not the server's fault."""

    async def two(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(CHUNKED + b"5\r\nhello\r\n")
        await asyncio.sleep(0.3)
        await connection.send(b"5\r\nworld\r\n0\r\n\r\n")

    server = await serve(two)
    response = await sender(server.request(stream=True))
    response.read_deadline = asyncio.get_running_loop().time() + 0.1
    assert await response.read() == b"hello"

    await asyncio.sleep(0.2)
    response.read_deadline = asyncio.get_running_loop().time() + 5

    assert await everything(response) == b"world"


async def test_a_read_deadline_can_be_moved_while_a_read_waits(sender: Any, serve: Serve) -> None:
    server = await serve(starting)
    response = await sender(server.request(stream=True))
    await response.read()
    response.read_deadline = asyncio.get_running_loop().time() + 30
    reading = asyncio.ensure_future(response.read())
    await asyncio.sleep(0.01)

    response.read_deadline = asyncio.get_running_loop().time() + 0.05
    with pytest.raises(RequestTimeoutError):
        await reading


async def test_the_deadline_closes_a_stream_that_nobody_reads(sender: Any, serve: Serve) -> None:
    server = await serve(starting)
    response = await sender(server.request(stream=True))
    released: list[bool] = []
    response.add_release(lambda: released.append(True))

    response.deadline = asyncio.get_running_loop().time() + 0.05

    assert await server.drained()
    assert released == [True]
    with pytest.raises(RequestTimeoutError) as caught:
        await response.read()
    assert caught.value.phase == "total"


async def test_the_deadline_can_be_put_off(sender: Any, serve: Serve) -> None:
    async def two(connection: RawConnection) -> None:
        await connection.read_request()
        await connection.send(CHUNKED)
        await asyncio.sleep(0.3)
        await connection.send(b"5\r\nworld\r\n0\r\n\r\n")

    server = await serve(two)
    response = await sender(server.request(stream=True, deadline=asyncio.get_running_loop().time() + 0.15))

    response.deadline = asyncio.get_running_loop().time() + 10

    assert await everything(response) == b"world"


@pytest.mark.parametrize("phase", ["head", "body", "held body"])
async def test_a_cancelled_call_leaves_no_connection(sender: Any, serve: Serve, phase: str) -> None:
    server = await serve(silent if phase == "head" else starting)

    async def call() -> None:
        response = await sender(server.request(stream=phase != "held body"))
        await everything(response)

    task = asyncio.ensure_future(call())
    await asyncio.sleep(0.1)
    task.cancel("by the test")
    with pytest.raises(asyncio.CancelledError):
        await task

    assert task.cancelled()
    assert await server.drained()
    if isinstance(sender, Http11Sender):
        assert sender.open_connections == 0


async def test_release_callbacks_run_once_when_a_body_ends(sender: Any, serve: Serve) -> None:
    server = await serve(answering(http_answer()))
    calls: list[str] = []

    streamed = await sender(server.request(stream=True))
    streamed.add_release(lambda: calls.append("streamed"))
    await everything(streamed)
    streamed.close()
    held = await sender(server.request())
    held.add_release(lambda: calls.append("held"))

    assert calls == ["streamed", "held"]


async def test_a_closed_response_closes_its_connection_and_reads_no_more(sender: Any, serve: Serve) -> None:
    server = await serve(starting)
    response = await sender(server.request(stream=True))
    calls: list[str] = []
    response.add_release(lambda: calls.append("released"))

    response.close()
    response.close()

    assert calls == ["released"]
    assert await server.drained()
    with pytest.raises(ConnectionFailedError):
        await response.read()


async def test_a_response_that_is_dropped_closes_its_connection(sender: Any, serve: Serve) -> None:
    server = await serve(starting)
    response = await sender(server.request(stream=True))
    await response.read()
    assert server.open == 1

    del response
    gc.collect()

    assert await server.drained()


async def test_a_body_larger_than_allowed_is_not_read_on(sender: Any, serve: Serve) -> None:
    server = await serve(answering(http_answer(b"x" * 30_000_000)))

    response = await sender(server.request())
    with pytest.raises(LimitExceededError):
        await response.read_all(limit=1_000_000)

    assert await server.drained()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_slow_consumer_slows_the_server_down(sender: Any, serve: Serve, stream: bool) -> None:
    """Memory stays bounded: what is not read stays with the server."""
    sent = 0

    async def flood(connection: RawConnection) -> None:
        nonlocal sent
        await connection.read_request()
        connection.writer.write(HEAD + b"Content-Length: 67108864\r\n\r\n")
        for _ in range(1024):
            connection.writer.write(b"x" * 65536)
            await connection.writer.drain()
            sent += 65536

    server = await serve(flood)
    response = await sender(server.request(stream=stream))
    await response.read()
    await asyncio.sleep(0.3)

    # What the kernel's buffers hold on both sides, and ours.
    assert sent < 24 * 1024 * 1024
    total = 0
    while data := await response.read():
        total += len(data)
    assert total > 40 * 1024 * 1024


@pytest.mark.parametrize("chunk", [1, 100])
async def test_very_many_small_chunks_cost_linear_time(serve: Serve, chunk: int) -> None:
    count = 200_000
    framed = (b"%x\r\n" % chunk + b"x" * chunk + b"\r\n") * count
    server = await serve(answering(CHUNKED + framed + b"0\r\n\r\n"))
    sender = Http11Sender()
    started = time.process_time()

    response = await sender(server.request())

    assert len(await everything(response)) == count * chunk
    assert time.process_time() - started < 5
    await sender.aclose()


# TLS


@pytest.fixture(params=KINDS)
async def tls_sender(request: pytest.FixtureRequest, client_tls: ssl.SSLContext) -> AsyncIterator[Any]:
    made = build(request.param, verify=client_tls)
    yield made
    await made.aclose()


async def test_calls_over_tls_work_and_reuse_the_connection(
    tls_sender: Any, serve: Serve, server_tls: ssl.SSLContext
) -> None:
    server = await serve(answering(http_answer(), http_answer(chunks=[b"a"] * 1000)), tls=server_tls, host="localhost")

    assert await everything(await tls_sender(server.request())) == b"hello"
    assert await everything(await tls_sender(server.request(stream=True))) == b"a" * 1000
    assert server.accepted == 1


async def test_a_certificate_for_another_host_is_refused_before_a_byte_is_sent(
    tls_sender: Any, serve: Serve, authority: trustme.CA
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    server = await serve(answering(http_answer()), tls=context, host="localhost")

    error = await failure(tls_sender(server.request()))

    assert isinstance(error, ConnectionFailedError)
    assert (error.kind, error.phase, error.retryable) == ("certificate", "connect", False)
    assert server.requests == []


async def test_an_unknown_authority_is_refused(tls_sender: Any, serve: Serve) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server = await serve(answering(http_answer()), tls=context, host="localhost")

    error = await failure(tls_sender(server.request()))

    assert isinstance(error, ConnectionFailedError)
    assert (error.kind, error.retryable) == ("certificate", False)


async def test_tls_to_a_plain_port_is_not_worth_another_try(tls_sender: Any, serve: Serve) -> None:
    async def plain(connection: RawConnection) -> None:
        await connection.reader.read(100)
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await serve(plain)
    request = server.request(origin=Origin("https", "localhost", server.port))

    error = await failure(tls_sender(request))

    assert isinstance(error, ConnectionFailedError)
    assert (error.kind, error.retryable) == ("tls", False)


async def test_a_handshake_that_stalls_ends_at_the_connect_timeout(tls_sender: Any, serve: Serve) -> None:
    server = await serve(silent)
    request = server.request(origin=Origin("https", "localhost", server.port), timeout=Timeout(connect=0.2))

    with pytest.raises(RequestTimeoutError) as caught:
        await tls_sender(request)

    assert caught.value.phase == "connect"
    assert caught.value.retryable
    assert await server.drained()


async def test_a_call_cancelled_during_the_handshake_leaves_no_connection(
    client_tls: ssl.SSLContext, serve: Serve
) -> None:
    """Http11Sender only: httpcore does not close the socket when a handshake is cancelled."""
    tls_sender = build("http11", verify=client_tls)
    server = await serve(silent)
    request = server.request(origin=Origin("https", "localhost", server.port))
    task = asyncio.ensure_future(tls_sender(request))
    await asyncio.sleep(0.1)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await server.drained()


# Loops


@pytest.mark.parametrize("kind", ["http11", "httpx by factory"])
@pytest.mark.parametrize("uvloop", [False, True])
def test_one_sender_serves_one_asyncio_run_after_another(kind: str, uvloop: bool) -> None:
    async def make() -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=False, trust_env=False)

    sender: Any = Http11Sender() if kind == "http11" else HttpxSender(client_factory=make)

    async def call() -> None:
        server = RawServer(answering(http_answer()))
        await server.start()
        for stream in (False, True):
            assert await everything(await sender(server.request(stream=stream))) == b"hello"
        kept = await sender(server.request(stream=True))
        assert kept.status == 200
        await server.stop()

    if uvloop:
        if sys.platform == "win32":
            pytest.skip("uvloop does not run on Windows")
        import uvloop as other

        for _ in range(3):
            with asyncio.Runner(loop_factory=other.new_event_loop) as runner:
                runner.run(call())
    else:
        for _ in range(3):
            asyncio.run(call())
    gc.collect()
