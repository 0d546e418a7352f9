"""Answers as other people's types describe them, made at random: nothing is lost, and a stream says the same.

The shapes are botocore's, the models openai's and anthropic's. Every text and number of an answer is
different, so that what our values do not show can be told by name.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import msgspec
import pytest
from anthropic.types import Message as ClaudeMessage
from botocore.session import get_session
from openai.types.chat import ChatCompletion
from streamed import claude_events, converse_events, openai_chunks
from wire_values import Values, leaves

from apex_llm.codecs.base import DONE, StreamDecoder
from apex_llm.codecs.chat.anthropic_messages import AnthropicMessagesCodec
from apex_llm.codecs.chat.bedrock_converse import BedrockConverseCodec
from apex_llm.codecs.chat.openai_chat import OpenAIChatCodec
from apex_llm.codecs.replay import ReplayCodec
from apex_llm.streaming.accumulator import Accumulator
from apex_llm.types.responses import ChatResponse

pytestmark = pytest.mark.judge

RUNTIME = get_session().get_service_model("bedrock-runtime")
CONVERSE = RUNTIME.operation_model("Converse").output_shape
CONVERSE_STREAM = RUNTIME.operation_model("ConverseStream").output_shape.members["stream"]
NOT_ANSWERED = {
    f"ContentBlock.{name}": None
    for name in ("cachePoint", "document", "guardContent", "searchResult", "toolAddition", "toolRemoval")
}
NOT_STREAMED = {
    **NOT_ANSWERED,
    **{f"ContentBlock.{name}": None for name in ("audio", "video")},
    **{f"ToolResultContentBlock.{name}": None for name in ("image", "document", "video", "searchResult")},
}


def collected(decoder: StreamDecoder, payloads: Iterable[tuple[str, Any]]) -> ChatResponse:
    whole = Accumulator()
    for name, payload in payloads:
        whole.add(decoder.feed(name, json.dumps(payload).encode() if payload is not None else b""))
    whole.add(decoder.finish())
    return whole.response(model="", request_id=None, attempts=1)


def unlike(streamed: ChatResponse, whole: ChatResponse, *but: str) -> dict[str, Any]:
    """The members that differ, of those that the wire decides about."""
    wire = {"message", "finish_reason", "raw_finish_reason", "usage", "model", "id", "warnings", "extra"} - {*but}
    return {
        name: (getattr(streamed, name), getattr(whole, name))
        for name in sorted(wire)
        if getattr(streamed, name) != getattr(whole, name)
    }


def missing(wire: Any, *shown: Any) -> Iterator[str]:
    """Where the values stood that our own do not show."""
    found = [value for each in shown for _, value in leaves(_plain(each))]
    numbers = {float(value) for value in found if not isinstance(value, str)}
    text = "\x00".join(value for value in found if isinstance(value, str))
    for path, value in leaves(wire):
        if isinstance(value, str):
            # Tool arguments are JSON in text; they were written by json.dumps in here.
            if value not in text and json.dumps(value)[1:-1] not in text:
                yield path
        elif float(value) not in numbers and json.dumps(value) not in text:
            yield path


def _plain(value: Any) -> Any:
    if isinstance(value, ChatResponse):
        value = msgspec.structs.replace(value, body=b"")
    return msgspec.json.decode(msgspec.json.encode(value))


# ----------------------------------------------------------------------------------------------- Converse


@pytest.mark.parametrize("start", range(0, 900, 300))
def test_an_answer_of_converse_is_shown_whole(start: int) -> None:
    unshown = {
        ".output.message.role",
        ".output.message.content[].toolUse.type",
        ".output.message.content[].toolResult.status",
        ".output.message.content[].toolResult.type",
    }
    for seed in range(start, start + 300):
        values = Values(Random(seed), forced=NOT_ANSWERED | {"source.s3Location": {"uri": "s3://b/k"}, "error": None})
        wire = values.of_shape(CONVERSE)

        answer = BedrockConverseCodec().decode(json.dumps(wire).encode())

        names = {part.name for part in answer.message.parts if hasattr(part, "name")}
        lost = {path for path in missing(wire, answer, sorted(filter(None, names))) if path not in unshown}
        assert not lost, f"seed {seed}"


def test_a_stream_of_converse_says_what_the_whole_answer_says() -> None:
    for seed in range(800):
        random = Random(seed)
        values = Values(random, forced=NOT_STREAMED | {"message.role": "assistant"}, longest=4)
        wire = values.of_shape(CONVERSE)
        whole = BedrockConverseCodec().decode(json.dumps(wire).encode())

        streamed = collected(BedrockConverseCodec().stream_decoder(), converse_events(wire, random))
        replayed = collected(ReplayCodec(BedrockConverseCodec()).stream_decoder(), [("body", wire)])

        assert not unlike(streamed, whole), f"seed {seed}"
        assert not unlike(replayed, whole), f"seed {seed}, replayed"


def test_an_image_of_converse_is_an_image() -> None:
    wire = {
        "output": {"message": {"content": [{"image": {"format": "png", "source": {"bytes": "iVBORw0KGgo="}}}]}},
        "stopReason": "end_turn",
    }

    (image,) = BedrockConverseCodec().decode(json.dumps(wire).encode()).message.parts

    assert (image.format, image.data) == ("png", base64.b64decode("iVBORw0KGgo="))


# ------------------------------------------------------------------------------------------------- Claude


def test_an_answer_of_claude_is_shown_whole() -> None:
    for seed in range(400):
        wire = Values(Random(seed), forced={"model": "claude"}).of_type(ClaudeMessage)

        answer = AnthropicMessagesCodec().decode(json.dumps(wire).encode())

        said_otherwise = (".type", ".role", ".stop_reason", ".caller.tool_id", ".toolset_name", ".file_id")
        lost = {path for path in missing(wire, answer) if not path.endswith(said_otherwise)}
        assert not lost, f"seed {seed}"


def test_a_stream_of_claude_says_what_the_whole_answer_says() -> None:
    for seed in range(400):
        random = Random(seed)
        wire = Values(random, forced={"model": "claude"}, longest=4).of_type(ClaudeMessage)
        wire["usage"] = {name: value for name, value in wire["usage"].items() if value is not None}
        whole = AnthropicMessagesCodec().decode(json.dumps(wire).encode())

        streamed = collected(AnthropicMessagesCodec().stream_decoder(), claude_events(wire, random))

        assert not unlike(streamed, whole), f"seed {seed}"


# ------------------------------------------------------------------------------------------------- OpenAI

FILTERED = {
    "hate": {"filtered": False, "severity": "low"},
    "protected_material_code": {"filtered": False, "detected": False, "citation": {"URL": "u", "license": "l"}},
}


def completion(random: Random) -> dict[str, Any]:
    """With one choice, as Azure answers; what cannot come together does not."""
    values = Values(random, longest=3)
    values.forced["audio.data"] = lambda: base64.b64encode(values.text().encode()).decode()
    wire = values.of_type(ChatCompletion)
    while len(wire["choices"]) != 1:
        wire = values.of_type(ChatCompletion)
    (choice,) = wire["choices"]
    message = choice["message"]
    choice["index"] = 0
    if message.get("content"):
        message.pop("refusal", None)
    if message.get("tool_calls"):
        message.pop("function_call", None)
    if random.random() < 0.3:
        message["reasoning_content"] = values.text()
    if random.random() < 0.5:
        choice["content_filter_results"] = FILTERED
        wire["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": FILTERED}]
    return wire


def test_an_answer_of_openai_is_shown_whole() -> None:
    for seed in range(400):
        wire = completion(Random(seed))

        answer = OpenAIChatCodec().decode(json.dumps(wire).encode())

        said_otherwise = (".created", ".object", ".index", ".role", ".tool_calls[].type")
        lost = {path for path in missing(wire, answer) if not path.endswith(said_otherwise)}
        assert not lost, f"seed {seed}"


def test_a_stream_of_openai_says_what_the_whole_answer_says() -> None:
    for seed in range(600):
        random = Random(seed)
        wire = completion(random)
        whole = OpenAIChatCodec().decode(json.dumps(wire).encode())
        chunks = [("message", chunk) for chunk in openai_chunks(wire, random)]

        streamed = collected(OpenAIChatCodec().stream_decoder(), [*chunks, (DONE, None)])

        assert not unlike(streamed, whole), f"seed {seed}"
