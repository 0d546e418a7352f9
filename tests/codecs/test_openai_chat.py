"""The OpenAI chat format: what is sent, what is read, and how a stream ends."""

# ruff: noqa: E501 - tables of wire shapes, one row each

from __future__ import annotations

import contextlib
import copy
import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParams
from pydantic import TypeAdapter

from apex_llm.codecs.base import DONE
from apex_llm.codecs.chat.openai_chat import OpenAIChatCodec, OpenAIChatProfile, profile_for
from apex_llm.errors import (
    ApexLlmError,
    InvalidRequestError,
    LimitExceededError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ResponseFormatError,
    StreamTruncatedError,
)
from apex_llm.types.events import (
    ContentFiltered,
    ReasoningDelta,
    StreamEvent,
    StreamFinished,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from apex_llm.types.messages import (
    AudioPart,
    CachePoint,
    DocumentPart,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    VideoPart,
)
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import ChatResponse, FinishReason
from apex_llm.types.tools import Tool, ToolChoice

PNG = b"\x89PNG\r\n\x1a\n0000"
WEATHER = Tool(
    name="get_weather",
    description="Weather for a city",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    strict=True,
)
OLD = profile_for("2023-05-15", "gpt-4")


def request(*messages: Message, **options: Any) -> ChatRequest:
    return ChatRequest(model="chat", messages=messages or (Message.user("Hi"),), **options)


def encode(
    *messages: Message, profile: OpenAIChatProfile | None = None, stream: bool = False, **options: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    body, warnings = OpenAIChatCodec(profile).encode(request(*messages, **options), stream=stream)
    return json.loads(body), warnings


EVERYTHING: list[tuple[tuple[Message, ...], dict[str, Any]]] = [
    ((Message.user("Hi"),), {}),
    ((Message.system("Be brief."), Message.user("Hi")), {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 1}),
    ((Message.user("Hi", "there"),), {"stop": ("a", "b"), "metadata": {"k": "v"}, "reasoning_effort": "low"}),
    ((Message.user("What?", ImagePart(data=PNG, detail="low"), ImagePart(url="https://x/y.png")),), {}),
    ((Message.user(AudioPart(data=b"RIFF", format="wav"), DocumentPart(data=b"%PDF", format="pdf", name="a")),), {}),
    (
        (
            Message.user("Weather?"),
            Message.assistant(ReasoningPart(text="hm"), ToolCallPart(id="c1", name="get_weather", arguments='{"city":"Oslo"}')),
            Message.tool("c1", {"degrees": 4}),
            Message.assistant("4 degrees"),
            Message.user("And now?"),
        ),
        {"tools": (WEATHER,), "tool_choice": ToolChoice("tool", "get_weather"), "parallel_tool_calls": False},
    ),
    ((Message.user("Hi"),), {"tools": (WEATHER, Tool(name="b")), "tool_choice": ToolChoice("required")}),
    ((Message.user("Hi"),), {"response_format": {"type": "json_object"}}),
    ((Message.user("Hi"),), {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}}),
]  # fmt: skip


CREATE_PARAMS = TypeAdapter(CompletionCreateParams)


def _exhaust(value: Any) -> Any:
    """TypedDicts of the SDK hold Iterable, which pydantic checks only while it is iterated."""
    if isinstance(value, dict):
        return {name: _exhaust(member) for name, member in value.items()}
    if isinstance(value, str | int | float | bool | bytes | None):
        return value
    return [_exhaust(item) for item in value]


@pytest.mark.parametrize(("messages", "options"), EVERYTHING)
@pytest.mark.parametrize("stream", [False, True])
def test_bodies_are_what_the_openai_sdk_would_take(
    messages: tuple[Message, ...], options: dict[str, Any], stream: bool
) -> None:
    body, warnings = encode(*messages, stream=stream, **options)

    accepted = _exhaust(CREATE_PARAMS.validate_python(body))

    assert accepted == body
    assert warnings == ()


def test_a_whole_body_is_written_as_documented() -> None:
    body, warnings = encode(
        Message.system("Be brief."),
        Message.user("What is this?", CachePoint(), ImagePart(data=PNG)),
        Message.assistant(
            ReasoningPart(text="thinking"),
            "Let me look.",
            ToolCallPart(id="c1", name="look", arguments=""),
            ToolCallPart(id="c2", name="look", arguments='{"a":1}'),
        ),
        Message("tool", (ToolResultPart(tool_call_id="c1", content="red"), ToolResultPart(tool_call_id="c2", content=[1]))),
        max_tokens=9,
        tools=(WEATHER,),
        tool_choice=ToolChoice("tool", "get_weather"),
        stream=True,
        extra_body={"stream_options": {"include_obfuscation": False}, "user": "u"},
    )  # fmt: skip

    assert warnings == ()
    assert body == {
        "model": "chat",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgowMDAw"}},
                ],
            },
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
                    {"id": "c2", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "red"},
            {"role": "tool", "tool_call_id": "c2", "content": "[1]"},
        ],
        "max_completion_tokens": 9,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "Weather for a city",
                    "parameters": WEATHER.parameters,
                    "strict": True,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "user": "u",
    }


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    response = OpenAIChatCodec().decode(completion({"content": None, "tool_calls": [call]}, finish_reason="tool_calls"))

    body, _ = encode(Message.user("Hi"), response.message, Message.tool("c1", "done"))

    assert body["messages"][1] == {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize(
    ("api_version", "model", "expected"),
    [
        (None, None, {"model", "max_completion_tokens", "temperature", "seed", "metadata", "reasoning_effort"}),
        ("v1", "gpt-4o", {"model", "max_completion_tokens", "temperature", "seed", "metadata"}),
        ("preview", "o3-mini", {"model", "max_completion_tokens", "seed", "metadata", "reasoning_effort"}),
        ("2025-04-01-preview", None, {"max_completion_tokens", "temperature", "seed", "metadata", "reasoning_effort"}),
        ("2024-10-21", None, {"max_completion_tokens", "temperature", "seed"}),
        ("2024-10-21", "gpt-5-mini", {"max_completion_tokens", "seed"}),
        ("2024-06-01", "gpt-4o", {"max_tokens", "temperature", "seed"}),
        ("2023-05-15", "gpt-35-turbo", {"max_tokens", "temperature"}),
        ("2023-05-15", None, {"max_tokens", "temperature"}),
        (None, "gpt-5-chat", {"model", "max_completion_tokens", "temperature", "seed", "metadata", "reasoning_effort"}),
        (None, "openai.gpt-oss-120b", {"model", "max_completion_tokens", "temperature", "seed", "metadata", "reasoning_effort"}),
    ],
)  # fmt: skip
def test_each_version_and_model_is_told_what_it_knows(
    api_version: str | None, model: str | None, expected: set[str]
) -> None:
    options = {"max_tokens": 5, "temperature": 0.1, "seed": 3, "metadata": {"a": "b"}, "reasoning_effort": "low"}

    body, warnings = encode(profile=profile_for(api_version, model), **options)

    assert set(body) == expected | {"messages"}
    everything = {"temperature", "seed", "metadata", "reasoning_effort"}
    assert {warning.split()[0] for warning in warnings} == everything - expected


@pytest.mark.parametrize(
    ("version", "sent"), [("2023-05-15", False), ("2024-06-01", False), ("2024-10-21", True), (None, True)]
)
def test_usage_is_asked_for_where_the_version_knows_how(version: str | None, sent: bool) -> None:
    body, _ = encode(profile=profile_for(version, None), stream=True)

    assert body["stream"] is True
    assert ("stream_options" in body) is sent


def test_own_data_search_refuses_stream_options() -> None:
    body, _ = encode(stream=True, extra_body={"data_sources": [{"type": "azure_search", "parameters": {}}]})

    assert "stream_options" not in body


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        ((), {"tools": (WEATHER,)}),
        ((Message.user(ImagePart(data=PNG)),), {}),
        ((Message.user("x"), Message.assistant(ToolCallPart(id="a", name="b", arguments="{}"))), {}),
        ((Message.user("x"), Message.tool("a", "b")), {}),
        ((Message.user(AudioPart(data=b"x", format="wav")),), {}),
        ((Message.user(DocumentPart(data=b"x", format="pdf")),), {}),
    ],
)
def test_an_old_version_does_not_silently_lose_tools_or_images(messages: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="2023-05-15") as caught:
        encode(*messages, profile=OLD, **options)

    assert "api_version" in (caught.value.hint or "")


def test_an_old_version_loses_a_response_format_with_a_warning() -> None:
    body, warnings = encode(profile=OLD, response_format={"type": "json_object"})

    assert "response_format" not in body
    assert len(warnings) == 1


@pytest.mark.parametrize(
    "part",
    [
        VideoPart(data=b"x", format="mp4"),
        ImagePart(url="s3://bucket/key"),
        ImagePart(data=b"unknown"),
        ImagePart(),
        ImagePart(data=PNG, url="https://x"),
        AudioPart(data=b"x", format="ogg"),
        AudioPart(url="https://x", format="mp3"),
        DocumentPart(url="s3://x", format="pdf"),
        ToolCallPart(id="a", name="b", arguments="{}"),
    ],
)
def test_what_the_format_cannot_say_is_refused_before_sending(part: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode(Message.user("secret prompt", part))

    assert caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        Message.system(ImagePart(data=PNG)),
        Message.assistant(ImagePart(data=PNG)),
        Message("tool", (TextPart(text="x"),)),
        Message.tool("a", [ImagePart(data=PNG)]),
    ],
)
def test_media_in_the_wrong_place_is_refused(message: Message) -> None:
    with pytest.raises(InvalidRequestError):
        encode(Message.user("x"), message)


def test_more_than_four_stops_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="5 stop"):
        encode(stop=("a", "b", "c", "d", "e"))


def test_what_has_no_member_is_left_out_with_a_warning() -> None:
    body, warnings = encode(top_k=5)

    assert set(body) == {"model", "messages"}
    assert len(warnings) == 1
    assert "top_k" in warnings[0]


def test_a_tool_that_failed_says_so_in_its_text() -> None:
    body, _ = encode(
        Message.user("x"), Message.tool("a", "no such city", is_error=True), Message.tool("b", "Error 5", is_error=True)
    )

    assert [message["content"] for message in body["messages"][1:]] == ["Error: no such city", "Error 5"]


@pytest.mark.parametrize("value", [object(), {1j}, "\ud83d", float])
def test_what_is_not_json_is_our_error(value: Any) -> None:
    with pytest.raises(InvalidRequestError):
        encode(extra_body={"x": value})


# -- whole answers ---------------------------------------------------------------------------


def completion(message: Any, *, finish_reason: Any = "stop", **members: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", **message}}
    return json.dumps({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024-11-20",
        "choices": [choice], **members,
    }).encode()  # fmt: skip


def decode(body: bytes) -> ChatResponse:
    return OpenAIChatCodec().decode(body)


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize(
    ("message", "finish_reason"),
    [
        ({"content": "Hello!", "refusal": None}, "stop"),
        ({"content": None, "tool_calls": [CALL, {**CALL, "id": "call_2"}]}, "tool_calls"),
        ({"content": "Both", "tool_calls": [CALL]}, "tool_calls"),
        ({"content": None, "refusal": "No."}, "stop"),
        ({"content": "", "tool_calls": None}, "length"),
        ({"content": None}, "content_filter"),
        ({"content": None, "function_call": {"name": "f", "arguments": "{}"}}, "function_call"),
    ],
)
def test_answers_are_read_as_the_openai_sdk_reads_them(message: Any, finish_reason: str) -> None:
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 3,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    body = completion(message, finish_reason=finish_reason, usage=usage)
    theirs = ChatCompletion.model_validate_json(body)

    ours = decode(body)

    said = theirs.choices[0].message
    assert ours.text == (said.content or "") + (said.refusal or "")
    assert [(call.id, call.name, call.arguments) for call in ours.tool_calls] == (
        [(call.id, call.function.name, call.function.arguments) for call in said.tool_calls or ()]
        or ([("function_call", "f", "{}")] if said.function_call else [])
    )
    assert ours.raw_finish_reason == theirs.choices[0].finish_reason
    assert (ours.id, ours.model) == (theirs.id, theirs.model)
    assert ours.usage is not None
    assert (ours.usage.input_tokens, ours.usage.output_tokens, ours.usage.cache_read_tokens) == (11, 3, 4)
    assert ours.body == body


@pytest.mark.parametrize(
    ("message", "raw", "expected"),
    [
        ({"content": "x"}, "stop", FinishReason.STOP),
        ({"content": "x"}, "length", FinishReason.LENGTH),
        ({"tool_calls": [CALL]}, "tool_calls", FinishReason.TOOL_CALLS),
        ({"tool_calls": [CALL]}, "stop", FinishReason.TOOL_CALLS),
        ({"function_call": CALL["function"]}, "function_call", FinishReason.TOOL_CALLS),
        ({"content": None}, "content_filter", FinishReason.CONTENT_FILTER),
        ({"refusal": "No."}, "stop", FinishReason.REFUSAL),
        ({"content": "x"}, "brand_new", FinishReason.UNKNOWN),
        ({"content": "x"}, None, FinishReason.UNKNOWN),
    ],
)
def test_finish_reasons_have_one_vocabulary(message: Any, raw: str | None, expected: FinishReason) -> None:
    response = decode(completion(message, finish_reason=raw))

    assert (response.finish_reason, response.raw_finish_reason) == (expected, raw)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thinking_is_read_under_both_of_its_names(name: str) -> None:
    response = decode(completion({"content": "SAFE", name: "Say SAFE."}))

    assert (response.reasoning, response.text) == ("Say SAFE.", "SAFE")


def test_content_may_be_a_list_of_parts() -> None:
    """Mistral's reasoning models answer so."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}

    response = decode(completion({"content": [thinking, {"type": "text", "text": "Hi"}, {"type": "new"}]}))

    assert (response.reasoning, response.text) == ("hm", "Hi")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 1}},
            (5, 2, 0, 1),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "reasoning_tokens": 1, "prompt_tokens_details": None},
            (5, 2, 0, 1),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}, (5, 2, 4, 0)),
        (
            {"prompt_tokens": 5.0, "completion_tokens": None, "prompt_tokens_details": {"cached_tokens": None}},
            (5, 0, 0, 0),
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": "unknown"},
                "prompt_cache_hit_tokens": 4,
                "completion_tokens_details": {"reasoning_tokens": -1},
                "reasoning_tokens": 1,
            },
            (5, 2, 4, 1),
        ),
        ({}, None),
        (None, None),
        ({"total_tokens": 3}, None),
    ],
)
def test_usage_is_read_whoever_counted(usage: Any, expected: tuple[int, ...] | None) -> None:
    found = decode(completion({"content": "x"}, usage=usage)).usage

    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.input_tokens, found.output_tokens, found.cache_read_tokens, found.reasoning_tokens) == expected
        assert found.raw == usage


def test_of_several_choices_the_first_makes_the_message() -> None:
    def choice(index: int) -> dict[str, Any]:
        return {"index": index, "finish_reason": "stop", "message": {"content": str(index)}}

    response = decode(json.dumps({"choices": [choice(2), choice(0), choice(1)]}).encode())

    assert response.text == "0"
    assert response.extra["choices"] == [choice(2), choice(1)]
    assert len(response.warnings) == 1


def test_filter_results_and_citations_are_kept() -> None:
    body = json.loads(completion({"content": "x", "context": {"citations": [{"title": "t"}]}}))
    body["prompt_filter_results"] = [{"prompt_index": 0}]
    body["choices"][0]["content_filter_results"] = {"hate": {"filtered": False}}

    assert decode(json.dumps(body).encode()).extra == {
        "prompt_filter_results": [{"prompt_index": 0}],
        "content_filter_results": {"hate": {"filtered": False}},
        "context": {"citations": [{"title": "t"}]},
    }


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"choices":[]}', b'{"choices":{}}', b"null", b"\xff", b"{"]
)
def test_what_is_no_completion_is_a_format_error(body: bytes) -> None:
    with pytest.raises(ResponseFormatError):
        decode(body)


def test_depth_is_limited() -> None:
    with pytest.raises(LimitExceededError) as caught:
        decode(b'{"usage":{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}}")

    assert caught.value.limit == "depth"


def test_a_lone_surrogate_is_repaired() -> None:
    assert decode(completion({"content": "cut \ud83d"})).text == "cut \ufffd"


def test_an_error_in_a_200_is_that_error() -> None:
    with pytest.raises(RateLimitError):
        decode(b'{"error":{"code":"429","message":"slow down"}}')


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["choices", "message", "content", "tool_calls", "function", "usage", "delta", "error"]), inner, max_size=4), max_leaves=12))  # fmt: skip
def test_any_json_gives_an_answer_or_an_error_of_ours(value: Any) -> None:
    body = json.dumps(value).encode()
    for read in (decode, lambda body: run(body, DONE), lambda body: run(body)):
        with contextlib.suppress(ApexLlmError):
            read(body)


# -- streams ---------------------------------------------------------------------------------


def run(*chunks: Any, name: str = "message") -> list[StreamEvent]:
    """The events of a whole stream; ``DONE`` stands for itself."""
    decoder = OpenAIChatCodec().stream_decoder()
    events: list[StreamEvent] = []
    for chunk in chunks:
        if chunk is DONE:
            events.extend(decoder.feed(DONE, b""))
        else:
            events.extend(decoder.feed(name, chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()))
    events.extend(decoder.finish())
    return events


def delta(_finish: str | None = None, _index: int = 0, **members: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1", "model": "gpt-4o", "object": "chat.completion.chunk", "obfuscation": "aB3",
        "choices": [{"index": _index, "delta": members, "finish_reason": _finish, "logprobs": None}], "usage": None,
    }  # fmt: skip


def call(index: int | None, arguments: Any = None, *, id: str | None = None, name: str | None = None) -> dict[str, Any]:  # noqa: A002
    piece: dict[str, Any] = {"function": {"arguments": arguments, **({"name": name} if name else {})}}
    return {**piece, **({"index": index} if index is not None else {}), **({"id": id} if id else {})}


STOP = delta("stop")
FIRST = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []}
USAGE = {"choices": [], "id": "chatcmpl-1", "usage": {"prompt_tokens": 11, "completion_tokens": 3}}


def text_of(events: Sequence[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def finished(events: Sequence[StreamEvent]) -> StreamFinished:
    (last,) = [event for event in events if isinstance(event, StreamFinished)]
    assert events[-1] is last
    return last


def test_azures_order_of_chunks() -> None:
    """The first chunk names neither id nor model, and the usage has no choice."""
    events = run(
        FIRST,
        delta(role="assistant", content="", refusal=None),
        delta(content="Hel"),
        delta(content="lo"),
        STOP,
        USAGE,
        DONE,
    )

    assert events[:-1] == [StreamStarted("chatcmpl-1", "gpt-4o"), TextDelta("Hel", 0), TextDelta("lo", 0)]
    last = finished(events)
    assert (last.finish_reason, last.raw_finish_reason, last.warnings) == (FinishReason.STOP, "stop", ())
    assert last.usage is not None
    assert (last.usage.input_tokens, last.usage.output_tokens) == (11, 3)


def test_tool_calls_in_pieces() -> None:
    events = run(
        delta(role="assistant", content=None, tool_calls=[call(0, "", id="call_1", name="a")]),
        delta(tool_calls=[call(0, '{"city":')]),
        delta(tool_calls=[call(0, '"Oslo"}')]),
        delta(tool_calls=[call(1, "", id="call_2", name="b")]),
        delta(tool_calls=[call(1, "{}")]),
        delta("tool_calls"),
        DONE,
    )

    assert events[1:-1] == [
        ToolCallStarted(0, "call_1", "a"),
        ToolCallDelta(0, '{"city":'),
        ToolCallDelta(0, '"Oslo"}'),
        ToolCallFinished(0, "call_1", "a", '{"city":"Oslo"}'),
        ToolCallStarted(1, "call_2", "b"),
        ToolCallDelta(1, "{}"),
        ToolCallFinished(1, "call_2", "b", "{}"),
    ]
    assert finished(events).finish_reason is FinishReason.TOOL_CALLS


def calls_of(events: Sequence[StreamEvent]) -> list[tuple[str, str, str]]:
    return sorted((event.id, event.name, event.arguments) for event in events if isinstance(event, ToolCallFinished))


TWO = [("c1", "a", '{"x":1}'), ("c2", "b", '{"y":2}')]


@pytest.mark.parametrize(
    "pieces",
    [
        [[call(0, '{"x":1}', id="c1", name="a"), call(1, '{"y":2}', id="c2", name="b")]],
        [[call(0, '{"x":1}', id="c1", name="a")], [call(0, '{"y":2}', id="c2", name="b")]],
        [[call(None, '{"x":1}', id="c1", name="a")], [call(None, '{"y":2}', id="c2", name="b")]],
        [[call(None, '{"x"', id="c1", name="a")], [call(None, ":1}")], [call(None, '{"y":2}', id="c2", name="b")]],
        [[call(0, '{"x":', id="c1", name="a")], [call(0, "1}", id="c1", name="a")], [call(1, '{"y":2}', id="c2", name="b")]],
        [[call(0, '{"x":', id="c1", name="a")], [call(0, "1}", id="other")], [call(1, '{"y":2}', id="c2", name="b")]],
        [[call(0, id="c1", name="a")], [call(1, id="c2", name="b")], [call(0, '{"x":1}')], [call(1, '{"y":2}')]],
        [[call(0, '{"x', id="c1", name="a")], [call(1, '{"y', id="c2", name="b")], [call(0, '":1}')], [call(1, '":2}')]],
        [[call(0, '{"x":', id="c1")], [call(0, "1}", name="a")], [call(1, {"y": 2}, id="c2", name="b")]],
        [[call(0, '{"x":1}', id="c1", name="a")], [], [call(0, "")], [call(3, '{"y":2}', id="c2", name="b")]],
    ],
)  # fmt: skip
def test_tool_calls_of_servers_that_do_it_their_own_way(pieces: list[Any]) -> None:
    """Whole arguments at once, no index, the same index twice, repeated ids, mixed pieces, a late name."""
    chunks = [delta(tool_calls=piece or None) for piece in pieces]

    events = run(*chunks, delta("tool_calls"), DONE)

    assert [(*rest, json.loads(arguments)) for *rest, arguments in calls_of(events)] == [
        (*rest, json.loads(arguments)) for *rest, arguments in TWO
    ]
    for finish in (event for event in events if isinstance(event, ToolCallFinished)):
        pieces_of_it = [
            event.arguments for event in events if isinstance(event, ToolCallDelta) and event.index == finish.index
        ]
        assert "".join(pieces_of_it) == finish.arguments
        assert all(pieces_of_it)
    assert not finished(events).warnings


def test_the_deprecated_form_is_a_tool_call_too() -> None:
    events = run(
        delta(content=None, function_call={"name": "f", "arguments": ""}),
        delta(function_call={"arguments": '{"a":1}'}),
        delta("function_call"),
        DONE,
    )

    assert calls_of(events) == [("function_call", "f", '{"a":1}')]
    assert finished(events).finish_reason is FinishReason.TOOL_CALLS


def test_a_call_without_arguments_has_empty_ones() -> None:
    events = run(delta(tool_calls=[call(0, None, id="c", name="f")]), delta("tool_calls"), DONE)

    assert calls_of(events) == [("c", "f", "{}")]


def test_thinking_comes_before_the_text_and_has_its_own_block() -> None:
    """As DeepSeek's models on Azure stream, with everything else null."""
    events = run(
        delta(role="assistant", content="", reasoning_content=None, tool_calls=None),
        delta(content=None, reasoning_content="We", tool_calls=None),
        delta(content=None, reasoning_content=" need"),
        delta(content="Hi", reasoning_content="!"),
        delta("stop", content=None, reasoning_content=None),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 9, "reasoning_tokens": 7}},
        DONE,
    )

    assert events[1:-1] == [
        ReasoningDelta("We", 0),
        ReasoningDelta(" need", 0),
        ReasoningDelta("!", 0),
        TextDelta("Hi", 1),
    ]
    usage = finished(events).usage
    assert usage is not None
    assert usage.reasoning_tokens == 7


def test_a_refusal_is_text_with_its_own_reason() -> None:
    events = run(delta(refusal="I "), delta(refusal="cannot."), STOP, DONE)

    assert text_of(events) == "I cannot."
    assert finished(events).finish_reason is FinishReason.REFUSAL


SAFE = {"hate": {"filtered": False, "severity": "safe"}}
GUILTY = {"hate": {"filtered": True, "severity": "high"}, "violence": {"filtered": False, "severity": "safe"}}


def with_filter(chunk: dict[str, Any], results: Any) -> dict[str, Any]:
    chunk = copy.deepcopy(chunk)
    chunk["choices"][0]["content_filter_results"] = results
    return chunk


def annotation(results: Any, finish: str | None = None) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": finish,
        "content_filter_results": results,
        "content_filter_offsets": {"check_offset": 5, "start_offset": 0, "end_offset": 9},
    }
    return {"id": "", "object": "", "created": 0, "model": "", "choices": [choice], "usage": None}


def test_safe_annotations_say_nothing() -> None:
    events = run(
        FIRST | {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}]},
        with_filter(delta(content="this is true"), SAFE),
        annotation(SAFE),
        with_filter(delta(content="!"), {}),
        annotation({"protected_material_text": {"detected": False, "filtered": False}}),
        with_filter(delta(content="!"), None),
        STOP,
        annotation(SAFE),
        DONE,
    )

    assert not any(isinstance(event, ContentFiltered) for event in events)
    assert finished(events).extra["prompt_filter_results"] == [{"prompt_index": 0, "content_filter_results": SAFE}]


def test_a_filter_that_comes_late_takes_the_text_back() -> None:
    """Azure's asynchronous filter: the text is out already when its annotation arrives."""
    events = run(
        delta(content="bad"), delta(content=" words"), annotation(SAFE), annotation(GUILTY, "content_filter"), DONE
    )

    assert text_of(events) == "bad words"
    assert [event for event in events if isinstance(event, ContentFiltered)] == [
        ContentFiltered("completion", ("hate",), GUILTY)
    ]
    last = finished(events)
    assert last.finish_reason is FinishReason.CONTENT_FILTER
    assert last.extra["content_filter_results"] == GUILTY


def test_a_late_filter_overrules_stop() -> None:
    events = run(delta(content="x"), STOP, annotation(GUILTY, "content_filter"), DONE)

    assert finished(events).finish_reason is FinishReason.CONTENT_FILTER


def test_what_the_filter_found_in_the_prompt_is_told() -> None:
    found = {"jailbreak": {"detected": True, "filtered": False}, "hate": {"filtered": False}}

    events = run(
        {"choices": [], "prompt_filter_results": [{"content_filter_results": found}]}, delta(content="x"), STOP, DONE
    )

    assert events[0] == ContentFiltered("prompt", ("jailbreak",), found)


@pytest.mark.parametrize(
    ("chunks", "warned"),
    [
        ([delta(content="x"), STOP], True),
        ([delta(content="x"), STOP, USAGE], True),
        ([delta(content="x"), STOP, DONE], False),
        ([delta(content="x"), DONE], True),
        ([delta(content="x"), STOP, DONE, delta(content="y")], True),
        ([delta(content="x"), STOP, DONE, DONE], True),
        ([delta(content="x"), b"[1]", b"7", b'"text"', STOP, DONE], True),
        ([delta(content="x"), b"{}", b'{"new":1}', b"", STOP, DONE], False),
    ],
)
def test_a_stream_that_ends_oddly_but_whole_is_told_apart(chunks: list[Any], warned: bool) -> None:
    events = run(*chunks)

    assert text_of(events) == "x"
    assert bool(finished(events).warnings) is warned


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [FIRST],
        [delta(content="x")],
        [delta(content="x"), USAGE],
        [delta("stop", content="x"), delta(None, 1, content="y")],
        [annotation(SAFE)],
    ],
)
def test_a_stream_without_its_end_is_truncated(chunks: list[Any]) -> None:
    with pytest.raises(StreamTruncatedError) as caught:
        run(*chunks)

    assert caught.value.retryable


def test_an_empty_finish_reason_ends_nothing() -> None:
    """Some gateways say ``""`` in every chunk but the last: the answer, and its tool calls, go on."""
    events = run(
        delta("", content="a"),
        delta("", tool_calls=[call(0, '{"x":', id="c", name="f")]),
        delta("", tool_calls=[call(0, "1}")]),
        delta("tool_calls"),
        DONE,
    )

    assert (text_of(events), calls_of(events)) == ("a", [("c", "f", '{"x":1}')])
    assert (finished(events).raw_finish_reason, finished(events).warnings) == ("tool_calls", ())
    with pytest.raises(StreamTruncatedError):
        run(delta("", content="a"))


def whole(**members: Any) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, "message": {"role": "assistant", **members}, "finish_reason": "stop"}]}


def test_a_whole_message_in_a_stream_is_the_answer_unless_it_was_streamed_before() -> None:
    """Gateways that only seem to stream send the message itself; others say it all again at the end."""
    call_made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    events = run(whole(content="all of it", tool_calls=[call_made]), DONE)
    again = run(delta(content="all "), delta(content="of it"), whole(content="all of it"), DONE)

    assert (text_of(events), calls_of(events)) == ("all of it", [("c", "f", "{}")])
    assert (text_of(again), finished(again).raw_finish_reason) == ("all of it", "stop")


def test_done_without_an_answer_is_not_an_answer() -> None:
    for chunks in ([DONE], [FIRST, DONE], [USAGE, DONE]):
        with pytest.raises(ResponseFormatError):
            run(*chunks)


def test_other_choices_are_left_out_with_a_warning() -> None:
    events = run(delta(content="a"), delta(None, 1, content="b"), STOP, delta("stop", 1), DONE)

    assert text_of(events) == "a"
    assert len(finished(events).warnings) == 1


def test_bedrock_chunks_end_with_a_finish_reason_and_metrics() -> None:
    metrics = {"inputTokenCount": 8, "outputTokenCount": 12}

    events = run(
        delta(content="x"), delta("stop") | {"amazon-bedrock-invocationMetrics": metrics}, b'"[DONE]"', name="chunk"
    )

    last = finished(events)
    assert last.warnings == ()
    assert last.usage is not None
    assert (last.usage.input_tokens, last.usage.output_tokens) == (8, 12)


@pytest.mark.parametrize(
    "chunk", [b"{", b'{"choices":1}', b'{"choices":[{"delta":{"content":1}}]}', b"\xff\xfe", b"nonsense"]
)
def test_a_broken_chunk_is_a_format_error(chunk: bytes) -> None:
    with pytest.raises(ResponseFormatError):
        run(delta(content="x"), chunk, STOP, DONE)


def test_a_deep_chunk_is_a_limit() -> None:
    with pytest.raises(ProtocolError):
        run(b'{"choices":[],"usage":{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}}", DONE)


def test_an_error_beside_choices_is_an_error() -> None:
    with pytest.raises(OverloadedError):
        run(delta(content="x"), {"id": "1", "choices": [], "error": {"message": "m", "code": "server_error"}})


def test_a_copy_of_a_decoder_goes_its_own_way() -> None:
    chunks = [
        delta(content="a"),
        delta(tool_calls=[call(0, "{", id="c", name="f")]),
        with_filter(delta(tool_calls=[call(0, "}")]), SAFE),
    ]
    decoder = OpenAIChatCodec().stream_decoder()
    for chunk in chunks:
        decoder.feed("message", json.dumps(chunk).encode())

    twin = copy.deepcopy(decoder)
    decoder.feed("message", json.dumps(delta("tool_calls")).encode())

    assert isinstance(decoder.finish()[-1], StreamFinished)
    with pytest.raises(StreamTruncatedError):
        twin.finish()


@given(st.lists(st.sampled_from(["a", "é", "🙂", "true", '"error"', " "]), max_size=8))
def test_a_stream_and_a_whole_answer_say_the_same(words: list[str]) -> None:
    events = run(*[delta(content=word) for word in words], STOP, USAGE, DONE)
    whole = decode(completion({"content": "".join(words)}, usage=USAGE["usage"]))

    assert text_of(events) == whole.text
    last = finished(events)
    assert (last.finish_reason, last.usage) == (whole.finish_reason, whole.usage)


def test_blocks_are_numbered_without_gaps() -> None:
    events = run(
        delta(reasoning_content="r"), delta(content="t"), delta(tool_calls=[call(0, "{}", id="a", name="f")]),
        delta(tool_calls=[call(1, "{}", id="b", name="f")]), delta("tool_calls"), DONE,
    )  # fmt: skip

    indexes = [event.index for event in events if hasattr(event, "index")]
    assert [index for index, _ in itertools.groupby(indexes)] == [0, 1, 2, 3]
