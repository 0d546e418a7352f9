"""boto3 judges the emulator: signatures, both runtime forms, streams, errors, listings."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError, ReadTimeoutError
from urllib3.exceptions import ProtocolError

from apex_llm.emulator import Answer, Emulator

pytestmark = pytest.mark.judge

CLAUDE = "us.anthropic.claude-sonnet-4-6"
HI = [{"role": "user", "content": [{"text": "Hi there"}]}]
TOOLS = {
    "tools": [
        {
            "toolSpec": {
                "name": "get_weather",
                "description": "Weather of a city",
                "inputSchema": {
                    "json": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
                },
            }
        }
    ]
}


def client_of(emulator: Emulator, service: str, **changes: Any) -> Any:
    settings = {
        "region_name": emulator.region,
        "aws_access_key_id": emulator.access_key_id,
        "aws_secret_access_key": emulator.secret_access_key,
        **changes,
    }
    config = Config(retries={"total_max_attempts": 1}, read_timeout=5, proxies={})
    return boto3.Session().client(service, endpoint_url=emulator.bedrock_url, config=config, **settings)


@pytest.fixture(scope="module")
def runtime(_running_emulator: Emulator) -> Iterator[Any]:
    client = client_of(_running_emulator, "bedrock-runtime")
    yield client
    client.close()


@pytest.fixture(scope="module")
def control(_running_emulator: Emulator) -> Iterator[Any]:
    client = client_of(_running_emulator, "bedrock")
    yield client
    client.close()


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(
        event["contentBlockDelta"]["delta"].get("text", "") for event in events if "contentBlockDelta" in event
    )


def test_converse_answers_with_text_usage_and_a_request_id(runtime: Any, emulator: Emulator) -> None:
    response = runtime.converse(modelId=CLAUDE, messages=HI, inferenceConfig={"maxTokens": 50, "temperature": 0.5})

    assert response["output"]["message"]["content"] == [{"text": "You said: Hi there"}]
    assert response["stopReason"] == "end_turn"
    assert response["usage"]["totalTokens"] == response["usage"]["inputTokens"] + response["usage"]["outputTokens"]
    assert len(response["ResponseMetadata"]["RequestId"]) == 36
    assert emulator.requests[0].operation == "converse"
    assert emulator.requests[0].model == CLAUDE


def test_max_tokens_cuts_the_default_answer(runtime: Any, emulator: Emulator) -> None:
    response = runtime.converse(modelId=CLAUDE, messages=HI, inferenceConfig={"maxTokens": 2})

    assert response["output"]["message"]["content"] == [{"text": "You said:"}]
    assert response["stopReason"] == "max_tokens"


def test_converse_stream_ends_with_stop_reason_and_usage(runtime: Any, emulator: Emulator) -> None:
    emulator.script(Answer.text("One two three", reasoning="Count."))

    events = list(runtime.converse_stream(modelId=CLAUDE, messages=HI)["stream"])

    assert text_of(events) == "One two three"
    reasoning = [
        event["contentBlockDelta"]["delta"].get("reasoningContent") for event in events if "contentBlockDelta" in event
    ]
    assert reasoning[0] == {"text": "Count."}
    assert events[-2] == {"messageStop": {"stopReason": "end_turn"}}
    assert events[-1]["metadata"]["usage"]["outputTokens"] == 4


def test_a_demanded_tool_is_called_and_its_result_accepted(runtime: Any, emulator: Emulator) -> None:
    tools = {**TOOLS, "toolChoice": {"tool": {"name": "get_weather"}}}
    first = runtime.converse(modelId=CLAUDE, messages=HI, toolConfig=tools)
    message = first["output"]["message"]
    use = message["content"][0]["toolUse"]
    result = {"toolResult": {"toolUseId": use["toolUseId"], "content": [{"text": "sunny"}]}}

    second = runtime.converse(
        modelId=CLAUDE, messages=[*HI, message, {"role": "user", "content": [result]}], toolConfig=TOOLS
    )

    assert first["stopReason"] == "tool_use"
    assert use["input"] == {"city": "example"}
    assert second["output"]["message"]["content"] == [{"text": "The tool answered: sunny"}]


def test_several_tool_calls_stream_in_pieces(runtime: Any, emulator: Emulator) -> None:
    emulator.script(Answer.tool_call("get_weather", {"city": "Oslo"}, ("get_weather", {"city": "Łódź"})))

    events = list(runtime.converse_stream(modelId=CLAUDE, messages=HI, toolConfig=TOOLS)["stream"])

    pieces: dict[int, str] = {}
    for event in events:
        if "contentBlockDelta" in event:
            delta = event["contentBlockDelta"]
            pieces[delta["contentBlockIndex"]] = (
                pieces.get(delta["contentBlockIndex"], "") + delta["delta"]["toolUse"]["input"]
            )
    assert [json.loads(text) for text in pieces.values()] == [{"city": "Oslo"}, {"city": "Łódź"}]
    assert events[-2]["messageStop"]["stopReason"] == "tool_use"


def test_claude_answers_invoke_model_whole_and_streamed(runtime: Any, emulator: Emulator) -> None:
    body = json.dumps(
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "Hi there"}],
        }
    )

    whole = runtime.invoke_model(modelId=CLAUDE, body=body)
    answer = json.loads(whole["body"].read())
    streamed = runtime.invoke_model_with_response_stream(modelId=CLAUDE, body=body)
    events = [json.loads(event["chunk"]["bytes"]) for event in streamed["body"]]

    assert answer["content"] == [{"type": "text", "text": "You said: Hi there"}]
    assert whole["ResponseMetadata"]["HTTPHeaders"]["x-amzn-bedrock-output-token-count"] == "4"
    assert streamed["contentType"] == "application/json"
    assert (
        "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
        == "You said: Hi there"
    )
    assert events[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 4


def test_titan_gives_vectors(runtime: Any, emulator: Emulator) -> None:
    body = json.dumps({"inputText": "one", "dimensions": 256})

    answer = json.loads(runtime.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=body)["body"].read())

    assert len(answer["embedding"]) == 256
    assert answer["inputTextTokenCount"] == 1


@pytest.mark.parametrize(
    ("kind", "exception", "status"),
    [
        ("throttled", "ThrottlingException", 429),
        ("unavailable", "ServiceUnavailableException", 503),
        ("internal", "InternalServerException", 500),
        ("timeout", "ModelTimeoutException", 408),
        ("model_error", "ModelErrorException", 424),
        ("not_ready", "ModelNotReadyException", 429),
        ("validation", "ValidationException", 400),
        ("access_denied", "AccessDeniedException", 403),
        ("not_found", "ResourceNotFoundException", 404),
    ],
)
def test_errors_become_boto_s_own_classes(
    runtime: Any, emulator: Emulator, kind: str, exception: str, status: int
) -> None:
    emulator.script(Answer.error(kind, message="words"))

    with pytest.raises(getattr(runtime.exceptions, exception)) as caught:
        runtime.converse(modelId=CLAUDE, messages=HI)

    assert caught.value.response["Error"]["Code"] == exception
    assert caught.value.response["Error"]["Message"] == "words"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_a_throttle_inside_the_stream_is_an_event_stream_error(runtime: Any, emulator: Emulator) -> None:
    emulator.script(Answer.throttle(inside_stream_after=3))
    stream = runtime.converse_stream(modelId=CLAUDE, messages=HI)["stream"]
    seen: list[Any] = []

    with pytest.raises(EventStreamError, match="throttlingException"):
        for event in stream:
            seen.append(event)  # noqa: PERF402 # extend() would lose what came before the error

    assert len(seen) == 3
    stream.close()


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_stream_breaks_after_what_was_sent(runtime: Any, emulator: Emulator, reset: bool) -> None:
    emulator.script(Answer.cut("One two three", after_events=3, reset=reset))
    stream = runtime.converse_stream(modelId=CLAUDE, messages=HI)["stream"]
    seen: list[Any] = []

    with pytest.raises(ProtocolError):
        for event in stream:
            seen.append(event)  # noqa: PERF402 # extend() would lose what came before the error

    assert text_of(seen) == "One two"
    stream.close()


def test_a_truncated_stream_ends_without_its_terminal_event(runtime: Any, emulator: Emulator) -> None:
    """botocore notices nothing, which is why ours must."""
    emulator.script(Answer.truncated("One two"))

    events = list(runtime.converse_stream(modelId=CLAUDE, messages=HI)["stream"])

    assert text_of(events) == "One two"
    assert not any("messageStop" in event for event in events)


def test_a_stalled_answer_runs_into_the_read_timeout(emulator: Emulator) -> None:
    client = boto3.Session().client(
        "bedrock-runtime",
        endpoint_url=emulator.bedrock_url,
        region_name=emulator.region,
        aws_access_key_id=emulator.access_key_id,
        aws_secret_access_key=emulator.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=0.3, proxies={}),
    )
    emulator.script(Answer.stall(after_bytes=5))

    with pytest.raises(ReadTimeoutError):
        client.converse(modelId=CLAUDE, messages=HI)
    client.close()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "InvalidSignatureException"),
        ({"aws_access_key_id": "AKIDUNKNOWN"}, "UnrecognizedClientException"),
        ({"aws_session_token": "unasked"}, "UnrecognizedClientException"),
        ({"region_name": "eu-west-1"}, "InvalidSignatureException"),
    ],
)
def test_wrong_credentials_are_refused(emulator: Emulator, changes: dict[str, str], code: str) -> None:
    client = client_of(emulator, "bedrock-runtime", **changes)

    with pytest.raises(ClientError) as caught:
        client.converse(modelId=CLAUDE, messages=HI)

    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    client.close()


def test_temporary_credentials_pass_with_their_token() -> None:
    with Emulator(session_token="token") as emulator:
        client = client_of(emulator, "bedrock-runtime", aws_session_token="token")

        response = client.converse(modelId=CLAUDE, messages=HI)

        assert response["stopReason"] == "end_turn"
        client.close()


@pytest.mark.parametrize(
    "model",
    [
        "amazon.nova-micro-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-6",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/emulated0001",
        "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdef012345",
    ],
)
def test_every_kind_of_model_id_is_signed_and_found(runtime: Any, emulator: Emulator, model: str) -> None:
    """Colons and slashes in a path are where signatures go wrong."""
    response = runtime.converse(modelId=model, messages=HI)

    assert response["stopReason"] == "end_turn"
    assert emulator.requests[0].model == model


def test_guardrail_headers_are_part_of_the_signature(runtime: Any, emulator: Emulator) -> None:
    body = json.dumps(
        {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    )

    runtime.invoke_model(modelId=CLAUDE, body=body, guardrailIdentifier="abc", guardrailVersion="1", trace="ENABLED")

    assert emulator.requests[0].headers.get("x-amzn-bedrock-guardrailidentifier") == "abc"


def test_foundation_models_are_listed_and_filtered(control: Any, emulator: Emulator) -> None:
    everything = control.list_foundation_models()["modelSummaries"]
    anthropic = control.list_foundation_models(byProvider="Anthropic", byOutputModality="TEXT")["modelSummaries"]

    assert {"amazon.nova-micro-v1:0", "anthropic.claude-sonnet-4-6"} <= {model["modelId"] for model in everything}
    assert {model["providerName"] for model in anthropic} == {"Anthropic"}
    assert not any("claude-v2" in model["modelId"] for model in everything)


def test_inference_profiles_come_in_pages(control: Any, emulator: Emulator) -> None:
    pages = list(control.get_paginator("list_inference_profiles").paginate(PaginationConfig={"PageSize": 7}))

    profiles = [profile for page in pages for profile in page["inferenceProfileSummaries"]]
    assert len(pages) > 2
    assert len({profile["inferenceProfileId"] for profile in profiles}) == len(profiles)
    assert CLAUDE in {profile["inferenceProfileId"] for profile in profiles}
    assert {profile["type"] for profile in profiles} == {"SYSTEM_DEFINED", "APPLICATION"}


def test_an_application_profile_tells_its_model(control: Any, emulator: Emulator) -> None:
    profile = control.get_inference_profile(inferenceProfileIdentifier="emulated0001")

    assert profile["models"][0]["modelArn"].endswith("foundation-model/anthropic.claude-sonnet-4-6")


def test_the_other_listings_are_there_and_empty(control: Any, emulator: Emulator) -> None:
    assert control.list_imported_models()["modelSummaries"] == []
    assert control.list_custom_models()["modelSummaries"] == []
    assert control.list_provisioned_model_throughputs()["provisionedModelSummaries"] == []


def test_a_listing_can_be_made_to_fail(control: Any, emulator: Emulator) -> None:
    emulator.script(Answer.error("access_denied"), operation="list-foundation-models")

    with pytest.raises(control.exceptions.AccessDeniedException):
        control.list_foundation_models()


def test_tokens_are_counted_for_base_ids_only(runtime: Any, emulator: Emulator) -> None:
    counted = runtime.count_tokens(modelId="amazon.nova-micro-v1:0", input={"converse": {"messages": HI}})

    assert counted["inputTokens"] == 2
    with pytest.raises(runtime.exceptions.ValidationException, match="counting tokens"):
        runtime.count_tokens(modelId=CLAUDE, input={"converse": {"messages": HI}})
