"""Fixtures around the raw server, and certificates that nobody else trusts."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import pytest
import trustme
from raw_server import Handler, RawServer, Serve


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """``server = await serve(handler, tls=…)``; stopped when the test ends."""
    servers: list[RawServer] = []

    async def start(handler: Handler, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> RawServer:
        server = RawServer(handler, tls=tls, host=host)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
