"""One answer, every wire: what is said, how fast, and how it breaks."""

import asyncio
import base64
import http.client
import json
import socket
import time
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from plain_wire import CLAUDE, Wire

from apex_llm.emulator import Answer, Emulator
from apex_llm.emulator.answers import FAILURE_KINDS
from apex_llm.errors import ConfigurationError

CLAUDE_BODY = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hi there"}],
}
INVOKE = "/model/us.anthropic.claude-sonnet-4-6/invoke"
NOVA = {"messages": [{"role": "user", "content": [{"text": "Hi there"}]}]}


def frames(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Name and payload of each frame, decoded by botocore; ``(":truncated", {})`` for what is left over."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [
        (message.headers.get(":event-type") or message.headers[":exception-type"], json.loads(message.payload))
        for message in buffer
    ]


def chunks_of(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(base64.b64decode(payload["bytes"])) for _, payload in frames(answer.body)]


def sse(body: bytes) -> list[str]:
    blocks = body.decode().split("\n\n")
    assert blocks[-1] == ""
    return [block.removeprefix("data: ") for block in blocks[:-1]]


def test_the_same_answer_plays_on_every_wire(wire: Wire) -> None:
    answer = Answer.text("One two", usage={"input": 50, "output": 7, "cache_read": 10})
    wire.emulator.script(*[answer] * 6)

    converse = wire.converse().json
    converse_stream = frames(wire.converse(stream=True).body)
    invoke = wire.call(INVOKE, CLAUDE_BODY).json
    invoke_stream = frames(wire.call(f"{INVOKE}-with-response-stream", CLAUDE_BODY).body)
    chat = wire.chat().json
    chat_stream = sse(wire.chat(stream=True, stream_options={"include_usage": True}).body)

    assert converse["output"]["message"]["content"] == [{"text": "One two"}]
    assert converse["usage"]["inputTokens"] == 40
    assert converse["usage"]["totalTokens"] == 57
    assert converse_stream[-1][1]["usage"] == converse["usage"]
    assert invoke["content"] == [{"type": "text", "text": "One two"}]
    assert invoke["usage"]["input_tokens"] == 40
    assert {name for name, _ in invoke_stream} == {"chunk"}
    assert chat["choices"][0]["message"]["content"] == "One two"
    assert chat["usage"]["prompt_tokens"] == 50
    assert json.loads(chat_stream[-2])["usage"] == chat["usage"]
    assert chat_stream[-1] == "[DONE]"
    assert wire.emulator.waiting_answers == 0


def test_frames_carry_padding_of_varying_length(wire: Wire) -> None:
    lengths = {len(payload["p"]) for _, payload in frames(wire.converse(stream=True).body)}

    assert len(lengths) > 3


def test_the_first_chunk_on_azure_has_the_prompt_s_filter_results_and_no_choices(wire: Wire) -> None:
    first, role, *_ = (json.loads(data) for data in sse(wire.chat(stream=True).body)[:-1])

    assert first["choices"] == []
    assert first["id"] == ""
    assert first["prompt_filter_results"][0]["content_filter_results"]["violence"]["filtered"] is False
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert role["obfuscation"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_throttle_inside_a_stream_comes_after_so_many_events(wire: Wire, count: int) -> None:
    wire.emulator.script(*[Answer.throttle(inside_stream_after=count)] * 2)

    bedrock = wire.converse(stream=True)
    azure = wire.chat(stream=True)

    assert bedrock.status == azure.status == 200
    assert len(frames(bedrock.body)) == count + 1
    assert frames(bedrock.body)[-1][0] == "throttlingException"
    assert len(sse(azure.body)) == count + 1
    assert json.loads(sse(azure.body)[-1])["error"]["code"] == "RateLimitReached"


def test_a_wait_is_asked_for_in_the_headers_of_each_cloud(wire: Wire) -> None:
    wire.emulator.script(*[Answer.throttle(retry_after_ms=700, headers={"Retry-After": "soon"})] * 2)

    bedrock, azure = wire.converse(), wire.chat()

    assert (bedrock.status, bedrock.headers["x-amz-retry-after"]) == (429, "700")
    assert (azure.status, azure.headers["retry-after-ms"], azure.headers["retry-after"]) == (429, "700", "soon")


def test_a_body_can_be_anything(wire: Wire) -> None:
    page = Answer.json(content=b"<html>", status=502, content_type="text/html")
    wire.emulator.script(page, page, Answer.json({"generation": "x"}))

    assert (wire.converse(stream=True).body, wire.chat().status) == (b"<html>", 502)
    assert wire.call(INVOKE, CLAUDE_BODY).json == {"generation": "x"}


def test_payloads_are_framed_as_the_wire_does(wire: Wire) -> None:
    wire.emulator.script(
        Answer.stream({"messageStart": {"role": "assistant"}}, {"surprise": {"a": 1}}),
        Answer.stream({"any": 1}),
        Answer.stream("not json", "[DONE]"),
    )

    converse = frames(wire.converse(stream=True).body)
    invoke = frames(wire.call(f"{INVOKE}-with-response-stream", CLAUDE_BODY).body)
    azure = sse(wire.chat(stream=True).body)

    assert converse == [("messageStart", {"role": "assistant"}), ("surprise", {"a": 1})]
    assert [name for name, _ in invoke] == ["chunk"]
    assert azure == ["not json", "[DONE]"]


def test_a_truncated_stream_ends_cleanly_before_its_terminal_event(wire: Wire) -> None:
    wire.emulator.script(*[Answer.truncated("One two")] * 2)

    bedrock = frames(wire.converse(stream=True).body)
    azure = sse(wire.chat(stream=True).body)

    assert [name for name, _ in bedrock][-1] == "contentBlockStop"
    assert json.loads(azure[-1])["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize("count", [0, 1, 100, 333])
def test_a_cut_comes_at_the_byte(wire: Wire, count: int) -> None:
    wire.emulator.script(*[Answer.cut(after_bytes=count)] * 2)

    for call in (lambda: wire.converse(stream=True), lambda: wire.chat(stream=True)):
        with pytest.raises(http.client.IncompleteRead) as caught:
            call()
        assert len(caught.value.partial) == count


def test_a_reset_is_a_reset_and_not_an_end(wire: Wire) -> None:
    wire.emulator.script(Answer.cut(after_events=2, reset=True))

    with pytest.raises(ConnectionResetError):
        wire.converse(stream=True)


def test_an_unstreamed_answer_can_be_cut_too(wire: Wire) -> None:
    wire.emulator.script(Answer.cut(after_bytes=10))

    with pytest.raises(http.client.IncompleteRead) as caught:
        wire.converse()

    assert len(caught.value.partial) == 10


def test_raw_bytes_are_sent_as_they_are(wire: Wire) -> None:
    reply = b"HTTP/1.1 299 Odd\r\nx: y\r\ncontent-length: 2\r\n\r\nokEXTRA"
    wire.emulator.script(Answer.raw(reply))
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
    head = (
        f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: {wire.host}\r\napi-key: {wire.emulator.api_key}\r\n"
        f"content-length: {len(body) + 15}\r\n\r\n"
    )

    received = wire.raw(head.encode() + body[:-1] + b',"model":"chat"}')

    assert received == reply


def test_pieces_need_not_be_events(wire: Wire) -> None:
    wire.emulator.script(Answer.text("One two", write_size=7), Answer.text("One two", write_size=7))

    assert [name for name, _ in frames(wire.converse(stream=True).body)][-1] == "metadata"
    assert wire.converse().json["output"]["message"]["content"] == [{"text": "One two"}]


def test_events_are_flushed_one_by_one(wire: Wire) -> None:
    wire.emulator.script(Answer.text("One two three four", delay=0.05))
    connection = http.client.HTTPConnection(wire.host, timeout=10)
    headers = {"api-key": wire.emulator.api_key}
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "stream": True})
    connection.request("POST", "/openai/deployments/chat/chat/completions?api-version=2024-10-21", body, headers)
    response = connection.getresponse()
    arrivals: list[float] = []

    while response.readline().strip():
        response.readline()
        arrivals.append(time.monotonic())
    connection.close()

    assert len(arrivals) == 8
    assert arrivals[-1] - arrivals[0] > 0.3


@pytest.mark.parametrize(
    "answer", [Answer.stall(after_events=1), Answer.text("a b", delay=60), Answer.text(first_delay=60)]
)
def test_an_unfinished_answer_ends_quietly_when_the_emulator_does(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """Leaving the block must not wait for a client that hangs, nor fill the test's log with tracebacks."""
    with Emulator() as emulator:
        wire = Wire(emulator)
        emulator.script(answer)
        connection = http.client.HTTPConnection(wire.host, timeout=10)
        body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "stream": True})
        target = "/openai/deployments/chat/chat/completions?api-version=2024-10-21"
        connection.request("POST", target, body, {"api-key": emulator.api_key})
        while not emulator.requests:
            time.sleep(0.01)
        started = time.monotonic()

    assert time.monotonic() - started < 5
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.getresponse().read()
    connection.close()
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []


def test_a_client_that_leaves_in_the_middle_is_no_error(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    wire.emulator.script(Answer.text("a b c", delay=0.05))
    host, port = wire.host.split(":")
    head = f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: {wire.host}\r\ncontent-length: 10\r\n\r\n"

    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode() + b"{")
    headers = {"api-key": wire.emulator.api_key}
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "stream": True})
    client = http.client.HTTPConnection(wire.host, timeout=10)
    client.request("POST", "/openai/deployments/chat/chat/completions?api-version=2024-10-21", body, headers)
    client.getresponse().close()
    client.close()
    time.sleep(0.3)

    assert wire.chat().status == 200
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []


def test_an_answer_can_depend_on_the_request(wire: Wire) -> None:
    wire.emulator.script(lambda request: f"{request.operation} {request.json['messages'][0]['role']}")

    assert wire.chat().json["choices"][0]["message"]["content"] == "chat user"


def test_listings_use_up_no_chat_answer_but_can_be_scripted(wire: Wire) -> None:
    wire.emulator.script("for the chat")
    wire.emulator.script(Answer.throttle(), operation="list-inference-profiles")

    assert wire.get("/foundation-models").status == 200
    assert wire.get("/inference-profiles").status == 429
    assert wire.chat().json["choices"][0]["message"]["content"] == "for the chat"


@pytest.mark.parametrize(
    "model",
    [
        "amazon.nova-micro-v1:0",
        "meta.llama3-8b-instruct-v1:0",
        "mistral.mistral-7b-instruct-v0:2",
        "openai.gpt-oss-20b-1:0",
    ],
)
def test_other_families_answer_in_their_own_bodies(wire: Wire, model: str) -> None:
    from urllib.parse import quote

    body = NOVA if "nova" in model else {"prompt": "Hi there"}
    target = f"/model/{quote(model, safe='')}/invoke"

    whole = wire.call(target, body)
    streamed = frames(wire.call(f"{target}-with-response-stream", body).body)

    assert "You said: Hi there" in whole.body.decode()
    assert {name for name, _ in streamed} == {"chunk"}


def test_nova_and_openai_bodies_carry_tool_calls(wire: Wire) -> None:
    wire.emulator.script(*[Answer.tool_call("f", {"a": 1}, reasoning="Think.")] * 4)
    nova, oss = "/model/amazon.nova-micro-v1%3A0/invoke", "/model/openai.gpt-oss-20b-1%3A0/invoke"
    chat = {"messages": [{"role": "user", "content": "Hi"}]}

    nova_whole = wire.call(nova, NOVA).json
    oss_whole = wire.call(oss, chat).json
    nova_stream = chunks_of(wire.call(f"{nova}-with-response-stream", NOVA))
    oss_stream = chunks_of(wire.call(f"{oss}-with-response-stream", chat))

    assert nova_whole["output"]["message"]["content"][1]["toolUse"]["input"] == {"a": 1}
    assert nova_whole["stopReason"] == "tool_use"
    assert oss_whole["choices"][0]["message"]["content"] == "<reasoning>Think.</reasoning>"
    assert oss_whole["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert "metadata" in nova_stream[-1]
    assert nova_stream[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 4
    assert oss_stream[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_every_choice_that_was_asked_for_is_there(wire: Wire) -> None:
    whole = wire.chat(n=3).json
    chunks = [json.loads(data) for data in sse(wire.chat(n=2, stream=True).body)[1:-1]]

    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert {choice["index"] for chunk in chunks for choice in chunk["choices"]} == {0, 1}


def test_a_filtered_prompt_is_400_on_azure_and_a_guardrail_on_bedrock(wire: Wire) -> None:
    wire.emulator.script(*[Answer.content_filtered(where="prompt", category="jailbreak")] * 2)

    azure, bedrock = wire.chat(), wire.converse()

    assert azure.status == 400
    assert azure.json["error"]["innererror"]["content_filter_result"]["jailbreak"] == {
        "filtered": True,
        "detected": True,
    }
    assert bedrock.json["stopReason"] == "guardrail_intervened"


async def test_many_slow_streams_run_at_once(wire: Wire) -> None:
    wire.emulator.script(*[Answer.text("a b c d e", delay=0.05)] * 20)
    started = time.monotonic()

    answers = await asyncio.gather(*[asyncio.to_thread(wire.chat, stream=True) for _ in range(20)])

    assert all(sse(answer.body)[-1] == "[DONE]" for answer in answers)
    assert time.monotonic() - started < 5


def test_a_token_quota_throttles_and_says_how_long_to_wait() -> None:
    """Charged at admission with all that may be produced, as the clouds do."""
    now = [time.time()]
    with Emulator(tokens_per_minute={"chat": 120, CLAUDE: 60}, clock=lambda: now[0]) as emulator:
        wire = Wire(emulator)
        first, second = wire.chat(max_tokens=98), wire.chat(max_tokens=58)
        now[0] += float(second.headers["retry-after-ms"]) / 1000
        third = wire.chat(max_tokens=58)
        bedrock = [wire.converse().status for _ in range(5)]

    assert (first.status, second.status, third.status) == (200, 429, 200)
    assert second.headers["retry-after-ms"] == "20001"
    assert "retry after 21 seconds" in second.json["error"]["message"]
    assert bedrock == [200, 200, 200, 429, 429]


@pytest.mark.parametrize("kind", sorted(FAILURE_KINDS))
def test_every_kind_of_failure_has_words_on_both_clouds(wire: Wire, kind: str) -> None:
    wire.emulator.script(*[Answer.error(kind)] * 2, *[Answer.error(kind, inside_stream_after=1)] * 2)

    bedrock, azure = wire.converse(), wire.chat()
    bedrock_stream, azure_stream = wire.converse(stream=True), wire.chat(stream=True)

    assert bedrock.status >= 400
    assert bedrock.json["message"]
    assert bedrock.headers["x-amzn-errortype"].endswith(":http://internal.amazon.com/coral/com.amazon.bedrock/")
    assert azure.status >= 400
    assert azure.json["error"]["code"]
    assert frames(bedrock_stream.body)[1][0].endswith("Exception")
    assert json.loads(sse(azure_stream.body)[1])["error"]["message"]


def test_an_unknown_kind_of_failure_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match="'throttle'"):
        Answer.error("throttle")
