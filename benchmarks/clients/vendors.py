"""The vendors' own clients: boto3, aiobotocore, anthropic on Bedrock, openai on Azure."""

from __future__ import annotations

__all__ = ["Aiobotocore", "Anthropic", "Boto3", "Openai", "converse"]

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from benchmarks.clients.target import (
    ACCESS_KEY_ID,
    API_KEY,
    API_VERSION,
    CREDENTIALS,
    MAX_TOKENS,
    REGION,
    SECRET_ACCESS_KEY,
    Target,
)

_SECONDS = 120.0
_OPENAI_CONNECTIONS = 1000
"""What openai and anthropic open by default."""


def converse(target: Target) -> dict[str, Any]:
    """The arguments of a Converse call but its model."""
    return {
        "messages": [{"role": "user", "content": [{"text": target.prompt}]}],
        "inferenceConfig": {"maxTokens": MAX_TOKENS},
    }


class Boto3:
    """The client that AWS documents; a thread for each call that is under way."""

    blocking, decodes = True, True

    def __init__(self, target: Target) -> None:
        import boto3
        from botocore.config import Config

        self._arguments = converse(target)
        self._client: Any = boto3.client(
            "bedrock-runtime",
            region_name=REGION,
            endpoint_url=target.url,
            config=Config(max_pool_connections=max(10, target.width), connect_timeout=_SECONDS, read_timeout=_SECONDS),
            **CREDENTIALS,
        )

    def call(self, model: str) -> Any:
        return self._client.converse(modelId=model, **self._arguments)["output"]["message"]["content"][0]["text"]

    def texts(self, model: str) -> Iterator[Any]:
        for event in self._client.converse_stream(modelId=model, **self._arguments)["stream"]:
            if "contentBlockDelta" in event:
                yield event["contentBlockDelta"]["delta"]["text"]

    def close(self) -> None:
        self._client.close()


class Aiobotocore:
    """boto3's asynchronous twin."""

    blocking, decodes = False, True

    def __init__(self, target: Target) -> None:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session

        self._arguments = converse(target)
        self._context = get_session().create_client(
            "bedrock-runtime",
            region_name=REGION,
            endpoint_url=target.url,
            config=AioConfig(
                max_pool_connections=max(10, target.width), connect_timeout=_SECONDS, read_timeout=_SECONDS
            ),
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
        response = await client.converse(modelId=model, **self._arguments)
        return response["output"]["message"]["content"][0]["text"]

    async def texts(self, model: str) -> AsyncIterator[str]:
        client = self._client or await self._ready()
        response = await client.converse_stream(modelId=model, **self._arguments)
        async for event in response["stream"]:
            if "contentBlockDelta" in event:
                yield event["contentBlockDelta"]["delta"]["text"]

    async def close(self) -> None:
        if self._client is not None:
            await self._context.__aexit__(None, None, None)


def _http_client(package: Any, target: Target) -> Any:
    """The package's own, unless more connections are needed than it opens."""
    if target.width <= _OPENAI_CONNECTIONS:
        return None
    import httpx2

    limits = httpx2.Limits(max_connections=target.width, max_keepalive_connections=target.width)
    return package.DefaultAsyncHttpxClient(limits=limits)


class Anthropic:
    """``AsyncAnthropicBedrock``: Claude's own format over InvokeModel, since it does not speak Converse."""

    blocking, decodes = False, True

    def __init__(self, target: Target) -> None:
        import anthropic

        self._client: Any = anthropic.AsyncAnthropicBedrock(
            base_url=target.url,
            aws_region=REGION,
            aws_access_key=ACCESS_KEY_ID,
            aws_secret_key=SECRET_ACCESS_KEY,
            timeout=_SECONDS,
            http_client=_http_client(anthropic, target),
        )
        self._arguments: dict[str, Any] = {
            "messages": [{"role": "user", "content": target.prompt}],
            "max_tokens": MAX_TOKENS,
        }

    async def call(self, model: str) -> str:
        message = await self._client.messages.create(model=model, **self._arguments)
        return message.content[0].text

    async def texts(self, model: str) -> AsyncIterator[str]:
        stream = await self._client.messages.create(model=model, stream=True, **self._arguments)
        async for event in stream:
            if event.type == "content_block_delta":
                yield event.delta.text

    async def close(self) -> None:
        await self._client.close()


class Openai:
    """``AsyncAzureOpenAI``."""

    blocking, decodes = False, True

    def __init__(self, target: Target) -> None:
        import openai

        self._client: Any = openai.AsyncAzureOpenAI(
            azure_endpoint=target.url,
            api_key=API_KEY,
            api_version=API_VERSION,
            timeout=_SECONDS,
            http_client=_http_client(openai, target),
        )
        self._arguments: dict[str, Any] = {
            "messages": [{"role": "user", "content": target.prompt}],
            "max_tokens": MAX_TOKENS,
        }

    async def call(self, model: str) -> str:
        completion = await self._client.chat.completions.create(model=model, **self._arguments)
        return completion.choices[0].message.content

    async def texts(self, model: str) -> AsyncIterator[str]:
        stream = await self._client.chat.completions.create(
            model=model, stream=True, stream_options={"include_usage": True}, **self._arguments
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    async def close(self) -> None:
        await self._client.close()
