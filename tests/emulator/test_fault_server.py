"""The raw-bytes server: it sends what it is told, byte for byte."""

import asyncio

import pytest

from apex_llm.emulator import FaultConnection, FaultServer, RecordedRequest

REQUEST = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


async def exchange(server: FaultServer, data: bytes = REQUEST) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def test_half_a_head_and_then_an_end() -> None:
    async def handler(connection: FaultConnection, request: RecordedRequest) -> None:
        await connection.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
        connection.close()

    async with FaultServer(handler) as server:
        assert await exchange(server) == b"HTTP/1.1 200 OK\r\ncontent-ty"

    assert (server.requests[0].path, server.requests[0].query, server.requests[0].body) == ("/a", {"b": "c"}, b"hi")


async def test_a_reset_before_any_byte() -> None:
    async def handler(connection: FaultConnection, request: RecordedRequest) -> None:
        connection.reset()

    async with FaultServer(handler) as server:
        with pytest.raises(ConnectionResetError):
            await exchange(server)


async def test_a_connection_can_be_broken_before_it_is_read() -> None:
    async def unused(connection: FaultConnection, request: RecordedRequest) -> None:
        raise AssertionError("nothing should arrive")

    async def refuse(connection: FaultConnection) -> None:
        connection.close()

    async with FaultServer(unused, on_connect=refuse) as server:
        assert await exchange(server, b"") == b""
        assert server.connections == 1


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async def handler(connection: FaultConnection, request: RecordedRequest) -> None:
        await connection.respond(b"%d" % connection.requests_seen)
        if connection.requests_seen == 2:
            connection.close()

    async with FaultServer(handler) as server:
        received = await exchange(server, REQUEST + REQUEST)

    assert received.count(b"HTTP/1.1 200") == 2
    assert server.connections == 1


async def test_chunks_can_lack_their_end() -> None:
    async def handler(connection: FaultConnection, request: RecordedRequest) -> None:
        await connection.respond(chunks=(b"ab", b"cde"), terminated=False)
        connection.close()

    async with FaultServer(handler) as server:
        received = await exchange(server)

    assert received.endswith(b"\r\n\r\n2\r\nab\r\n3\r\ncde\r\n")


async def test_a_silent_server_stops_with_its_block() -> None:
    async def handler(connection: FaultConnection, request: RecordedRequest) -> None:
        await connection.stall()

    async with FaultServer(handler) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(REQUEST)
        await asyncio.sleep(0.05)

    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
