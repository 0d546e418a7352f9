"""``apex_llm``, as it comes: retries, deadlines, limits and checks are on.

Its deadlines, like those of the others, are put off to two minutes: when 5,000 streams are opened in one go, a busy
machine may need more than the five seconds that a connection may take by default.
"""

from __future__ import annotations

__all__ = ["azure", "azure_sync", "bedrock", "bedrock_sync"]

from collections.abc import AsyncIterator, Iterator
from typing import Any

from benchmarks.clients.target import API_KEY, API_VERSION, CREDENTIALS, MAX_TOKENS, REGION, Target


def _timeout() -> Any:
    from apex_llm import Timeout

    return Timeout(connect=120.0, first_byte=120.0, idle=120.0)


class _Async:
    blocking, decodes = False, True

    def __init__(self, provider: Any, target: Target) -> None:
        self._provider = provider
        self._prompt = target.prompt

    async def call(self, model: str) -> str:
        return await self._provider.generate_text(self._prompt, model, max_tokens=MAX_TOKENS)

    def texts(self, model: str) -> AsyncIterator[str]:
        return self._provider.generate_text_stream(self._prompt, model, max_tokens=MAX_TOKENS)

    async def close(self) -> None:
        await self._provider.aclose()


class _Blocking:
    blocking, decodes = True, True

    def __init__(self, provider: Any, target: Target) -> None:
        self._provider = provider
        self._prompt = target.prompt

    def call(self, model: str) -> Any:
        return self._provider.generate_text(self._prompt, model, max_tokens=MAX_TOKENS)

    def texts(self, model: str) -> Iterator[Any]:
        return self._provider.generate_text_stream(self._prompt, model, max_tokens=MAX_TOKENS)

    def close(self) -> None:
        self._provider.close()


def _bedrock_options(target: Target) -> dict[str, Any]:
    return {"endpoint_url": target.url, "aws_region": REGION, "credentials": CREDENTIALS, "timeout": _timeout()}


def _azure_options(target: Target) -> dict[str, Any]:
    return {"api_base": target.url, "api_version": API_VERSION, "api_key": API_KEY, "timeout": _timeout()}


def bedrock(target: Target) -> _Async:
    from apex_llm import BedrockProvider

    return _Async(BedrockProvider(**_bedrock_options(target)), target)


def bedrock_sync(target: Target) -> _Blocking:
    from apex_llm.sync import BedrockProvider

    return _Blocking(BedrockProvider(**_bedrock_options(target)), target)


def azure(target: Target) -> _Async:
    from apex_llm import AzureOpenAIProvider

    return _Async(AzureOpenAIProvider(**_azure_options(target)), target)


def azure_sync(target: Target) -> _Blocking:
    from apex_llm.sync import AzureOpenAIProvider

    return _Blocking(AzureOpenAIProvider(**_azure_options(target)), target)
