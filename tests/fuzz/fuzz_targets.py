"""What is fuzzed: each target makes nearly good inputs of recorded ones, and says what must hold for any input.

``run`` may raise ``ApexLlmError`` and nothing else. Where a decoder takes its input in pieces, it must also
say the same whatever the pieces are.
"""

from __future__ import annotations

__all__ = ["TARGETS", "Target"]

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from fuzz_samples import (
    AUTHORIZATION,
    CLAUDE_EVENTS,
    LISTING_PAGES,
    WAITS,
    bodies,
    chat_streams,
    chunk_frame,
    claude_stream,
    converse_streams,
    event_bodies,
    event_streams,
    http_answer,
    refusals,
)
from mutations import junk, mutate_bytes, mutate_frames, mutate_http, mutate_json, mutate_sse, pieces_of

from apex_llm.codecs.base import ChatCodec
from apex_llm.codecs.chat.anthropic_messages import AnthropicMessagesCodec
from apex_llm.codecs.chat.bedrock_converse import BedrockConverseCodec
from apex_llm.codecs.chat.openai_chat import OpenAIChatCodec
from apex_llm.codecs.failures import (
    azure_failure,
    bedrock_failure,
    bedrock_stream_failure,
    openai_stream_failure,
    unexpected_content,
)
from apex_llm.codecs.framing import ChunkFraming, EventStreamFraming, SseFraming
from apex_llm.codecs.replay import ReplayCodec, WholeBodyFraming, events_of
from apex_llm.errors import ApexLlmError
from apex_llm.protocol.backoff import clock_offset, retry_after_hint
from apex_llm.protocol.eventstream import EventStreamDecoder
from apex_llm.protocol.sigv4_verify import expected_signature, parse_authorization, recognise_mistake
from apex_llm.protocol.sse import SseDecoder
from apex_llm.providers.azure_openai.listings import (
    read_base_models,
    read_data_plane_deployments,
    read_managed_deployments,
)
from apex_llm.providers.bedrock.control_plane import LISTINGS, base_model_of_profile, read_page
from apex_llm.streaming import Accumulator
from apex_llm.transport.http11_parser import MAX_HEADERS, ResponseParser
from apex_llm.types.http import Framing, Headers
from apex_llm.types.responses import ChatResponse


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote."""

    name: str
    weight: int
    """Its share of the inputs."""
    make: Callable[[Random], bytes]
    run: Callable[[bytes, Random], object]
    """Raises ``ApexLlmError``, or returns its name, or anything else for an input that was read to its end."""
    memory: int = 2 << 20
    """Bytes that it may take however short its input is."""


def _mutated_claude_stream(dice: Random) -> bytes:
    if dice.random() < 0.3:
        return mutate_frames(claude_stream(), dice)
    events = [json.dumps(event).encode() for event in CLAUDE_EVENTS]
    events = [mutate_json(event, dice) if dice.random() < 0.1 else event for event in events]
    if dice.random() < 0.3:
        dice.shuffle(events)
    return b"".join(map(chunk_frame, events[: dice.choice((3, 30, 30, 30))]))


def _of(
    samples: Callable[[], tuple[bytes, ...]], change: Callable[[bytes, Random], bytes]
) -> Callable[[Random], bytes]:
    return lambda dice: change(dice.choice(samples()), dice)


def _bits_or_frames(data: bytes, dice: Random) -> bytes:
    return mutate_bytes(data, dice) if dice.random() < 0.4 else mutate_frames(data, dice)


# What must hold ------------------------------------------------------------------------------


def outcome(read: Callable[[], Iterable[Any]]) -> tuple[list[Any], str]:
    """What was given, and the class of the error that ended it."""
    given: list[Any] = []
    try:
        for item in read():
            given.append(item)  # noqa: PERF402 - what came before an error is kept
    except ApexLlmError as error:
        str(error)
        return given, type(error).__name__
    return given, ""


def _same_in_pieces(feed_all: Callable[[list[bytes]], Iterable[Any]], data: bytes, dice: Random) -> str:
    pieces = pieces_of(data, dice)
    whole, piecewise = outcome(lambda: feed_all([data])), outcome(lambda: feed_all(pieces))
    if repr(whole) != repr(piecewise):
        raise AssertionError(f"{len(pieces)} pieces say something else than one: {piecewise!r:.300} and {whole!r:.300}")
    return whole[1]


def _frames(pieces: list[bytes]) -> Iterable[Any]:
    decoder = EventStreamDecoder()
    for piece in pieces:
        yield from decoder.feed(piece)
    decoder.finish()


def _server_sent(pieces: list[bytes]) -> Iterable[Any]:
    decoder = SseDecoder(max_event_bytes=6_000)
    for piece in pieces:
        yield from decoder.feed_raw(piece)
    yield from decoder.finish()
    yield decoder.discarded, decoder.last_event_id, decoder.retry


def _framed(framing: Callable[[], Framing], pieces: list[bytes]) -> Iterable[Any]:
    reader = framing()
    for piece in pieces:
        yield from reader.feed(piece)
    yield from reader.finish()


def _framing(kind: Callable[[], Framing]) -> Callable[[bytes, Random], str]:
    return partial(_same_in_pieces, partial(_framed, kind))


def _read_stream(framing: Callable[[], Framing], codec: ChatCodec, data: bytes, dice: Random) -> None:
    """As a stream reads: events folded up to the damage, and an answer of whatever there is."""
    reader, decoder, answer = framing(), codec.stream_decoder(), Accumulator()
    try:
        for piece in pieces_of(data, dice):
            for name, payload in reader.feed(piece):
                answer.add(decoder.feed(name, payload))
        for name, payload in reader.finish():
            answer.add(decoder.feed(name, payload))
        answer.add(decoder.finish())
    finally:
        _look_at(answer.response(model="m", request_id=None, attempts=1))


def _read_answer(codec: ChatCodec, data: bytes, _: Random) -> None:
    response = codec.decode(data)
    _look_at(response)
    folded = Accumulator()
    folded.add(events_of(response))
    _look_at(folded.response(model="m", request_id=None, attempts=1))


def _look_at(response: ChatResponse) -> None:
    _ = response.text, response.reasoning, response.tool_calls, response.blocked, response.raw, repr(response)
    assert response.usage is None or isinstance(response.usage.total_tokens, int)
    assert isinstance(response.text, str)


def _failures(data: bytes, dice: Random) -> None:
    status = dice.choice((301, 400, 401, 403, 404, 408, 413, 424, 429, 499, 500, 503, 529, 599, 999))
    code = mutate_bytes(b"ThrottlingException:http://x/", dice).decode("latin-1")
    headers = Headers((("x-amzn-errortype", code), ("content-type", str(junk(dice)))) if dice.random() < 0.5 else ())
    for error in (
        bedrock_failure(status, headers, data, model="anthropic.claude-x", region="us-east-1"),
        azure_failure(status, headers, data, model="m", url="https://r/openai/deployments/m", api_version="2024-10-21"),
        bedrock_stream_failure(code, data, message=dice.choice((None, code))),
        openai_stream_failure(data, model="m"),
        unexpected_content(headers, data, expected="text/event-stream", provider="azure_openai"),
    ):
        assert isinstance(error, ApexLlmError)
        assert len(str(error)) < 10_000


def _waits(data: bytes, dice: Random) -> None:
    text = data.decode("latin-1")
    names = ("retry-after-ms", "x-amz-retry-after", "retry-after", "date", "x-ratelimit-reset-tokens")
    headers = {name: text for name in names if dice.random() < 0.5}
    wait = retry_after_hint(headers, now=time.time(), rate_limited=dice.random() < 0.5)
    assert wait is None or 0 <= wait < float("inf")
    clock_offset(text, now=0.0)


def _authorization(data: bytes, dice: Random) -> None:
    parsed = parse_authorization(data.decode("latin-1"))
    target = mutate_bytes(b"/model/a%3A0/converse?x=1", dice).decode("latin-1")
    headers = [("host", target), ("x-amz-date", f"{parsed.date}T000000Z")]
    given: dict[str, Any] = {"secret_access_key": "s", "method": "POST", "target": target, "headers": headers}
    expected_signature(parsed, **given)
    recognise_mistake(parsed, **given)


def _listings(data: bytes, _: Random) -> None:
    readers: list[Callable[[bytes], object]] = [partial(read_page, listing) for listing in LISTINGS]
    readers += [base_model_of_profile, read_data_plane_deployments, read_managed_deployments, read_base_models]
    for read in readers:
        outcome(lambda read=read: [read(data)])


def _http(data: bytes, dice: Random) -> None:
    """The parser alone, whose connection feeds it what comes: body no longer than what was fed, an end or an error."""
    parser = ResponseParser(peer="peer")
    parser.begin(head_only=dice.random() < 0.05)
    body = 0
    for piece in pieces_of(data, dice):
        body += len(parser.feed(piece))
        if parser.complete or parser.failure is not None:
            break
    assert body <= len(data)
    assert len(parser.headers) <= MAX_HEADERS or parser.failure is not None
    error = parser.finish()
    parser.dispose()
    assert parser.complete is (error is None)
    assert not (parser.complete and not parser.status)
    if error is not None:
        raise error


TARGETS: tuple[Target, ...] = (
    Target("event-stream decoder", 12, _of(event_streams, _bits_or_frames), partial(_same_in_pieces, _frames)),
    Target("sse decoder", 12, _of(event_bodies, mutate_sse), partial(_same_in_pieces, _server_sent)),
    Target("event-stream framing", 6, _of(converse_streams, _bits_or_frames), _framing(EventStreamFraming)),
    Target("chunk framing", 6, _mutated_claude_stream, _framing(ChunkFraming)),
    Target("sse framing", 6, _of(event_bodies, mutate_sse), _framing(SseFraming)),
    Target(
        "converse answer",
        10,
        _of(partial(bodies, "converse"), mutate_json),
        partial(_read_answer, BedrockConverseCodec()),
    ),
    Target(
        "claude answer", 8, _of(partial(bodies, "invoke"), mutate_json), partial(_read_answer, AnthropicMessagesCodec())
    ),
    Target("chat answer", 10, _of(partial(bodies, "chat"), mutate_json), partial(_read_answer, OpenAIChatCodec())),
    Target(
        "converse stream",
        10,
        _of(converse_streams, _bits_or_frames),
        partial(_read_stream, EventStreamFraming, BedrockConverseCodec()),
    ),
    Target("claude stream", 10, _mutated_claude_stream, partial(_read_stream, ChunkFraming, AnthropicMessagesCodec())),
    Target("chat stream", 10, _of(chat_streams, mutate_sse), partial(_read_stream, SseFraming, OpenAIChatCodec())),
    Target(
        "replayed answer",
        4,
        _of(partial(bodies, "converse"), mutate_json),
        partial(_read_stream, WholeBodyFraming, ReplayCodec(BedrockConverseCodec())),
    ),
    Target("http/1.1 parser", 20, lambda dice: mutate_http(http_answer(dice), dice), _http),
    Target("failure mapping", 10, _of(refusals, mutate_json), _failures),
    Target("retry-after", 10, lambda dice: mutate_bytes(dice.choice(WAITS), dice), _waits),
    Target(
        "authorization",
        8,
        lambda dice: mutate_bytes(AUTHORIZATION, dice, tokens=(b",", b"=", b"/", b";", b" ", b"\xe9")),
        _authorization,
    ),
    Target("listings", 8, lambda dice: mutate_json(json.dumps(dice.choice(LISTING_PAGES)).encode(), dice), _listings),
)
