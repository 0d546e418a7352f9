"""OpenAI-style dictionaries at random, as openai's types describe them, and with something wrong somewhere.

They are taken, and sent with every word that they hold, or refused with a hint.
"""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessageParam
from typed_dictionaries import problems
from wire_values import Values, leaves

from apex_llm import InvalidRequestError
from apex_llm.codecs.chat.openai_chat import OpenAIChatCodec
from apex_llm.types.coerce import as_messages
from apex_llm.types.requests import ChatRequest

pytestmark = pytest.mark.judge

DATA = base64.b64encode(b"%PDF-1.7").decode()
SAID_OTHERWISE = (
    *("name", "id", "tool_call_id", "filename", "file_id", "role", "type", "format", "file_data"),
    *("mode", "ttl"),  # of prompt_cache_breakpoint, a hint that changes no answer
)


def messages(random: Random) -> list[Any]:
    values = Values(random, longest=2)
    values.forced |= {
        "input_audio.data": DATA,
        "file.file_data": f"data:application/pdf;base64,{DATA}",
        "file.filename": "report.pdf",
        "image_url.url": "https://example.com/a.png",
        "function.name": "get_weather",
        "function_call.name": "get_weather",
    }
    return [{"role": "user", "content": "Hi"}, *(values.of_type(ChatCompletionMessageParam) for _ in range(2))]


def sent_or_refused(given: list[Any]) -> list[Any] | None:
    refusal: InvalidRequestError | None = None
    try:
        body, _ = OpenAIChatCodec().encode(ChatRequest(model="m", messages=as_messages(given)), stream=False)
    except InvalidRequestError as error:
        refusal, body = error, b'{"messages":null}'
    assert refusal is None or refusal.hint, f"{refusal} of {given}"
    return json.loads(body)["messages"]


def test_what_openais_types_describe_is_sent_with_every_word() -> None:
    taken = 0
    for seed in range(1500):
        given = messages(Random(seed))
        wire = sent_or_refused(given)
        if wire is None:
            continue
        taken += 1
        wrong = [each for message in wire for each in problems(message, ChatCompletionMessageParam)]
        assert not wrong, f"seed {seed}: {wrong[:3]}"
        text = "\x00".join(value for _, value in leaves(wire) if isinstance(value, str))
        lost = [
            path
            for path, value in leaves(given)
            if isinstance(value, str) and value not in text and path.rpartition(".")[2] not in SAID_OTHERWISE
        ]
        assert not lost, f"seed {seed}: {lost}"
    assert taken > 900


def damaged(value: Any, random: Random) -> Any:
    if random.random() < 0.04:
        return random.choice([None, 5, "x", "é", [], {}, True, [None], b"x", 1.5])
    if isinstance(value, dict):
        return {name: damaged(member, random) for name, member in value.items()}
    return [damaged(member, random) for member in value] if isinstance(value, list) else value


def test_what_is_wrong_somewhere_is_refused_with_a_hint() -> None:
    for seed in range(3000):
        random = Random(seed)
        sent_or_refused(damaged(messages(random), random))
