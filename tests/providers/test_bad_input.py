"""What must be refused before a byte is sent, each with a typed error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apex_llm import (
    ApexLlmError,
    AzureOpenAIProvider,
    BedrockProvider,
    ConfigurationError,
    InvalidEndpointError,
    InvalidRequestError,
    Message,
    MissingCredentialsError,
    Tool,
    UnknownModelError,
    get_provider,
)
from apex_llm.emulator import Emulator

KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"}

HOSTILE = [
    "../x",
    "..",
    ".",
    "a/../../b",
    "model/../../admin",
    "a/b",
    "a\r\nhost: evil.example",
    "a\x00b",
    "a b",
    "a\x7fb",
    "x" * 3000,
    "",
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/../../x",
]


@pytest.mark.parametrize("model", HOSTILE)
@pytest.mark.parametrize("make", [BedrockProvider, AzureOpenAIProvider])
async def test_a_hostile_model_id_never_reaches_the_wire(
    make: Callable[[], Any], model: str, emulator: Emulator
) -> None:
    async with make() as provider:
        with pytest.raises((InvalidRequestError, ConfigurationError)) as caught:
            await provider.generate_text("Hi", model=model)
        with pytest.raises((InvalidRequestError, ConfigurationError)):
            async for _ in provider.generate_text_stream("Hi", model=model):
                pass

    assert caught.value.hint
    assert emulator.requests == []


@pytest.mark.parametrize("model", ["modèle", "a?b=c", "a#b", "a%2e%2e", "a;b", "100%", "名前"])
async def test_odd_characters_of_a_model_id_are_encoded_into_one_segment(model: str, emulator: Emulator) -> None:
    async with BedrockProvider() as provider:
        with pytest.raises(ApexLlmError):
            await provider.generate_text("Hi", model=model)

    (request,) = emulator.requests
    assert request.path.count("/") == 3
    assert "?" not in request.path


@pytest.mark.parametrize(
    "region",
    [
        "us-east-1a",
        "US-EAST-1",
        "us east 1",
        "us-east-1.evil.example",
        "evil.example/#",
        "x",
        "us-east-1\n",
        "",
        "-us-1",
    ],
)
def test_a_region_that_is_none_is_refused_since_it_becomes_a_host_name(region: str) -> None:
    with pytest.raises(InvalidEndpointError) as caught:
        BedrockProvider(aws_region=region, credentials=KEYS)

    assert caught.value.hint


def test_a_bad_region_in_the_environment_is_refused_and_the_variable_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1/evil")

    with pytest.raises(InvalidEndpointError, match="AWS_REGION"):
        BedrockProvider(credentials=KEYS)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://bedrock.example.com",
        "ftp://bedrock.example.com",
        "https://user:password@bedrock.example.com",
        "https://169.254.169.254",
        "http://[fd00:ec2::254]",
        "https://",
        "https://exa mple.com",
        "https://bedrock.example.com/#fragment",
        "https://bedrock.example.com:99999",
        "https://bedrock.example.com/a/../b",
    ],
)
@pytest.mark.parametrize("cloud", ["bedrock", "azure"])
def test_an_endpoint_that_must_not_get_credentials_is_refused(cloud: str, endpoint: str) -> None:
    config: dict[str, Any] = (
        {"endpoint_url": endpoint, "aws_region": "us-east-1", "credentials": KEYS}
        if cloud == "bedrock"
        else {"api_base": endpoint, "api_key": "k"}
    )

    with pytest.raises(InvalidEndpointError) as caught:
        get_provider(cloud, **config)

    assert caught.value.hint
    assert "password" not in str(caught.value).replace("user name or password", "")


def test_plain_http_is_taken_when_it_is_asked_for() -> None:
    BedrockProvider(endpoint_url="http://gateway.example.com/prefix", credentials=KEYS, allow_insecure=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://portal.azure.com/#@tenant/resource/subscriptions/x",
        "https://ai.azure.com/foundry/project",
        "myresource",
    ],
)
def test_a_pasted_portal_address_or_a_bare_name_says_what_to_copy_instead(url: str) -> None:
    with pytest.raises(InvalidEndpointError) as caught:
        AzureOpenAIProvider(api_base=url, api_key="k")

    assert caught.value.hint
    assert "openai.azure.com" in caught.value.hint


@pytest.mark.parametrize(
    "config",
    [
        {"api_key": "k", "azure_ad_token": "t"},
        {"api_key": "k", "azure_ad_token_provider": lambda: "t"},
        {"azure_ad_token": "t", "credential": object()},
    ],
)
def test_two_ways_to_authenticate_are_one_too_many(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="together"):
        AzureOpenAIProvider(api_base="https://r.openai.azure.com", **config)


def test_keys_and_a_bearer_token_together_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="bearer_token"):
        BedrockProvider(credentials=KEYS, bearer_token="ABSK…")


async def test_missing_aws_credentials_name_every_source_that_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = BedrockProvider(aws_region="us-east-1", endpoint_url="http://127.0.0.1:9")

    with pytest.raises(MissingCredentialsError) as caught:
        await provider.initialize()

    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    assert caught.value.hint
    await provider.aclose()


async def test_missing_azure_credentials_and_endpoint_each_say_which_variable_to_set() -> None:
    provider = AzureOpenAIProvider()
    with pytest.raises(ConfigurationError) as caught:
        await provider.initialize()
    assert "AZURE_OPENAI_ENDPOINT" in str(caught.value)

    provider = AzureOpenAIProvider(api_base="https://r.openai.azure.com")
    with pytest.raises(MissingCredentialsError) as missing:
        await provider.initialize()
    assert "AZURE_OPENAI_API_KEY" in str(missing.value)


async def test_a_half_key_pair_is_refused_rather_than_completed_from_elsewhere(emulator: Emulator) -> None:
    provider = BedrockProvider(credentials={"aws_access_key_id": "AKIDEXAMPLE"})

    with pytest.raises(ConfigurationError):
        await provider.generate_text("Hi", model="claude")

    assert emulator.requests == []


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"max_token": 5}, "max_tokens"),
        ({"stops": "x"}, "stop"),
        ({"tool": []}, "tools"),
        ({"frobnicate": 1}, "extra_body"),
    ],
)
async def test_an_unknown_option_is_a_type_error_that_names_the_likely_one(
    options: dict[str, Any], advice: str, emulator: Emulator
) -> None:
    provider = BedrockProvider()

    with pytest.raises(TypeError, match=advice):
        await provider.generate_text("Hi", model="claude", **options)
    with pytest.raises(TypeError, match=advice):
        provider.chat_stream("Hi", model="claude", **options)

    assert emulator.requests == []


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.chat([]),
        lambda p: p.chat(""),
        lambda p: p.chat([Message.system("only this")]),
        lambda p: p.chat([{"role": "wizard", "content": "x"}]),
        lambda p: p.chat([42]),
        lambda p: p.chat("Hi", stop=["a", ""]),
        lambda p: p.chat("Hi", max_tokens=0),
        lambda p: p.chat("Hi", tool_choice="nowhere"),
        lambda p: p.chat("Hi", tools=[Tool(name="a"), Tool(name="a")]),
        lambda p: p.chat("Hi", extra_headers={"authorization": "mine"}),
        lambda p: p.chat("Hi", extra_headers={"x": "a\r\nb: c"}),
        lambda p: p.chat("Hi", timeout=-1),
        lambda p: p.chat("Hi", model="a", deployment_id="b"),
        lambda p: p.chat(
            [{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,%%"}]}]
        ),
    ],
)
async def test_a_call_that_makes_no_sense_is_refused_before_anything_is_sent(
    call: Callable[[Any], Any], emulator: Emulator
) -> None:
    for provider in (BedrockProvider(default_model="claude"), AzureOpenAIProvider(default_deployment="chat")):
        async with provider:
            with pytest.raises(InvalidRequestError):
                await call(provider)

    assert emulator.requests == []


async def test_no_model_at_all_says_how_to_give_one(emulator: Emulator) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await BedrockProvider().chat("Hi")

    assert caught.value.hint


async def test_a_model_of_the_other_cloud_names_the_right_provider(emulator: Emulator) -> None:
    with pytest.raises(UnknownModelError) as caught:
        await BedrockProvider().chat("Hi", model="azure:chat")
    assert caught.value.hint == "Use AzureOpenAIProvider."
    with pytest.raises(UnknownModelError):
        await AzureOpenAIProvider().chat("Hi", model="bedrock:claude")


def test_an_unknown_provider_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError) as caught:
        get_provider("watson")

    assert caught.value.hint
    assert "bedrock" in caught.value.hint


@pytest.mark.parametrize(("text", "attempts"), [("1", 1), ("5", 5)])
def test_the_number_of_attempts_is_taken_from_the_variable_of_the_aws_tools(
    text: str, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", text)

    provider = BedrockProvider(credentials=KEYS)

    assert provider._retry is not None
    assert provider._retry.max_attempts == attempts


@pytest.mark.parametrize("text", ["0", "many", "-1", "1.5"])
def test_a_number_of_attempts_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", text)

    with pytest.raises(ConfigurationError, match="AWS_MAX_ATTEMPTS"):
        BedrockProvider(credentials=KEYS)
