"""Connections: opened in time, lent out last-in first-out, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import multiprocessing
import os
import random
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from raw_server import RawConnection, RawServer, Serve, answering, http_answer, threaded_server

from apex_llm.errors import (
    ApexLlmError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidEndpointError,
    InvalidRequestError,
    RequestTimeoutError,
)
from apex_llm.transport import http11_pool, tls
from apex_llm.transport.http11_sender import Http11Sender
from apex_llm.transport.resolver import Address, Resolver
from apex_llm.types.http import HttpRequest, Origin, Timeout


async def call(sender: Http11Sender, request: HttpRequest) -> bytes:
    return await (await sender(request)).read_all(limit=1 << 20)


class Named:
    """The number of the connection, as the answer to each request on it."""

    def __init__(self, *, slow: float = 0.0) -> None:
        self.count = 0
        self.slow = slow

    async def __call__(self, connection: RawConnection) -> None:
        self.count += 1
        answer = http_answer(str(self.count).encode())
        while await connection.read_request() is not None:
            await asyncio.sleep(self.slow)
            await connection.send(answer)


async def test_connections_are_opened_a_few_at_a_time_and_waiting_for_a_turn_is_not_connecting(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of calls at once must not run out of time because of each other."""
    monkeypatch.setattr(http11_pool, "_MOST_AT_ONCE", 4)
    server = await serve(answering(http_answer(b"hello")))
    dialing, most = 0, 0

    async def resolve(host: str, port: int) -> Sequence[Address]:
        nonlocal dialing, most
        dialing += 1
        most = max(most, dialing)
        await asyncio.sleep(0.05)
        dialing -= 1
        return [(socket.AF_INET, ("127.0.0.1", port))]

    sender = Http11Sender(resolver=resolve)
    request = msgspec.structs.replace(server.request(), timeout=Timeout(connect=0.5, total=60))
    started = time.monotonic()
    calls = await asyncio.gather(*(call(sender, request) for _ in range(60)))

    assert set(calls) == {b"hello"}
    assert most == 4
    assert time.monotonic() - started > 0.5
    await sender.aclose()


async def test_the_connection_used_last_is_lent_first(serve: Serve) -> None:
    server = await serve(Named(slow=0.02))
    sender = Http11Sender()
    await asyncio.gather(*(call(sender, server.request()) for _ in range(5)))
    assert (sender.open_connections, sender.idle_connections) == (5, 5)

    used = {await call(sender, server.request()) for _ in range(10)}

    assert len(used) == 1
    await sender.aclose()
    assert sender.open_connections == 0


async def test_an_idle_connection_is_closed_when_its_time_is_over(serve: Serve) -> None:
    server = await serve(answering(http_answer()))
    sender = Http11Sender(keep_alive_seconds=0.05)
    await call(sender, server.request())
    assert sender.idle_connections == 1

    assert await server.drained()

    assert sender.open_connections == 0
    await sender.aclose()


async def test_a_connection_in_use_is_not_closed_by_its_idle_time(serve: Serve) -> None:
    server = await serve(Named(slow=0.2))
    sender = Http11Sender(keep_alive_seconds=0.05)

    assert await call(sender, server.request()) == b"1"

    await sender.aclose()


async def test_more_calls_than_connections_wait_in_line(serve: Serve) -> None:
    server = await serve(Named(slow=0.005))
    sender = Http11Sender(max_connections=3)

    answers = await asyncio.gather(*(call(sender, server.request()) for _ in range(30)))

    assert len(answers) == 30
    assert server.accepted == 3
    await sender.aclose()


async def test_waiting_in_line_ends_at_the_deadline_and_by_cancellation(serve: Serve) -> None:
    server = await serve(Named(slow=0.3))
    sender = Http11Sender(max_connections=1)
    loop = asyncio.get_running_loop()
    first = asyncio.ensure_future(call(sender, server.request()))
    await asyncio.sleep(0.02)
    cancelled = asyncio.ensure_future(call(sender, server.request()))
    with pytest.raises(RequestTimeoutError):
        await call(sender, server.request(deadline=loop.time() + 0.05))
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled

    assert await first == b"1"
    assert await call(sender, server.request()) == b"1"
    await sender.aclose()


async def test_a_connection_that_breaks_makes_room_for_the_next_in_line(serve: Serve) -> None:
    async def breaking(connection: RawConnection) -> None:
        await connection.read_request()
        if connection.server.accepted > 2:
            await connection.send(http_answer())

    server = await serve(breaking)
    sender = Http11Sender(max_connections=1)

    outcomes = await asyncio.gather(*(call(sender, server.request()) for _ in range(4)), return_exceptions=True)

    # The last one is handed a connection that is about to be closed, and gets a new one without a word.
    assert [type(outcome) for outcome in outcomes] == [ConnectionFailedError, ConnectionFailedError, bytes, bytes]
    await sender.aclose()


async def test_failed_connects_give_their_place_back(serve: Serve) -> None:
    server = await serve(answering(http_answer()))
    port = server.port
    sender = Http11Sender(max_connections=1)
    dead = HttpRequest(method="GET", origin=Origin("http", "127.0.0.1", 1), target="/")

    for _ in range(3):
        with pytest.raises(ConnectionFailedError):
            await call(sender, dead)

    assert await call(sender, server.request()) == b"hello"
    assert port == server.port
    await sender.aclose()


async def test_cancelling_a_call_whose_answer_has_come_does_not_break_the_next_one(serve: Serve) -> None:
    """Between the answer's last byte and the caller's turn, the connection may have been lent out again."""
    server = await serve(Named(slow=0.005))
    sender = Http11Sender(max_connections=1)

    async def first() -> None:
        await call(sender, server.request())

    for _ in range(20):
        task = asyncio.ensure_future(first())
        next_one = asyncio.ensure_future(call(sender, server.request()))
        while sender.open_connections == 0 or server.requests == []:
            await asyncio.sleep(0)
        pool = next(iter(sender._loops[asyncio.get_running_loop()].origins.values()))
        give_back = pool.give_back

        def cancelling(connection: Any, task: asyncio.Task[None] = task, give_back: Any = give_back) -> None:
            give_back(connection)
            task.cancel()

        for connection in pool._open:
            connection._on_idle = cancelling
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for connection in pool._open:
            connection._on_idle = give_back
        assert await next_one == b"1"
        server.requests.clear()
    await sender.aclose()


async def test_random_cancellations_leave_nothing_behind(serve: Serve) -> None:
    async def slow(connection: RawConnection) -> None:
        while await connection.read_request() is not None:
            await asyncio.sleep(random.random() * 0.01)
            await connection.send(http_answer(chunks=[b"x"] * 20), pieces=9)

    server = await serve(slow)
    sender = Http11Sender(max_connections=20)
    generator = random.Random(7)

    async def one(stream: bool) -> None:
        await call(sender, server.request(stream=stream))

    for _ in range(20):
        tasks = [asyncio.ensure_future(one(index % 2 == 0)) for index in range(40)]
        for task in tasks:
            asyncio.get_running_loop().call_later(generator.random() * 0.03, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)

    assert sender.open_connections == sender.idle_connections <= 20
    await asyncio.gather(*(one(False) for _ in range(40)))
    await sender.aclose()
    assert await server.drained()


# Names and addresses


def resolving(*addresses: str) -> Resolver:
    def lookup(host: str, port: int) -> Sequence[Address]:
        return [(socket.AF_INET6 if ":" in address else socket.AF_INET, (address, port)) for address in addresses]

    return Resolver(lookup)


async def test_a_dead_first_address_costs_less_than_a_second(serve: Serve) -> None:
    server = await serve(answering(http_answer()))
    black_hole = socket.socket()
    black_hole.bind(("127.0.0.2", server.port))
    black_hole.listen(0)
    plugs = [socket.socket() for _ in range(4)]
    for plug in plugs:
        plug.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            plug.connect(("127.0.0.2", server.port))
    sender = Http11Sender(resolver=resolving("127.0.0.2", "127.0.0.1"))
    started = time.monotonic()

    answer = await call(sender, server.request(origin=Origin("http", "two.example", server.port)))

    assert answer == b"hello"
    assert time.monotonic() - started < 1
    await sender.aclose()
    for plug in [*plugs, black_hole]:
        plug.close()


async def test_a_refusing_first_address_costs_nothing(serve: Serve) -> None:
    server = await serve(answering(http_answer()))
    sender = Http11Sender(resolver=resolving("127.0.0.3", "::1", "127.0.0.1"))
    started = time.monotonic()

    assert await call(sender, server.request(origin=Origin("http", "two.example", server.port))) == b"hello"

    assert time.monotonic() - started < 0.5
    await sender.aclose()


async def test_a_name_look_up_that_hangs_ends_at_the_connect_timeout_and_is_cancellable() -> None:
    release = threading.Event()

    def hanging(host: str, port: int) -> Sequence[Address]:
        release.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    sender = Http11Sender(resolver=Resolver(hanging))
    request = HttpRequest(
        method="GET", origin=Origin("http", "slow.example", 80), target="/", timeout=Timeout(connect=0.1)
    )
    started = time.monotonic()

    with pytest.raises(RequestTimeoutError) as caught:
        await sender(request)
    task = asyncio.ensure_future(sender(request))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert caught.value.phase == "connect"
    assert time.monotonic() - started < 1
    release.set()
    await asyncio.sleep(0.05)


def test_a_hanging_look_up_does_not_hold_the_end_of_asyncio_run() -> None:
    release = threading.Event()

    def hanging(host: str, port: int) -> Sequence[Address]:
        release.wait(10)
        return []

    async def main() -> None:
        request = HttpRequest(
            method="GET", origin=Origin("http", "slow.example", 80), target="/", timeout=Timeout(connect=0.05)
        )
        with pytest.raises(RequestTimeoutError):
            await Http11Sender(resolver=Resolver(hanging))(request)

    started = time.monotonic()
    asyncio.run(main())

    assert time.monotonic() - started < 2
    release.set()


async def test_many_calls_share_one_look_up(serve: Serve) -> None:
    server = await serve(answering(http_answer()))
    lookups = 0

    def lookup(host: str, port: int) -> Sequence[Address]:
        nonlocal lookups
        lookups += 1
        time.sleep(0.05)
        return [(socket.AF_INET, ("127.0.0.1", port))]

    sender = Http11Sender(resolver=Resolver(lookup))
    request = server.request(origin=Origin("http", "many.example", server.port))

    await asyncio.gather(*(call(sender, request) for _ in range(50)))

    assert lookups == 1
    await sender.aclose()


async def test_a_look_up_for_which_no_thread_can_be_started_is_told_and_done_by_the_next_call(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container that has used up its threads; nobody waits for a look-up that never began."""
    server = await serve(answering(http_answer()))
    sender = Http11Sender(resolver=Resolver(lambda host, port: [(socket.AF_INET, ("127.0.0.1", port))]))
    request = server.request(origin=Origin("http", "many.example", server.port))

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as shortage:
        shortage.setattr(threading.Thread, "start", none_left)
        for outcome in await asyncio.gather(*(call(sender, request) for _ in range(3)), return_exceptions=True):
            assert isinstance(outcome, ConnectionFailedError)
            assert "No thread could be started" in str(outcome)
    async with asyncio.timeout(5):
        assert await call(sender, request) == b"hello"

    await sender.aclose()


async def test_a_name_that_points_to_the_metadata_service_is_refused() -> None:
    """DNS is not ours: a name may be made to point anywhere."""
    sender = Http11Sender(resolver=resolving("169.254.169.254", "fe80::1"))
    request = HttpRequest(method="GET", origin=Origin("http", "rebound.example", 80), target="/")

    with pytest.raises(InvalidEndpointError):
        await sender(request)


async def test_only_allowed_addresses_of_a_name_are_used(serve: Serve) -> None:
    server = await serve(answering(http_answer()))
    sender = Http11Sender(resolver=resolving("169.254.169.254", "127.0.0.1"))

    assert await call(sender, server.request(origin=Origin("http", "mixed.example", server.port))) == b"hello"

    await sender.aclose()


@pytest.mark.parametrize("host", ["a b", "a\r\nx: y", "user@host", "host/path", ""])
async def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises((InvalidRequestError, ConnectionFailedError)):
        await Http11Sender()(HttpRequest(method="GET", origin=Origin("http", host, 80), target="/"))


async def test_a_time_out_of_the_operating_system_is_no_deadline_of_ours(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(answering(http_answer()))

    class TimingOut(socket.socket):
        def connect_ex(self, address: Any, /) -> int:
            return errno.ETIMEDOUT

    monkeypatch.setattr(socket, "socket", TimingOut)

    with pytest.raises(ConnectionFailedError) as caught:
        await call(Http11Sender(), server.request(timeout=Timeout(connect=None)))

    assert (caught.value.kind, caught.value.phase) == ("network", "connect")


def test_a_loop_that_cannot_watch_sockets_connects_in_its_own_way() -> None:
    """As that of Windows, which is told of what is done."""

    class Loop(asyncio.SelectorEventLoop):
        add_writer = asyncio.AbstractEventLoop.add_writer

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            origin = Origin("http", "127.0.0.1", listener.getsockname()[1])
            sender = Http11Sender()
            request = HttpRequest(method="GET", origin=origin, target="/")
            answer = asyncio.ensure_future(call(sender, request))
            loop = asyncio.get_running_loop()
            accepted, _ = await loop.sock_accept(listener)
            with accepted:
                await loop.sock_recv(accepted, 4096)
                await loop.sock_sendall(accepted, http_answer())
                assert await answer == b"hello"
            await sender.aclose()
        refused = msgspec.structs.replace(request, timeout=Timeout(connect=10))
        with pytest.raises(ConnectionFailedError) as caught:
            await Http11Sender()(refused)
        assert caught.value.kind == "refused"

    loop = Loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


async def test_a_connection_that_opens_while_its_sender_closes_is_not_kept(serve: Serve) -> None:
    server = await serve(answering(http_answer()))

    def slow_lookup(host: str, port: int) -> Sequence[Address]:
        time.sleep(0.05)
        return [(socket.AF_INET, ("127.0.0.1", port))]

    sender = Http11Sender(resolver=Resolver(slow_lookup))
    task = asyncio.ensure_future(call(sender, server.request(origin=Origin("http", "slow.example", server.port))))
    await asyncio.sleep(0.01)

    await sender.aclose()

    assert await task == b"hello"
    assert await server.drained()


# TLS


async def test_the_default_context_is_made_once_and_off_the_loop(
    serve: Serve, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    original = ssl.create_default_context

    def counting(*arguments: Any, **named: Any) -> ssl.SSLContext:
        made.append(threading.current_thread().name)
        return original(*arguments, **named)

    monkeypatch.setattr(ssl, "create_default_context", counting)
    tls.default_context.cache_clear()
    server = await serve(answering(http_answer()), tls=server_tls, host="localhost")
    sender, other = Http11Sender(), Http11Sender()

    for one in (sender, sender, other):
        outcomes = await asyncio.gather(*(call(one, server.request()) for _ in range(5)), return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, ConnectionFailedError)
            assert outcome.kind == "certificate"

    assert made == ["apex_llm-tls"]
    assert tls.default_context(tls.TrustRoots()).minimum_version == ssl.TLSVersion.TLSv1_2


async def test_own_roots_are_trusted(serve: Serve, server_tls: ssl.SSLContext, authority: Any, tmp_path: Any) -> None:
    bundle = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(bundle))
    server = await serve(answering(http_answer()), tls=server_tls, host="localhost")
    sender = Http11Sender(trust=tls.trust_roots({"AWS_CA_BUNDLE": str(bundle)}))

    assert await call(sender, server.request()) == b"hello"

    await sender.aclose()


async def test_roots_that_cannot_be_read_are_a_configuration_error() -> None:
    sender = Http11Sender(trust=tls.trust_roots({"SSL_CERT_FILE": "/nowhere/roots.pem"}))

    with pytest.raises(ConfigurationError, match=r"/nowhere/roots\.pem"):
        await sender(HttpRequest(method="GET", origin=Origin("https", "127.0.0.1", 9), target="/"))


async def test_an_old_tls_version_is_refused_for_good(authority: Any, client_tls: ssl.SSLContext) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve_once() -> None:  # asyncio's server drops the alert that says why
        accepted, _ = listener.accept()
        with contextlib.suppress(OSError), accepted, context.wrap_socket(accepted, server_side=True):
            pass

    thread = threading.Thread(target=serve_once)
    thread.start()
    origin = Origin("https", "localhost", listener.getsockname()[1])
    with pytest.raises(ConnectionFailedError) as caught:
        await call(Http11Sender(ssl_context=client_tls), HttpRequest(method="GET", origin=origin, target="/"))
    thread.join()
    listener.close()

    assert (caught.value.kind, caught.value.retryable) == ("tls", False)
    assert "version" in str(caught.value)


# Loops, threads and processes


def test_a_loop_that_ended_without_ceremony_leaves_no_warning() -> None:
    """No asyncio.run, so nobody finished the asynchronous generators; the sockets are closed all the same."""
    sender = Http11Sender()
    kept: list[Any] = []

    async def main() -> None:
        server = RawServer(answering(http_answer(chunks=[b"hello"])[:-5]))
        await server.start()
        whole = RawServer(answering(http_answer()))
        await whole.start()
        await call(sender, whole.request())
        kept.append(await sender(server.request(stream=True)))
        await server.stop()
        await whole.stop()

    for _ in range(2):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    sender.close()
    kept.clear()
    gc.collect()
    assert sender.open_connections == 0


def test_a_response_kept_beyond_its_loop_fails_in_a_typed_way() -> None:
    sender = Http11Sender()

    async def main() -> Any:
        async def starting(connection: RawConnection) -> None:
            await connection.read_request()
            await connection.send(http_answer(chunks=[b"hello"])[:-5])
            await connection.wait_closed_by_client()

        server = RawServer(starting)
        await server.start()
        response = await sender(server.request(stream=True))
        await response.read()
        await server.stop()
        return response

    response = asyncio.run(main())

    with pytest.raises(ApexLlmError):
        asyncio.run(response.read())
    response.close()


def test_a_response_may_be_closed_from_another_thread() -> None:
    async def main() -> None:
        async def starting(connection: RawConnection) -> None:
            await connection.read_request()
            await connection.send(http_answer(chunks=[b"hello"])[:-5])
            await connection.wait_closed_by_client()

        server = RawServer(starting)
        await server.start()
        sender = Http11Sender()
        response = await sender(server.request(stream=True))
        await response.read()
        thread = threading.Thread(target=response.close)
        thread.start()
        thread.join()
        assert await server.drained()
        await server.stop()

    asyncio.run(main())


def _in_child(sender: Http11Sender, port: int, number: int, answers: Any) -> None:
    async def main() -> list[bytes]:
        request = HttpRequest(
            method="POST", origin=Origin("http", "127.0.0.1", port), target="/", body=f"child {number}".encode()
        )
        return [await call(sender, request) for _ in range(20)]

    answers.put((number, asyncio.run(main())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_children_do_not_share_the_parents_connections() -> None:
    """Two processes on one connection would read each other's answers."""

    async def echo(connection: RawConnection) -> None:
        while (request := await connection.read_request()) is not None:
            await connection.send(http_answer(request.partition(b"\r\n\r\n")[2]))

    with threaded_server(echo) as server:
        sender = Http11Sender()
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        loop = asyncio.new_event_loop()

        async def several() -> list[bytes]:
            return await asyncio.gather(*(call(sender, server.request(body=b"parent")) for _ in range(4)))

        loop.run_until_complete(several())
        children = [
            context.Process(target=_in_child, args=(sender, server.port, number, answers)) for number in range(4)
        ]
        for child in children:
            child.start()
        parents = [answer for _ in range(20) for answer in loop.run_until_complete(several())]
        got = dict(answers.get(timeout=20) for _ in children)
        for child in children:
            child.join(10)
            assert child.exitcode == 0

        assert set(parents) == {b"parent"}
        assert got == {number: [f"child {number}".encode()] * 20 for number in range(4)}
        loop.run_until_complete(sender.aclose())
        loop.close()
