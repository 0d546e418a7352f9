"""Recorded chat traffic of Azure, OpenAI and Bedrock's OpenAI-compatible host, read by our codec.

The oracle is the openai SDK's reading of the same bytes. Cuts work on snapshots, so that a
stream of n bytes costs n feeds and not n squared.
"""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import Recording, load_recordings

from apex_llm.codecs.chat.openai_chat import OpenAIChatCodec
from apex_llm.codecs.failures import azure_failure, bedrock_failure
from apex_llm.codecs.framing import SseFraming
from apex_llm.errors import (
    ApexLlmError,
    InvalidRequestError,
    ModelNotFoundError,
    ProtocolError,
    RequestError,
    StreamTruncatedError,
)
from apex_llm.types.events import (
    ReasoningDelta,
    StreamEvent,
    StreamFinished,
    StreamStarted,
    TextDelta,
    ToolCallFinished,
)
from apex_llm.types.http import Headers
from apex_llm.types.responses import Usage

ANSWERS = load_recordings(operation="chat", kind="json", status=200)
STREAMS = load_recordings(operation="chat", kind="sse")
ERRORS = [recording for recording in load_recordings(kind="json") if recording.status >= 400]

pytestmark = pytest.mark.skipif(not STREAMS, reason="the recordings are not here")


def by_id(recordings: list[Recording]) -> Any:
    return pytest.mark.parametrize("recording", recordings, ids=str)


def check_usage(usage: Usage | None, expected: dict[str, Any]) -> None:
    if expected["input_tokens"] is None:
        assert usage is None
        return
    assert usage is not None
    assert usage.input_tokens == expected["input_tokens"]
    assert usage.output_tokens == expected["output_tokens"]
    assert usage.cache_read_tokens == (expected["cache_read"] or 0)
    assert usage.reasoning_tokens == (expected.get("reasoning_tokens") or 0)


@by_id(ANSWERS)
def test_answers_say_what_the_oracle_reads(recording: Recording) -> None:
    expected = recording.expected

    response = OpenAIChatCodec().decode(recording.body)

    assert response.text == expected["text"]
    assert response.reasoning == expected["reasoning"]
    assert response.raw_finish_reason == expected["finish_reason_raw"]
    assert [
        {"id": call.id, "name": call.name, "arguments": json.loads(call.arguments)} for call in response.tool_calls
    ] == expected["tool_calls"]
    check_usage(response.usage, expected)
    assert response.raw == json.loads(recording.body)
    assert response.model
    assert response.warnings == ()


@by_id([recording for recording in ANSWERS if recording.service == "azure-openai" and recording.model == "gpt-4o"])
def test_azures_filter_results_are_kept(recording: Recording) -> None:
    extra = OpenAIChatCodec().decode(recording.body).extra

    assert extra["prompt_filter_results"][0]["content_filter_results"]["jailbreak"]["filtered"] is False
    assert extra["content_filter_results"]["hate"]["severity"] == "safe"


@by_id([recording for recording in ANSWERS if recording.request is not None])
def test_recorded_conversations_can_be_said_again(recording: Recording) -> None:
    """Messages and tools of a real request go through our values and come out with the same meaning."""
    from apex_llm.types.coerce import as_messages, as_tools
    from apex_llm.types.requests import ChatRequest

    sent = recording.request
    if any(isinstance(tool, dict) and tool.get("type") != "function" for tool in sent.get("tools", ())):
        pytest.skip("the request uses a tool that is no function")
    request = ChatRequest(
        model=sent.get("model", "gpt-4o"), messages=as_messages(sent["messages"]), tools=as_tools(sent.get("tools"))
    )

    body = json.loads(OpenAIChatCodec().encode(request, stream=False)[0])

    assert [_meaning(message) for message in body["messages"]] == [_meaning(message) for message in sent["messages"]]
    names = [tool["function"]["name"] for tool in sent.get("tools", ())]
    assert [tool["function"]["name"] for tool in body.get("tools", ())] == names


def _meaning(message: dict[str, Any]) -> Any:
    content = message.get("content") or ""
    if isinstance(content, list):
        texts = [part["text"] for part in content if part["type"] == "text"]
        content = ("".join(texts), [part["type"] for part in content if part["type"] != "text"])
    else:
        content = (content, [])
    role = "system" if message["role"] == "developer" else message["role"]
    calls = [(call["id"], call["function"]["name"]) for call in message.get("tool_calls") or ()]
    return role, content, calls, message.get("tool_call_id")


# -- streams ---------------------------------------------------------------------------------


class Reader:
    """Framing and decoder of one stream, and what came out; may be copied between feeds."""

    def __init__(self) -> None:
        self.framing = SseFraming()
        self.decoder = OpenAIChatCodec().stream_decoder()
        self.events: list[StreamEvent] = []

    def feed(self, data: bytes) -> None:
        for name, payload in self.framing.feed(data):
            self.events.extend(self.decoder.feed(name, payload))

    def finish(self) -> None:
        for name, payload in self.framing.finish():
            self.events.extend(self.decoder.feed(name, payload))
        self.events.extend(self.decoder.finish())

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    def snapshot(self) -> Reader:
        twin = Reader()
        twin.framing = copy.deepcopy(self.framing)
        twin.decoder = copy.deepcopy(self.decoder)
        twin.events = list(self.events)
        return twin


def read(body: bytes) -> list[StreamEvent]:
    reader = Reader()
    reader.feed(body)
    reader.finish()
    return reader.events


@by_id(STREAMS)
def test_streams_say_what_the_oracle_reads(recording: Recording) -> None:
    expected = recording.expected

    events = read(recording.body)

    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == expected["text"]
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == expected["reasoning"]
    assert [
        {"id": event.id, "name": event.name, "arguments": json.loads(event.arguments)}
        for event in events
        if isinstance(event, ToolCallFinished)
    ] == expected["tool_calls"]
    starts = [event for event in events if isinstance(event, StreamStarted)]
    assert len(starts) == 1
    assert starts[0].id
    assert starts[0].model
    last = events[-1]
    assert isinstance(last, StreamFinished)
    assert last.raw_finish_reason == expected["finish_reason_raw"]
    assert last.warnings == ()
    check_usage(last.usage, expected)


@by_id(STREAMS)
def test_a_stream_cut_anywhere_is_never_a_silent_success(recording: Recording) -> None:
    """At every byte: the text is that of the whole events before the cut, and the end is an error or a warning."""
    body = recording.body
    whole = read(body)
    texts = [event.text for event in whole if isinstance(event, TextDelta)]
    reader = Reader()
    position = 0
    while position < len(body):
        end = body.index(b"\n\n", position) + 2
        text_before = reader.text
        assert text_before == "".join(texts)[: len(text_before)]
        _check_end(reader.snapshot(), reader.text, partial=b"", whole=whole)
        # Inside an event only the framing's state differs, so only that is stepped through.
        framing = copy.deepcopy(reader.framing)
        for offset in range(position, end - 1):
            assert list(framing.feed(body[offset : offset + 1])) == []
            if offset % 97 == 0 or end - offset < 12:
                _check_end(_with(reader, framing), text_before, partial=body[position : offset + 1], whole=whole)
        reader.feed(body[position:end])
        position = end
    reader.finish()
    assert reader.events == whole


def _with(reader: Reader, framing: SseFraming) -> Reader:
    twin = reader.snapshot()
    twin.framing = copy.deepcopy(framing)
    return twin


def _check_end(reader: Reader, text: str, *, partial: bytes, whole: list[StreamEvent]) -> None:
    try:
        reader.finish()
    except (StreamTruncatedError, ProtocolError):
        assert reader.text == text
        return
    # Success only after a finish reason; without [DONE] it carries a warning.
    assert reader.text == text
    last = reader.events[-1]
    assert isinstance(last, StreamFinished)
    assert last.raw_finish_reason is not None
    assert partial.startswith(b"data: [DONE]") or last.warnings or last == whole[-1]


@functools.cache
def _short_streams() -> list[Recording]:
    return [recording for recording in STREAMS if len(recording.body) < 40_000]


@given(st.data())
def test_any_split_of_the_bytes_gives_the_same_events(data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(_short_streams())).body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=40)))
    reader = Reader()

    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        reader.feed(body[start:end])
    reader.finish()

    assert reader.events == read(body)


@by_id([recording for recording in STREAMS if recording.service == "azure-openai"])
def test_line_ends_of_proxies_change_nothing(recording: Recording) -> None:
    for line_end in (b"\r\n", b"\r"):
        assert read(recording.body.replace(b"\n", line_end)) == read(recording.body)


# -- errors ----------------------------------------------------------------------------------

TEXTS: list[tuple[str, type[ApexLlmError]]] = [
    ("model identifier is invalid", ModelNotFoundError),
    ("does not exist", ModelNotFoundError),
]


@by_id(ERRORS)
def test_recorded_errors_are_typed(recording: Recording) -> None:
    bedrock = recording.service.startswith("bedrock")
    failure = bedrock_failure if bedrock else azure_failure

    error = failure(recording.status, Headers(recording.headers), recording.body, model=recording.model)

    said = json.loads(recording.body)
    message = said["message"] if bedrock else said["error"]["message"]
    assert isinstance(error, RequestError)
    assert not error.retryable
    assert error.status == recording.status
    assert error.message == message
    assert error.hint
    assert type(error) is next((kind for text, kind in TEXTS if text in message), InvalidRequestError)
    if not bedrock:
        assert error.code == (said["error"]["code"] or said["error"]["type"])
