"""Recorded streams, played over real connections: whole, re-chunked, and cut at sampled places.

Every byte offset is covered on decoder snapshots, in the tests beside this one. Here the whole
client is in the path: sender, framing, decoder, retry and stream.
"""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest
from recorded import Recording, load_recordings

from apex_llm import ApexLlmError, AzureOpenAIProvider, BedrockProvider, StreamTruncatedError, ToolCallPart
from apex_llm.emulator import Answer, Emulator

BEDROCK = load_recordings(operation="converse-stream", kind="event-stream", provenance="recorded", parsed=True)
OPENAI = load_recordings(operation="chat", kind="sse", provenance="recorded", parsed=True)
STREAMS = [*BEDROCK, *OPENAI]
CUTS_EACH = 5


def name_of(recording: Recording) -> str:
    return recording.id.rsplit("/", 1)[-1][-60:]


def raw_answer(recording: Recording, body: bytes, *, seed: int, ends: bool) -> Answer:
    """The bytes of one HTTP answer, in chunks of random sizes; without the last chunk when it is cut."""
    dice = random.Random(seed)
    sse = recording.kind == "sse"
    content_type = b"text/event-stream; charset=utf-8" if sse else b"application/vnd.amazon.eventstream"
    out = (
        b"HTTP/1.1 200 OK\r\ncontent-type: "
        + content_type
        + b"\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    position = 0
    while position < len(body):
        size = dice.choice([1, 7, 100, 1000, 20000])
        piece = body[position : position + size]
        out += b"%x\r\n%b\r\n" % (len(piece), piece)
        position += len(piece)
    return Answer.raw(out + (b"0\r\n\r\n" if ends else b""), then="close")


def provider_for(recording: Recording, sender: str) -> tuple[Any, httpx.AsyncClient | None]:
    client = httpx.AsyncClient(trust_env=False) if sender == "httpx" else None
    if recording.kind == "sse":
        return AzureOpenAIProvider(default_deployment="chat", http_client=client, retry=None), client
    return BedrockProvider(default_model="claude", http_client=client, retry=None), client


@pytest.mark.parametrize("sender", ["http11", "httpx"])
@pytest.mark.parametrize("recording", STREAMS, ids=name_of)
async def test_a_recorded_stream_reads_over_a_connection_as_other_software_reads_it(
    recording: Recording, sender: str, emulator: Emulator
) -> None:
    emulator.script(raw_answer(recording, recording.body, seed=1, ends=True))
    provider, client = provider_for(recording, sender)

    async with provider:
        response = await provider.chat_stream("Hi").collect()

    expected = recording.expected
    assert response.text == expected["text"]
    assert response.reasoning == expected["reasoning"]
    assert [(call.id, call.name, call.input) for call in response.message.parts if isinstance(call, ToolCallPart)] == [
        (call["id"], call["name"], call["arguments"]) for call in expected["tool_calls"]
    ]
    assert response.raw_finish_reason == expected["finish_reason_raw"]
    if client is not None:
        await client.aclose()


@pytest.mark.parametrize("sender", ["http11", "httpx"])
@pytest.mark.parametrize("ends", [True, False], ids=["clean-end", "hang-up"])
@pytest.mark.parametrize("recording", STREAMS[::4], ids=name_of)
async def test_a_recorded_stream_cut_anywhere_is_never_a_success_and_keeps_what_was_delivered(
    recording: Recording, ends: bool, sender: str, emulator: Emulator
) -> None:
    whole = recording.expected["text"]
    dice = random.Random(recording.id)
    # The last bytes of a chat stream are the [DONE] line, behind the finish reason: without it the
    # answer is complete all the same. So cuts stay before the last tenth.
    cuts = sorted(dice.randrange(1, len(recording.body) * 9 // 10) for _ in range(CUTS_EACH))
    provider, client = provider_for(recording, sender)

    async with provider:
        for seed, cut in enumerate(cuts):
            emulator.script(raw_answer(recording, recording.body[:cut], seed=seed, ends=ends))
            seen: list[str] = []
            with pytest.raises(ApexLlmError) as caught:
                async with provider.generate_text_stream("Hi") as stream:
                    async for text in stream:
                        seen.append(text)
            error = caught.value
            if ends:
                assert isinstance(error, StreamTruncatedError)
            assert (error.partial.text if error.partial else "") == "".join(seen)
            assert whole.startswith("".join(seen))
    if client is not None:
        await client.aclose()
