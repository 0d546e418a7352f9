"""A slice of ``scripts/check-fuzz``, the findings of earlier runs, and what hypothesis thinks up by itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from campaign import ALONE, fuzz, shares
from fuzz_targets import Target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from socket_targets import socket_targets
from stored_targets import Sent

from apex_llm import ConfigurationError, OverloadedError, RateLimitError, ResponseFormatError, Secret
from apex_llm.codecs.chat.anthropic_messages import AnthropicMessagesCodec
from apex_llm.codecs.chat.bedrock_converse import BedrockConverseCodec
from apex_llm.codecs.chat.openai_chat import OpenAIChatCodec
from apex_llm.codecs.failures import bedrock_failure, bedrock_stream_failure
from apex_llm.credentials.aws_explicit import explicit_aws_credentials
from apex_llm.credentials.azure_entra import ClientSecret, Surroundings
from apex_llm.credentials.azure_tokens import azure_bearer, seconds_of
from apex_llm.errors import ApexLlmError
from apex_llm.types.http import Headers, HttpRequest

SLICE = 3_600
SOCKET_SLICE = 60
"""Of each target that needs a connection."""

TARGETS = [
    pytest.param(
        target, id=target.name, marks=[pytest.mark.shows_secrets("an identity is an argument of what is read")]
    )
    if target.name in {"age file", "export", "master key"}
    else pytest.param(target, id=target.name)
    for target in ALONE
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("target", TARGETS)
def test_nearly_good_input_gives_a_typed_error_or_an_answer(target: Target) -> None:
    findings = list(fuzz(target, range(shares(ALONE, SLICE)[target.name]), seed=7))

    assert not findings, "\n".join(map(str, findings[:3]))


@pytest.fixture(scope="module")
def over_sockets() -> Iterator[tuple[Target, ...]]:
    with socket_targets() as targets:
        yield targets


@pytest.mark.parametrize("index", range(4))
def test_nearly_good_answers_over_a_connection_never_hang_and_never_surprise(
    over_sockets: tuple[Target, ...], index: int
) -> None:
    findings = list(fuzz(over_sockets[index], range(SOCKET_SLICE), seed=7))

    assert not findings, "\n".join(map(str, findings[:3]))


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=300), seed=st.integers(0, 3))
def test_any_bytes_at_all_give_a_typed_error_or_an_answer(target: Target, data: bytes, seed: int) -> None:
    with contextlib.suppress(ApexLlmError):
        target.run(data, Random(seed))


@settings(max_examples=150, deadline=None)
@given(value=json_values, name=st.sampled_from(("contentBlockDelta", "messageStop", "metadata", "message", "")))
def test_any_json_gives_a_typed_error_or_events(value: object, name: str) -> None:
    payload = json.dumps(value).encode()
    for codec in (BedrockConverseCodec(), OpenAIChatCodec()):
        with contextlib.suppress(ApexLlmError):
            codec.stream_decoder().feed(name, payload)
        with contextlib.suppress(ApexLlmError):
            codec.decode(payload)


# Found by fuzzing ----------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [b"NaN", b"1e999", b'"\\ud83d"', b"Infinity", b'"\xed"'])
def test_raw_reads_every_body_that_the_codec_has_read(odd: bytes) -> None:
    """``decode`` is lenient with what clouds do send; ``raw`` raised msgspec's error for the same body."""
    converse = b'{"output":{"message":{"content":[{"text":"Hi"}]}},"stopReason":"end_turn","unread":%b}'
    chat = b'{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}],"unread":%b}'

    for response in (BedrockConverseCodec().decode(converse % odd), OpenAIChatCodec().decode(chat % odd)):
        assert response.text == "Hi"
        found = response.raw["unread"]
        assert isinstance(found, str) or not math.isfinite(found)


def test_the_name_of_an_error_is_kept_short_however_long_the_header_is() -> None:
    name = "ThrottlingException" + "x" * 60_000

    for error in (
        bedrock_failure(429, Headers((("x-amzn-errortype", name),)), b"{}"),
        bedrock_stream_failure(name, b"{}"),
    ):
        assert isinstance(error, RateLimitError)
        assert len(str(error)) < 2_000


def test_tool_input_that_is_not_utf8_is_a_typed_error() -> None:
    """msgspec passes raw members on unread, and decoding them raised ``UnicodeDecodeError``."""
    converse = b'{"output":{"message":{"content":[{"toolUse":{"toolUseId":"t","name":"f","input":{"\xe0":1}}}]}}}'
    claude = b'{"type":"message","content":[{"type":"tool_use","id":"t","name":"f","input":{"\xe0":1}}]}'

    with pytest.raises(ResponseFormatError, match="not UTF-8"):
        BedrockConverseCodec().decode(converse)
    with pytest.raises(ResponseFormatError, match="not UTF-8"):
        AnthropicMessagesCodec().decode(claude)


@pytest.mark.parametrize("odd", [10**400, "nan", "-inf", "1e400", 1e300])
def test_a_time_that_no_clock_will_show_is_none(odd: object) -> None:
    """An integer that no float holds raised ``OverflowError``; the others became times to wait for."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": odd if isinstance(odd, int) else 10**300}).encode()).decode()

    assert seconds_of(odd) is None
    assert azure_bearer(f"e30.{claims.rstrip('=')}.c2ln", source="test").expires_at is None
    with pytest.raises(ConfigurationError, match="expiry"):
        explicit_aws_credentials({"access_key": "a", "secret_key": "s", "expiry_time": odd})


def test_a_token_endpoint_that_asks_for_a_nonsensical_wait_is_asked_again_as_usual() -> None:
    waits: list[float] = []

    async def send(request: HttpRequest) -> Any:
        return Sent(503, b"", {"retry-after": "nan" if len(waits) else "-5"})

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def ask() -> None:
        await ClientSecret("tenant", "id", "secret").fetch_token("s", Surroundings(send=send, environ={}, sleep=sleep))

    with pytest.raises(OverloadedError):
        asyncio.run(ask())
    assert waits == [0.5, 1.0]


def test_a_secret_that_is_no_text_can_be_shown() -> None:
    assert "\ud83d" not in repr(Secret("\ud83d", name="key"))
