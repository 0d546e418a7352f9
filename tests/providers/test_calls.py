"""Calls on both clouds over real sockets: answers, streams, tools, and every way of going wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from apex_llm import (
    AuthenticationError,
    AzureOpenAIProvider,
    BedrockProvider,
    ConnectionFailedError,
    ContentFilteredError,
    ContextWindowExceededError,
    FinishReason,
    IdleTimeoutError,
    Limits,
    Message,
    ModelNotFoundError,
    OverloadedError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    StreamInterruptedError,
    StreamStarted,
    StreamTruncatedError,
    Timeout,
    Tool,
    ToolCallFinished,
)
from apex_llm.emulator import Answer, Emulator

QUICK = RetryPolicy(base_delay_transient=0.0, base_delay_throttle=0.0)
WEATHER = Tool(
    name="get_weather",
    description="Weather of a city",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
WIRES = ["converse", "invoke", "azure-dated", "azure-v1"]


def make(wire: str, **arguments: Any) -> BedrockProvider | AzureOpenAIProvider:
    arguments.setdefault("retry", QUICK)
    match wire:
        case "converse":
            return BedrockProvider(default_model="claude", **arguments)
        case "invoke":
            return BedrockProvider(default_model="claude", api="invoke", **arguments)
        case "azure-dated":
            return AzureOpenAIProvider(api_version="2024-10-21", default_deployment="chat", **arguments)
        case _:
            return AzureOpenAIProvider(api_version="v1", default_deployment="chat", **arguments)


@pytest.fixture(params=["http11", "httpx"])
def sender(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=WIRES)
async def provider(request: pytest.FixtureRequest, emulator: Emulator, sender: str) -> AsyncIterator[Any]:
    client = httpx.AsyncClient(trust_env=False) if sender == "httpx" else None
    async with make(request.param, http_client=client) as made:
        yield made
    if client is not None:
        await client.aclose()


async def test_a_prompt_is_answered(provider: Any, emulator: Emulator) -> None:
    emulator.script(Answer.text("Rayleigh scattering."))

    assert (
        await provider.generate_text("Why is the sky blue?", max_tokens=100, temperature=0.5) == "Rayleigh scattering."
    )
    assert len(emulator.requests) == 1


async def test_a_stream_comes_in_the_pieces_that_were_sent(provider: Any, emulator: Emulator) -> None:
    emulator.script(Answer.text(chunks=["Ray", "leigh ", "scat", "tering ✓"]))

    async with provider.generate_text_stream("Why is the sky blue?") as stream:
        pieces = [piece async for piece in stream]

    assert pieces == ["Ray", "leigh ", "scat", "tering ✓"]
    assert stream.response.text == "Rayleigh scattering ✓"
    assert stream.response.finish_reason == FinishReason.STOP
    assert stream.response.usage is not None
    assert stream.response.usage.output_tokens > 0
    assert stream.response.request_id


async def test_a_whole_answer_and_a_streamed_one_are_the_same_answer(provider: Any, emulator: Emulator) -> None:
    answer = Answer.tool_call("get_weather", {"city": "Oslo"}, ("get_weather", {"city": "Bergen"}), text="Let me look.")
    emulator.script(answer, answer)

    whole = await provider.chat("Weather?", tools=[WEATHER])
    streamed = await provider.chat_stream("Weather?", tools=[WEATHER]).collect()

    assert [call.input for call in whole.tool_calls] == [{"city": "Oslo"}, {"city": "Bergen"}]
    assert [call.input for call in streamed.tool_calls] == [call.input for call in whole.tool_calls]
    assert streamed.text == whole.text == "Let me look."
    assert streamed.finish_reason == whole.finish_reason == FinishReason.TOOL_CALLS
    assert streamed.usage == whole.usage


async def test_events_are_typed_and_start_and_finish_the_stream(provider: Any, emulator: Emulator) -> None:
    emulator.script(Answer.tool_call("get_weather", {"city": "Oslo"}))

    async with provider.chat_stream("Weather?", tools=[WEATHER]) as stream:
        events = [event async for event in stream]

    assert isinstance(events[0], StreamStarted)
    finished = [event for event in events if isinstance(event, ToolCallFinished)]
    assert [json.loads(call.arguments) for call in finished] == [{"city": "Oslo"}]
    assert type(events[-1]).__name__ == "StreamFinished"


async def test_a_tool_round_trip_is_a_conversation_that_the_service_accepts(provider: Any, emulator: Emulator) -> None:
    emulator.script(Answer.tool_call("get_weather", {"city": "Oslo"}), Answer.text("Rain."))
    conversation = [Message.system("Be brief."), Message.user("Weather in Oslo?")]

    first = await provider.chat(conversation, tools=[WEATHER])
    call = first.tool_calls[0]
    conversation += [first.message, Message.tool(call.id, {"sky": "rain"})]
    second = await provider.chat(conversation, tools=[WEATHER])

    assert second.text == "Rain."


async def test_openai_style_dictionaries_are_messages_too(provider: Any, emulator: Emulator) -> None:
    emulator.script(Answer.text("Hi."))

    response = await provider.chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])

    assert str(response) == "Hi."


async def test_throttling_is_retried_and_the_answer_says_how_many_attempts_it_took(
    provider: Any, emulator: Emulator
) -> None:
    emulator.script(Answer.throttle(retry_after_ms=1), Answer.error("unavailable"), Answer.text("At last."))

    response = await provider.chat("Hi")

    assert response.text == "At last."
    assert response.attempts == 3


async def test_throttling_for_ever_is_a_rate_limit_error_with_its_facts(provider: Any, emulator: Emulator) -> None:
    emulator.script(*[Answer.throttle(retry_after_ms=1)] * 3)

    with pytest.raises(RateLimitError) as caught:
        await provider.generate_text("Hi")

    assert caught.value.attempts == 3
    assert caught.value.status == 429
    assert caught.value.request_id
    assert caught.value.provider == provider.name
    assert len(emulator.requests) == 3


async def test_a_wait_longer_than_the_policy_allows_is_an_error_at_once(provider: Any, emulator: Emulator) -> None:
    emulator.script(Answer.throttle(headers={"retry-after": "3600"}))

    with pytest.raises(RateLimitError) as caught:
        await provider.generate_text("Hi")

    assert caught.value.retry_after == 3600
    assert len(emulator.requests) == 1


async def test_a_throttle_inside_the_stream_is_retried_before_the_first_event(
    provider: Any, emulator: Emulator
) -> None:
    """Bedrock answers 200 and throttles in the first frame; OpenAI sends an error event."""
    emulator.script(Answer.throttle(inside_stream_after=0), Answer.text("Hello"))

    async with provider.generate_text_stream("Hi") as stream:
        text = "".join([piece async for piece in stream])

    assert text == "Hello"
    assert stream.response.attempts == 2


async def test_an_error_inside_the_stream_keeps_what_arrived_and_is_not_retried(
    provider: Any, emulator: Emulator
) -> None:
    emulator.script(Answer.throttle(inside_stream_after=4), Answer.text("never"))

    pieces: list[str] = []
    with pytest.raises(StreamInterruptedError) as caught:
        async for piece in provider.generate_text_stream("Hi"):
            pieces.append(piece)

    assert isinstance(caught.value.__cause__, RateLimitError)
    assert caught.value.retryable
    assert caught.value.partial is not None
    assert caught.value.partial.text == "".join(pieces) != ""
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("reset", [False, True])
async def test_a_stream_cut_in_the_middle_is_interrupted_with_exactly_the_delivered_text(
    provider: Any, emulator: Emulator, reset: bool
) -> None:
    emulator.script(Answer.cut("one two three four five six", after_events=5, reset=reset))

    pieces: list[str] = []
    with pytest.raises(StreamInterruptedError) as caught:
        async for piece in provider.generate_text_stream("Hi"):
            pieces.append(piece)

    assert caught.value.partial is not None
    assert caught.value.partial.text == "".join(pieces)
    assert len(emulator.requests) == 1


async def test_a_stream_that_ends_cleanly_without_its_terminal_event_is_truncated(
    provider: Any, emulator: Emulator
) -> None:
    """The case in which most clients report success."""
    emulator.script(Answer.truncated("one two three four five six"))

    stream = provider.generate_text_stream("Hi")
    with pytest.raises(StreamTruncatedError) as caught:
        async for _ in stream:
            pass

    assert caught.value.partial is not None
    assert caught.value.partial.text == "one two three four five six"


async def test_a_stream_that_breaks_before_its_first_event_is_retried(provider: Any, emulator: Emulator) -> None:
    emulator.script(Answer.cut("never", after_events=0), Answer.text("Hello"))

    assert (await provider.generate_text_stream("Hi").collect()).text == "Hello"
    assert len(emulator.requests) == 2


async def test_a_stream_that_falls_silent_is_an_idle_timeout_with_the_text_so_far(
    provider: Any, emulator: Emulator
) -> None:
    emulator.script(Answer.stall("one two three", after_events=4))

    pieces: list[str] = []
    with pytest.raises(IdleTimeoutError) as caught:
        async for piece in provider.generate_text_stream("Hi", timeout=Timeout(idle=0.2)):
            pieces.append(piece)

    assert caught.value.partial is not None
    assert caught.value.partial.text == "".join(pieces)


async def test_a_service_that_does_not_answer_is_a_timeout_within_the_deadline(
    provider: Any, emulator: Emulator
) -> None:
    emulator.script(Answer.text("late", first_delay=30))

    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(RequestTimeoutError) as caught:
        await provider.generate_text("Hi", timeout=0.3)

    assert loop.time() - started < 3
    assert caught.value.phase in {"total", "head"}


async def test_leaving_a_stream_early_frees_its_connection(provider: Any, emulator: Emulator) -> None:
    emulator.script(Answer.text("one two three four", delay=0.01), Answer.text("next"))

    async with provider.generate_text_stream("Hi") as stream:
        async for _ in stream:
            break

    assert await provider.generate_text("Hi") == "next"


async def test_a_cancelled_call_leaves_the_provider_usable(provider: Any, emulator: Emulator) -> None:
    emulator.script(Answer.text("late", first_delay=30), Answer.text("next"))

    call = asyncio.ensure_future(provider.generate_text("Hi"))
    while not emulator.requests:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert await provider.generate_text("Hi") == "next"


async def test_a_hundred_calls_at_once_each_get_their_own_answer(provider: Any, emulator: Emulator) -> None:
    answers = await asyncio.gather(*(provider.generate_text(f"number {n}.") for n in range(100)))

    assert [answer.rstrip(".").rsplit(" ", 1)[-1] for answer in answers] == [str(n) for n in range(100)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("not_found", ModelNotFoundError),
        ("context_length", ContextWindowExceededError),
        ("unavailable", OverloadedError),
        ("internal", OverloadedError),
    ],
)
async def test_errors_of_the_services_are_typed_and_say_what_to_do(
    provider: Any, emulator: Emulator, kind: str, error: type[Exception]
) -> None:
    emulator.script(*[Answer.error(kind)] * 3)

    with pytest.raises(error) as caught:
        await provider.generate_text("Hi")

    assert caught.value.code  # type: ignore[attr-defined]
    assert caught.value.model  # type: ignore[attr-defined]


async def test_a_blocked_answer_is_an_error_for_text_and_a_finish_reason_for_chat(
    provider: Any, emulator: Emulator
) -> None:
    blocked = Answer.content_filtered("Well, ", where="completion")
    emulator.script(blocked, blocked, blocked)

    with pytest.raises(ContentFilteredError) as caught:
        await provider.generate_text("Hi")
    assert caught.value.where == "completion"
    with pytest.raises(ContentFilteredError):
        async for _ in provider.generate_text_stream("Hi"):
            pass
    response = await provider.chat("Hi")
    assert response.finish_reason in {FinishReason.CONTENT_FILTER, FinishReason.GUARDRAIL, FinishReason.REFUSAL}


async def test_prompts_keys_and_signatures_are_in_no_log_at_any_level(
    provider: Any, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore").setLevel(
        logging.INFO
    )  # another library's own log of headers is its owner's to switch
    emulator.script(Answer.throttle(retry_after_ms=1), Answer.text("The secret answer"))

    await provider.generate_text("The secret question")

    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("apex_llm"))
    assert "retrying" in said
    for secret in ("secret question", "secret answer", *secrets_of(emulator)):
        assert secret not in said


def secrets_of(emulator: Emulator) -> Iterator[str]:
    yield emulator.environment["AWS_SECRET_ACCESS_KEY"]
    yield emulator.environment["AZURE_OPENAI_API_KEY"]


@pytest.mark.parametrize("wire", ["converse", "azure-v1"])
async def test_the_wrong_secret_is_an_authentication_error_that_is_not_retried(wire: str, emulator: Emulator) -> None:
    wrong = (
        {"credentials": {"aws_access_key_id": emulator.environment["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": "no"}}
        if wire == "converse"
        else {"api_key": "no"}
    )
    async with make(wire, **wrong) as provider:
        with pytest.raises(AuthenticationError) as caught:
            await provider.generate_text("Hi")

    assert caught.value.hint
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("wire", ["converse", "azure-v1"])
def test_a_provider_works_in_a_second_event_loop(wire: str, emulator: Emulator) -> None:
    """``asyncio.run`` twice with one client is where several SDKs die of a closed loop."""
    provider = make(wire)

    assert "one" in asyncio.run(provider.generate_text("one"))
    assert "two" in asyncio.run(provider.generate_text("two"))

    asyncio.run(provider.aclose())


async def test_with_options_changes_the_copy_and_shares_the_connections(emulator: Emulator) -> None:
    async with make("converse") as provider:
        hasty = provider.with_options(timeout=0.2, retry=None)
        emulator.script(Answer.text("late", first_delay=30), Answer.throttle(retry_after_ms=1), Answer.text("fine"))

        with pytest.raises(RequestTimeoutError):
            await hasty.generate_text("Hi")
        with pytest.raises(RateLimitError):
            await hasty.generate_text("Hi")
        assert await provider.generate_text("Hi") == "fine"


async def test_an_empty_retry_quota_stops_retries_and_says_so(emulator: Emulator) -> None:
    async with make("converse", limits=Limits(retry_quota=4)) as provider:
        emulator.script(Answer.throttle(retry_after_ms=1))

        with pytest.raises(RateLimitError) as caught:
            await provider.generate_text("Hi")

    assert caught.value.quota_exhausted
    assert len(emulator.requests) == 1


async def test_the_service_that_hangs_up_on_an_unstreamed_call_is_asked_again(emulator: Emulator) -> None:
    async with make("converse") as provider:
        emulator.script(Answer.cut("half an answer", after_bytes=20), Answer.text("whole"))

        assert await provider.generate_text("Hi") == "whole"


async def test_a_refused_connection_is_a_connection_error_with_its_kind() -> None:
    provider = BedrockProvider(
        endpoint_url="http://127.0.0.1:9",
        aws_region="us-east-1",
        credentials={"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"},
        retry=QUICK,
    )
    async with provider:
        with pytest.raises(ConnectionFailedError) as caught:
            await provider.generate_text("Hi", model="claude")

    assert caught.value.kind == "refused"
    assert caught.value.attempts == 3


async def test_a_model_that_does_not_stream_tools_is_asked_for_the_whole_answer_and_replayed(
    emulator: Emulator,
) -> None:
    """Llama, Mistral and others answer 400 to ConverseStream with tools, and answer Converse well."""
    emulator.script(Answer.tool_call("get_weather", {"city": "Oslo"}, text="Let me look."), Answer.text("Hi"))

    async with make("converse") as provider:
        async with provider.chat_stream("Weather?", model="llama", tools=[WEATHER]) as stream:
            events = [event async for event in stream]
        await provider.chat_stream("Again", model="llama", tools=[WEATHER]).collect()

    assert isinstance(events[0], StreamStarted)
    assert stream.response.tool_calls[0].input == {"city": "Oslo"}
    assert stream.response.text == "Let me look."
    assert any("replayed" in warning for warning in stream.response.warnings)
    assert [request.operation for request in emulator.requests] == ["converse-stream", "converse", "converse"]


async def test_a_deployment_that_refuses_max_tokens_is_asked_again_in_its_own_words(emulator: Emulator) -> None:
    message = "Unsupported parameter: 'max_completion_tokens' is not supported with this model."
    refusal = Answer.json(
        {"error": {"message": message, "param": "max_completion_tokens", "code": "unsupported_parameter"}}, status=400
    )
    emulator.script(refusal, Answer.text("one"), Answer.text("two"))

    async with make("azure-v1") as provider:
        assert await provider.generate_text("Hi", max_tokens=5) == "one"
        assert await provider.generate_text("Hi", max_tokens=5) == "two"

    assert ["max_tokens" in request.json for request in emulator.requests] == [False, True, True]


async def test_the_deployment_of_a_pasted_target_uri_is_the_default(emulator: Emulator) -> None:
    """The portal shows this address, so people paste it; it names deployment and version already."""
    target = f"{emulator.azure_url}/openai/deployments/chat/chat/completions?api-version=2024-10-21"

    async with AzureOpenAIProvider(api_base=target) as azure:
        assert await azure.generate_text("Hi") == "You said: Hi"
        assert (await azure.with_options(timeout=5).chat_stream("Hi").collect()).text == "You said: Hi"

    assert {request.path for request in emulator.requests} == {"/openai/deployments/chat/chat/completions"}


async def test_a_default_model_may_be_kept_with_the_keys(emulator: Emulator) -> None:
    class Manager:
        def get_api_key(self, service: str) -> dict[str, str]:
            return {
                "aws_access_key_id": emulator.access_key_id,
                "aws_secret_access_key": emulator.secret_access_key,
                "default_model": "nova",
            }

    async with BedrockProvider(Manager()) as bedrock:
        assert await bedrock.with_options(retry=None).generate_text("Hi") == "You said: Hi"
        assert await bedrock.generate_text("Hi") == "You said: Hi"

    assert {request.model for request in emulator.requests} == {"us.amazon.nova-2-lite-v1:0"}


@pytest.mark.parametrize("wire", WIRES)
async def test_a_provider_that_is_closed_while_a_call_waits_for_permission_serves_it_all_the_same(
    wire: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing lets go of connections; what a call had found out must not be gone under its feet."""
    emulator.script(Answer.text("still here"))
    provider = make(wire)
    plane = provider._plane
    waits, go_on = asyncio.Event(), asyncio.Event()

    async def permit(*_: object) -> None:
        waits.set()
        await go_on.wait()

    async def guarded() -> Any:
        return msgspec.structs.replace(await plane(), permit=permit)

    monkeypatch.setattr(provider, "_plane", guarded)
    async with asyncio.timeout(10):
        call = asyncio.ensure_future(provider.generate_text_stream("Hi").collect())
        await waits.wait()
        await provider.aclose()
        go_on.set()
        answer = await call

    assert answer.text == "still here"
    await provider.aclose()


async def test_a_call_goes_on_where_the_control_plane_cannot_be_reached(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a private network there may be a way to the runtime only; what is behind a profile is then not known."""
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/emulated0001"
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    emulator.script(Answer.text("Hello"))

    async with make("converse") as provider:
        answer = await provider.chat("Hi", model=arn, top_k=5)

    assert answer.text == "Hello"
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("wire", WIRES)
async def test_a_key_manager_that_does_not_answer_holds_a_call_no_longer_than_its_deadline(
    wire: str, emulator: Emulator
) -> None:
    class Silent:
        async def get_api_key(self, service: str) -> None:
            await asyncio.sleep(60)

    began = asyncio.get_running_loop().time()
    async with make(wire, api_key_manager=Silent()) as provider:
        with pytest.raises(RequestTimeoutError) as caught:
            await provider.generate_text("Hi", timeout=0.2)

    assert asyncio.get_running_loop().time() - began < 5
    assert caught.value.phase == "credentials"
    assert caught.value.provider == provider.name
    assert emulator.requests == []
