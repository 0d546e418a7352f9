"""From what users write to where requests go: regions, endpoints, aliases, pasted URLs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_llm import AzureOpenAIProvider, ConfigurationError, InvalidEndpointError
from apex_llm.providers.azure_openai.endpoints import azure_surface
from apex_llm.providers.bedrock.endpoints import bedrock_endpoints
from apex_llm.providers.bedrock.models import ALIASES, resolve_alias
from apex_llm.providers.endpoints import parse_endpoint


@pytest.mark.parametrize(
    ("region", "environ", "host"),
    [
        ("us-east-1", {}, "bedrock-runtime.us-east-1.amazonaws.com"),
        ("us-gov-west-1", {}, "bedrock-runtime.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", {}, "bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ("eusc-de-east-1", {}, "bedrock-runtime.eusc-de-east-1.amazonaws.eu"),
        ("us-iso-east-1", {}, "bedrock-runtime.us-iso-east-1.c2s.ic.gov"),
        ("us-east-1", {"AWS_USE_FIPS_ENDPOINT": "true"}, "bedrock-runtime-fips.us-east-1.amazonaws.com"),
        ("us-east-1", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "bedrock-runtime.us-east-1.api.aws"),
        (
            "cn-north-1",
            {"AWS_USE_DUALSTACK_ENDPOINT": "TRUE", "AWS_USE_FIPS_ENDPOINT": "true"},
            "bedrock-runtime-fips.cn-north-1.api.amazonwebservices.com.cn",
        ),
    ],
)
def test_hosts_follow_the_partition_and_the_variables(region: str, environ: dict[str, str], host: str) -> None:
    endpoints = bedrock_endpoints(region, endpoint_url=None, environ=environ)

    assert endpoints.runtime.origin.url == f"https://{host}"
    assert endpoints.control.origin.host == host.replace("bedrock-runtime", "bedrock")


def test_hosts_are_those_that_botocore_resolves() -> None:
    """Every region and variant that botocore's own rules name."""
    session = pytest.importorskip("botocore.session").get_session()
    config = pytest.importorskip("botocore.config").Config
    for region in ("us-east-1", "eu-central-2", "ap-southeast-7", "us-gov-east-1", "cn-northwest-1", "eusc-de-east-1"):
        for fips in (False, True):
            client = session.create_client(
                "bedrock-runtime",
                region_name=region,
                aws_access_key_id="x",
                aws_secret_access_key="x",
                config=config(use_fips_endpoint=fips),
            )
            ours = bedrock_endpoints(region, endpoint_url=None, environ={"AWS_USE_FIPS_ENDPOINT": str(fips).lower()})
            assert ours.runtime.origin.url == client.meta.endpoint_url


@pytest.mark.parametrize(
    ("argument", "environ", "runtime", "control"),
    [
        ("https://gw.example.com/base/", {}, "https://gw.example.com/base", "https://gw.example.com/base"),
        (
            None,
            {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://127.0.0.1:1", "AWS_ENDPOINT_URL": "http://127.0.0.1:2"},
            "http://127.0.0.1:1",
            "http://127.0.0.1:2",
        ),
        (
            None,
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:2", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            "https://bedrock-runtime.us-east-1.amazonaws.com",
            "https://bedrock.us-east-1.amazonaws.com",
        ),
        (
            "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com",
            {},
            "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com",
            "https://bedrock.us-east-1.amazonaws.com",
        ),
    ],
)
def test_overrides_come_in_the_order_of_the_aws_tools(
    argument: str | None, environ: dict[str, str], runtime: str, control: str
) -> None:
    found = bedrock_endpoints("us-east-1", endpoint_url=argument, environ=environ)

    assert found.runtime.origin.url + found.runtime.base_path == runtime
    assert found.control.origin.url + found.control.base_path == control


def test_an_override_together_with_fips_is_refused_as_the_aws_tools_refuse_it() -> None:
    with pytest.raises(ConfigurationError, match="FIPS"):
        bedrock_endpoints("us-east-1", endpoint_url="http://127.0.0.1:1", environ={"AWS_USE_FIPS_ENDPOINT": "true"})


@pytest.mark.parametrize(
    ("name", "region", "model"),
    [
        ("claude", "us-east-1", "us.anthropic.claude-sonnet-4-6"),
        ("Claude", "eu-west-1", "eu.anthropic.claude-sonnet-4-6"),
        ("claude", "ap-northeast-1", "jp.anthropic.claude-sonnet-4-6"),
        ("claude", "ap-southeast-2", "au.anthropic.claude-sonnet-4-6"),
        ("claude", "ap-south-1", "apac.anthropic.claude-sonnet-4-6"),
        ("claude", "sa-east-1", "global.anthropic.claude-sonnet-4-6"),
        ("claude-instant", "us-west-2", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("titan", "us-east-1", "us.amazon.nova-2-lite-v1:0"),
        ("llama2", "us-east-1", "us.meta.llama3-3-70b-instruct-v1:0"),
        ("llama2", "eu-west-1", "meta.llama3-3-70b-instruct-v1:0"),
        ("titan-embed", "us-east-1", "amazon.titan-embed-text-v2:0"),
        ("anthropic.claude-v2", "us-east-1", None),
    ],
)
def test_aliases_point_to_current_models_through_the_profile_of_the_region(
    name: str, region: str, model: str | None
) -> None:
    assert resolve_alias(name, region=region) == model


def test_the_callers_own_aliases_come_first_and_are_taken_as_they_are() -> None:
    assert resolve_alias("claude", region="us-east-1", aliases={"claude": "arn:mine"}) == "arn:mine"


def test_no_alias_points_to_another_alias() -> None:
    assert not {alias.model for alias in ALIASES.values()} & set(ALIASES)


@pytest.mark.parametrize(
    ("url", "explicit", "configured", "expected"),
    [
        ("https://r.openai.azure.com", None, None, ("/openai/v1", None, None)),
        ("https://r.openai.azure.com/", None, "2024-10-21", ("/openai", "2024-10-21", None)),
        ("https://r.openai.azure.com", "2023-05-15", "2024-10-21", ("/openai", "2023-05-15", None)),
        ("https://r.openai.azure.com", "v1", "2024-10-21", ("/openai/v1", None, None)),
        ("r.openai.azure.com/openai", "2024-10-21", None, ("/openai", "2024-10-21", None)),
        ("https://r.openai.azure.com/openai/v1/", None, "2024-10-21", ("/openai/v1", None, None)),
        ("https://r.openai.azure.com/openai/v1/chat/completions", None, None, ("/openai/v1", None, None)),
        (
            "https://r.openai.azure.com/openai/deployments/my%20d/chat/completions?api-version=2025-01-01-preview",
            None,
            None,
            ("/openai", "2025-01-01-preview", "my d"),
        ),
        ("https://gw.example.com/team/a", "2024-10-21", None, ("/team/a/openai", "2024-10-21", None)),
        ("https://gw.example.com/team/a/openai/v1", None, None, ("/team/a/openai/v1", None, None)),
        ("http://127.0.0.1:8080", None, None, ("/openai/v1", None, None)),
        ("https://r.services.ai.azure.com", None, None, ("/openai/v1", None, None)),
        ("https://r.services.ai.azure.com/models", None, None, ("/openai/v1", None, None)),
        (
            "https://r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
            None,
            None,
            ("/openai/v1", None, None),
        ),
        ("https://r.services.ai.azure.com/api/projects/p", None, None, ("/openai/v1", None, None)),
        (
            "https://r.services.ai.azure.com/api/projects/p/openai/v1/",
            None,
            None,
            ("/api/projects/p/openai/v1", None, None),
        ),
        (
            "https://r.openai.azure.com/openai/responses?api-version=2025-04-01-preview",
            None,
            None,
            ("/openai", "2025-04-01-preview", None),
        ),
        ("https://r.openai.azure.com/openai/deployments", "2024-10-21", None, ("/openai", "2024-10-21", None)),
        ("https://gw.example.com/a/openai/chat/completions", None, None, ("/a/openai/v1", None, None)),
        ("https://gw.example.com/openai/prod", "2024-10-21", None, ("/openai/prod/openai", "2024-10-21", None)),
        ("https://r.openai.azure.com//openai/v1", None, None, ("/openai/v1", None, None)),
        ("https://r.openai.azure.com//openai/deployments/d", " 2024-10-21\n", None, ("/openai", "2024-10-21", "d")),
        (
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "v1",
            None,
            ("/openai/v1", None, "d"),
        ),
    ],
)
def test_an_azure_endpoint_is_read_in_any_form_that_people_paste(
    url: str, explicit: str | None, configured: str | None, expected: tuple[Any, ...]
) -> None:
    surface = azure_surface(url, api_version=explicit, configured_version=configured, name="api_base")

    assert (surface.root, surface.api_version, surface.deployment) == expected


@pytest.mark.parametrize(
    ("url", "version"),
    [
        ("https://r.openai.azure.com/openai/v1", "2024-10-21"),
        ("https://r.openai.azure.com", "latest-and-greatest"),
        ("https://r.openai.azure.com", "2024-13"),
    ],
)
def test_versions_that_contradict_the_endpoint_or_are_none_are_refused(url: str, version: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        azure_surface(url, api_version=version, configured_version=None, name="api_base")

    assert caught.value.hint


@pytest.mark.parametrize(
    ("url", "scope"),
    [
        ("https://r.openai.azure.com", "https://cognitiveservices.azure.com/.default"),
        ("https://r.services.ai.azure.com/api/projects/p", "https://cognitiveservices.azure.com/.default"),
        ("https://r.services.ai.azure.com/api/projects/p/openai/v1", "https://ai.azure.com/.default"),
        ("https://r.openai.azure.us", "https://cognitiveservices.azure.us/.default"),
        ("https://r.openai.azure.cn", "https://cognitiveservices.azure.cn/.default"),
        ("https://gw.example.com/team", "https://cognitiveservices.azure.com/.default"),
        ("https://azure.us.example.com", "https://cognitiveservices.azure.com/.default"),
    ],
)
def test_a_token_is_for_the_cloud_that_the_endpoint_belongs_to(url: str, scope: str) -> None:
    """The government's cloud knows no resource of the public one: its directory would refuse (AADSTS500011)."""
    surface = azure_surface(url, api_version=None, configured_version=None, name="api_base")

    assert surface.token_scope == scope


async def test_a_credential_is_asked_for_a_token_of_that_cloud() -> None:
    asked: list[str] = []

    class Credential:
        async def get_token(self, scope: str) -> str:
            asked.append(scope)
            return "token"

    async with AzureOpenAIProvider(api_base="https://r.openai.azure.us", credential=Credential()) as provider:
        await provider.initialize()

    assert asked == ["https://cognitiveservices.azure.us/.default"]


@pytest.mark.parametrize(
    ("url", "host", "scope"),
    [
        ("https://r.openai.azure.us", "management.usgovcloudapi.net", "https://management.usgovcloudapi.net/.default"),
        ("https://gw.example.com", "management.usgovcloudapi.net", "https://management.usgovcloudapi.net/.default"),
        ("https://r.openai.azure.com", "127.0.0.1", "https://management.azure.com/.default"),
    ],
)
def test_a_token_for_the_management_plane_is_for_its_cloud(url: str, host: str, scope: str) -> None:
    surface = azure_surface(url, api_version=None, configured_version=None, name="api_base")

    assert surface.management_scope(host) == scope


def test_preview_is_the_v1_surface_with_its_one_query() -> None:
    surface = azure_surface("https://r.openai.azure.com", api_version="preview", configured_version=None, name="x")

    assert surface.is_v1
    assert surface.query == (("api-version", "preview"),)


@given(
    st.sampled_from(["https://", "http://", "HTTPS://", ""]),
    st.lists(st.sampled_from([*"aZ0.-_~/:@?#[]%\\ ", "a.example", ":443", ":65536", "127.0.0.1"]), max_size=8),
)
def test_an_endpoint_is_taken_apart_as_urllib_takes_it_apart(scheme: str, pieces: list[str]) -> None:
    """Plain URLs are not given to urllib, which takes longer to import than a call takes."""
    text = scheme + "".join(pieces)
    try:
        endpoint, query = parse_endpoint(text, name="x", allow_insecure=True)
    except InvalidEndpointError:
        return
    parts = urlsplit(text.strip() if "://" in text else f"https://{text.strip()}")

    assert (endpoint.origin.scheme, endpoint.origin.host) == (parts.scheme, parts.hostname)
    assert endpoint.origin.port == (parts.port or {"https": 443, "http": 80}[parts.scheme])
    assert (endpoint.base_path, query) == (parts.path.rstrip("/"), parts.query)
    assert parts.username is None
    assert not parts.fragment


@pytest.mark.parametrize("url", ["https://[", "https://[::1", "https://a.example:port"])
def test_an_azure_endpoint_that_is_no_url_is_refused_as_such(url: str) -> None:
    with pytest.raises(InvalidEndpointError):
        azure_surface(url, api_version=None, configured_version=None, name="api_base")
