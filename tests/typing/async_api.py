"""What type checkers make of the async surface. Checked, never executed."""

from __future__ import annotations

from typing import assert_type

from apex_llm import (
    AzureOpenAIProvider,
    BaseLlmProvider,
    BedrockProvider,
    ChatResponse,
    EventStream,
    FinishReason,
    Message,
    ModelInfo,
    RetryPolicy,
    StreamEvent,
    TextDelta,
    TextStream,
    Timeout,
    Usage,
    get_provider,
    provider_for,
)


async def providers(bedrock: BedrockProvider, azure: AzureOpenAIProvider, either: BaseLlmProvider) -> None:
    for provider in (bedrock, azure, either):
        assert_type(await provider.generate_text("hi"), str)
        assert_type(await provider.generate_text("hi", "model", 5, 0.5, system="Be brief.", stop=["."]), str)
        assert_type(
            await provider.chat([Message.user("hi"), {"role": "user", "content": "ho"}], model="m"), ChatResponse
        )
        assert_type(await provider.get_available_models(), list[ModelInfo])
        assert_type(await provider.initialize(), None)
        assert_type(await provider.aclose(), None)
        assert_type(provider.default_model, str | None)
        await provider.generate_text("hi", max_token=5)  # pyright: ignore[reportCallIssue]
        await provider.chat("hi", temperature="warm")  # pyright: ignore[reportArgumentType]
    assert_type(azure.default_deployment, str | None)
    assert_type(bedrock.with_options(timeout=3, retry=RetryPolicy(max_attempts=2)), BedrockProvider)
    assert_type(azure.with_options(timeout=Timeout(total=None), retry=None), AzureOpenAIProvider)
    async with bedrock as entered:
        assert_type(entered, BedrockProvider)


async def streams(provider: BaseLlmProvider) -> None:
    async with provider.generate_text_stream("hi") as texts:
        assert_type(texts, TextStream)
        async for text in texts:
            assert_type(text, str)
        assert_type(await texts.next_batch(), list[str])
        assert_type(await texts.collect(), ChatResponse)
    assert_type(texts.response.usage, Usage | None)
    assert_type(texts.partial.finish_reason, FinishReason | None)
    async for event in provider.chat_stream("hi"):
        assert_type(event, StreamEvent)
        if isinstance(event, TextDelta):
            assert_type(event.text, str)
    assert_type(provider.chat_stream("hi"), EventStream)


def factories(name: str, manager: object) -> None:
    assert_type(get_provider("bedrock"), BedrockProvider)
    assert_type(get_provider("azure", api_key="x"), AzureOpenAIProvider)
    assert_type(get_provider(name), BaseLlmProvider)
    assert_type(provider_for(manager, "plugin", "aws_bedrock"), BaseLlmProvider)
