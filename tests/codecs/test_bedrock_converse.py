"""Converse: requests judged by botocore's service model, answers and streams by what they say."""

from __future__ import annotations

import copy
import functools
import itertools
import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from apex_llm.codecs.chat.bedrock_converse import BedrockConverseCodec
from apex_llm.errors import InvalidRequestError, LimitExceededError, ResponseFormatError, StreamTruncatedError
from apex_llm.types.events import (
    GuardrailTraced,
    ReasoningDelta,
    ServerToolResultAdded,
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
    VideoPart,
)
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import FinishReason
from apex_llm.types.tools import Tool, ToolChoice

SONNET_4_5 = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
SONNET_4_6 = "us.anthropic.claude-sonnet-4-6"
OPUS_4_7 = "anthropic.claude-opus-4-7"
OPUS_4_8 = "us.anthropic.claude-opus-4-8"
NOVA = "us.amazon.nova-pro-v1:0"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
WEATHER = Tool(name="get_weather", description="The weather.", parameters={"properties": {"city": {"type": "string"}}})
TIME = Tool(name="get_time")
CALL = ToolCallPart(id="call_1", name="get_weather", arguments='{"city": "Oslo"}')
ROUND = (Message.user("Weather?"), Message("assistant", (CALL,)), Message.tool("call_1", "rain"))


@functools.cache
def _input_shape() -> Any:
    return botocore.session.get_session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape


def _enumerations(shape: Any, value: Any, path: str = "") -> list[str]:
    """What ParamValidator leaves out: values of enumerations."""
    if shape.type_name == "structure" and isinstance(value, dict):
        return [
            problem
            for name, member in value.items()
            if name in shape.members
            for problem in _enumerations(shape.members[name], member, f"{path}.{name}")
        ]
    if shape.type_name == "list":
        return [problem for item in value for problem in _enumerations(shape.member, item, f"{path}[]")]
    allowed = getattr(shape, "enum", None)
    return [f"{path}={value!r}"] if allowed and value not in allowed else []


def encode(
    *messages: Message, model: str = SONNET_4_6, codec: BedrockConverseCodec | None = None, **options: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body, checked against the service model, and the warnings."""
    request = ChatRequest(model=model, messages=messages or (Message.user("Hi"),), **options)
    raw, warnings = (codec or BedrockConverseCodec()).encode(request, stream=False)
    body = json.loads(raw)
    report = ParamValidator().validate({"modelId": model, **body}, _input_shape())
    assert not report.has_errors(), report.generate_report()
    assert not _enumerations(_input_shape(), body)
    return body, warnings


def content(*messages: Message, turn: int = 0, **options: Any) -> list[dict[str, Any]]:
    return encode(*messages, **options)[0]["messages"][turn]["content"]


# ---------------------------------------------------------------------------------------- messages


def test_a_plain_question_is_one_user_message_and_nothing_else() -> None:
    body, warnings = encode(Message.user("Hi"))

    assert body == {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
    assert warnings == ()


def test_streamed_and_whole_requests_have_the_same_body() -> None:
    request = ChatRequest(model=NOVA, messages=(Message.user("Hi"),))
    codec = BedrockConverseCodec()

    assert codec.encode(request, stream=True) == codec.encode(request, stream=False)


def test_system_messages_and_their_cache_points_stand_apart() -> None:
    system = Message.system("Be brief.", CachePoint(ttl="1h"))

    body, _ = encode(system, Message.user("Hi"))

    assert body["system"] == [{"text": "Be brief."}, {"cachePoint": {"type": "default", "ttl": "1h"}}]


def test_a_system_message_in_mid_conversation_joins_the_system_prompt_with_a_warning() -> None:
    body, warnings = encode(Message.user("Hi"), Message.assistant("Yes?"), Message.system("Rhyme."), Message.user("Go"))

    assert body["system"] == [{"text": "Rhyme."}]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert "mid-conversation" in warnings[0]


def test_the_newest_claude_takes_a_system_message_where_it_stands() -> None:
    body, warnings = encode(Message.user("Hi"), Message.system("Rhyme."), model=OPUS_4_8)

    assert [message["role"] for message in body["messages"]] == ["user", "system"]
    assert warnings == ()


def test_neighbours_of_the_same_role_become_one_turn() -> None:
    """Parallel tool calls come back as several tool messages; Bedrock wants them in one user turn."""
    second = ToolCallPart(id="call_2", name="get_weather", arguments="")
    body, _ = encode(
        Message.user("Weather?"),
        Message("assistant", (TextPart(text="Looking."),)),
        Message("assistant", (CALL, second)),
        Message.tool("call_1", {"degrees": 3}),
        Message.tool("call_2", "no such city", is_error=True),
        Message.user("And?"),
        tools=(WEATHER,),
    )

    _, assistant, user = body["messages"]
    assert [next(iter(block)) for block in assistant["content"]] == ["text", "toolUse", "toolUse"]
    assert assistant["content"][2]["toolUse"]["input"] == {}
    assert user == {
        "role": "user",
        "content": [
            {"toolResult": {"toolUseId": "call_1", "content": [{"json": {"degrees": 3}}]}},
            {"toolResult": {"toolUseId": "call_2", "content": [{"text": "no such city"}], "status": "error"}},
            {"text": "And?"},
        ],
    }


def test_tool_results_go_before_the_users_own_words() -> None:
    blocks = content(
        Message.user("Weather?"),
        Message("assistant", (CALL,)),
        Message.user("Well?"),
        Message.tool("call_1", "rain"),
        turn=2,
        tools=(WEATHER,),
    )

    assert [next(iter(block)) for block in blocks] == ["toolResult", "text"]


@pytest.mark.parametrize(
    ("result", "block"),
    [
        ("22", {"text": "22"}),
        ("", {"text": "(no output)"}),
        ({"a": [1]}, {"json": {"a": [1]}}),
        ([1, {"b": None}], {"text": '[1,{"b":null}]'}),
        ([], {"text": "[]"}),
    ],
)
def test_only_json_objects_travel_as_json(result: Any, block: dict[str, Any]) -> None:
    (wrapped,) = content(
        Message.user("?"), Message("assistant", (CALL,)), Message.tool("call_1", result), turn=2, tools=(WEATHER,)
    )

    assert wrapped["toolResult"]["content"] == [block]


def test_a_tool_may_answer_with_an_image() -> None:
    (block,) = content(
        Message.user("?"),
        Message("assistant", (CALL,)),
        Message.tool("call_1", [TextPart(text="Look:"), ImagePart(data=PNG)]),
        turn=2,
        tools=(WEATHER,),
    )

    assert [next(iter(inner)) for inner in block["toolResult"]["content"]] == ["text", "image"]


def test_arguments_that_are_not_an_object_are_sent_back_as_text() -> None:
    """A call that was cut off by max_tokens must not make the conversation unusable."""
    broken = ToolCallPart(id="call_1", name="get_weather", arguments='{"city": "Os')
    body, warnings = encode(
        Message.user("?"), Message("assistant", (broken,)), Message.tool("call_1", "bad"), tools=(WEATHER,)
    )

    assert body["messages"][1]["content"][0]["toolUse"]["input"] == {"arguments": '{"city": "Os'}
    assert "not a JSON object" in warnings[0]


def test_blank_text_is_left_out_since_the_service_refuses_it() -> None:
    body, _ = encode(Message.user("Hi"), Message.assistant("\n\n"), Message.user("", "there"))

    assert body["messages"] == [{"role": "user", "content": [{"text": "Hi"}, {"text": "there"}]}]


def test_reasoning_goes_back_as_it_came() -> None:
    thought = ReasoningPart(text="Hm.", signature="c2ln")
    blocks = content(
        Message.user("?"),
        Message("assistant", (thought, ReasoningPart(redacted="ZW5j"), TextPart(text="Yes."))),
        turn=1,
    )

    assert blocks == [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "ZW5j"}},
        {"text": "Yes."},
    ]


@pytest.mark.parametrize(
    ("model", "part"), [(SONNET_4_6, ReasoningPart(text="unsigned")), (NOVA, ReasoningPart(text="x", signature="s"))]
)
def test_reasoning_that_a_model_refuses_is_left_out_with_a_warning(model: str, part: ReasoningPart) -> None:
    body, warnings = encode(Message.user("?"), Message("assistant", (part, TextPart(text="Yes."))), model=model)

    assert body["messages"][1]["content"] == [{"text": "Yes."}]
    assert "reasoning of an earlier turn" in warnings[0]


def test_media_is_base64_or_an_s3_address() -> None:
    blocks = content(
        Message.user(
            "See.",
            ImagePart(data=PNG),
            ImagePart(url="s3://bucket/cat.jpg"),
            ImagePart(url="data:image/gif;base64,R0lGODlh"),
            DocumentPart(data=b"%PDF", format="pdf", name="Q3 report.pdf", citations=True),
            DocumentPart(data=b"text", format="text/plain", name="Q3 report.pdf"),
            VideoPart(url="s3://bucket/film.mp4", format="mp4"),
            AudioPart(data=b"ID3", format="mp3"),
            CachePoint(),
        )
    )

    assert blocks[1:] == [
        {"image": {"format": "png", "source": {"bytes": "iVBORw0KGgoAAAAAAAAAAA=="}}},
        {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/cat.jpg"}}}},
        {"image": {"format": "gif", "source": {"bytes": "R0lGODlh"}}},
        {
            "document": {
                "format": "pdf",
                "name": "Q3 report-pdf",
                "source": {"bytes": "JVBERg=="},
                "citations": {"enabled": True},
            }
        },
        {"document": {"format": "txt", "name": "Q3 report-pdf (2)", "source": {"bytes": "dGV4dA=="}}},
        {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://bucket/film.mp4"}}}},
        {"audio": {"format": "mp3", "source": {"bytes": "SUQz"}}},
        {"cachePoint": {"type": "default"}},
    ]


def test_a_document_never_stands_without_text() -> None:
    body, warnings = encode(Message.user(DocumentPart(data=b"x", format="txt")))

    assert [next(iter(block)) for block in body["messages"][0]["content"]] == ["document", "text"]
    assert warnings


@pytest.mark.parametrize(
    "part",
    [
        ImagePart(url="https://example.com/cat.png"),
        ImagePart(data=b"not an image"),
        ImagePart(),
        ImagePart(data=PNG, url="s3://b/k"),
        ImagePart(url="data:image/png;base64,!!"),
    ],
)
def test_media_that_cannot_be_said_is_refused_before_sending(part: ImagePart) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode(Message.user("?", part))
    assert caught.value.hint


@pytest.mark.parametrize(("head", "name"), [(b"\xff\xd8\xff\xe0", "jpeg"), (b"RIFF\0\0\0\0WEBP", "webp")])
def test_an_images_format_is_read_from_its_first_bytes(head: bytes, name: str) -> None:
    assert content(Message.user(ImagePart(data=head)))[0]["image"]["format"] == name


def test_cache_points_are_left_out_where_the_model_has_none() -> None:
    body, warnings = encode(Message.user("long", CachePoint()), model="us.meta.llama4-scout-17b-instruct-v1:0")

    assert body["messages"][0]["content"] == [{"text": "long"}]
    assert "cache point" in warnings[0]


def test_citations_join_the_text_before_them() -> None:
    cited = (
        TextPart(text="20 days."),
        CitationPart(title="policy", quotes=("20 days",), location={"documentChar": {"documentIndex": 0, "start": 0}}),
        CitationPart(title="other", location={"type": "char_location"}),
    )

    (block,) = content(Message.user("?"), Message("assistant", cited), turn=1)

    assert block["citationsContent"]["content"] == [{"text": "20 days."}]
    first, second = block["citationsContent"]["citations"]
    assert first["sourceContent"] == [{"text": "20 days"}]
    assert second == {"title": "other"}


def test_a_server_side_call_and_its_result_stay_in_the_assistants_turn() -> None:
    call = ToolCallPart(id="t1", name="nova_code_interpreter", arguments='{"snippet":"1"}', server_side=True)
    result = ToolResultPart(tool_call_id="t1", content={"stdOut": "1"}, server_side=True)

    body, _ = encode(Message.user("?"), Message("assistant", (call, result)), model="us.amazon.nova-2-lite-v1:0")

    use, answer = body["messages"][1]["content"]
    assert use["toolUse"]["type"] == "server_tool_use"
    assert answer["toolResult"]["type"] == "nova_code_interpreter_result"
    assert body["toolConfig"]["tools"] == [{"systemTool": {"name": "nova_code_interpreter"}}]


# ----------------------------------------------------------------------------------------- options


def test_common_options_have_their_places() -> None:
    body, warnings = encode(
        model=NOVA, max_tokens=100, temperature=0.5, top_p=0.9, top_k=20, stop=("END",), metadata={"team": "search"}
    )

    assert body["inferenceConfig"] == {"maxTokens": 100, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}
    assert body["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 20}}
    assert body["requestMetadata"] == {"team": "search"}
    assert warnings == ()


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (SONNET_4_6, {"top_k": 5}),
        (NOVA, {"inferenceConfig": {"topK": 5}}),
        ("mistral.mixtral-8x7b-instruct-v0:1", {"top_k": 5}),
        ("cohere.command-r-v1:0", {"k": 5}),
        ("us.meta.llama3-3-70b-instruct-v1:0", None),
    ],
)
def test_top_k_goes_by_the_familys_own_name(model: str, fields: dict[str, Any] | None) -> None:
    body, warnings = encode(model=model, top_k=5)

    assert body.get("additionalModelRequestFields") == fields
    assert bool(warnings) == (fields is None)


def test_what_converse_has_no_word_for_is_left_out_with_a_warning() -> None:
    body, warnings = encode(model=NOVA, seed=1, tools=(WEATHER,), parallel_tool_calls=False)

    assert set(body) == {"messages", "toolConfig"}
    assert [warning.split(" (")[0] for warning in warnings] == ["left out: parallel_tool_calls", "left out: seed"]


@pytest.mark.parametrize("model", [OPUS_4_7, "global.anthropic.claude-sonnet-5-5", "us.anthropic.claude-fable-5"])
def test_sampling_parameters_that_a_claude_refuses_are_left_out(model: str) -> None:
    body, warnings = encode(model=model, temperature=0.2, top_p=0.9, top_k=5, max_tokens=10)

    assert body["inferenceConfig"] == {"maxTokens": 10}
    assert "additionalModelRequestFields" not in body
    assert len(warnings) == 3


def test_claude_4_5_takes_temperature_or_top_p_but_not_both() -> None:
    body, warnings = encode(model=SONNET_4_5, temperature=0.2, top_p=0.9)

    assert body["inferenceConfig"] == {"temperature": 0.2}
    assert "top_p" in warnings[0]


@pytest.mark.parametrize(
    ("model", "effort", "fields"),
    [
        (SONNET_4_5, "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (SONNET_4_5, "none", None),
        (SONNET_4_6, "high", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        (SONNET_4_6, "xhigh", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        (OPUS_4_7, "xhigh", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}),
        (OPUS_4_7, "none", {"thinking": {"type": "disabled"}}),
        ("anthropic.claude-sonnet-5-5", "none", {"thinking": {"type": "between_tools"}}),
        ("anthropic.claude-opus-5-5", "none", None),
        ("anthropic.claude-3-haiku-20240307-v1:0", "high", None),
        ("openai.gpt-oss-120b-1:0", "high", {"reasoning_effort": "high"}),
        ("openai.gpt-5.5", "xhigh", {"reasoning": {"effort": "xhigh"}}),
        ("xai.grok-4.7", "low", {"reasoning": {"effort": "low"}}),
        ("qwen.qwen3-32b-v1:0", "high", {"reasoning_config": "high"}),
        ("deepseek.v3.2", "low", {"reasoning_effort": "high"}),
        ("zai.glm-4.7", "none", {"reasoning_effort": "none"}),
        (
            "us.amazon.nova-2-lite-v1:0",
            "medium",
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}},
        ),
        (NOVA, "high", None),
    ],
)
def test_reasoning_effort_is_said_in_each_familys_words(model: str, effort: str, fields: dict[str, Any] | None) -> None:
    assert encode(model=model, reasoning_effort=effort)[0].get("additionalModelRequestFields") == fields


def test_another_effort_than_asked_for_is_told() -> None:
    assert "xhigh" in encode(model=SONNET_4_6, reasoning_effort="xhigh")[1][0]
    with pytest.raises(InvalidRequestError, match="hihg"):
        encode(model=SONNET_4_6, reasoning_effort="hihg")


def test_a_thinking_budget_leaves_room_for_the_answer() -> None:
    body, _ = encode(model=SONNET_4_5, reasoning_effort="high", max_tokens=4096)
    assert body["additionalModelRequestFields"]["thinking"]["budget_tokens"] == 2048

    body, warnings = encode(model=SONNET_4_5, reasoning_effort="high", max_tokens=500)
    assert "additionalModelRequestFields" not in body
    assert "reasoning_effort" in warnings[0]


def test_thinking_excludes_sampling_and_forced_tools_where_claude_says_so() -> None:
    body, warnings = encode(
        model=SONNET_4_5,
        reasoning_effort="low",
        temperature=0.2,
        top_k=5,
        tools=(WEATHER,),
        tool_choice=ToolChoice("required"),
    )

    assert "inferenceConfig" not in body
    assert body["toolConfig"]["toolChoice"] == {"auto": {}}
    assert len(warnings) == 3


def test_nova_with_high_effort_goes_without_limits_and_sampling() -> None:
    body, warnings = encode(
        model="us.amazon.nova-2-lite-v1:0", reasoning_effort="high", max_tokens=100, temperature=0.1, stop=("X",)
    )

    assert body["inferenceConfig"] == {"stopSequences": ["X"]}
    assert len(warnings) == 2


def test_a_profile_that_hides_its_model_can_be_told_by_the_codec() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123def456"

    blind, warnings = encode(model=arn, top_k=5)
    told, _ = encode(model=arn, top_k=5, codec=BedrockConverseCodec(base_model=SONNET_4_6))

    assert "additionalModelRequestFields" not in blind
    assert warnings
    assert told["additionalModelRequestFields"] == {"top_k": 5}


def test_a_json_schema_travels_as_text() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "City", "schema": schema, "strict": True}}

    body, _ = encode(response_format=wanted)

    said = body["outputConfig"]["textFormat"]
    assert said["type"] == "json_schema"
    assert json.loads(said["structure"]["jsonSchema"].pop("schema")) == schema
    assert said["structure"]["jsonSchema"] == {"name": "City"}


def test_json_mode_without_a_schema_is_left_out_and_nonsense_refused() -> None:
    assert "response_format" in encode(response_format={"type": "json_object"})[1][0]
    with pytest.raises(InvalidRequestError, match="response_format"):
        encode(response_format={"type": "xml"})


def test_extra_body_adds_to_our_own_members() -> None:
    body, _ = encode(
        model=SONNET_4_6,
        top_k=5,
        extra_body={
            "additionalModelRequestFields": {"anthropic_beta": ["x"]},
            "serviceTier": {"type": "flex"},
            "additionalModelResponseFieldPaths": ["/stop_sequence"],
        },
    )

    assert body["additionalModelRequestFields"] == {"top_k": 5, "anthropic_beta": ["x"]}
    assert body["serviceTier"] == {"type": "flex"}


# ------------------------------------------------------------------------------------------- tools


def test_tools_have_an_object_schema_and_no_empty_description() -> None:
    body, _ = encode(tools=(WEATHER, TIME, Tool(name="x", strict=True)))

    weather, time, strict = (tool["toolSpec"] for tool in body["toolConfig"]["tools"])
    assert weather["inputSchema"]["json"] == {"type": "object", "properties": {"city": {"type": "string"}}}
    assert "description" not in time
    assert strict["strict"] is True
    assert "toolChoice" not in body["toolConfig"]


@pytest.mark.parametrize(
    ("model", "choice", "said"),
    [
        (SONNET_4_6, ToolChoice("auto"), {"auto": {}}),
        (SONNET_4_6, ToolChoice("required"), {"any": {}}),
        (SONNET_4_6, ToolChoice("tool", "get_time"), {"tool": {"name": "get_time"}}),
        ("mistral.mistral-large-3-675b-instruct", ToolChoice("tool", "get_time"), {"any": {}}),
        ("us.meta.llama4-scout-17b-instruct-v1:0", ToolChoice("required"), None),
        ("us.meta.llama4-scout-17b-instruct-v1:0", ToolChoice("auto"), None),
        ("anthropic.claude-opus-5-5", ToolChoice("required"), {"auto": {}}),
    ],
)
def test_tool_choice_is_said_as_far_as_the_model_takes_it(
    model: str, choice: ToolChoice, said: dict[str, Any] | None
) -> None:
    body, warnings = encode(model=model, tools=(WEATHER, TIME), tool_choice=choice)

    assert body["toolConfig"].get("toolChoice") == said
    softened = choice.mode != "auto" and said != {"any": {}} and "tool" not in (said or {})
    assert bool(warnings) == (softened or "mistral" in model)


def test_no_tool_may_be_called_where_none_is_offered() -> None:
    assert "toolConfig" not in encode(tools=(WEATHER,), tool_choice=ToolChoice("none"))[0]


def test_a_history_with_tool_calls_keeps_its_tools_when_none_may_be_called() -> None:
    """Converse refuses tool blocks without toolConfig, and has no toolChoice for none."""
    body, warnings = encode(*ROUND, tools=(WEATHER,), tool_choice=ToolChoice("none"))
    assert set(body["toolConfig"]) == {"tools"}
    assert body["additionalModelRequestFields"] == {"tool_choice": {"type": "none"}}
    assert warnings == ()

    body, warnings = encode(*ROUND, model=NOVA, tools=(WEATHER,), tool_choice=ToolChoice("none"))
    assert set(body["toolConfig"]) == {"tools"}
    assert "additionalModelRequestFields" not in body
    assert "tool_choice" in warnings[0]


def test_a_history_with_tool_calls_but_no_tools_is_repaired() -> None:
    body, warnings = encode(*ROUND)

    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["get_weather"]
    assert body["additionalModelRequestFields"] == {"tool_choice": {"type": "none"}}
    assert "get_weather" in warnings[0]


def test_tools_of_extra_body_are_not_repaired() -> None:
    own = {"tools": [{"toolSpec": {"name": "mine", "inputSchema": {"json": {}}}}]}

    assert encode(*ROUND, extra_body={"toolConfig": own})[0]["toolConfig"] == own


def test_one_tool_at_a_time_is_said_in_claudes_own_words() -> None:
    body, _ = encode(tools=(WEATHER,), tool_choice=ToolChoice("required"), parallel_tool_calls=False)

    assert "toolChoice" not in body["toolConfig"]
    assert body["additionalModelRequestFields"] == {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}}


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), st.text(max_size=5)), max_size=8))
def test_roles_alternate_and_no_block_is_empty_whatever_is_said(spoken: list[tuple[Any, str]]) -> None:
    messages = [
        Message.tool("call_1", text) if role == "tool" else Message(role, (TextPart(text=text),))
        for role, text in spoken
    ]
    body, _ = encode(Message.user("Hi"), *messages, model=NOVA)

    roles = [message["role"] for message in body["messages"]]
    assert all(first != second for first, second in itertools.pairwise(roles))
    assert all(block.get("text", "x").strip() for message in body["messages"] for block in message["content"])


def test_what_json_cannot_say_is_refused_without_quoting_it() -> None:
    with pytest.raises(InvalidRequestError, match="surrogate") as caught:
        encode(Message.user("secret \ud800"))
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidRequestError):
        encode(Message.user("?"), Message("assistant", (CALL,)), Message.tool("call_1", {"x": object()}))


# ----------------------------------------------------------------------------------------- answers


def answer(*blocks: Any, **members: Any) -> bytes:
    said = {"output": {"message": {"role": "assistant", "content": list(blocks)}}, "stopReason": "end_turn", **members}
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("guardrail_intervened", FinishReason.GUARDRAIL),
        ("content_filtered", FinishReason.CONTENT_FILTER),
        ("model_context_window_exceeded", FinishReason.CONTEXT_WINDOW),
        ("malformed_tool_use", FinishReason.UNKNOWN),
        ("malformed_model_output", FinishReason.UNKNOWN),
        ("something_new", FinishReason.UNKNOWN),
        (None, FinishReason.UNKNOWN),
    ],
)
def test_every_stop_reason_has_a_word_and_keeps_its_own(raw: str | None, reason: FinishReason) -> None:
    usage = {"inputTokens": 1, "outputTokens": 1}
    response = BedrockConverseCodec().decode(answer({"text": "Hi"}, stopReason=raw, usage=usage))

    assert (response.finish_reason, response.raw_finish_reason) == (reason, raw)
    assert bool(response.warnings) == (reason is FinishReason.UNKNOWN)


@pytest.mark.parametrize(
    "usage",
    [
        {"inputTokens": 13, "outputTokens": 5, "cacheReadInputTokens": 1504, "cacheReadInputTokenCount": 1504},
        {"inputTokens": 13, "outputTokens": 5, "cacheReadInputTokenCount": 1504, "cacheWriteInputTokens": None},
    ],
)
def test_input_counts_what_the_cache_gave_under_either_name(usage: dict[str, Any]) -> None:
    response = BedrockConverseCodec().decode(answer(usage=usage))

    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.cache_read_tokens) == (1517, 1504)
    assert response.usage.raw == usage


def test_blocks_that_we_do_not_know_become_a_warning() -> None:
    response = BedrockConverseCodec().decode(answer({"text": "Hi"}, {"hologram": {"x": 1}}, None, usage={}))

    assert response.text == "Hi"
    assert "hologram" in response.warnings[0]


def test_extra_members_keep_bedrocks_names() -> None:
    response = BedrockConverseCodec().decode(
        answer(
            additionalModelResponseFields={"stop_sequence": "END"},
            trace={"guardrail": {"x": 1}, "promptRouter": {"invokedModelId": "amazon.nova-lite-v1:0"}},
            metrics={"latencyMs": 7},
            serviceTier={"type": "flex"},
        )
    )

    assert response.extra["additionalModelResponseFields"] == {"stop_sequence": "END"}
    assert response.extra["trace"]["guardrail"] == {"x": 1}
    assert response.extra["serviceTier"] == {"type": "flex"}
    assert response.model == "amazon.nova-lite-v1:0"


def test_nulls_everywhere_are_tolerated() -> None:
    body = answer(
        {"text": None, "toolUse": {"toolUseId": "t", "name": "n", "input": None}},
        {"reasoningContent": {"reasoningText": {"text": None, "signature": None}}},
        usage=None,
        metrics=None,
        trace=None,
    )

    response = BedrockConverseCodec().decode(body)

    assert response.tool_calls == (ToolCallPart(id="t", name="n", arguments="{}"),)
    assert response.usage is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"output":{}}', b'{"output":7}', b"\xff\xfe{}"])
def test_what_is_no_answer_is_a_format_error(body: bytes) -> None:
    with pytest.raises(ResponseFormatError):
        BedrockConverseCodec().decode(body)


def test_a_bomb_of_nested_json_is_a_limit_error() -> None:
    deep = b'{"output":{"message":{"content":[{"toolUse":{"input":' + b'{"a":' * 200_000
    with pytest.raises(LimitExceededError) as caught:
        BedrockConverseCodec().decode(deep)
    assert caught.value.limit == "depth"


def test_a_lone_surrogate_does_not_break_an_answer() -> None:
    response = BedrockConverseCodec().decode(answer({"text": "cut \ud83d"}))

    assert response.text == "cut \ufffd"


# ----------------------------------------------------------------------------------------- streams


def feed(*events: tuple[str, dict[str, Any]]) -> list[Any]:
    decoder = BedrockConverseCodec().stream_decoder()
    said = [event for name, payload in events for event in decoder.feed(name, json.dumps(payload).encode())]
    return [*said, *decoder.finish()]


STOP = ("messageStop", {"stopReason": "end_turn"})
METADATA = ("metadata", {"usage": {"inputTokens": 1, "outputTokens": 2}, "metrics": {"latencyMs": 3}})


def delta(index: int, **piece: Any) -> tuple[str, dict[str, Any]]:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": piece, "p": "abc"}


def start(index: int, identifier: str, name: str) -> tuple[str, dict[str, Any]]:
    use = {"toolUseId": identifier, "name": name, "type": "tool_use"}
    return "contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": use}}


def stop(index: int) -> tuple[str, dict[str, Any]]:
    return "contentBlockStop", {"contentBlockIndex": index}


def test_text_needs_no_start_and_empty_pieces_say_nothing() -> None:
    events = feed(
        ("messageStart", {"role": "assistant"}), delta(0, text=""), delta(0, text="Hi"), stop(0), STOP, METADATA
    )

    assert events[:2] == [StreamStarted(), TextDelta("Hi", 0)]
    (finished,) = events[2:]
    assert (finished.finish_reason, finished.usage.input_tokens, finished.warnings) == (FinishReason.STOP, 1, ())
    assert finished.extra == {"metrics": {"latencyMs": 3}}


def test_parallel_tools_are_told_apart_and_an_empty_input_is_an_empty_object() -> None:
    events = feed(
        start(1, "a", "get_weather"),
        start(2, "b", "get_time"),
        delta(1, toolUse={"input": '{"city":'}),
        delta(2, toolUse={"input": ""}),
        delta(1, toolUse={"input": '"Oslo"}'}),
        stop(1),
        stop(2),
        STOP,
        METADATA,
    )

    assert events[:-1] == [
        ToolCallStarted(1, "a", "get_weather"),
        ToolCallStarted(2, "b", "get_time"),
        ToolCallDelta(1, '{"city":'),
        ToolCallDelta(1, '"Oslo"}'),
        ToolCallFinished(1, "a", "get_weather", '{"city":"Oslo"}'),
        ToolCallFinished(2, "b", "get_time", "{}"),
    ]


def test_a_tool_without_its_stop_is_finished_by_the_end_of_the_message() -> None:
    events = feed(start(0, "a", "x"), delta(0, toolUse={"input": "{}"}), STOP, METADATA)

    assert events[2] == ToolCallFinished(0, "a", "x", "{}")


def test_reasoning_comes_in_pieces_then_a_signature() -> None:
    events = feed(
        delta(0, reasoningContent={"text": "Hm"}),
        delta(0, reasoningContent={"text": ""}),
        delta(0, reasoningContent={"signature": "c2ln"}),
        delta(1, reasoningContent={"redactedContent": "ZW5j"}),
        STOP,
    )

    assert events[:3] == [
        ReasoningDelta("Hm", 0),
        ReasoningDelta("", 0, "c2ln"),
        ReasoningDelta("", 1, None, "ZW5j"),
    ]


def test_a_guardrails_trace_is_an_event_and_stays_on_the_response() -> None:
    trace = {"guardrail": {"inputAssessment": {"id": {}}}}
    events = feed(("messageStop", {"stopReason": "guardrail_intervened"}), ("metadata", {"trace": trace}))

    assert events[0] == GuardrailTraced(trace)
    assert events[1].finish_reason is FinishReason.GUARDRAIL
    assert events[1].extra["trace"] == trace


def test_missing_metadata_is_a_warning_not_an_error() -> None:
    (finished,) = feed(STOP)

    assert finished.usage is None
    assert finished.warnings == ("the stream gives no usage",)


@pytest.mark.parametrize("events", [(), (METADATA,), (delta(0, text="Hi"), METADATA)])
def test_without_message_stop_a_stream_is_truncated(events: tuple[Any, ...]) -> None:
    with pytest.raises(StreamTruncatedError):
        feed(*events)


def test_events_after_the_end_are_ignored_with_one_warning_each_kind() -> None:
    events = feed(STOP, delta(0, text="late"), delta(0, text="later"), METADATA)

    (finished,) = events
    assert len(finished.warnings) == 1
    assert finished.usage is not None


def test_what_is_new_is_carried_not_interpreted() -> None:
    decoder = BedrockConverseCodec().stream_decoder()

    assert decoder.feed("novelty", b"\x00") == (UnknownEvent("novelty", b"\x00"),)
    piece = b'{"contentBlockIndex":0,"delta":{"hologram":1}}'
    assert decoder.feed("contentBlockDelta", piece) == (UnknownEvent("contentBlockDelta", piece),)
    begin = b'{"contentBlockIndex":0,"start":{"hologram":1}}'
    assert decoder.feed("contentBlockStart", begin) == (UnknownEvent("contentBlockStart", begin),)
    assert decoder.feed("contentBlockStart", b'{"contentBlockIndex":0,"start":{}}') == ()


def test_a_server_side_result_is_an_event_of_its_own_when_its_block_ends() -> None:
    use = {"toolUseId": "t", "name": "nova_code_interpreter", "type": "server_tool_use"}
    result = {"toolUseId": "t", "type": "nova_code_interpreter_result", "status": "success"}
    events = feed(
        ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": use}}),
        delta(0, toolUse={"input": '{"snippet":"1"}'}),
        stop(0),
        ("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolResult": result}}),
        delta(1, toolResult=[{"json": {"stdOut": "1"}}]),
        stop(1),
        STOP,
        METADATA,
    )

    assert events[2] == ToolCallFinished(0, "t", "nova_code_interpreter", '{"snippet":"1"}', server_side=True)
    answered = ToolResultPart(tool_call_id="t", content={"stdOut": "1"}, name="nova_code_interpreter", server_side=True)
    assert events[3] == ServerToolResultAdded(1, answered)


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("contentBlockDelta", b""),
        ("contentBlockDelta", b"\xff"),
        ("contentBlockDelta", b'{"delta":{"text":7}}'),
        ("contentBlockDelta", b'{"contentBlockIndex":4,"delta":{"toolUse":{"input":"{"}}}'),
        ("messageStop", b"nonsense"),
        ("metadata", b'{"usage":{"inputTokens":"many"}}'),
    ],
)
def test_a_payload_that_is_not_what_its_name_says_is_a_format_error(name: str, payload: bytes) -> None:
    with pytest.raises(ResponseFormatError):
        BedrockConverseCodec().stream_decoder().feed(name, payload)


def test_a_piece_with_a_lone_surrogate_is_read() -> None:
    decoder = BedrockConverseCodec().stream_decoder()

    events = decoder.feed("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"\\ud83d"}}')

    assert events == (TextDelta("\ufffd", 0),)


def test_a_snapshot_goes_its_own_way() -> None:
    decoder = BedrockConverseCodec().stream_decoder()
    decoder.feed("contentBlockStart", json.dumps(start(0, "a", "x")[1]).encode())
    snapshot = copy.deepcopy(decoder)

    decoder.feed("contentBlockDelta", json.dumps(delta(0, toolUse={"input": '{"x":1}'})[1]).encode())
    snapshot.feed("messageStop", b'{"stopReason":"tool_use"}')

    assert isinstance(snapshot.finish()[0], StreamFinished)
    assert decoder.feed("contentBlockStop", b'{"contentBlockIndex":0}') == (ToolCallFinished(0, "a", "x", '{"x":1}'),)
