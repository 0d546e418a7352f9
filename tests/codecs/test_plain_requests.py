"""A request that is one text takes a short way through the codecs; the long way must come to the same bytes."""

from __future__ import annotations

import pytest

from apex_llm.codecs.chat import openai_chat_request
from apex_llm.codecs.chat.bedrock_converse import encode
from apex_llm.codecs.chat.openai_chat_profile import profile_for
from apex_llm.types.messages import Message
from apex_llm.types.requests import ChatRequest

TEXTS = ("hi", " x ", "é\n😀", '"quoted"')


def requests(model: str) -> list[ChatRequest]:
    return [
        ChatRequest(model=model, messages=(Message.user(text),), max_tokens=most)
        for text in TEXTS
        for most in (None, 5)
    ]


@pytest.mark.parametrize("model", [None, "gpt-4o", "o3-mini", "gpt-35-turbo", "gpt-5"])
@pytest.mark.parametrize("version", [None, "v1", "2023-05-15", "2024-10-21", "2025-04-01-preview"])
@pytest.mark.parametrize("stream", [False, True])
def test_openai_chat(version: str | None, model: str | None, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = profile_for(version, model)
    short = [openai_chat_request.encode_request(each, profile, stream=stream) for each in requests("deployment")]

    monkeypatch.setattr(openai_chat_request, "only_text", lambda request: None)

    assert short == [
        openai_chat_request.encode_request(each, profile, stream=stream) for each in requests("deployment")
    ]


@pytest.mark.parametrize(
    "model",
    ["us.anthropic.claude-sonnet-4-6", "anthropic.claude-3-haiku-20240307-v1:0", "amazon.nova-pro-v1:0",
     "mistral.pixtral-large-2502-v1:0", "deepseek.r1-v1:0", "meta.llama3-1-8b-instruct-v1:0", "something.new"],
)  # fmt: skip
def test_converse(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short = [encode.encode_request(each, model=model) for each in requests(model)]

    monkeypatch.setattr(encode, "only_text", lambda request: None)

    assert short == [encode.encode_request(each, model=model) for each in requests(model)]
