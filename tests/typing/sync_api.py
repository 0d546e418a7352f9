"""What type checkers make of the blocking surface: the same as of the async one. Checked, never executed."""

from __future__ import annotations

from typing import assert_type

import apex_llm
from apex_llm.sync import (
    ApexLlmError,
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
    SyncLlmProvider,
    TextDelta,
    TextStream,
    Timeout,
    Usage,
    get_provider,
    provider_for,
)


def providers(bedrock: BedrockProvider, azure: AzureOpenAIProvider, either: BaseLlmProvider) -> None:
    for provider in (bedrock, azure, either):
        assert_type(provider.generate_text("hi"), str)
        assert_type(provider.generate_text("hi", "model", 5, 0.5, system="Be brief.", stop=["."]), str)
        assert_type(provider.chat([Message.user("hi"), {"role": "user", "content": "ho"}], model="m"), ChatResponse)
        assert_type(provider.get_available_models(), list[ModelInfo])
        assert_type(provider.initialize(), None)
        assert_type(provider.close(), None)
        assert_type(provider.default_model, str | None)
        assert_type(provider.limits, apex_llm.Limits)
        provider.default_model = "claude"
        provider.generate_text("hi", max_token=5)  # pyright: ignore[reportCallIssue]
        provider.chat("hi", temperature="warm")  # pyright: ignore[reportArgumentType]
    assert_type(azure.default_deployment, str | None)
    assert_type(bedrock.with_options(timeout=3, retry=RetryPolicy(max_attempts=2)), BedrockProvider)
    assert_type(azure.with_options(timeout=Timeout(total=None), retry=None), AzureOpenAIProvider)
    with bedrock as entered:
        assert_type(entered, BedrockProvider)


def streams(provider: BaseLlmProvider) -> None:
    with provider.generate_text_stream("hi") as texts:
        assert_type(texts, TextStream)
        for text in texts:
            assert_type(text, str)
        assert_type(texts.next_batch(), list[str])
        assert_type(texts.collect(), ChatResponse)
    assert_type(texts.response.usage, Usage | None)
    assert_type(texts.partial.finish_reason, FinishReason | None)
    for event in provider.chat_stream("hi"):
        assert_type(event, StreamEvent)
        if isinstance(event, TextDelta):
            assert_type(event.text, str)
    assert_type(provider.chat_stream("hi"), EventStream)


def factories(name: str, manager: object) -> None:
    assert_type(get_provider("bedrock"), BedrockProvider)
    assert_type(get_provider("azure", api_key="x"), AzureOpenAIProvider)
    assert_type(get_provider(name), BaseLlmProvider)
    assert_type(provider_for(manager, "plugin", "aws_bedrock"), BaseLlmProvider)


def any_provider(mine: VertexProvider) -> None:
    wrapped = SyncLlmProvider(mine)
    assert_type(wrapped, SyncLlmProvider[VertexProvider])
    assert_type(wrapped.async_provider, VertexProvider)
    assert_type(wrapped.async_provider.project(), str)
    assert_type(wrapped.with_options(timeout=3), SyncLlmProvider[VertexProvider])
    assert_type(wrapped.generate_text("hi"), str)
    assert_type(BedrockProvider().async_provider, apex_llm.BedrockProvider)
    streams(wrapped)


def errors(error: ApexLlmError) -> apex_llm.ApexLlmError:
    return error


class VertexProvider(apex_llm.BedrockProvider):
    def project(self) -> str:
        return ""


class Mine(BedrockProvider):
    def close(self) -> None:
        super().close()
