"""An answer goes back as history, to the service that gave it and to every other: judged by their own types.

On the way home nothing is lost that the service wants back: what thinking was signed with, ids, sources. Elsewhere
the rules of the reference hold, and whatever is sent is still what the service describes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from anthropic.types import Message as ClaudeMessage
from botocore.session import get_session
from openai.types.chat import ChatCompletion
from test_judge_requests import CompletionCreateParamsNonStreaming, against_claude, against_converse, problems
from wire_values import Values

from apex_llm import (
    CitationPart,
    ImagePart,
    InvalidRequestError,
    Message,
    ReasoningPart,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from apex_llm.codecs.base import ChatCodec
from apex_llm.codecs.chat.anthropic_messages import AnthropicMessagesCodec
from apex_llm.codecs.chat.bedrock_converse import BedrockConverseCodec
from apex_llm.codecs.chat.openai_chat import OpenAIChatCodec
from apex_llm.types.requests import ChatRequest

pytestmark = pytest.mark.judge

CONVERSE = get_session().get_service_model("bedrock-runtime").operation_model("Converse").output_shape
NOT_ANSWERED = {
    f"{union}.{name}": None
    for union, names in {
        "ContentBlock": "cachePoint document guardContent searchResult toolAddition toolRemoval audio video",
        "ToolResultContentBlock": "image document video searchResult",
    }.items()
    for name in names.split()
}
CLAUDE, NOVA = "anthropic.claude-sonnet-4-6", "amazon.nova-2-lite-v1:0"


def from_converse(random: Random) -> Message:
    values = Values(random, longest=4)
    ids = iter(range(100))
    values.forced |= NOT_ANSWERED | {
        "toolUse.type": "tool_use",
        "message.role": "assistant",
        "toolUse.name": lambda: random.choice(["get_weather", "nova_code_interpreter"]),
        "toolUse.toolUseId": lambda: f"tooluse_{next(ids)}:x",
        "toolResult.toolUseId": "tooluse_0:x",
        "toolResult.type": "nova_code_interpreter_result",
        "source.bytes": base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(),
        "s3Location.uri": "s3://my-bucket/image.png",
        "image.error": {},
        "CitationLocation.web": None,
    }
    wire = values.of_shape(CONVERSE)
    for block in wire["output"]["message"]["content"]:
        if "toolUse" in block and block["toolUse"]["name"].startswith("nova_"):
            block["toolUse"]["type"] = "server_tool_use"
    return BedrockConverseCodec().decode(json.dumps(wire).encode()).message


def from_claude(random: Random) -> Message:
    wire = Values(random, forced={"model": "claude"}, longest=4).of_type(ClaudeMessage)
    for number, block in enumerate(wire["content"]):
        if "id" in block:
            block["id"] = f"{'srvtoolu' if block['type'] == 'server_tool_use' else 'toolu'}_{number}"
        if block["type"] == "tool_use":
            block["name"] = "get_weather"
        if "tool_use_id" in block:
            block["tool_use_id"] = f"srvtoolu_{number - 1}"
    return AnthropicMessagesCodec().decode(json.dumps(wire).encode()).message


def from_openai(random: Random) -> Message:
    values = Values(random, longest=3)
    values.forced |= {"function.name": lambda: random.choice(["get_weather", "functions.weather<|x|>"])}
    wire = values.of_type(ChatCompletion)
    while len(wire["choices"]) != 1:
        wire = values.of_type(ChatCompletion)
    return OpenAIChatCodec().decode(json.dumps(wire).encode()).message


def against_openai(body: dict[str, Any]) -> Iterator[str]:
    yield from problems(body, CompletionCreateParamsNonStreaming)


ORIGINS: dict[str, Callable[[Random], Message]] = {
    "converse": from_converse,
    "claude": from_claude,
    "openai": from_openai,
}
GOALS: dict[str, tuple[ChatCodec, str, Callable[[dict[str, Any]], Iterator[str]]]] = {
    "converse, claude": (BedrockConverseCodec(), CLAUDE, against_converse),
    "converse, nova": (BedrockConverseCodec(), NOVA, against_converse),
    "converse, llama": (BedrockConverseCodec(), "meta.llama3-3-70b-instruct-v1:0", against_converse),
    "converse, hidden": (BedrockConverseCodec(), "something.new", against_converse),
    "claude": (AnthropicMessagesCodec(), CLAUDE, against_claude),
    "openai": (OpenAIChatCodec(), "gpt-4o", against_openai),
}


def conversation(answer: Message) -> tuple[Message, ...]:
    results = tuple(ToolResultPart(tool_call_id=call.id, content="22 degrees") for call in answer.tool_calls)
    asked = (Message.user("How is the weather?"), answer)
    return (*asked, Message("tool", results)) if results else (*asked, Message.user("Go on."))


@pytest.mark.parametrize("goal", list(GOALS))
@pytest.mark.parametrize("origin", list(ORIGINS))
def test_an_answer_goes_back_to_every_service(origin: str, goal: str) -> None:
    codec, model, judge = GOALS[goal]
    went = 0
    for seed in range(120):
        answer = ORIGINS[origin](Random(seed))
        try:
            body, _ = codec.encode(ChatRequest(model=model, messages=conversation(answer)), stream=False)
        except InvalidRequestError:
            # Images of the model's own making are at home on Bedrock.
            assert goal in {"openai", "claude"}, f"seed {seed}"
            assert any(isinstance(part, ImagePart) for part in answer.parts), f"seed {seed}"
            continue
        went += 1
        wrong = list(judge(json.loads(body)))
        assert not wrong, f"seed {seed}: {wrong[:4]}"
    assert went > 60


def calls_and_results(body: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Ids of calls that wait for us, and of our results, in the order in which they stand."""
    calls: list[str] = []
    results: list[str] = []
    for message in body["messages"]:
        calls += [call["id"] for call in message.get("tool_calls") or ()]
        results += [message["tool_call_id"]] if "tool_call_id" in message else []
        blocks = message["content"] if isinstance(message["content"], list) else []
        for block in blocks:
            use = block.get("toolUse") or (block if block.get("type") == "tool_use" else None)
            if use is not None and use.get("type") != "server_tool_use":
                calls.append(use.get("toolUseId") or use["id"])
            result = block.get("toolResult") or (block if block.get("type") == "tool_result" else None)
            if result is not None and message["role"] == "user":
                results.append(result.get("toolUseId") or result["tool_use_id"])
    return calls, results


@pytest.mark.parametrize("goal", list(GOALS))
@pytest.mark.parametrize(
    "ids",
    [("functions.weather:0", "functions.weather:1"), ("a" * 70 + "1", "a" * 70 + "2"), ("call 1/é|x",), ("call_1", "")],
)
def test_a_call_and_its_result_still_belong_together(goal: str, ids: tuple[str, ...]) -> None:
    codec, model, _ = GOALS[goal]
    calls = tuple(ToolCallPart(id=each, name="get_weather", arguments="{}") for each in ids)

    body, _ = codec.encode(ChatRequest(model=model, messages=conversation(Message("assistant", calls))), stream=False)

    asked, answered = calls_and_results(json.loads(body))
    assert asked == answered
    assert len(set(asked)) == len(ids)
    assert all(1 <= len(each) <= (40 if goal == "openai" else 64) for each in asked)


def test_what_claude_signed_and_cited_comes_home_unchanged() -> None:
    for seed in range(200):
        random = Random(seed)
        wire = Values(random, forced={"model": "claude"}, longest=4).of_type(ClaudeMessage)
        wire["content"] = [
            block for block in wire["content"] if block["type"] in {"text", "thinking", "redacted_thinking"}
        ]
        for block in wire["content"]:
            for citation in block.get("citations") or []:
                title = "title" if "search_result" in citation["type"] else "document_title"
                citation[title] = citation.get(title)
            if not block.get("citations"):
                block.pop("citations", None)
        answer = AnthropicMessagesCodec().decode(json.dumps(wire).encode()).message
        request = ChatRequest(model=CLAUDE, messages=(Message.user("Hi"), answer, Message.user("Go on.")))

        body, warnings = AnthropicMessagesCodec().encode(request, stream=False)

        home = wire["content"]
        for citation in (each for block in home for each in block.get("citations", ())):
            citation.pop("file_id", None)  # only answers have it
        back = json.loads(body)["messages"][1]["content"] if home else home
        assert back == home, f"seed {seed}"
        assert not warnings, f"seed {seed}"


def test_what_converse_signed_and_cited_comes_home_unchanged() -> None:
    for seed in range(200):
        answer = from_converse(Random(seed))
        kept = tuple(part for part in answer.parts if not isinstance(part, ToolCallPart | ToolResultPart))
        request = ChatRequest(
            model=CLAUDE, messages=(Message.user("Hi"), Message("assistant", kept), Message.user("Go on."))
        )

        body, warnings = BedrockConverseCodec().encode(request, stream=False)

        said = json.dumps(json.loads(body)["messages"], ensure_ascii=False)
        for part in kept:
            if isinstance(part, ReasoningPart):
                assert part.redacted is None or part.redacted in said, f"seed {seed}"
                assert not part.signature or json.dumps(part.signature, ensure_ascii=False) in said, f"seed {seed}"
            if isinstance(part, CitationPart) and part.location and not warnings:
                assert json.dumps(part.location, ensure_ascii=False) in said, f"seed {seed}"


@pytest.mark.parametrize("goal", list(GOALS))
def test_a_call_that_must_be_made_of_tools_that_are_not_there_is_told(goal: str) -> None:
    codec, model, _ = GOALS[goal]

    _, warnings = codec.encode(
        ChatRequest(model=model, messages=(Message.user("Hi"),), tool_choice=ToolChoice("required")), stream=False
    )

    assert any("tool_choice" in warning and "no tools" in warning for warning in warnings)


@pytest.mark.parametrize("goal", ["claude", "openai"])
def test_a_choice_goes_with_tools_of_extra_body(goal: str) -> None:
    codec, model, _ = GOALS[goal]
    request = ChatRequest(
        model=model,
        messages=(Message.user("Hi"),),
        tool_choice=ToolChoice("required"),
        extra_body={"tools": [{"type": "custom", "name": "x"}]},
    )

    body, warnings = codec.encode(request, stream=False)

    assert json.loads(body)["tool_choice"] in ("required", {"type": "any"})
    assert not warnings
