"""What a Bedrock model id tells."""

from __future__ import annotations

import pytest

from apex_llm.codecs.bedrock_family import bare_model_id, claude_traits, claude_version, vendor

ARN = "arn:aws:bedrock:us-east-1"
PROFILE = f"{ARN}:123456789012:application-inference-profile/abc123def456"


@pytest.mark.parametrize(
    ("model_id", "bare", "maker"),
    [
        ("anthropic.claude-opus-4-8", "anthropic.claude-opus-4-8", "anthropic"),
        ("us.anthropic.claude-opus-4-6-v1", "anthropic.claude-opus-4-6-v1", "anthropic"),
        ("us-gov.anthropic.claude-3-haiku-20240307-v1:0", "anthropic.claude-3-haiku-20240307-v1:0", "anthropic"),
        ("anthropic.claude-3-sonnet-20240229-v1:0:28k", "anthropic.claude-3-sonnet-20240229-v1:0", "anthropic"),
        ("deepseek.v3.2", "deepseek.v3.2", "deepseek"),
        ("us.deepseek.r1-v1:0", "deepseek.r1-v1:0", "deepseek"),
        ("minimax.minimax-m2.1", "minimax.minimax-m2.1", "minimax"),
        (f"{ARN}::foundation-model/amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0", "amazon"),
        (f"{ARN}:123456789012:inference-profile/eu.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0", "amazon"),
        (f"{ARN}:123456789012:custom-model/amazon.nova-lite-v1:0:300k/abcdef012345", "amazon.nova-lite-v1:0", "amazon"),
        (PROFILE, PROFILE, ""),
        ("claude-opus-4-8", "claude-opus-4-8", "anthropic"),
        ("my-model", "my-model", ""),
    ],
)
def test_an_id_is_stripped_to_its_model(model_id: str, bare: str, maker: str) -> None:
    assert (bare_model_id(model_id), vendor(model_id)) == (bare, maker)


@pytest.mark.parametrize(
    ("model_id", "version"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", ("sonnet", 4, 5)),
        ("anthropic.claude-sonnet-4-20250514-v1:0", ("sonnet", 4, 0)),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", ("claude", 3, 7)),
        ("anthropic.claude-3-opus-20240229-v1:0", ("claude", 3, 0)),
        ("anthropic.claude-opus-4-6-v1", ("opus", 4, 6)),
        ("anthropic.claude-haiku-5-5", ("haiku", 5, 5)),
        ("anthropic.claude-opus-5", ("opus", 5, 0)),
        ("anthropic.claude-v2:1", ("claude", 2, 0)),
        ("anthropic.claude-instant-v1", ("claude", 2, 0)),
        ("anthropic.claude-mythos-preview", ("mythos", 99, 0)),
        ("amazon.nova-pro-v1:0", None),
        (PROFILE, None),
    ],
)
def test_a_claudes_generation_is_read_from_its_id(model_id: str, version: tuple[str, int, int] | None) -> None:
    assert claude_version(model_id) == version


def test_a_claude_that_is_newer_than_this_package_is_treated_as_the_newest() -> None:
    traits = claude_traits("global.anthropic.claude-opus-7")

    assert traits is not None
    assert (traits.thinking, traits.sampling) == ("adaptive", False)
