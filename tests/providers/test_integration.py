"""One call and one stream on each cloud: against the emulator, or with APEX_LLM_LIVE=1 against the real ones.

Live runs use the credentials of the environment and cost a few tokens. Azure is asked where
``AZURE_OPENAI_ENDPOINT`` is set, the deployment named by ``AZURE_OPENAI_DEPLOYMENT``.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from apex_llm import AzureOpenAIProvider, BedrockProvider
from apex_llm import sync as blocking

LIVE = os.environ.get("APEX_LLM_LIVE") == "1"
PROMPT = "Answer with the single word: blue."


@pytest.fixture(params=["bedrock", "azure"])
def target(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if not LIVE:
        request.getfixturevalue("emulator")
    elif request.param == "azure" and not os.environ.get("AZURE_OPENAI_ENDPOINT"):
        pytest.skip("AZURE_OPENAI_ENDPOINT is not set")
    model = os.environ.get("AZURE_OPENAI_DEPLOYMENT", "chat") if request.param == "azure" else "claude"
    return request.param, {"model": model, "max_tokens": 200}


async def test_awaited(target: tuple[str, dict[str, Any]]) -> None:
    cloud, options = target
    async with BedrockProvider() if cloud == "bedrock" else AzureOpenAIProvider() as provider:
        await provider.initialize()
        assert "blue" in (await provider.generate_text(PROMPT, **options)).lower()
        async with provider.generate_text_stream(PROMPT, **options) as stream:
            pieces = [piece async for piece in stream]
        assert "".join(pieces) == stream.response.text
        assert "blue" in stream.response.text.lower()
        assert stream.response.usage is not None
        assert stream.response.usage.output_tokens > 0
        assert stream.response.request_id
        assert await provider.get_available_models()


def test_blocking(target: tuple[str, dict[str, Any]]) -> None:
    cloud, options = target
    with blocking.BedrockProvider() if cloud == "bedrock" else blocking.AzureOpenAIProvider() as provider:
        assert "blue" in provider.generate_text(PROMPT, **options).lower()
        assert "blue" in "".join(provider.generate_text_stream(PROMPT, **options)).lower()
