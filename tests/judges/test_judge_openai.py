"""openai's clients judge the emulator: Azure's dated paths, the v1 surface, streams and errors."""

from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from apex_llm.emulator import Answer, Emulator

pytestmark = pytest.mark.judge

HI = [{"role": "user", "content": "Hi there"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def azure_client(emulator: Emulator, **changes: str) -> AsyncAzureOpenAI:
    settings = {"api_key": emulator.api_key, "api_version": "2024-10-21", **changes}
    return AsyncAzureOpenAI(azure_endpoint=emulator.azure_url, max_retries=0, **settings)


def v1_client(emulator: Emulator) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{emulator.azure_url}/openai/v1/", api_key=emulator.api_key, max_retries=0)


@pytest.fixture(params=["dated", "v1"])
async def client(request: pytest.FixtureRequest, emulator: Emulator) -> AsyncIterator[AsyncOpenAI]:
    async with azure_client(emulator) if request.param == "dated" else v1_client(emulator) as client:
        yield client


async def test_a_chat_is_answered(client: AsyncOpenAI, emulator: Emulator) -> None:
    completion = await client.chat.completions.create(model="chat", messages=HI, max_tokens=50, temperature=0.5)

    assert completion.choices[0].message.content == "You said: Hi there"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "gpt-4o-2024-11-20"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 6
    assert (emulator.requests[0].operation, emulator.requests[0].model) == ("chat", "chat")


async def test_a_stream_tells_its_usage_only_when_asked(client: AsyncOpenAI, emulator: Emulator) -> None:
    asked = await client.chat.completions.create(
        model="chat", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    with_usage = [chunk async for chunk in asked]
    unasked = await client.chat.completions.create(model="chat", messages=HI, stream=True)
    without = [chunk async for chunk in unasked]

    assert with_usage[0].choices == []
    assert [chunk.usage is not None for chunk in with_usage][-2:] == [False, True]
    assert all(chunk.usage is None for chunk in without)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in without if chunk.choices)
    assert text == "You said: Hi there"
    assert without[-1].choices[0].finish_reason == "stop"


async def test_tool_calls_stream_in_pieces(client: AsyncOpenAI, emulator: Emulator) -> None:
    emulator.script(Answer.tool_call("get_weather", {"city": "Oslo"}, ("get_weather", {"city": "Łódź"})))

    stream = await client.chat.completions.create(model="chat", messages=HI, tools=TOOLS, stream=True)
    arguments: dict[int, str] = {}
    finish = None
    async for chunk in stream:
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or ():
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")

    assert arguments == {0: '{"city": "Oslo"}', 1: '{"city": "Łódź"}'}
    assert finish == "tool_calls"


async def test_a_demanded_tool_is_called_and_its_result_accepted(client: AsyncOpenAI, emulator: Emulator) -> None:
    first = await client.chat.completions.create(model="chat", messages=HI, tools=TOOLS, tool_choice="required")
    message = first.choices[0].message
    assert message.tool_calls
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}

    second = await client.chat.completions.create(
        model="chat", messages=[*HI, message.model_dump(exclude_none=True), result], tools=TOOLS
    )

    assert second.choices[0].message.content == "The tool answered: sunny"


async def test_structured_output_suits_the_schema(client: AsyncOpenAI, emulator: Emulator) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "size": {"type": "integer"}}}
    completion = await client.chat.completions.create(
        model="chat",
        messages=HI,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )

    assert completion.choices[0].message.content == '{"city": "example", "size": 1}'


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (Answer.throttle(retry_after_ms=700), openai.RateLimitError, "RateLimitReached"),
        (Answer.error("unauthorized"), openai.AuthenticationError, "401"),
        (Answer.error("unavailable"), openai.InternalServerError, "ServiceUnavailable"),
        (Answer.error("context_length"), openai.BadRequestError, "context_length_exceeded"),
        (Answer.content_filtered(where="prompt"), openai.BadRequestError, "content_filter"),
    ],
)
async def test_errors_become_its_own_classes(
    client: AsyncOpenAI, emulator: Emulator, answer: Answer, error: type[openai.APIStatusError], code: str
) -> None:
    emulator.script(answer)

    with pytest.raises(error) as caught:
        await client.chat.completions.create(model="chat", messages=HI)

    assert caught.value.code == code
    assert caught.value.request_id


async def test_an_error_inside_the_stream_is_an_error(client: AsyncOpenAI, emulator: Emulator) -> None:
    emulator.script(Answer.throttle(inside_stream_after=3))
    stream = await client.chat.completions.create(model="chat", messages=HI, stream=True)
    seen = 0

    with pytest.raises(openai.APIError, match="rate limit"):
        async for _ in stream:
            seen += 1

    assert seen == 3
    await stream.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_stream_is_a_connection_error(client: AsyncOpenAI, emulator: Emulator, reset: bool) -> None:
    emulator.script(Answer.cut(after_events=3, reset=reset))
    stream = await client.chat.completions.create(model="chat", messages=HI, stream=True)

    with pytest.raises(openai.APIConnectionError):
        async for _ in stream:
            pass
    await stream.close()


async def test_a_filtered_answer_tells_the_category(client: AsyncOpenAI, emulator: Emulator) -> None:
    emulator.script(Answer.content_filtered("Once upon", category="hate"))

    completion = await client.chat.completions.create(model="chat", messages=HI)

    choice = completion.choices[0]
    assert choice.finish_reason == "content_filter"
    assert choice.message.content == "Once upon"
    assert choice.model_extra["content_filter_results"]["hate"] == {"filtered": True, "severity": "high"}


async def test_embeddings_come_as_vectors(client: AsyncOpenAI, emulator: Emulator) -> None:
    answer = await client.embeddings.create(model="embed", input=["one", "two", "one"], dimensions=64)

    assert [len(item.embedding) for item in answer.data] == [64, 64, 64]
    assert answer.data[0].embedding == answer.data[2].embedding
    assert answer.data[0].embedding != answer.data[1].embedding


async def test_base_models_are_listed(client: AsyncOpenAI, emulator: Emulator) -> None:
    models = [model.id async for model in client.models.list()]

    assert "gpt-4o" in models
    assert "chat" not in models


async def test_a_wrong_key_is_401_and_an_unknown_deployment_404(emulator: Emulator) -> None:
    async with azure_client(emulator, api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="chat", messages=HI)
    async with azure_client(emulator) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="nowhere", messages=HI)

    assert caught.value.code == "DeploymentNotFound"


async def test_an_entra_token_passes(emulator: Emulator) -> None:
    async with AsyncAzureOpenAI(
        azure_endpoint=emulator.azure_url,
        azure_ad_token=emulator.bearer_token,
        api_version="2024-10-21",
        max_retries=0,
    ) as client:
        completion = await client.chat.completions.create(model="chat", messages=HI)

    assert completion.choices[0].finish_reason == "stop"


async def test_the_oldest_version_knows_no_tools(emulator: Emulator) -> None:
    async with azure_client(emulator, api_version="2023-05-15") as client:
        plain = await client.chat.completions.create(model="chat", messages=HI)
        with pytest.raises(openai.BadRequestError, match="Unrecognized request argument supplied: tools"):
            await client.chat.completions.create(model="chat", messages=HI, tools=TOOLS)

    assert plain.choices[0].message.content == "You said: Hi there"


async def test_a_reasoning_model_wants_its_own_token_limit(client: AsyncOpenAI, emulator: Emulator) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="gpt-5-mini", messages=HI, max_tokens=5)
    completion = await client.chat.completions.create(model="gpt-5-mini", messages=HI, max_completion_tokens=5)

    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "max_tokens")
    assert completion.choices[0].finish_reason == "stop"
