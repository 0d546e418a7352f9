"""Set-ups that newcomers get wrong: one typed error that says what to do next, before anything is sent."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from apex_llm import (
    ApexLlmError,
    AuthenticationError,
    AzureOpenAIProvider,
    BedrockProvider,
    ConfigurationError,
    ConnectionFailedError,
    InvalidEndpointError,
    MissingCredentialsError,
    ModelNotFoundError,
)
from apex_llm.emulator import Emulator
from apex_llm.providers.azure_openai.endpoints import azure_surface
from apex_llm.providers.bedrock.endpoints import bedrock_endpoints

ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


async def refusal(make: Any, **config: Any) -> ApexLlmError:
    with pytest.raises(ApexLlmError) as caught:
        async with make(**config) as provider:
            await provider.generate_text("Hi", model="claude")
    assert caught.value.hint
    assert caught.value.phase == "prepare"
    return caught.value


@pytest.mark.parametrize(
    ("variable", "right"),
    [
        ("AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        ("AWS_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"),
        ("BEDROCK_API_KEY", "AWS_BEARER_TOKEN_BEDROCK"),
        ("AWS_BEARER_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"),
    ],
)
async def test_a_key_in_a_variable_that_is_not_read_names_the_one_that_is(
    variable: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "abc")

    error = await refusal(BedrockProvider, aws_region="us-east-1")

    assert isinstance(error, MissingCredentialsError)
    assert error.hint == f"{variable} is set, but only {right} is read."


@pytest.mark.parametrize("variable", ["AZURE_OPENAI_KEY", "AZURE_API_KEY", "OPENAI_API_KEY"])
async def test_azure_does_the_same_for_keys(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "abc")

    error = await refusal(AzureOpenAIProvider, api_base="https://r.openai.azure.com")

    assert isinstance(error, MissingCredentialsError)
    assert error.hint == f"{variable} is set, but only AZURE_OPENAI_API_KEY is read."


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "AZURE_API_BASE", "AZURE_OPENAI_BASE_URL"])
async def test_and_for_endpoints(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "https://r.openai.azure.com")

    error = await refusal(AzureOpenAIProvider, api_key="k")

    assert error.hint == f"{variable} is set, but only AZURE_OPENAI_ENDPOINT is read."


async def test_with_both_endpoints_set_the_one_of_azure_is_called(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")

    async with AzureOpenAIProvider() as azure:
        await azure.generate_text("Hi", model="gpt-4.1")

    assert len(emulator.requests) == 1


@pytest.mark.parametrize(
    ("credentials", "hint"),
    [
        ((f'"{ACCESS_KEY_ID}"', f'"{SECRET}"'), "quotation marks"),
        ((f"'{ACCESS_KEY_ID}'", f"'{SECRET}'"), "quotation marks"),
        ((SECRET, ACCESS_KEY_ID), "changed places"),
        (("ABSKQmVkcm9ja0FQSUtleS1leGFtcGxl", SECRET), "AWS_BEARER_TOKEN_BEDROCK"),
        (("bedrock-api-key-YmVkcm9jaw", SECRET), "AWS_BEARER_TOKEN_BEDROCK"),
    ],
)
async def test_keys_of_the_wrong_kind_or_in_quotation_marks_are_not_signed_with(
    credentials: tuple[str, str], hint: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An --env-file of Docker keeps the quotation marks; the service would only say that the signature is wrong."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials[1])

    error = await refusal(BedrockProvider)

    assert hint in (error.hint or "")
    assert SECRET not in str(error)
    assert emulator.requests == []


@pytest.mark.parametrize("token", [ACCESS_KEY_ID, '"ABSKabc"', ""])
async def test_what_is_no_bearer_token_is_not_sent_as_one(token: str, emulator: Emulator) -> None:
    assert isinstance(await refusal(BedrockProvider, bearer_token=token), MissingCredentialsError)
    assert emulator.requests == []


@pytest.mark.parametrize("key", ["", '"abc"'])
async def test_what_is_no_key_of_azure_is_not_sent_as_one(key: str, emulator: Emulator) -> None:
    assert isinstance(await refusal(AzureOpenAIProvider, api_key=key), MissingCredentialsError)
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://bedrock.us-east-1.amazonaws.com", "https://bedrock-runtime.us-east-1.amazonaws.com"),
        ("https://bedrock-agent-runtime.us-east-1.amazonaws.com", "bedrock-runtime"),
        ("https://bedrock-runtime.us-west-2.amazonaws.com", "aws_region='us-west-2'"),
        ("https://bedrock-runtime-fips.us-west-2.amazonaws.com", "aws_region='us-west-2'"),
        ("https://r.openai.azure.com", "AzureOpenAIProvider"),
        ("https://gateway.example.com/model/claude/converse", "/model"),
        ("https://gateway.example.com/model/claude/invoke-with-response-stream/", "/model"),
        ("https//gateway.example.com", "https://"),
        ("https:/gateway.example.com", "https://"),
        ("htp:/gateway.example.com", "https://"),
        ('"https://gateway.example.com"', "https://"),
    ],
)
def test_an_endpoint_where_bedrock_cannot_be_says_what_to_give_instead(url: str, hint: str) -> None:
    with pytest.raises(InvalidEndpointError) as caught:
        bedrock_endpoints("us-east-1", endpoint_url=url, environ={})

    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("us-gov-west-1", "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com"),
        ("us-east-1", "https://bedrock-runtime.us-east-1.api.aws"),
        ("us-east-1", "https://vpce-0a1b-2c.bedrock-runtime.us-east-1.vpce.amazonaws.com/"),
        ("us-east-1", "https://gateway.example.com/model/"),
        ("us-east-1", "gateway.example.com:8443/bedrock"),
    ],
)
def test_endpoints_that_fit_are_taken(region: str, url: str) -> None:
    assert bedrock_endpoints(region, endpoint_url=url, environ={}).region == region


def test_a_bearer_key_is_sent_to_any_region_since_nothing_is_signed_for_one() -> None:
    url = "https://bedrock-runtime.us-west-2.amazonaws.com"

    found = bedrock_endpoints("us-east-1", endpoint_url=url, environ={}, signed=False)

    assert found.runtime.origin.host == "bedrock-runtime.us-west-2.amazonaws.com"


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
async def test_a_line_break_behind_a_region_in_the_environment_does_no_harm(
    variable: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv(variable, "us-east-1\n")

    async with BedrockProvider() as bedrock:
        await bedrock.generate_text("Hi", model="claude")

    assert len(emulator.requests) == 1


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "https://bedrock-runtime.us-east-1.amazonaws.com"])
def test_azure_keys_are_not_sent_to_other_services(url: str) -> None:
    with pytest.raises(InvalidEndpointError, match="another service"):
        AzureOpenAIProvider(api_base=url, api_key="k")


@pytest.mark.parametrize("path", ["models", "models/chat/completions?api-version=2024-05-01-preview"])
def test_the_address_of_a_foundry_resources_other_api_stands_for_the_resource(path: str) -> None:
    surface = azure_surface(
        f"https://r.services.ai.azure.com/{path}", api_version=None, configured_version=None, name="api_base"
    )

    assert (surface.root, surface.api_version) == ("/openai/v1", None)


@pytest.mark.parametrize(
    ("given", "configured", "named"),
    [
        ("2024-13-01", None, "api_version="),
        ("2024-10-32", None, "api_version="),
        (None, "24-10-21", "OPENAI_API_VERSION="),
        (None, '"2024-10-21"', "OPENAI_API_VERSION="),
    ],
)
def test_a_version_that_is_no_date_is_named_by_where_it_came_from(
    given: str | None, configured: str | None, named: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{named}"):
        azure_surface("https://r.openai.azure.com", api_version=given, configured_version=configured, name="api_base")


def test_a_pasted_deployment_without_a_version_says_that_one_is_needed() -> None:
    url = "https://r.openai.azure.com/openai/deployments/d/chat/completions"

    with pytest.raises(ConfigurationError, match="needs a dated version"):
        AzureOpenAIProvider(api_base=url, api_key="k")


async def test_a_profile_that_does_not_exist_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nope")

    error = await refusal(BedrockProvider, aws_region="us-east-1")

    assert "aws configure --profile nope" in (error.hint or "")


@pytest.mark.parametrize("proxy", ["http://user:password@127.0.0.1:{port}", "127.0.0.1:{port}"])
async def test_a_proxy_that_is_not_there_is_blamed_by_name_instead_of_the_service(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening: refuses
        port = taken.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", proxy.format(port=port))
        keys = {"aws_access_key_id": ACCESS_KEY_ID, "aws_secret_access_key": SECRET}
        async with BedrockProvider(aws_region="us-east-1", credentials=keys, retry=None) as bedrock:
            with pytest.raises(ConnectionFailedError) as caught:
                await bedrock.generate_text("Hi", model="claude")

    assert caught.value.message == f"127.0.0.1:{port} (the proxy) refused the connection."
    assert caught.value.kind == "proxy"
    assert "HTTPS_PROXY" in (caught.value.hint or "")


JWT = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ({"api_key": JWT}, "AZURE_OPENAI_AD_TOKEN"),
        ({"azure_ad_token": "0123456789abcdef" * 2}, "AZURE_OPENAI_API_KEY"),
        ({"api_key": "sk-proj-abc"}, "OpenAI's own service"),
    ],
)
async def test_a_refused_key_that_looks_like_another_kind_is_told_apart(
    config: dict[str, Any], hint: str, emulator: Emulator
) -> None:
    async with AzureOpenAIProvider(**config) as azure:
        with pytest.raises(AuthenticationError) as caught:
            await azure.generate_text("Hi", model="gpt-4.1")

    assert hint in (caught.value.hint or "")
    assert next(iter(config.values())) not in str(caught.value)


async def test_a_short_name_that_was_misspelt_is_guessed(emulator: Emulator) -> None:
    async with BedrockProvider() as bedrock:
        with pytest.raises(ModelNotFoundError) as caught:
            await bedrock.generate_text("Hi", model="cluade")
        with pytest.raises(ModelNotFoundError) as unlike:
            await bedrock.generate_text("Hi", model="anthropic.claude-1")

    assert (caught.value.hint or "").startswith("Did you mean 'claude'?")
    assert "Did you mean" not in (unlike.value.hint or "")
