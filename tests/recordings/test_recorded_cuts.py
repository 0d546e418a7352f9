"""Every recorded stream, cut at every byte and split at random, through framing and decoder together.

Inside an event only the framing's state changes, so the decoder is copied once an event and the framing
advances byte by byte: linear in the stream. Every byte is cut with ``APEX_LLM_ALL_CUTS=1``
(``scripts/check-faults``); otherwise the edges of each event, and each 37th byte between them.
"""

from __future__ import annotations

import copy
import os
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from recorded import Recording, load_recordings

from apex_llm.codecs.chat.anthropic_messages import AnthropicMessagesCodec
from apex_llm.codecs.chat.bedrock_converse import BedrockConverseCodec
from apex_llm.codecs.chat.openai_chat import OpenAIChatCodec
from apex_llm.codecs.framing import ChunkFraming, EventStreamFraming, SseFraming
from apex_llm.errors import ApexLlmError, StreamTruncatedError
from apex_llm.types.events import StreamEvent, StreamFinished, TextDelta

ALL_CUTS = os.environ.get("APEX_LLM_ALL_CUTS") == "1"
_EDGE = 6
_STEP = 37


class Reader:
    """Framing and decoder of one stream."""

    def __init__(self, framing: Any, decoder: Any) -> None:
        self.framing = framing
        self.decoder = decoder

    def feed(self, data: bytes) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for name, payload in self.framing.feed(data):
            events += self.decoder.feed(name, payload)
        return events

    def finish(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for name, payload in self.framing.finish():
            events += self.decoder.feed(name, payload)
        events += self.decoder.finish()
        return events


def _reader(recording: Recording) -> Reader:
    if recording.kind == "sse":
        return Reader(SseFraming(), OpenAIChatCodec().stream_decoder())
    if recording.operation == "converse-stream":
        return Reader(EventStreamFraming(), BedrockConverseCodec().stream_decoder())
    return Reader(ChunkFraming(), AnthropicMessagesCodec().stream_decoder())


def _frames(body: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(body):
        (length,) = struct.unpack_from(">I", body, position)
        yield body[position : position + length]
        position += length


def _events(body: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(body):
        end = body.find(b"\n\n", position)
        end = len(body) if end < 0 else end + 2
        yield body[position:end]
        position = end


def _readable(recording: Recording) -> bool:
    """Whether we read it to its end: recorded errors and formats of other models have tests of their own."""
    reader = _reader(recording)
    try:
        reader.feed(recording.body)
        reader.finish()
    except ApexLlmError:
        return False
    return True


STREAMS = [
    recording
    for recording in (
        *load_recordings(operation="converse-stream", kind="event-stream", status=200, parsed=True),
        *load_recordings(operation="invoke-with-response-stream", kind="event-stream", status=200, parsed=True),
        *load_recordings(operation="chat", kind="sse", status=200, parsed=True),
    )
    if b"\r\n\r\n" not in recording.body and _readable(recording)
]


pytestmark = pytest.mark.skipif(not STREAMS, reason="the recordings are not here")


def _offsets(length: int) -> Iterator[int]:
    """Where to cut an event of that many bytes: its lengths but the full one."""
    for offset in range(1, length):
        if ALL_CUTS or offset <= _EDGE or length - offset <= _EDGE or offset % _STEP == 0:
            yield offset


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_a_cut_at_any_byte_is_typed_and_loses_and_doubles_nothing(recording: Recording) -> None:
    split: Callable[[bytes], Iterator[bytes]] = _events if recording.kind == "sse" else _frames
    reference = _reader(recording)
    whole = reference.feed(recording.body)
    reader = _reader(recording)
    delivered: list[StreamEvent] = []

    for event in split(recording.body):
        _check_end(reader, delivered, whole, rest=b"")
        framing = copy.deepcopy(reader.framing)
        fed = 0
        for offset in _offsets(len(event)):
            assert list(framing.feed(event[fed:offset])) == [] or recording.kind == "sse"
            fed = offset
            _check_end(Reader(framing, reader.decoder), delivered, whole, rest=event[:offset])
        delivered += reader.feed(event)
        assert delivered == whole[: len(delivered)]

    assert delivered == whole
    assert delivered + reader.finish() == whole + reference.finish()


def _check_end(reader: Reader, delivered: list[StreamEvent], whole: list[StreamEvent], *, rest: bytes) -> None:
    """An end here is a typed truncation, or complete because everything but the last formality was there."""
    try:
        # First the framing alone: inside an event it says all, and the decoder need not be copied.
        last = list(copy.deepcopy(reader.framing).finish())
        decoder = copy.deepcopy(reader.decoder)
        ending = [event for name, payload in last for event in decoder.feed(name, payload)] + [*decoder.finish()]
    except StreamTruncatedError:
        return
    assert isinstance(ending[-1], StreamFinished)
    texts = [event for event in whole if isinstance(event, TextDelta)]
    assert [event for event in delivered if isinstance(event, TextDelta)] == texts
    assert ending[-1].raw_finish_reason is not None
    assert not rest or rest.startswith(b"data: [DONE]"[: len(rest)])


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_a_stream_split_at_random_gives_the_same_events(recording: Recording) -> None:
    body = recording.body
    whole = _reader(recording)
    wanted = [*whole.feed(body), *whole.finish()]

    for seed in range(50 if ALL_CUTS else 3):
        draw = random.Random(seed)
        reader, events, position = _reader(recording), list[StreamEvent](), 0
        while position < len(body):
            size = draw.choice((1, 2, 3, draw.randint(1, 64), draw.randint(1, 2000)))
            events += reader.feed(body[position : position + size])
            position += size
        assert events + reader.finish() == wanted


def test_both_wires_are_cut() -> None:
    assert {recording.operation for recording in STREAMS} >= {"converse-stream", "chat"}
    assert len(STREAMS) > 20
