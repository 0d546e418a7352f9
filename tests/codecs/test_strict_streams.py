"""Strict streams: what services send passes, whatever is out of order does not, and nothing else is changed."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "recordings"))

from test_recorded_cuts import STREAMS, _reader

from apex_llm.codecs.base import DONE, StreamDecoder
from apex_llm.codecs.chat.anthropic_messages import AnthropicMessagesCodec
from apex_llm.codecs.chat.bedrock_converse import BedrockConverseCodec
from apex_llm.codecs.chat.openai_chat import OpenAIChatCodec
from apex_llm.codecs.strict import strict_decoder
from apex_llm.errors import ProtocolError, ResponseFormatError

Event = tuple[str, dict[str, Any]]


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_every_recorded_stream_passes_unchanged(recording: Any) -> None:
    usual = _reader(recording)
    strict = _reader(recording)
    strict.decoder = strict_decoder(lambda: _reader(recording).decoder)()

    assert strict.feed(recording.body) + strict.finish() == usual.feed(recording.body) + usual.finish()


def text(index: int) -> Event:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": {"text": "x"}}


def start(index: int) -> Event:
    return "contentBlockStart", {
        "contentBlockIndex": index,
        "start": {"toolUse": {"toolUseId": f"t{index}", "name": "look_up"}},
    }


def stop(index: int) -> Event:
    return "contentBlockStop", {"contentBlockIndex": index}


def claude(kind: str, index: int) -> Event:
    more: dict[str, Any] = {
        "start": {"content_block": {"type": "text", "text": ""}},
        "delta": {"delta": {"type": "text_delta", "text": "x"}},
        "stop": {},
    }[kind]
    return "chunk", {"type": f"content_block_{kind}", "index": index, **more}


def chunk(*, choice: int = 0, reason: str | None = None, **delta: Any) -> Event:
    return "message", {"id": "c", "choices": [{"index": choice, "delta": delta, "finish_reason": reason}]}


def call(index: int | None, name: str | None = None) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"name": name, "arguments": "{}"}}]}


def converse_decoder() -> StreamDecoder:
    return BedrockConverseCodec().stream_decoder()


def claude_decoder() -> StreamDecoder:
    return AnthropicMessagesCodec().stream_decoder()


def chat_decoder() -> StreamDecoder:
    return OpenAIChatCodec().stream_decoder()


DISORDER = {
    "converse, back": (converse_decoder, [text(2), text(1)]),
    "converse, back to a tool": (converse_decoder, [text(2), start(1)]),
    "converse, back to an end": (converse_decoder, [text(2), stop(1)]),
    "converse, after its end": (converse_decoder, [text(0), stop(0), text(0)]),
    "converse, two ends": (converse_decoder, [text(0), stop(0), stop(0)]),
    "converse, two starts": (converse_decoder, [start(0), start(0)]),
    "converse, a start after text": (converse_decoder, [text(0), start(0)]),
    "claude, back": (claude_decoder, [claude("start", 1), claude("start", 0)]),
    "claude, no start": (claude_decoder, [claude("delta", 0)]),
    "claude, no start of the next": (claude_decoder, [claude("start", 0), claude("stop", 0), claude("delta", 1)]),
    "claude, after its end": (claude_decoder, [claude("start", 0), claude("stop", 0), claude("delta", 0)]),
    "chat, back": (chat_decoder, [chunk(**call(0, "f")), chunk(**call(1, "g")), chunk(**call(0))]),
    "chat, back to another": (chat_decoder, [chunk(**call(1, "f")), chunk(**call(0, "g"))]),
    "chat, no start": (chat_decoder, [chunk(**call(0))]),
    "chat, after its end": (chat_decoder, [chunk(content="x", reason="stop"), chunk(content="y")]),
    "chat, a call after the end": (chat_decoder, [chunk(content="x", reason="stop"), chunk(**call(0, "f"))]),
}


@pytest.mark.parametrize("name", DISORDER)
def test_disorder_is_refused_at_the_event_that_makes_it(name: str) -> None:
    make, events = DISORDER[name]
    decoder = strict_decoder(make)()
    *good, bad = events
    for kind, payload in good:
        decoder.feed(kind, json.dumps(payload).encode())

    with pytest.raises(ProtocolError, match="out of order") as caught:
        decoder.feed(bad[0], json.dumps(bad[1]).encode())
    assert type(caught.value) is ProtocolError
    assert caught.value.hint is not None
    assert "strict_streams" in caught.value.hint


ORDER = {
    "converse": (converse_decoder, [stop(0), text(1), text(1), stop(1), start(3), stop(3), ("later", {"index": 0})]),
    "converse, what follows the end": (converse_decoder, [text(1), stop(1), ("messageStop", {}), text(0)]),
    "claude": (claude_decoder, [claude("start", 0), claude("delta", 0), claude("stop", 0), claude("start", 2)]),
    "chat, calls": (chat_decoder, [chunk(**call(0, "f")), chunk(**call(0)), chunk(**call(1, "g")), chunk(**call(1))]),
    "chat, calls without an index": (chat_decoder, [chunk(**call(None, "f")), chunk(**call(None, "g"))]),
    "chat, choices that take turns": (chat_decoder, [chunk(content="a", choice=number % 2) for number in range(6)]),
    "chat, findings after an end": (chat_decoder, [chunk(content="x", reason="stop"), chunk(reason="content_filter")]),
    "chat, what follows the end": (chat_decoder, [chunk(reason="stop"), (DONE, {}), chunk(content="x")]),
}


@pytest.mark.parametrize("name", ORDER)
def test_what_only_looks_odd_passes(name: str) -> None:
    make, events = ORDER[name]
    strict, usual = strict_decoder(make)(), make()

    for kind, payload in events:
        data = json.dumps(payload).encode() if payload else b"{}"
        assert list(strict.feed(kind, data)) == list(usual.feed(kind, data))


def test_broken_json_is_the_decoders_to_refuse_and_a_copy_goes_its_own_way() -> None:
    decoder = strict_decoder(converse_decoder)()
    decoder.feed("contentBlockDelta", b'{"contentBlockIndex":1,"delta":{"text":"x"}}')
    other = copy.deepcopy(decoder)
    decoder.feed("contentBlockStop", b'{"contentBlockIndex":1}')

    assert other.feed("contentBlockDelta", b'{"contentBlockIndex":1,"delta":{"text":"x"}}')
    with pytest.raises(ResponseFormatError):
        other.feed("contentBlockDelta", b'{"contentBlockIndex":')
