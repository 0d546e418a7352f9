"""Floors: the whole job with nothing around it, a connection that decodes nothing, and HTTP clients alone."""

from __future__ import annotations

__all__ = [
    "aiohttp_azure",
    "aiohttp_bedrock",
    "bare_azure",
    "bare_bedrock",
    "httpx2_azure",
    "httpx2_bedrock",
    "httpx_azure",
    "httpx_bedrock",
    "limit_azure",
    "limit_bedrock",
]

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from benchmarks.clients.target import ACCESS_KEY_ID, API_KEY, API_VERSION, REGION, SECRET_ACCESS_KEY, Target
from benchmarks.payloads import AZURE_STREAM_BODY, completion_body, converse_body

if TYPE_CHECKING:
    from benchmarks.limit import AzureLimit, BedrockLimit


class _Limit:
    blocking, decodes = False, True

    def __init__(self, client: BedrockLimit | AzureLimit) -> None:
        self.call: Callable[[str], Awaitable[str]] = client.call
        self.texts: Callable[[str], AsyncIterator[str]] = client.texts
        self._client = client

    async def close(self) -> None:
        self._client.close()


def limit_bedrock(target: Target) -> _Limit:
    from benchmarks.limit import BedrockLimit

    return _Limit(
        BedrockLimit(
            host=target.host,
            port=target.port,
            access_key_id=ACCESS_KEY_ID,
            secret_access_key=SECRET_ACCESS_KEY,
            region=REGION,
            body=converse_body(target.prompt),
            context=target.context(),
        )
    )


def limit_azure(target: Target) -> _Limit:
    from benchmarks.limit import AzureLimit

    return _Limit(
        AzureLimit(
            host=target.host,
            port=target.port,
            api_key=API_KEY,
            api_version=API_VERSION,
            body=completion_body(target.prompt),
            context=target.context(),
        )
    )


class _Requests:
    """What an HTTP client that knows nothing of models sends: path, headers and body, unsigned."""

    def __init__(self, wire: str, target: Target) -> None:
        self._wire = wire
        self.body = (converse_body if wire == "bedrock" else completion_body)(target.prompt)
        self.stream_body = self.body if wire == "bedrock" else AZURE_STREAM_BODY
        self.headers = {"content-type": "application/json"}
        if wire == "azure":
            self.headers["api-key"] = API_KEY

    def path(self, model: str, *, stream: bool) -> str:
        if self._wire == "bedrock":
            return f"/model/{model}/converse-stream" if stream else f"/model/{model}/converse"
        return f"/openai/deployments/{model}/chat/completions?api-version={API_VERSION}"


class _BareConnection(asyncio.Protocol):
    """Wakes a future for each ``data_received``, and looks at nothing."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.blocks: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.blocks.append(data)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.set_result(None)

    async def wait(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter


class _Bare:
    blocking, decodes = False, False

    def __init__(self, wire: str, target: Target) -> None:
        self._target = target
        self._requests = _Requests(wire, target)
        self._idle: list[_BareConnection] = []

    async def texts(self, model: str) -> AsyncIterator[bytes]:
        path, body, target = self._requests.path(model, stream=True), self._requests.stream_body, self._target
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_BareConnection, target.host, target.port)
        head = f"POST {path} HTTP/1.1\r\nhost: {target.authority}\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.transport.write(head.encode() + body)
        ended = False
        while not ended:
            if not connection.blocks:
                await connection.wait()
            blocks, connection.blocks = connection.blocks, []
            for block in blocks:
                ended = block.endswith(b"0\r\n\r\n")
                yield block
        self._idle.append(connection)

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().transport.close()


class _Httpx:
    """httpx or httpx2 alone: bytes out, bytes in, with an unlimited pool; nothing is signed or decoded."""

    blocking, decodes = False, False

    def __init__(self, module: str, wire: str, target: Target) -> None:
        httpx = importlib.import_module(module)
        self._url = target.url
        self._requests = _Requests(wire, target)
        self._client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            timeout=120,
            trust_env=False,
            verify=target.context() or True,
        )

    async def call(self, model: str) -> bytes:
        requests = self._requests
        url = self._url + requests.path(model, stream=False)
        response = await self._client.post(url, content=requests.body, headers=requests.headers)
        return response.content

    async def texts(self, model: str) -> AsyncIterator[bytes]:
        requests = self._requests
        url = self._url + requests.path(model, stream=True)
        sending = self._client.stream("POST", url, content=requests.stream_body, headers=requests.headers)
        async with sending as response:
            async for data in response.aiter_raw():
                yield data

    async def close(self) -> None:
        await self._client.aclose()


class _Aiohttp:
    """aiohttp alone, likewise."""

    blocking, decodes = False, False

    def __init__(self, wire: str, target: Target) -> None:
        self._target = target
        self._requests = _Requests(wire, target)
        self._session: Any = None

    def _ready(self) -> Any:
        if self._session is None:
            import aiohttp

            context = self._target.context()
            connector = aiohttp.TCPConnector(limit=0, ssl=True if context is None else context)
            timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
            self._session = aiohttp.ClientSession(self._target.url, connector=connector, timeout=timeout)
        return self._session

    async def call(self, model: str) -> bytes:
        requests = self._requests
        path = requests.path(model, stream=False)
        async with self._ready().post(path, data=requests.body, headers=requests.headers) as response:
            return await response.read()

    async def texts(self, model: str) -> AsyncIterator[bytes]:
        requests = self._requests
        path = requests.path(model, stream=True)
        async with self._ready().post(path, data=requests.stream_body, headers=requests.headers) as response:
            async for data in response.content.iter_any():
                yield data

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def bare_bedrock(target: Target) -> _Bare:
    return _Bare("bedrock", target)


def bare_azure(target: Target) -> _Bare:
    return _Bare("azure", target)


def aiohttp_bedrock(target: Target) -> _Aiohttp:
    return _Aiohttp("bedrock", target)


def aiohttp_azure(target: Target) -> _Aiohttp:
    return _Aiohttp("azure", target)


def httpx_bedrock(target: Target) -> _Httpx:
    return _Httpx("httpx", "bedrock", target)


def httpx_azure(target: Target) -> _Httpx:
    return _Httpx("httpx", "azure", target)


def httpx2_bedrock(target: Target) -> _Httpx:
    return _Httpx("httpx2", "bedrock", target)


def httpx2_azure(target: Target) -> _Httpx:
    return _Httpx("httpx2", "azure", target)
