"""Each client as its own documentation uses it, behind three methods: ``call``, ``texts`` and ``close``.

Retries are left as they come. Pools are made large enough for the concurrency that is asked of them,
since a client that waits for itself would look cheap. A client's package is imported when it is made.
"""

from __future__ import annotations

__all__ = ["API_KEY", "API_VERSION", "CREDENTIALS", "REGION", "Client", "cases", "make"]

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

from benchmarks.harness import Case
from benchmarks.limit import AzureLimit, BedrockLimit, Signer
from benchmarks.payloads import AZURE_BODY, AZURE_STREAM_BODY, BEDROCK_BODY, PROMPT

REGION = "us-east-1"
ACCESS_KEY_ID = "AKIDBENCHMARK0000001"
SECRET_ACCESS_KEY = "benchmark/secret+access/key"
CREDENTIALS = {"aws_access_key_id": ACCESS_KEY_ID, "aws_secret_access_key": SECRET_ACCESS_KEY}
API_KEY = "benchmark-api-key"
API_VERSION = "2024-10-21"
_MAX_TOKENS = 500
_MESSAGES = [{"role": "user", "content": PROMPT}]
_CONVERSE = {
    "messages": [{"role": "user", "content": [{"text": PROMPT}]}],
    "inferenceConfig": {"maxTokens": _MAX_TOKENS},
}


class Client(Protocol):
    """What is measured. One that blocks has the same methods without ``async``, and ``blocking`` set."""

    blocking: bool
    decodes: bool
    """Whether it gives texts; one that does not gives blocks of bytes, whose number means nothing."""

    def call(self, model: str) -> Awaitable[object]:
        """One answer that is not streamed."""
        ...

    def texts(self, model: str) -> AsyncIterator[object]:
        """The pieces of one stream."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class _Ours:
    blocking, decodes = False, True

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    async def call(self, model: str) -> str:
        return await self._provider.generate_text(PROMPT, model, max_tokens=_MAX_TOKENS)

    def texts(self, model: str) -> AsyncIterator[str]:
        return self._provider.generate_text_stream(PROMPT, model, max_tokens=_MAX_TOKENS)

    async def close(self) -> None:
        await self._provider.aclose()


def _ours_bedrock(host: str, port: int, width: int) -> _Ours:
    from apex_llm import BedrockProvider

    return _Ours(BedrockProvider(endpoint_url=f"http://{host}:{port}", aws_region=REGION, credentials=CREDENTIALS))


def _ours_azure(host: str, port: int, width: int) -> _Ours:
    from apex_llm import AzureOpenAIProvider

    return _Ours(AzureOpenAIProvider(api_base=f"http://{host}:{port}", api_version=API_VERSION, api_key=API_KEY))


class _Limit:
    blocking, decodes = False, True

    def __init__(self, client: BedrockLimit | AzureLimit) -> None:
        self.call: Callable[[str], Awaitable[str]] = client.call
        self.texts: Callable[[str], AsyncIterator[str]] = client.texts
        self.close = client.close


def _limit_bedrock(host: str, port: int, width: int) -> _Limit:
    return _Limit(
        BedrockLimit(
            host=host, port=port, access_key_id=ACCESS_KEY_ID, secret_access_key=SECRET_ACCESS_KEY, region=REGION
        )
    )


def _limit_azure(host: str, port: int, width: int) -> _Limit:
    return _Limit(AzureLimit(host=host, port=port, api_key=API_KEY, api_version=API_VERSION))


class _Httpx:
    """httpx alone: bytes out, bytes in; nothing is decoded."""

    blocking, decodes = False, False

    def __init__(self, host: str, port: int, *, signed: bool) -> None:
        import httpx

        self._base = f"http://{host}:{port}"
        self._signer = None
        if signed:
            self._signer = Signer(ACCESS_KEY_ID, SECRET_ACCESS_KEY, region=REGION, host=f"{host}:{port}")
        self._client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None), timeout=60, trust_env=False
        )

    def _headers(self, path: str) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if self._signer is not None:
            headers["x-amz-date"], headers["authorization"] = self._signer.sign(path, BEDROCK_BODY)
        return headers

    async def call(self, model: str) -> bytes:
        path = f"/model/{model}/converse"
        response = await self._client.post(self._base + path, content=BEDROCK_BODY, headers=self._headers(path))
        return response.content

    async def texts(self, model: str) -> AsyncIterator[bytes]:
        path = f"/model/{model}/converse-stream"
        async with self._client.stream(
            "POST", self._base + path, content=BEDROCK_BODY, headers=self._headers(path)
        ) as response:
            async for data in response.aiter_raw():
                yield data

    async def close(self) -> None:
        await self._client.aclose()


class _HttpxAzure(_Httpx):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, signed=False)

    def _url(self, deployment: str) -> str:
        return f"{self._base}/openai/deployments/{deployment}/chat/completions?api-version={API_VERSION}"

    async def call(self, model: str) -> bytes:
        headers = {"content-type": "application/json", "api-key": API_KEY}
        response = await self._client.post(self._url(model), content=AZURE_BODY, headers=headers)
        return response.content

    async def texts(self, model: str) -> AsyncIterator[bytes]:
        headers = {"content-type": "application/json", "api-key": API_KEY}
        async with self._client.stream(
            "POST", self._url(model), content=AZURE_STREAM_BODY, headers=headers
        ) as response:
            async for data in response.aiter_raw():
                yield data


class _Aiobotocore:
    blocking, decodes = False, True

    def __init__(self, host: str, port: int, width: int) -> None:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session

        self._context = get_session().create_client(
            "bedrock-runtime",
            region_name=REGION,
            endpoint_url=f"http://{host}:{port}",
            config=AioConfig(max_pool_connections=max(10, width)),
            **CREDENTIALS,
        )
        self._lock = asyncio.Lock()
        self._client: Any = None

    async def _ready(self) -> Any:
        async with self._lock:
            if self._client is None:
                self._client = await self._context.__aenter__()
        return self._client

    async def call(self, model: str) -> str:
        client = self._client or await self._ready()
        response = await client.converse(modelId=model, **_CONVERSE)
        return response["output"]["message"]["content"][0]["text"]

    async def texts(self, model: str) -> AsyncIterator[str]:
        client = self._client or await self._ready()
        response = await client.converse_stream(modelId=model, **_CONVERSE)
        async for event in response["stream"]:
            if "contentBlockDelta" in event:
                yield event["contentBlockDelta"]["delta"]["text"]

    async def close(self) -> None:
        if self._client is not None:
            await self._context.__aexit__(None, None, None)


class _Boto3:
    blocking, decodes = True, True

    def __init__(self, host: str, port: int, width: int) -> None:
        import boto3
        from botocore.config import Config

        self._client: Any = boto3.client(
            "bedrock-runtime",
            region_name=REGION,
            endpoint_url=f"http://{host}:{port}",
            config=Config(max_pool_connections=max(10, width)),
            **CREDENTIALS,
        )

    def call(self, model: str) -> Any:
        return self._client.converse(modelId=model, **_CONVERSE)["output"]["message"]["content"][0]["text"]

    def texts(self, model: str) -> Iterator[Any]:
        for event in self._client.converse_stream(modelId=model, **_CONVERSE)["stream"]:
            if "contentBlockDelta" in event:
                yield event["contentBlockDelta"]["delta"]["text"]

    def close(self) -> None:
        self._client.close()


class _Openai:
    blocking, decodes = False, True

    def __init__(self, host: str, port: int, width: int) -> None:
        from openai import AsyncAzureOpenAI

        self._client: Any = AsyncAzureOpenAI(
            azure_endpoint=f"http://{host}:{port}", api_key=API_KEY, api_version=API_VERSION, timeout=120
        )

    async def call(self, model: str) -> str:
        completion = await self._client.chat.completions.create(model=model, messages=_MESSAGES, max_tokens=_MAX_TOKENS)
        return completion.choices[0].message.content

    async def texts(self, model: str) -> AsyncIterator[str]:
        stream = await self._client.chat.completions.create(
            model=model,
            messages=_MESSAGES,
            max_tokens=_MAX_TOKENS,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    async def close(self) -> None:
        await self._client.close()


_MAKERS: dict[str, dict[str, Callable[[str, int, int], Any]]] = {
    "bedrock": {
        "apex_llm": _ours_bedrock,
        "limit": _limit_bedrock,
        "httpx": lambda host, port, width: _Httpx(host, port, signed=False),
        "httpx, signed": lambda host, port, width: _Httpx(host, port, signed=True),
        "aiobotocore": _Aiobotocore,
        "boto3": _Boto3,
    },
    "azure": {
        "apex_llm": _ours_azure,
        "limit": _limit_azure,
        "httpx": lambda host, port, width: _HttpxAzure(host, port),
        "openai": _Openai,
    },
}


_PACKAGES = {"httpx, signed": "httpx", "limit": None, "apex_llm": None}


def cases(*wires: str, without: Sequence[str] = ()) -> tuple[Case, ...]:
    """Every client of the wires but those in ``without``; ours first."""
    return tuple(
        Case(wire, variant, _PACKAGES.get(variant, variant))
        for wire in wires
        for variant in _MAKERS[wire]
        if variant not in without
    )


def make(wire: str, variant: str, *, port: int, width: int = 1, host: str = "127.0.0.1") -> Any:
    """A client, connected to nothing yet; ``width`` is how many calls it will be asked for at a time."""
    return _MAKERS[wire][variant](host, port, width)
