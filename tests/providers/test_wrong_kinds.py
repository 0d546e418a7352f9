"""Arguments of the wrong kind: a typed error that names the argument, before anything is sent."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from apex_llm import (
    AzureOpenAIProvider,
    BedrockProvider,
    ConfigurationError,
    ImagePart,
    InvalidRequestError,
    Message,
    MissingCredentialsError,
    RetryPolicy,
    Timeout,
    Tool,
)
from apex_llm.emulator import Emulator

TOOL = Tool(name="look", description="", parameters={})

CALLS: list[tuple[Any, dict[str, Any], str | None]] = [
    (None, {}, None),
    (5, {}, None),
    ([1], {}, None),
    (Message("user", "Hi"), {}, None),  # pyright: ignore[reportArgumentType]
    ([Message.user(5)], {}, None),  # pyright: ignore[reportArgumentType]
    ([Message.user("Hi", ImagePart(data="abc"))], {}, None),  # pyright: ignore[reportArgumentType]
    ([{"role": "assistant", "tool_calls": ["look"]}], {}, None),
    ([{"role": "assistant", "tool_calls": [{"function": "look"}]}], {}, None),
    ([{"role": "user", "content": [{"type": "input_audio", "input_audio": "abc"}]}], {}, None),
    ([{"role": "user", "content": [{"type": "file", "file": "abc"}]}], {}, None),
    ("Hi", {"model": 5}, "model"),
    ("Hi", {"deployment_id": 5}, "deployment_id"),
    ("Hi", {"max_tokens": "5"}, "max_tokens"),
    ("Hi", {"max_tokens": 5.5}, "max_tokens"),
    ("Hi", {"max_tokens": True}, "max_tokens"),
    ("Hi", {"temperature": "hot"}, "temperature"),
    ("Hi", {"temperature": float("nan")}, "temperature"),
    ("Hi", {"temperature": float("inf")}, "temperature"),
    ("Hi", {"top_p": float("nan")}, "top_p"),
    ("Hi", {"top_k": 1.5}, "top_k"),
    ("Hi", {"seed": "1"}, "seed"),
    ("Hi", {"system": ["Be brief."]}, "system"),
    ("Hi", {"timeout": "5"}, None),
    ("Hi", {"stop": 5}, "stop"),
    ("Hi", {"stop": [5]}, "stop"),
    ("Hi", {"tools": "look"}, "tools"),
    ("Hi", {"tools": 5}, "tools"),
    ("Hi", {"tools": TOOL}, "tools"),
    ("Hi", {"tools": [print]}, "tools"),
    ("Hi", {"parallel_tool_calls": 1}, "parallel_tool_calls"),
    ("Hi", {"response_format": str}, "response_format"),
    ("Hi", {"metadata": "x"}, "metadata"),
    ("Hi", {"metadata": {"run": 5}}, "metadata"),
    ("Hi", {"extra_body": "x"}, "extra_body"),
    ("Hi", {"extra_headers": ["x"]}, "extra_headers"),
    ("Hi", {"extra_headers": {"x-run": 5}}, "extra_headers"),
    ("Hi", {"extra_query": {"run": 5}}, "extra_query"),
]


@pytest.mark.parametrize(("messages", "options", "param"), CALLS)
@pytest.mark.parametrize("cloud", [BedrockProvider, AzureOpenAIProvider])
async def test_a_call_with_an_argument_of_the_wrong_kind_is_refused_by_name_and_not_sent(
    cloud: Any, messages: Any, options: dict[str, Any], param: str | None, emulator: Emulator
) -> None:
    """NaN is one of them: JSON would say ``null``, and the service would take its own default instead."""
    async with cloud() as provider:
        with pytest.raises(InvalidRequestError) as caught:
            await provider.chat(messages, **{"model": "claude", **options})
        with pytest.raises(InvalidRequestError):
            async for _ in provider.chat_stream(messages, **{"model": "claude", **options}):
                pass

    assert caught.value.hint
    assert caught.value.phase == "prepare"
    assert caught.value.param == param
    assert emulator.requests == []


@pytest.mark.parametrize("value", [("claude", "5"), ("claude", 5, "hot"), ("claude", 5, float("nan")), (5,)])
async def test_the_arguments_that_generate_text_takes_by_position_are_checked_too(
    value: tuple[Any, ...], emulator: Emulator
) -> None:
    async with BedrockProvider() as provider:
        with pytest.raises(InvalidRequestError):
            await provider.generate_text("Hi", *value)

    assert emulator.requests == []


async def test_whole_numbers_serve_where_numbers_are_wanted(emulator: Emulator) -> None:
    async with BedrockProvider() as provider:
        await provider.generate_text("Hi", "claude", 5, 0)
        await provider.chat("Hi", model="claude", temperature=1, top_p=1)

    assert len(emulator.requests) == 2


BOTH: list[dict[str, Any]] = [
    {"retry": 3},
    {"limits": 3},
    {"http_client": 3},
    {"observers": print},
    {"observers": [print]},
    {"ssl_context": True},
    {"max_connections": "5"},
    {"max_connections": 0},
]


@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize("cloud", [BedrockProvider, AzureOpenAIProvider])
def test_a_provider_with_an_argument_of_the_wrong_kind_is_refused_when_it_is_made(
    cloud: Any, config: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(config))) as caught:
        cloud(**config)

    assert caught.value.phase == "prepare"


@pytest.mark.parametrize(
    "config",
    [{"aws_region": 5}, {"endpoint_url": 5}, {"profile": 5}, {"aliases": ["a"]}, {"families": 5}, {"default_model": 5}],
)
def test_bedrock_refuses_its_own_arguments_likewise(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BedrockProvider(**config)

    assert caught.value.hint


@pytest.mark.parametrize(
    "config",
    [
        {"api_base": 5},
        {"api_version": 20241021},
        {"deployments": ["a"]},
        {"default_deployment": 5},
        {"azure_ad_token_provider": "a token"},
    ],
)
def test_azure_refuses_its_own_arguments_likewise(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AzureOpenAIProvider(**config)

    assert caught.value.hint


def test_a_blocking_httpx_client_is_refused_before_it_sends_anything() -> None:
    """It would send the request, and fail over the answer."""
    with httpx.Client() as client, pytest.raises(ConfigurationError, match=r"httpx\.Client") as caught:
        BedrockProvider(http_client=client)

    assert "AsyncClient" in (caught.value.hint or "")


async def test_a_bearer_token_that_is_no_text_is_refused(emulator: Emulator) -> None:
    async with BedrockProvider(bearer_token=5) as provider:  # pyright: ignore[reportArgumentType]
        with pytest.raises(ConfigurationError, match="type int"):
            await provider.generate_text("Hi", model="claude")

    assert emulator.requests == []


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "5"])
@pytest.mark.parametrize("part", ["connect", "first_byte", "idle", "total"])
def test_a_timeout_that_makes_no_sense_cannot_be_made(part: str, seconds: Any) -> None:
    with pytest.raises(ValueError, match=part):
        Timeout(**{part: seconds})


def test_with_options_checks_as_the_constructor_does() -> None:
    provider = BedrockProvider()

    with pytest.raises(ConfigurationError, match="retry="):
        provider.with_options(retry=2)  # pyright: ignore[reportArgumentType]
    assert provider.with_options(retry=RetryPolicy(max_attempts=2)) is not provider


async def test_whatever_is_wrong_with_the_set_up_names_the_provider_and_the_phase(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://resource.openai.azure.com")
    for provider, name in (
        (BedrockProvider(aws_region="us-east-1"), "bedrock"),
        (AzureOpenAIProvider(), "azure_openai"),
    ):
        async with provider:
            for call in (
                provider.initialize,
                provider.get_available_models,
                lambda: provider.generate_text("Hi", model="m"),  # noqa: B023 - called at once
            ):
                with pytest.raises(MissingCredentialsError) as caught:
                    await call()
                assert (caught.value.provider, caught.value.phase) == (name, "prepare")
