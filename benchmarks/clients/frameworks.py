"""Frameworks over the vendors' clients: langchain-aws, pydantic-ai and litellm.

langchain-aws and pydantic-ai hand every call and every piece to a thread, since they use boto3. The threads that they
may have at a time are raised to the concurrency; by default langchain-aws would wait for those of asyncio's executor,
and pydantic-ai for one of forty.
"""

from __future__ import annotations

__all__ = ["LangchainAws", "LitellmAzure", "LitellmBedrock", "PydanticAi"]

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
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


def _boto3_client(target: Target) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "bedrock-runtime",
        region_name=REGION,
        endpoint_url=target.url,
        config=Config(max_pool_connections=max(10, target.width), connect_timeout=_SECONDS, read_timeout=_SECONDS),
        **CREDENTIALS,
    )


class LangchainAws:
    """``ChatBedrockConverse``."""

    blocking, decodes = False, True

    def __init__(self, target: Target) -> None:
        from langchain_aws import ChatBedrockConverse

        client = _boto3_client(target)
        self._target = target
        self._make = lambda model: ChatBedrockConverse(
            model=model,
            provider="anthropic",
            client=client,
            bedrock_client=client,
            max_tokens=MAX_TOKENS,
            disable_streaming=False,
        )
        self._models: dict[str, Any] = {}
        self._threads: ThreadPoolExecutor | None = None

    def _ready(self, model: str) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max(6, self._target.width))
            asyncio.get_running_loop().set_default_executor(self._threads)
        if model not in self._models:
            self._models[model] = self._make(model)
        return self._models[model]

    async def call(self, model: str) -> object:
        return (await self._ready(model).ainvoke(self._target.prompt)).content

    async def texts(self, model: str) -> AsyncIterator[object]:
        async for chunk in self._ready(model).astream(self._target.prompt):
            content = chunk.content
            text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
            if text:
                yield text

    async def close(self) -> None:
        return None


class PydanticAi:
    """``BedrockConverseModel`` through its direct interface, which is the one with the least around it."""

    blocking, decodes = False, True

    def __init__(self, target: Target) -> None:
        from pydantic_ai import direct
        from pydantic_ai.messages import ModelRequest
        from pydantic_ai.models.bedrock import BedrockConverseModel
        from pydantic_ai.providers.bedrock import BedrockProvider

        provider = BedrockProvider(bedrock_client=_boto3_client(target))
        self._target = target
        self._direct = direct
        self._make = lambda model: BedrockConverseModel(model, provider=provider)
        self._messages = [ModelRequest.user_text_prompt(target.prompt)]
        self._models: dict[str, Any] = {}

    def _arguments(self, model: str) -> dict[str, Any]:
        if not self._models:
            import anyio.to_thread

            limiter = anyio.to_thread.current_default_thread_limiter()
            limiter.total_tokens = max(limiter.total_tokens, self._target.width)
        if model not in self._models:
            self._models[model] = self._make(model)
        return {
            "model": self._models[model],
            "messages": self._messages,
            "model_settings": {"max_tokens": MAX_TOKENS},
        }

    async def call(self, model: str) -> object:
        return (await self._direct.model_request(**self._arguments(model))).parts[0].content

    async def texts(self, model: str) -> AsyncIterator[object]:
        async with self._direct.model_request_stream(**self._arguments(model)) as stream:
            async for event in stream:
                if event.event_kind == "part_start":
                    text = event.part.content
                elif event.event_kind == "part_delta":
                    text = event.delta.content_delta
                else:
                    continue
                if text:
                    yield text

    async def close(self) -> None:
        return None


class _Litellm:
    blocking, decodes = False, True

    def __init__(self, prefix: str, target: Target, **arguments: Any) -> None:
        import litellm

        litellm.suppress_debug_info = True
        self._complete: Any = litellm.acompletion
        self._prefix = prefix
        self._arguments = {
            "messages": [{"role": "user", "content": target.prompt}],
            "max_tokens": MAX_TOKENS,
            "timeout": _SECONDS,
            **arguments,
        }

    async def call(self, model: str) -> object:
        completion = await self._complete(model=self._prefix + model, **self._arguments)
        return completion.choices[0].message.content

    async def texts(self, model: str) -> AsyncIterator[object]:
        stream = await self._complete(model=self._prefix + model, stream=True, **self._arguments)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    async def close(self) -> None:
        return None


class LitellmBedrock(_Litellm):
    """``acompletion`` with a Converse model."""

    def __init__(self, target: Target) -> None:
        super().__init__(
            "bedrock/converse/",
            target,
            aws_bedrock_runtime_endpoint=target.url,
            aws_region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
        )


class LitellmAzure(_Litellm):
    """``acompletion`` with an Azure deployment."""

    def __init__(self, target: Target) -> None:
        super().__init__("azure/", target, api_base=target.url, api_key=API_KEY, api_version=API_VERSION)
