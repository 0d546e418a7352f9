"""Requests that a cloud would refuse, in the words that it would use."""

import json
from typing import Any

import pytest
from plain_wire import Wire

TEXT = {"text": "Hi"}
USER = {"role": "user", "content": [TEXT]}
USE = {"role": "assistant", "content": [{"toolUse": {"toolUseId": "a1", "name": "f", "input": {}}}]}
RESULT = {"role": "user", "content": [{"toolResult": {"toolUseId": "a1", "content": [TEXT]}}]}
TOOLS = {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "messages is empty"),
        ({"messages": [USER], "extra": 1}, "extraneous key [extra]"),
        ({"messages": [USER], "inferenceConfig": {"topK": 1}}, "inferenceConfig.topK"),
        ({"messages": [USER], "inferenceConfig": {"temperature": 1.5}}, "less than or equal to 1"),
        ({"messages": [USER], "inferenceConfig": {"maxTokens": 0}}, "greater than or equal to 1"),
        ({"messages": [{"role": "user", "content": []}]}, "is empty"),
        ({"messages": [{"role": "user", "content": [{"text": "  "}]}]}, "is blank"),
        ({"messages": [{"role": "user", "content": [{"text": "a", "image": {}}]}]}, "one of the following keys"),
        ({"messages": [{"role": "tool", "content": [TEXT]}]}, "enum value set"),
        ({"messages": [USER, USE, RESULT]}, "toolConfig field must be defined"),
        ({"messages": [USER, USE, USER], "toolConfig": TOOLS}, "for the following Ids: a1"),
        ({"messages": [USER, RESULT], "toolConfig": TOOLS}, "exceeds the number of toolUse blocks"),
        ({"messages": [USER], "toolConfig": {"tools": []}}, "greater than or equal to 1"),
    ],
)
def test_converse_refuses_what_the_service_refuses(wire: Wire, body: dict[str, Any], words: str) -> None:
    answer = wire.converse(body)

    assert answer.status == 400
    assert words in answer.json["message"]


def test_a_whole_tool_conversation_passes(wire: Wire) -> None:
    assert wire.converse({"messages": [USER, USE, RESULT], "toolConfig": TOOLS}).status == 200


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("anthropic.claude-nothing", 400, "The provided model identifier is invalid."),
        ("eu.amazon.rerank-v1:0", 400, "The provided model identifier is invalid."),
        ("anthropic.claude-sonnet-4-6", 400, "with on-demand throughput isn\u2019t supported"),
        ("anthropic.claude-v2:1", 404, "has reached the end of its life"),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/none", 404, "was not found"),
    ],
)
def test_model_ids_are_refused_as_the_service_does(wire: Wire, model: str, status: int, words: str) -> None:
    answer = wire.converse(model=model)

    assert answer.status == status
    assert words in answer.json["message"]


def test_some_models_do_not_stream_tools(wire: Wire) -> None:
    body = {"messages": [USER], "toolConfig": TOOLS}

    assert wire.converse(body, model="us.meta.llama3-3-70b-instruct-v1:0").status == 200
    answer = wire.converse(body, model="us.meta.llama3-3-70b-instruct-v1:0", stream=True)
    assert answer.json["message"] == "This model doesn't support tool use in streaming mode."


def test_the_newest_claude_refuses_sampling_parameters(wire: Wire) -> None:
    body = {"messages": [USER], "inferenceConfig": {"temperature": 0.5}}

    assert wire.converse(body).status == 200
    answer = wire.converse(body, model="us.anthropic.claude-opus-5")
    assert "`temperature` is deprecated for this model" in answer.json["message"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stream": True}, "extraneous key [stream]"),
        ({"model": "x"}, "extraneous key [model]"),
        ({"anthropic_version": "2023-06-01"}, "anthropic_version"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "at least one message"),
    ],
)
def test_claude_s_own_body_is_checked(wire: Wire, changes: dict[str, Any], words: str) -> None:
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "Hi"}],
        **changes,
    }

    answer = wire.call("/model/us.anthropic.claude-sonnet-4-6/invoke", body)

    assert answer.status == 400
    assert words in answer.json["message"]


def test_a_body_that_is_no_json_and_a_path_that_nobody_serves(wire: Wire) -> None:
    target = "/model/us.anthropic.claude-sonnet-4-6/converse"

    broken = wire.send("POST", target, wire.signed("POST", target, b"{"), b"{")
    unknown = wire.get("/nothing")

    assert (broken.status, broken.headers["x-amzn-errortype"].partition(":")[0]) == (400, "SerializationException")
    assert (unknown.status, unknown.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/openai/deployments/chat/chat/completions", 404, "404"),
        ("/openai/deployments/chat/chat/completions?api-version=1999-01-01", 400, "BadRequest"),
        ("/openai/deployments/chat/nothing?api-version=2024-10-21", 404, "404"),
        ("/openai/deployments/none/chat/completions?api-version=2024-10-21", 404, "DeploymentNotFound"),
        ("/openai/deployments/embed/chat/completions?api-version=2024-10-21", 400, "OperationNotSupported"),
        ("/openai/v1/chat/completions?api-version=2024-10-21", 400, "BadRequest"),
        ("/openai/v1/chat/completions", 404, "DeploymentNotFound"),
    ],
)
def test_azure_addresses_are_refused_as_the_service_does(wire: Wire, target: str, status: int, code: str) -> None:
    answer = wire.chat(target=target)

    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert answer.headers["apim-request-id"]


@pytest.mark.parametrize(
    ("version", "member", "known"),
    [
        ("2023-05-15", "functions", False),
        ("2023-05-15", "stream_options", False),
        ("2023-12-01-preview", "tools", True),
        ("2023-12-01-preview", "max_completion_tokens", False),
        ("2024-10-21", "reasoning_effort", False),
        ("2024-10-21", "parallel_tool_calls", True),
        ("2025-04-01-preview", "store", True),
    ],
)
def test_members_are_known_from_their_version_on(wire: Wire, version: str, member: str, known: bool) -> None:
    value: Any = {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "max_completion_tokens": 5,
        "stream_options": {},
        "functions": [],
    }.get(member, False)
    target = f"/openai/deployments/chat/chat/completions?api-version={version}"

    answer = wire.chat(target=target, **{member: value})

    assert answer.status == (200 if known else 400)
    if not known:
        assert answer.json["error"]["message"] == f"Unrecognized request argument supplied: {member}"


def test_azure_checks_the_order_of_tool_messages(wire: Wire) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]

    unanswered = wire.chat(messages=asked)
    unasked = wire.chat(messages=[asked[0], {"role": "tool", "tool_call_id": "c1", "content": "x"}])
    answered = wire.chat(messages=[*asked, {"role": "tool", "tool_call_id": "c1", "content": "x"}])

    assert "did not have response messages: c1" in unanswered.json["error"]["message"]
    assert "must be a response to a preceding message" in unasked.json["error"]["message"]
    assert answered.status == 200


def test_a_repeated_member_of_json_changes_nothing(wire: Wire) -> None:
    body = b'{"messages":[],"messages":[{"role":"user","content":"Hi"}]}'
    headers = [("host", wire.host), ("api-key", wire.emulator.api_key)]

    answer = wire.send("POST", "/openai/deployments/chat/chat/completions?api-version=2024-10-21", headers, body)

    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "You said: Hi"
