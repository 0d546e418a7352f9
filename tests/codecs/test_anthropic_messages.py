"""Claude's own format: requests and stream events judged by the types of Anthropic's SDK."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from apex_llm.codecs.chat.anthropic_messages import AnthropicMessagesCodec
from apex_llm.errors import (
    InvalidRequestError,
    LimitExceededError,
    OverloadedError,
    RateLimitError,
    ResponseFormatError,
    StreamTruncatedError,
)
from apex_llm.types.events import (
    CitationAdded,
    GuardrailTraced,
    ReasoningDelta,
    StreamFinished,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UnknownEvent,
)
from apex_llm.types.messages import (
    AudioPart,
    CachePoint,
    CitationPart,
    DocumentPart,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import FinishReason
from apex_llm.types.tools import Tool, ToolChoice

SONNET_4_5 = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
SONNET_4_6 = "us.anthropic.claude-sonnet-4-6"
OPUS_4_8 = "us.anthropic.claude-opus-4-8"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
WEATHER = Tool(name="get_weather", description="The weather.", parameters={"properties": {"city": {"type": "string"}}})
CALL = ToolCallPart(id="toolu_1", name="get_weather", arguments='{"city": "Oslo"}')
ROUND = (Message.user("Weather?"), Message("assistant", (CALL,)), Message.tool("toolu_1", "rain"))


# Bedrock's own members, and sampling parameters, which the SDK has dropped with the models that took them.
_NOT_IN_THE_SDK = {"anthropic_version", "anthropic_beta", "temperature", "top_p", "top_k"}


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(getattr(pytest.importorskip("anthropic.types"), name))


def _judge(name: str, value: dict[str, Any]) -> None:
    """The SDK's type takes the value, and knows every one of its members."""
    assert set(_adapter(name).validate_python(value)) == set(value)


def encode(
    *messages: Message, model: str = SONNET_4_6, codec: AnthropicMessagesCodec | None = None, **options: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body, judged block by block, and the warnings."""
    request = ChatRequest(model=model, messages=messages or (Message.user("Hi"),), **options)
    raw, warnings = (codec or AnthropicMessagesCodec()).encode(request, stream=True)
    body = json.loads(raw)
    assert body["anthropic_version"] == "bedrock-2023-05-31"
    assert not {"model", "stream"} & set(body)
    for message in body["messages"]:
        for block in message["content"]:
            _judge("ContentBlockParam", block)
    for tool in body.get("tools", ()):
        _judge("ToolParam", tool)
    whole = {name: value for name, value in body.items() if name not in _NOT_IN_THE_SDK}
    _judge("MessageCreateParams", {"model": "claude", **whole})
    return body, warnings


def content(*messages: Message, turn: int = 0, **options: Any) -> list[dict[str, Any]]:
    return encode(*messages, **options)[0]["messages"][turn]["content"]


# ---------------------------------------------------------------------------------------- requests


def test_a_plain_question_needs_a_version_and_a_limit() -> None:
    body, warnings = encode(Message.system("Be brief."), Message.user("Hi"))

    assert body == {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 4096,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }
    assert warnings == ()


def test_common_options_have_their_places() -> None:
    body, warnings = encode(max_tokens=9, temperature=0.5, top_p=0.9, top_k=5, stop=("END",), metadata={"user_id": "u"})

    assert (body["max_tokens"], body["temperature"], body["top_p"], body["top_k"]) == (9, 0.5, 0.9, 5)
    assert body["stop_sequences"] == ["END"]
    assert body["metadata"] == {"user_id": "u"}
    assert warnings == ()


def test_what_claude_has_no_word_for_is_left_out_with_a_warning() -> None:
    body, warnings = encode(seed=1, metadata={"team": "search"}, response_format={"type": "json_object"})

    assert set(body) == {"anthropic_version", "max_tokens", "messages"}
    assert len(warnings) == 3
    assert all(warning.startswith("left out: ") for warning in warnings)


def test_a_cache_point_marks_the_block_before_it() -> None:
    body, warnings = encode(
        Message.system("Long.", CachePoint(ttl="1h")),
        Message.user(CachePoint(), "Hi", CachePoint()),
        Message("assistant", (TextPart(text="Yes."), ReasoningPart(text="t", signature="s"), CachePoint())),
    )

    assert body["system"] == [{"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert body["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" in body["messages"][1]["content"][0]
    assert "cache point" in warnings[0]


def test_tool_results_share_one_user_turn_in_front_of_the_users_words() -> None:
    second = ToolCallPart(id="toolu_2", name="get_weather", arguments="")
    body, _ = encode(
        Message.user("Weather?"),
        Message("assistant", (CALL, second)),
        Message.user("Well?"),
        Message.tool("toolu_1", {"degrees": 3}),
        Message.tool("toolu_2", "no such city", is_error=True),
        tools=(WEATHER,),
    )

    assert body["messages"][1]["content"][1]["input"] == {}
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": '{"degrees":3}'},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such city", "is_error": True},
        {"type": "text", "text": "Well?"},
    ]


def test_a_tool_may_answer_with_an_image() -> None:
    (block,) = content(
        *ROUND[:2], Message.tool("toolu_1", [TextPart(text="Look"), ImagePart(data=PNG)]), turn=2, tools=(WEATHER,)
    )

    assert [inner["type"] for inner in block["content"]] == ["text", "image"]


def test_media_is_base64_and_text_documents_are_text() -> None:
    blocks = content(
        Message.user(
            ImagePart(data=PNG),
            ImagePart(url="https://example.com/cat.png"),
            DocumentPart(data=b"%PDF", format="pdf", name="report", citations=True),
            DocumentPart(data="Grüße".encode(), format="md"),
        )
    )

    assert blocks[0]["source"] == {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgoAAAAAAAAAAA=="}
    assert blocks[1]["source"] == {"type": "url", "url": "https://example.com/cat.png"}
    assert (blocks[2]["title"], blocks[2]["citations"]) == ("report", {"enabled": True})
    assert blocks[3]["source"] == {"type": "text", "media_type": "text/plain", "data": "Grüße"}


@pytest.mark.parametrize(
    "part",
    [
        AudioPart(data=b"x", format="wav"),
        ImagePart(url="s3://bucket/cat.png"),
        DocumentPart(data=b"x", format="docx"),
        ImagePart(),
    ],
)
def test_media_that_claude_does_not_take_is_refused_before_sending(part: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode(Message.user(part))
    assert caught.value.hint


def test_reasoning_goes_back_as_it_came_or_not_at_all() -> None:
    thoughts = (
        ReasoningPart(text="Hm.", signature="s"),
        ReasoningPart(redacted="ZW5j"),
        ReasoningPart(text="unsigned"),
    )
    body, warnings = encode(Message.user("?"), Message("assistant", (*thoughts, TextPart(text="Yes."))))

    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "ZW5j"},
        {"type": "text", "text": "Yes."},
    ]
    assert "no signature" in warnings[0]


def test_citations_go_back_where_they_are_claudes_own() -> None:
    location = {
        "type": "char_location",
        "cited_text": "20 days",
        "document_index": 0,
        "document_title": "policy",
        "start_char_index": 0,
        "end_char_index": 7,
    }
    foreign = CitationPart(title="x", location={"documentChar": {}})

    body, warnings = encode(
        Message.user("?"), Message("assistant", (TextPart(text="20."), CitationPart(location=location), foreign))
    )

    assert body["messages"][1]["content"] == [{"type": "text", "text": "20.", "citations": [location]}]
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("choice", "parallel", "said"),
    [
        (None, None, None),
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("none"), None, {"type": "none"}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("required"), None, {"type": "any"}),
        (ToolChoice("tool", "get_weather"), None, {"type": "tool", "name": "get_weather"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("required"), True, {"type": "any", "disable_parallel_tool_use": False}),
    ],
)
def test_tool_choice_and_parallel_calls_are_one_member(
    choice: ToolChoice | None, parallel: bool | None, said: dict[str, Any] | None
) -> None:
    body, warnings = encode(tools=(WEATHER,), tool_choice=choice, parallel_tool_calls=parallel)

    assert body.get("tool_choice") == said
    assert body["tools"][0]["input_schema"]["type"] == "object"
    assert warnings == ()


def test_a_history_with_tool_calls_but_no_tools_is_repaired() -> None:
    body, warnings = encode(*ROUND)

    assert [tool["name"] for tool in body["tools"]] == ["get_weather"]
    assert body["tool_choice"] == {"type": "none"}
    assert "get_weather" in warnings[0]


@pytest.mark.parametrize(
    ("model", "effort", "max_tokens", "members"),
    [
        (SONNET_4_5, "low", None, {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 6144}),
        (SONNET_4_5, "high", 4096, {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 4096}),
        (SONNET_4_5, "high", 500, {"max_tokens": 500}),
        (SONNET_4_6, "max", 9, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}, "max_tokens": 9}),
        (OPUS_4_8, "none", 9, {"thinking": {"type": "disabled"}, "max_tokens": 9}),
        ("arn:aws:bedrock:us-east-1:1:provisioned-model/abcdef012345", "high", 9, {"max_tokens": 9}),
    ],
)
def test_reasoning_effort_is_said_as_the_generation_wants_it(
    model: str, effort: str, max_tokens: int | None, members: dict[str, Any]
) -> None:
    body, _ = encode(model=model, reasoning_effort=effort, max_tokens=max_tokens)

    assert {name: body[name] for name in ("thinking", "output_config", "max_tokens") if name in body} == members


def test_sampling_parameters_that_a_claude_refuses_are_left_out() -> None:
    body, warnings = encode(model=OPUS_4_8, temperature=0.2, top_p=0.9, top_k=5)
    assert not {"temperature", "top_p", "top_k"} & set(body)
    assert len(warnings) == 3

    body, warnings = encode(model=SONNET_4_5, temperature=0.2, top_p=0.9)
    assert (body["temperature"], "top_p" in body, len(warnings)) == (0.2, False, 1)


def test_a_json_schema_stands_beside_the_effort() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    body, _ = encode(
        reasoning_effort="low", response_format={"type": "json_schema", "json_schema": {"name": "X", "schema": schema}}
    )

    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": schema}}


def test_a_system_message_may_stand_in_mid_conversation_where_claude_takes_it() -> None:
    """Recorded of Opus 4.8; the same text joins the prompt of an older one."""
    spoken = (Message.user("Review."), Message.assistant("Fine."), Message.user("Again."), Message.system("Types!"))

    newest, warnings = encode(*spoken, model=OPUS_4_8)
    assert [message["role"] for message in newest["messages"]] == ["user", "assistant", "user", "system"]
    assert warnings == ()

    older, warnings = encode(*spoken, model=SONNET_4_5)
    assert older["system"] == "Types!"
    assert "mid-conversation" in warnings[0]


def test_extra_body_is_merged_last_and_one_level_deep() -> None:
    body, _ = encode(
        reasoning_effort="low",
        extra_body={"output_config": {"effort": "high"}, "anthropic_beta": ["x"], "max_tokens": 1},
    )

    assert body["output_config"] == {"effort": "high"}
    assert body["anthropic_beta"] == ["x"]
    assert body["max_tokens"] == 1


# ----------------------------------------------------------------------------------------- answers


def answer(*blocks: Any, **members: Any) -> bytes:
    said: dict[str, Any] = {"id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": "claude-x"}
    said |= {"content": list(blocks), "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 2}}
    return json.dumps(said | members).encode()


def test_every_kind_of_block_becomes_a_part() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}}
    search = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"type": "web_search_result"}]}
    cited = {"type": "char_location", "cited_text": "20", "document_title": "policy", "document_index": 0}
    response = AnthropicMessagesCodec().decode(
        answer(
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "redacted_thinking", "data": "ZW5j"},
            {"type": "text", "text": "20.", "citations": [cited]},
            call,
            search,
            found,
            {"type": "hologram"},
            None,
        )
    )

    assert response.message.parts == (
        ReasoningPart(text="Hm.", signature="s"),
        ReasoningPart(redacted="ZW5j"),
        TextPart(text="20."),
        CitationPart(title="policy", quotes=("20",), location=cited),
        ToolCallPart(id="toolu_1", name="get_weather", arguments='{"city": "Oslo"}'),
        ToolCallPart(id="srv_1", name="web_search", arguments="{}", server_side=True),
        ToolResultPart(tool_call_id="srv_1", content=found["content"], name="web_search_tool_result", server_side=True),
    )
    assert len(response.tool_calls) == 1
    assert ["hologram" in warning or "null" in warning for warning in response.warnings] == [True, True]
    assert (response.id, response.model) == ("msg_bdrk_1", "claude-x")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("refusal", FinishReason.REFUSAL),
        ("model_context_window_exceeded", FinishReason.CONTEXT_WINDOW),
        ("pause_turn", FinishReason.UNKNOWN),
        ("something_new", FinishReason.UNKNOWN),
        (None, FinishReason.UNKNOWN),
    ],
)
def test_every_stop_reason_has_a_word_and_keeps_its_own(raw: str | None, reason: FinishReason) -> None:
    response = AnthropicMessagesCodec().decode(answer(stop_reason=raw))

    assert (response.finish_reason, response.raw_finish_reason) == (reason, raw)
    assert bool(response.warnings) == (reason is FinishReason.UNKNOWN)


def test_usage_counts_what_the_cache_gave_and_the_thinking() -> None:
    usage = {
        "input_tokens": 3,
        "cache_read_input_tokens": 9511,
        "cache_creation_input_tokens": 1956,
        "output_tokens": 44,
        "output_tokens_details": {"thinking_tokens": 7},
    }
    response = AnthropicMessagesCodec().decode(answer(usage=usage))

    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.reasoning_tokens) == (3 + 9511 + 1956, 7)
    assert response.usage.raw == usage


def test_a_guardrail_that_stepped_in_outranks_the_stop_reason() -> None:
    trace = {"guardrail": {"input": {}}}
    body = answer(
        {"type": "text", "text": "Blocked."},
        **{"amazon-bedrock-guardrailAction": "INTERVENED", "amazon-bedrock-trace": trace},
    )

    response = AnthropicMessagesCodec().decode(body)

    assert (response.finish_reason, response.raw_finish_reason) == (FinishReason.GUARDRAIL, "end_turn")
    assert response.extra["trace"] == trace


def test_a_refusals_details_are_kept() -> None:
    details = {"type": "refusal", "category": "cyber"}

    response = AnthropicMessagesCodec().decode(answer(stop_reason="refusal", stop_details=details))

    assert response.extra == {"stop_details": details}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"message":"no"}', b'{"content":"text"}', b"\xff{}"])
def test_what_is_no_answer_is_a_format_error(body: bytes) -> None:
    with pytest.raises(ResponseFormatError):
        AnthropicMessagesCodec().decode(body)


def test_a_bomb_of_nested_json_is_a_limit_error() -> None:
    with pytest.raises(LimitExceededError) as caught:
        AnthropicMessagesCodec().decode(b'{"content":' + b"[" * 200_000)
    assert caught.value.limit == "depth"


# ----------------------------------------------------------------------------------------- streams


def started(**usage: Any) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
    counts = {"input_tokens": 21, "output_tokens": 1, **usage}
    return {
        "type": "message_start",
        "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": counts},
    }


def block(index: int, **content_block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content_block}


def delta(index: int, kind: str, **piece: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **piece}}


def stopped(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ended(reason: str = "end_turn", **usage: Any) -> dict[str, Any]:
    counts = {"output_tokens": 40, **usage}
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": counts}


PING = {"type": "ping"}
STOP = {"type": "message_stop"}
METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 21, "outputTokenCount": 40}}


def feed(*events: dict[str, Any]) -> list[Any]:
    decoder = AnthropicMessagesCodec().stream_decoder()
    said: list[Any] = []
    for event in events:
        said.extend(decoder.feed("chunk", json.dumps(event).encode()))
    return [*said, *decoder.finish()]


CONVERSATION = [
    started(cache_read_input_tokens=4, cache_creation_input_tokens=None),
    block(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="The user greets."),
    delta(0, "signature_delta", signature="EqQBCkYI"),
    stopped(0),
    block(1, type="redacted_thinking", data="ZW5j"),
    stopped(1),
    block(2, type="text", text=""),
    PING,
    delta(2, "text_delta", text="Hello"),
    delta(2, "text_delta", text=""),
    stopped(2),
    block(3, type="tool_use", id="toolu_1", name="get_weather", input={}),
    delta(3, "input_json_delta", partial_json=""),
    delta(3, "input_json_delta", partial_json='{"city":'),
    delta(3, "input_json_delta", partial_json='"Oslo"}'),
    stopped(3),
    block(4, type="tool_use", id="toolu_2", name="get_time", input={}),
    stopped(4),
    ended("tool_use"),
    STOP | METRICS,
]


def test_a_whole_stream_is_said_in_our_events() -> None:
    for event in CONVERSATION:
        if event != PING:
            _adapter("RawMessageStreamEvent").validate_python(event)

    events = feed(*CONVERSATION)

    assert events[:-1] == [
        StreamStarted("msg_1", "claude-x"),
        ReasoningDelta("The user greets.", 0),
        ReasoningDelta("", 0, "EqQBCkYI"),
        ReasoningDelta("", 1, None, "ZW5j"),
        TextDelta("Hello", 2),
        ToolCallStarted(3, "toolu_1", "get_weather"),
        ToolCallDelta(3, '{"city":'),
        ToolCallDelta(3, '"Oslo"}'),
        ToolCallFinished(3, "toolu_1", "get_weather", '{"city":"Oslo"}'),
        ToolCallStarted(4, "toolu_2", "get_time"),
        ToolCallFinished(4, "toolu_2", "get_time", "{}"),
    ]
    finished = events[-1]
    assert (finished.finish_reason, finished.raw_finish_reason) == (FinishReason.TOOL_CALLS, "tool_use")
    assert (finished.usage.input_tokens, finished.usage.output_tokens, finished.usage.cache_read_tokens) == (25, 40, 4)
    assert finished.extra == METRICS
    assert finished.warnings == ()


def test_a_stream_cut_anywhere_is_truncated_and_its_snapshots_agree() -> None:
    decoder = AnthropicMessagesCodec().stream_decoder()
    for event in CONVERSATION:
        with pytest.raises(StreamTruncatedError):
            copy.deepcopy(decoder).finish()
        decoder.feed("chunk", json.dumps(event).encode())

    assert isinstance(copy.deepcopy(decoder).finish()[0], StreamFinished)


def test_output_tokens_are_cumulative_so_the_last_count_holds() -> None:
    finished = feed(started(), ended(output_tokens=10), ended(output_tokens=40), STOP)[-1]

    assert finished.usage.output_tokens == 40


def test_bedrocks_own_counts_serve_where_the_formats_are_missing() -> None:
    """The metrics may stand in a chunk of their own, before or after the end."""
    for order in ([STOP, METRICS], [METRICS, STOP]):
        finished = feed({"type": "message_start", "message": None}, *order)[-1]
        assert (finished.usage.input_tokens, finished.usage.output_tokens) == (21, 40)


def test_a_guardrail_speaks_beside_any_event() -> None:
    trace = {"guardrail": {"input": {}}}
    extra = {"amazon-bedrock-guardrailAction": "INTERVENED", "amazon-bedrock-trace": trace}

    events = feed(started(), ended() | extra, STOP)

    assert GuardrailTraced(trace) in events
    assert events[-1].finish_reason is FinishReason.GUARDRAIL
    assert events[-1].extra["trace"] == trace


def test_a_block_may_begin_with_its_content() -> None:
    events = feed(
        started(),
        block(0, type="text", text="Hi"),
        stopped(0),
        block(1, type="tool_use", id="t", name="x", input={"a": 1}),
        stopped(1),
        ended(),
        STOP,
    )

    assert TextDelta("Hi", 0) in events
    assert ToolCallFinished(1, "t", "x", '{"a": 1}') in events


def test_citations_arrive_beside_their_text() -> None:
    cited = {"type": "char_location", "cited_text": "20", "document_title": "policy"}

    events = feed(started(), delta(0, "citations_delta", citation=cited), ended(), STOP)

    assert events[1] == CitationAdded(0, CitationPart(title="policy", quotes=("20",), location=cited))


def test_what_is_new_is_carried_not_interpreted() -> None:
    decoder = AnthropicMessagesCodec().stream_decoder()
    novelties = (
        b'{"type":"hologram_start","delta":7}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"hologram_delta","beam":1}}',
        b'{"x":1}',
    )

    names = [decoder.feed("chunk", payload)[0] for payload in novelties]

    assert [(type(event), event.name) for event in names] == [
        (UnknownEvent, "hologram_start"),
        (UnknownEvent, "content_block_delta"),
        (UnknownEvent, "chunk"),
    ]
    assert [event.payload for event in names] == list(novelties)


def test_events_after_the_end_are_ignored_with_a_warning() -> None:
    events = feed(started(), ended(), STOP, delta(0, "text_delta", text="late"), PING)

    assert len(events) == 2
    assert len(events[-1].warnings) == 1


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [("overloaded_error", OverloadedError, True), ("rate_limit_error", RateLimitError, True)],
)
def test_an_error_event_is_the_typed_error(code: str, kind: type[Exception], retryable: bool) -> None:
    """Over server-sent events the service reports errors inside the stream."""
    with pytest.raises(kind) as caught:
        feed(started(), {"type": "error", "error": {"type": code, "message": "Busy."}})
    assert (caught.value.code, caught.value.retryable) == (code, retryable)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"type":7}',
        b'{"type":"content_block_delta","delta":{"type":"text_delta","text":7}}',
        b'{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{"}}',
    ],
)
def test_a_payload_that_is_no_event_is_a_format_error(payload: bytes) -> None:
    with pytest.raises(ResponseFormatError):
        AnthropicMessagesCodec().stream_decoder().feed("chunk", payload)
