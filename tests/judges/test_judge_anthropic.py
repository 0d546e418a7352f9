"""Anthropic's own Bedrock client judges the emulator: InvokeModel, whole and streamed."""

from collections.abc import AsyncIterator

import anthropic
import pytest
from anthropic import AsyncAnthropicBedrock

from apex_llm.emulator import Answer, Emulator

pytestmark = pytest.mark.judge

# Rows up to 4.6 refuse the API version that this client sends of its own accord.
OPUS = "us.anthropic.claude-opus-4-8"
HI = [{"role": "user", "content": "Hi there"}]
TOOL = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[AsyncAnthropicBedrock]:
    async with AsyncAnthropicBedrock(
        base_url=emulator.bedrock_url,
        aws_region=emulator.region,
        aws_access_key=emulator.access_key_id,
        aws_secret_key=emulator.secret_access_key,
        max_retries=0,
    ) as client:
        yield client


async def test_a_message_is_answered(client: AsyncAnthropicBedrock, emulator: Emulator) -> None:
    message = await client.messages.create(model=OPUS, max_tokens=50, messages=HI)

    assert [block.text for block in message.content] == ["You said: Hi there"]
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 4


async def test_rows_up_to_4_6_refuse_the_version_of_the_newest_client(
    client: AsyncAnthropicBedrock, emulator: Emulator
) -> None:
    """Anthropic's page on InvokeModel warns of it; the version that Bedrock documents passes."""
    older = "us.anthropic.claude-sonnet-4-6"

    with pytest.raises(anthropic.BadRequestError, match="anthropic_version"):
        await client.messages.create(model=older, max_tokens=50, messages=HI)
    message = await client.messages.create(
        model=older, max_tokens=50, messages=HI, extra_body={"anthropic_version": "bedrock-2023-05-31"}
    )

    assert message.stop_reason == "end_turn"


async def test_a_stream_gives_text_and_usage(client: AsyncAnthropicBedrock, emulator: Emulator) -> None:
    emulator.script(Answer.text("One two three", reasoning="Count.", usage={"input": 100, "cache_read": 40}))

    async with client.messages.stream(model=OPUS, max_tokens=50, messages=HI) as stream:
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()

    assert texts == ["One", " two", " three"]
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens) == (60, 40)


async def test_tools_are_called_whole_and_streamed(client: AsyncAnthropicBedrock, emulator: Emulator) -> None:
    emulator.script(Answer.tool_call("get_weather", {"city": "Oslo"}, text="Let me see."))
    whole = await client.messages.create(
        model=OPUS, max_tokens=50, messages=HI, tools=[TOOL], tool_choice={"type": "any"}
    )
    emulator.script(Answer.tool_call("get_weather", {"city": "Oslo"}, ("get_weather", {})))
    async with client.messages.stream(model=OPUS, max_tokens=50, messages=HI, tools=[TOOL]) as stream:
        streamed = await stream.get_final_message()

    assert whole.stop_reason == "tool_use"
    assert whole.content[1].input == {"city": "Oslo"}
    assert [block.input for block in streamed.content] == [{"city": "Oslo"}, {}]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer.throttle(), anthropic.RateLimitError),
        (Answer.error("unavailable"), anthropic.InternalServerError),
        (Answer.error("validation"), anthropic.BadRequestError),
        (Answer.error("access_denied"), anthropic.PermissionDeniedError),
        (Answer.error("not_found"), anthropic.NotFoundError),
    ],
)
async def test_errors_become_its_own_classes(
    client: AsyncAnthropicBedrock, emulator: Emulator, answer: Answer, error: type[Exception]
) -> None:
    emulator.script(answer)

    with pytest.raises(error):
        await client.messages.create(model=OPUS, max_tokens=50, messages=HI)


async def test_a_throttle_inside_the_stream_is_an_error(client: AsyncAnthropicBedrock, emulator: Emulator) -> None:
    emulator.script(Answer.throttle(inside_stream_after=4))

    with pytest.raises(anthropic.APIStatusError):
        async with client.messages.stream(model=OPUS, max_tokens=50, messages=HI) as stream:
            async for _ in stream:
                pass


async def test_a_wrong_secret_is_refused(emulator: Emulator) -> None:
    async with AsyncAnthropicBedrock(
        base_url=emulator.bedrock_url,
        aws_region=emulator.region,
        aws_access_key=emulator.access_key_id,
        aws_secret_key="wrong",
        max_retries=0,
    ) as client:
        with pytest.raises(anthropic.PermissionDeniedError):
            await client.messages.create(model=OPUS, max_tokens=50, messages=HI)
