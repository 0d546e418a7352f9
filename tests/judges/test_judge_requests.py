"""What we send, judged by other people's types: botocore's parameter check, the request types of openai and anthropic.

Requests are made at random, a fifth of them with something odd. Each is either sent, and then fits the types
to the last member, or refused before sending, typed and with a hint.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import httpx
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.session import get_session
from botocore.validate import ParamValidator
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from requests_at_random import Requests
from typed_dictionaries import problems

from apex_llm import AzureOpenAIProvider, BaseLlmProvider, BedrockProvider, InvalidRequestError

pytestmark = pytest.mark.judge

HIDDEN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
CLAUDES = (
    *("us.anthropic.claude-sonnet-4-6", "anthropic.claude-3-haiku-20240307-v1:0", "anthropic.claude-opus-5"),
    *("anthropic.claude-3-7-sonnet-20250219-v1:0", "anthropic.claude-sonnet-5-5"),
)
OTHERS = (
    *("amazon.nova-2-lite-v1:0", "us.amazon.nova-pro-v1:0", "meta.llama3-3-70b-instruct-v1:0", "deepseek.r1-v1:0"),
    *("mistral.mistral-large-2407-v1:0", "cohere.command-r-v1:0", "openai.gpt-oss-120b-1:0", "qwen.qwen3-32b-v1:0"),
    *("writer.palmyra-x5-v1:0", "zai.glm-4.6", "moonshot.kimi-k2-thinking", "something.new", HIDDEN),
)
DEPLOYMENTS = {"gpt-4o": "gpt-4o", "o3": "o3-mini", "gpt-5": "gpt-5", "old": "gpt-35-turbo"}
ANSWERS = {
    "converse": {
        "output": {"message": {"role": "assistant", "content": [{"text": "x"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
    },
    "invoke": {"type": "message", "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn"},
    "completions": {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "x"}}]},
}


class Caught:
    """A transport that answers at once and keeps what it was sent."""

    def __init__(self) -> None:
        self.body: Any = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.body = json.loads(request.content)
        return httpx.Response(
            200,
            content=json.dumps(ANSWERS[request.url.path.rpartition("/")[2]]),
            headers={"content-type": "application/json"},
        )

    @property
    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self))


async def sent(
    provider: BaseLlmProvider, models: tuple[str, ...], seeds: range, caught: Caught, judge: Callable[[Any], Any]
) -> Counter[str]:
    """Send requests of these seeds; how many were sent and how many refused, once nothing is wrong with any."""
    outcome: Counter[str] = Counter()
    async with provider:
        for seed in seeds:
            random = Random(seed)
            model = random.choice(models)
            messages, options = Requests(random, odd=0.12).request()
            refusal: InvalidRequestError | None = None
            try:
                await provider.chat(messages, model=model, **options)
            except InvalidRequestError as error:
                refusal = error
            outcome["refused" if refusal else "sent"] += 1
            wrong = list(judge(caught.body)) if refusal is None else []
            assert not wrong, f"seed {seed} on {model}: {wrong[:5]}"
            assert refusal is None or (refusal.hint and refusal.phase == "prepare"), f"seed {seed}: {refusal}"
    return outcome


# ----------------------------------------------------------------------------------------------- Converse

CONVERSE = get_session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape
# How far these go is for each model to say; one range serves both clouds.
LEFT_TO_THE_MODEL = frozenset({".inferenceConfig.temperature", ".inferenceConfig.topP"})


def against_converse(body: dict[str, Any]) -> Iterator[str]:
    report = ParamValidator().validate({"modelId": "m", **body}, CONVERSE)
    yield from report.generate_report().splitlines()
    yield from against_shape(body, CONVERSE)


def against_shape(value: Any, shape: Shape, path: str = "") -> Iterator[str]:
    """What botocore leaves to the service: patterns, enumerations and upper bounds."""
    if getattr(shape, "is_document_type", False) or value is None:
        return
    most = shape.metadata.get("max")
    match shape:
        case StructureShape():
            for name in value.keys() & shape.members.keys():
                yield from against_shape(value[name], shape.members[name], f"{path}.{name}")
        case ListShape():
            for item in value:
                yield from against_shape(item, shape.member, f"{path}[]")
        case MapShape():
            for name, item in value.items():
                yield from against_shape(name, shape.key, f"{path}{{}}")
                yield from against_shape(item, shape.value, f"{path}.{name}")
        case _ if shape.type_name == "string":
            if getattr(shape, "enum", None) and value not in shape.enum:
                yield f"{path} is {value!r}, none of {shape.enum}"
            if shape.metadata.get("pattern") and not re.fullmatch(shape.metadata["pattern"], value):
                yield f"{path} is {value!r}, which does not match"
            if most is not None and len(value) > most:
                yield f"{path} is too long"
        case _:
            if most is not None and value > most and path not in LEFT_TO_THE_MODEL:
                yield f"{path} is {value}"


async def test_what_is_sent_to_converse_passes_botocores_check() -> None:
    caught = Caught()
    provider = BedrockProvider(
        aws_region="us-east-1",
        bearer_token="token",
        http_client=caught.client,
        retry=None,
        families={HIDDEN: HIDDEN},
    )

    outcome = await sent(provider, CLAUDES + OTHERS, range(1500), caught, against_converse)

    assert outcome["sent"] > 900


# ------------------------------------------------------------------------------------------------- Claude


def against_claude(body: dict[str, Any]) -> Iterator[str]:
    assert body.pop("anthropic_version") == "bedrock-2023-05-31"
    for name in ("temperature", "top_p", "top_k"):  # the newest client has no word for them; older models take them
        assert isinstance(body.pop(name, 0), int | float)
    yield from problems({"model": "m", **body}, MessageCreateParamsNonStreaming)


async def test_what_is_sent_to_claude_is_what_anthropics_types_describe() -> None:
    caught = Caught()
    provider = BedrockProvider(
        aws_region="us-east-1", bearer_token="token", http_client=caught.client, retry=None, api="invoke"
    )

    outcome = await sent(provider, CLAUDES, range(2000, 3500), caught, against_claude)

    assert outcome["sent"] > 400


# ------------------------------------------------------------------------------------------------- OpenAI


@pytest.mark.parametrize("version", ["v1", "2024-10-21", "2023-05-15"])
async def test_what_is_sent_to_azure_is_what_openais_types_describe(version: str) -> None:
    caught = Caught()
    provider = AzureOpenAIProvider(
        api_base="https://example.openai.azure.com",
        api_version=version,
        api_key="key",
        http_client=caught.client,
        retry=None,
        deployments=DEPLOYMENTS,
    )

    def against_openai(body: dict[str, Any]) -> Iterator[str]:
        assert ("model" in body) == (version == "v1")
        yield from problems({"model": "m", **body}, CompletionCreateParamsNonStreaming)

    outcome = await sent(provider, (*DEPLOYMENTS, "unknown"), range(4000, 5000), caught, against_openai)

    assert outcome["sent"] > 50
