"""What Bedrock really sent, read by our codecs, compared with what botocore and anthropic read from it."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest
from botocore.eventstream import EventStreamBuffer
from recorded import Recording, load_recordings

from apex_llm.codecs.chat.anthropic_messages import AnthropicMessagesCodec
from apex_llm.codecs.chat.bedrock_converse import BedrockConverseCodec
from apex_llm.errors import ResponseFormatError, StreamTruncatedError
from apex_llm.types.events import (
    CitationAdded,
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
from apex_llm.types.messages import CitationPart, Message, ReasoningPart, ToolCallPart, ToolResultPart
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import ChatResponse, Usage

CONVERSE = load_recordings(operation="converse", status=200)
STREAMS = load_recordings(operation="converse-stream", status=200)
CLAUDE = [
    recording
    for recording in load_recordings(operation="invoke", status=200)
    if recording.expected.get("family") == "anthropic-messages"
]

pytestmark = pytest.mark.skipif(not CONVERSE, reason="the recordings are not here")


def parsed(recordings: list[Recording]) -> list[Recording]:
    return [recording for recording in recordings if recording.expected["parsed"]]


def frames(body: bytes) -> list[tuple[str, bytes]]:
    """Names and payloads, by botocore's decoder rather than ours."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [(event.headers[":event-type"], event.payload) for event in buffer]


def tool_calls(calls: list[ToolCallPart] | list[ToolCallFinished]) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "name": call.name, "arguments": msgspec.json.decode(call.arguments)}
        | ({"server": True} if call.server_side else {})
        for call in calls
    ]


def assert_usage(usage: Usage | None, expected: dict[str, Any]) -> None:
    if expected["input_tokens"] is None:
        assert usage is None
        return
    assert usage is not None
    read, write = expected["cache_read"] or 0, expected["cache_write"] or 0
    assert usage.input_tokens == expected["input_tokens"] + read + write
    assert usage.output_tokens == expected["output_tokens"]
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (read, write)


def assert_response(response: ChatResponse, expected: dict[str, Any]) -> None:
    calls = [part for part in response.message.parts if isinstance(part, ToolCallPart)]
    assert response.text == expected["text"]
    assert response.reasoning == expected["reasoning"]
    assert tool_calls(calls) == expected["tool_calls"]
    assert response.raw_finish_reason == expected["finish_reason_raw"]
    assert_usage(response.usage, expected)
    assert not [warning for warning in response.warnings if "unknown" in warning]


@pytest.mark.parametrize("recording", parsed(CONVERSE), ids=str)
def test_a_recorded_converse_answer_reads_as_botocore_reads_it(recording: Recording) -> None:
    response = BedrockConverseCodec().decode(recording.body)

    assert_response(response, recording.expected)
    assert response.body == recording.body


@pytest.mark.parametrize("recording", [r for r in CONVERSE if not r.expected["parsed"]], ids=str)
def test_an_answer_that_breaks_botocores_union_rule_is_read_all_the_same(recording: Recording) -> None:
    response = BedrockConverseCodec().decode(recording.body)

    assert response.text
    assert response.raw_finish_reason == "tool_use"


@pytest.mark.parametrize("recording", CLAUDE, ids=str)
def test_a_recorded_claude_answer_reads_as_anthropic_reads_it(recording: Recording) -> None:
    anthropic_types = pytest.importorskip("anthropic.types")
    theirs = anthropic_types.Message.model_validate_json(recording.body)

    response = AnthropicMessagesCodec().decode(recording.body)

    assert_response(response, recording.expected)
    assert response.text == "".join(block.text for block in theirs.content if block.type == "text")
    assert (response.id, response.model) == (theirs.id, theirs.model)
    assert response.usage is not None
    assert response.usage.output_tokens == theirs.usage.output_tokens


class Heard:
    """Events of one stream, folded."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.calls: list[ToolCallFinished] = []
        self.pieces: dict[int, str] = {}
        self.citations: list[CitationPart] = []
        self.results: list[ToolResultPart] = []
        self.finished: StreamFinished | None = None
        self.unknown = 0

    def add(self, event: Any) -> None:
        match event:
            case TextDelta(text):
                assert text
                self.text += text
            case ReasoningDelta(text):
                assert text or event.signature or event.redacted
                self.reasoning += text
            case ToolCallStarted(index):
                self.pieces[index] = ""
            case ToolCallDelta(index, piece):
                assert piece
                self.pieces[index] += piece
            case ToolCallFinished(index):
                assert event.arguments == (self.pieces[index] or "{}")
                self.calls.append(event)
            case CitationAdded(_, citation):
                self.citations.append(citation)
            case StreamFinished():
                self.finished = event
            case UnknownEvent():
                self.unknown += 1
            case ServerToolResultAdded(_, result):
                self.results.append(result)
            case StreamStarted():
                pass
            case _:
                raise AssertionError(f"unexpected {event!r}")


@pytest.mark.parametrize("recording", parsed(STREAMS), ids=str)
def test_a_recorded_stream_reads_as_botocore_reads_it(recording: Recording) -> None:
    decoder, heard = BedrockConverseCodec().stream_decoder(), Heard()

    for name, payload in frames(recording.body):
        for event in decoder.feed(name, payload):
            heard.add(event)
    for event in decoder.finish():
        heard.add(event)

    expected = recording.expected
    assert heard.text == expected["text"]
    assert heard.reasoning == expected["reasoning"]
    assert tool_calls(heard.calls) == expected["tool_calls"]
    assert heard.finished is not None
    assert heard.finished.raw_finish_reason == expected["finish_reason_raw"]
    assert_usage(heard.finished.usage, expected)
    assert heard.unknown == 0
    server_calls = [call.id for call in heard.calls if call.server_side]
    assert [result.tool_call_id for result in heard.results] == server_calls


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_a_recorded_stream_cut_at_any_byte_is_never_taken_for_complete(recording: Recording) -> None:
    """Inside a frame nothing changes for the decoder, so a cut after each frame is a cut at every byte."""
    decoder, text = BedrockConverseCodec().stream_decoder(), ""
    stopped = False
    cuts = 0

    for name, payload in [("", b""), *frames(recording.body)]:
        if name:
            events = decoder.feed(name, payload)
            text += "".join(event.text for event in events if isinstance(event, TextDelta))
            stopped = stopped or name == "messageStop"
        snapshot = copy.deepcopy(decoder)
        cuts += 1
        if stopped:
            (finished,) = snapshot.finish()
            assert isinstance(finished, StreamFinished)
        else:
            with pytest.raises(StreamTruncatedError):
                snapshot.finish()

    assert cuts == 1 + len(frames(recording.body))
    if recording.expected["parsed"]:
        assert text == recording.expected["text"]


def test_redacted_thinking_arrives_whole_and_streamed() -> None:
    whole = [BedrockConverseCodec().decode(r.body) for r in CONVERSE if b"redactedContent" in r.body]
    streamed = [
        event
        for recording in STREAMS
        for name, payload in frames(recording.body)
        if b"redactedContent" in payload
        for event in BedrockConverseCodec().stream_decoder().feed(name, payload)
    ]

    parts = [part for response in whole for part in response.message.parts if isinstance(part, ReasoningPart)]
    assert any(part.redacted for part in parts)
    assert streamed
    assert all(isinstance(event, ReasoningDelta) and event.redacted and not event.text for event in streamed)


def test_citations_keep_title_quotes_and_location_beside_their_text() -> None:
    cited = [r for r in CONVERSE if b"citationsContent" in r.body]
    assert cited
    for recording in cited:
        response = BedrockConverseCodec().decode(recording.body)
        parts = [part for part in response.message.parts if isinstance(part, CitationPart)]
        assert parts
        assert all(part.title and part.quotes and len(part.location or {}) == 1 for part in parts)


def test_a_server_side_tool_is_marked_and_waits_for_no_result() -> None:
    (first, *_) = [r for r in CONVERSE if b"server_tool_use" in r.body]
    response = BedrockConverseCodec().decode(first.body)

    call = next(part for part in response.message.parts if isinstance(part, ToolCallPart))
    result = next(part for part in response.message.parts if isinstance(part, ToolResultPart))
    assert (call.name, call.server_side) == ("nova_code_interpreter", True)
    assert (result.tool_call_id, result.name, result.server_side) == (call.id, call.name, True)
    assert isinstance(result.content, dict)
    assert set(result.content) == {"stdOut", "stdErr", "exitCode", "isError"}
    assert call not in response.tool_calls


def test_a_guardrails_trace_is_kept() -> None:
    traced = [BedrockConverseCodec().decode(r.body) for r in CONVERSE if b'"trace"' in r.body]
    assert traced
    assert all("inputAssessment" in response.extra["trace"]["guardrail"] for response in traced)


def _as_sent_back(block: dict[str, Any]) -> dict[str, Any]:
    """An answer's block as the service takes it back: its own extra type is not in the input schema."""
    if block.get("toolUse", {}).get("type") == "tool_use":
        return {"toolUse": {name: value for name, value in block["toolUse"].items() if name != "type"}}
    return {name: value for name, value in block.items() if name != "type"}


@pytest.mark.parametrize("recording", [r for r in CONVERSE if r.model and "anthropic" in r.model], ids=str)
def test_a_recorded_answer_goes_back_into_the_conversation_as_it_came(recording: Recording) -> None:
    """Signatures, redacted thinking and citations are checked by the service: nothing may get lost."""
    codec = BedrockConverseCodec()
    response = codec.decode(recording.body)
    request = ChatRequest(
        model=recording.model or "", messages=(Message.user("Hi"), response.message, Message.user("And?"))
    )

    body = json.loads(codec.encode(request, stream=False)[0])

    said = json.loads(recording.body)["output"]["message"]["content"]
    sent = [turn["content"] for turn in body["messages"] if turn["role"] == "assistant"]
    assert [block for turn in sent for block in turn] == [
        _as_sent_back(block) for block in said if block.get("text", "x").strip()
    ]


def test_recorded_error_bodies_are_no_answers() -> None:
    failures = load_recordings(operation="converse", status=400)
    assert failures
    for recording in failures:
        with pytest.raises(ResponseFormatError, match=r"no output\.message"):
            BedrockConverseCodec().decode(recording.body)
