"""Rows 1 to 8: names, addresses and TLS. What strikes before a request needs no wire: bedrock stands for both."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import trustme
from fault_cases import QUICK, Column, served_with

import apex_llm
import apex_llm.sync
from apex_llm import ConnectionFailedError, RequestTimeoutError, Timeout
from apex_llm.emulator import Emulator, FaultPort
from apex_llm.transport.http11_sender import Http11Sender
from apex_llm.transport.resolver import Resolver
from apex_llm.transport.tls import TrustRoots, default_context
from apex_llm.types.http import HttpRequest, Origin

WAYS = [
    Column(twin, sender, "bedrock") for twin, sender in (("async", "http11"), ("async", "httpx"), ("sync", "http11"))
]


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Column:
    return request.param


def call(way: Column, url: str, *, tls: ssl.SSLContext | None = None, text: str = "Hi", **arguments: Any) -> str:
    """One unstreamed call to ``url``, by the twin and sender of ``way``."""
    arguments = {"endpoint_url": url, "default_model": "claude", "retry": QUICK, "allow_insecure": True, **arguments}
    if way.twin == "sync":
        with apex_llm.sync.BedrockProvider(ssl_context=tls, **arguments) as provider:
            return provider.generate_text(text)

    async def run() -> str:
        client = httpx.AsyncClient(trust_env=False, verify=tls or True) if way.sender == "httpx" else None
        try:
            async with apex_llm.BedrockProvider(http_client=client, ssl_context=tls, **arguments) as provider:
                return await provider.generate_text(text)
        finally:
            if client is not None:
                await client.aclose()

    return asyncio.run(run())


@pytest.mark.usefixtures("emulator")
def test_row_01_a_name_that_is_not_found_is_looked_up_again_for_each_attempt(
    way: Column, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def lookup(host: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(ConnectionFailedError) as caught:
        call(way, "http://model.test:9")

    error = caught.value
    assert (error.kind, error.retryable, error.attempts, len(asked)) == ("dns", True, 3, 3)


@pytest.mark.usefixtures("emulator")
def test_row_02_a_look_up_that_hangs_is_bounded_and_can_be_cancelled(
    way: Column, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def lookup(*arguments: Any, **options: Any) -> Any:
        # httpx looks names up in the loop's own executor, which asyncio.run waits for: so not for ever.
        released.wait(1.5 if way.sender == "httpx" else 60)
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    began = time.monotonic()
    with pytest.raises(RequestTimeoutError) as caught:
        call(way, "http://model.test:9", timeout=Timeout(connect=0.1), retry=None)
    released.set()

    assert caught.value.phase == "connect"
    assert time.monotonic() - began < 10


def test_row_02_a_cancelled_look_up_leaves_at_once() -> None:
    released = threading.Event()

    def lookup(host: str, port: int) -> Any:
        released.wait(60)
        return []

    async def run() -> float:
        sender = Http11Sender(resolver=Resolver(lookup))
        task = asyncio.create_task(
            sender(HttpRequest(method="GET", origin=Origin("http", "model.test", 9), target="/"))
        )
        await asyncio.sleep(0.05)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(run()) < 1
    released.set()


@pytest.mark.usefixtures("emulator")
def test_row_03_a_refused_connection_is_tried_three_times(way: Column) -> None:
    with FaultPort("refused") as port, pytest.raises(ConnectionFailedError) as caught:
        call(way, port.url)

    assert (caught.value.kind, caught.value.attempts) == ("refused", 3)


@pytest.mark.usefixtures("emulator")
def test_row_03_a_connection_that_is_reset_when_it_is_made_is_tried_three_times(way: Column) -> None:
    with FaultPort("reset-on-connect") as port, pytest.raises(ConnectionFailedError) as caught:
        call(way, port.url)

    assert caught.value.kind in {"reset", "closed"}
    assert caught.value.attempts == 3


@pytest.mark.usefixtures("emulator")
def test_row_04_a_black_hole_is_left_at_the_connect_timeout(way: Column) -> None:
    with FaultPort("black-hole") as port:
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError) as caught:
            call(way, port.url, timeout=Timeout(connect=0.3), retry=None)

    assert caught.value.phase == "connect"
    assert 0.2 < time.monotonic() - began < 3


def test_row_05_a_dead_first_address_costs_little(
    way: Column, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address swallows what is sent to it; the second one is the emulator."""
    real = socket.getaddrinfo
    port = int(emulator.url.rpartition(":")[2])
    with FaultPort("black-hole", host="127.0.0.2", port=port):

        def lookup(host: Any, *arguments: Any, **options: Any) -> Any:
            if host not in {"model.test", b"model.test"}:
                return real(host, *arguments, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        began = time.monotonic()
        emulator.script("Alive.")
        assert call(way, f"http://model.test:{port}") == "Alive."
        assert time.monotonic() - began < 3


@pytest.mark.usefixtures("emulator")
def test_row_06_tls_to_a_plain_port_is_no_transient_failure(way: Column, client_tls: ssl.SSLContext) -> None:
    with FaultPort("plain-answer-to-tls") as port:
        with pytest.raises(ConnectionFailedError) as caught:
            call(way, port.url, tls=client_tls)
        assert port.connections == 1

    assert (caught.value.kind, caught.value.retryable) == ("tls", False)


@pytest.mark.usefixtures("emulator")
def test_row_06_a_handshake_without_an_answer_is_left_at_the_connect_timeout(
    way: Column, client_tls: ssl.SSLContext
) -> None:
    with FaultPort("silent-handshake") as port, pytest.raises(RequestTimeoutError) as caught:
        call(way, port.url, tls=client_tls, timeout=Timeout(connect=0.3), retry=None)

    assert caught.value.phase == "connect"


@pytest.fixture
def tls_emulator(request: pytest.FixtureRequest, authority: trustme.CA, emulator: Emulator) -> Iterator[Emulator]:
    match request.param:
        case "expired":
            past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
            certificate = authority.issue_cert("localhost", "127.0.0.1", not_before=past, not_after=past)
        case "wrong host":
            certificate = authority.issue_cert("elsewhere.test")
        case "unknown authority" | "self-signed":
            certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
        case _:
            certificate = authority.issue_cert("localhost", "127.0.0.1")
    with Emulator(ssl_context=served_with(certificate), fault_seed=1) as running:
        yield running


@pytest.mark.parametrize("tls_emulator", ["good"], indirect=True)
def test_rows_07_calls_and_faults_work_over_tls(
    way: Column, tls_emulator: Emulator, client_tls: ssl.SSLContext
) -> None:
    assert tls_emulator.url.startswith("https://")
    tls_emulator.fault("close-in-head")
    tls_emulator.script("Sealed.")

    assert call(way, tls_emulator.url, tls=client_tls) == "Sealed."
    assert len(tls_emulator.requests) == 2


@pytest.mark.parametrize("tls_emulator", ["expired", "wrong host", "unknown authority"], indirect=True)
def test_row_07_a_certificate_that_is_not_the_hosts_ends_the_call_before_a_request_byte(
    way: Column, tls_emulator: Emulator, client_tls: ssl.SSLContext
) -> None:
    with pytest.raises(ConnectionFailedError) as caught:
        call(way, tls_emulator.url, tls=client_tls)

    error = caught.value
    assert (error.kind, error.retryable, error.attempts) == ("certificate", False, 1)
    assert tls_emulator.requests == []


@pytest.mark.usefixtures("emulator")
def test_row_08_a_server_that_offers_only_old_tls_is_refused(way: Column, client_tls: ssl.SSLContext) -> None:
    with FaultPort("old-tls-only") as port, pytest.raises(ConnectionFailedError) as caught:
        call(way, port.url, tls=client_tls)

    assert (caught.value.kind, caught.value.retryable, caught.value.attempts) == ("tls", False, 1)
    assert "TLS version" in str(caught.value)


def test_row_08_our_own_context_offers_nothing_older_than_tls_1_2() -> None:
    assert default_context(TrustRoots()).minimum_version >= ssl.TLSVersion.TLSv1_2
