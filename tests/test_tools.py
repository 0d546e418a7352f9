"""Typed functions as tools: what the model is told, and what happens when it calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from apex_llm import BedrockProvider, InvalidRequestError, Message, ToolCallPart, tool
from apex_llm.emulator import Answer, Emulator


class Place(BaseModel):
    city: str
    country: str = "NO"


@tool
def get_weather(
    place: Place, unit: Literal["C", "F"] = "C", days: Annotated[int, Field(ge=1, le=7)] = 1
) -> dict[str, Any]:
    """The weather of a place,
    for the coming days.

    Args:
        place: Where.
        unit: Of the temperature,
            one of two.
    """
    return {"city": place.city, "unit": unit, "days": days}


@tool(name="find-user", description="Finds.", strict=True)
async def find(user_id: int) -> str:
    if user_id == 0:
        raise LookupError("no such user")
    return f"user {user_id}"


def call(name: str, arguments: str) -> ToolCallPart:
    return ToolCallPart(id="call_1", name=name, arguments=arguments)


def test_the_signature_is_the_schema_and_the_docstring_the_description() -> None:
    assert get_weather.name == "get_weather"
    assert get_weather.description == "The weather of a place, for the coming days."
    properties = get_weather.parameters["properties"]
    assert properties["unit"]["enum"] == ["C", "F"]
    assert properties["unit"]["description"] == "Of the temperature, one of two."
    assert properties["days"]["maximum"] == 7
    assert get_weather.parameters["required"] == ["place"]
    assert (find.name, find.description, find.strict) == ("find-user", "Finds.", True)


async def test_a_call_is_validated_run_and_answered() -> None:
    answer = await get_weather.run(call("get_weather", '{"place": {"city": "Oslo"}, "unit": "F"}'))

    assert answer == Message.tool("call_1", {"city": "Oslo", "unit": "F", "days": 1})
    assert await find.run(call("find-user", '{"user_id": "7"}')) == Message.tool("call_1", "user 7")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ('{"place": {}}', "place.city"),
        ('{"place": {"city": "Oslo"}, "days": 9}', "days"),
        ('{"place": {"city": "Oslo"}, "speed": 1}', "speed"),
        ("[1]", "JSON object"),
        ('{"place":', "ValueError"),
    ],
)
async def test_arguments_that_do_not_fit_are_told_to_the_model_not_raised(arguments: str, complaint: str) -> None:
    answer = await get_weather.run(call("get_weather", arguments))

    (part,) = answer.parts
    assert part.is_error  # type: ignore[union-attr]
    assert complaint in part.content  # type: ignore[union-attr,operator]


async def test_what_a_tool_raises_is_told_to_the_model() -> None:
    (part,) = (await find.run(call("find-user", '{"user_id": 0}'))).parts

    assert part.is_error  # type: ignore[union-attr]
    assert part.content == "LookupError: no such user"  # type: ignore[union-attr]


def test_the_function_can_still_be_called() -> None:
    assert get_weather(Place(city="Oslo"))["days"] == 1


def test_a_signature_that_no_model_can_fill_is_refused_when_it_is_made_a_tool() -> None:
    @dataclass
    class Opaque:
        handle: object

    def by_position(a: int, /) -> None: ...
    def with_unknown(a: Opaque.__class__.__mro__[0]) -> None: ...  # type: ignore[valid-type]
    def bad_name(a: int) -> None: ...

    with pytest.raises(InvalidRequestError):
        tool(by_position)
    with pytest.raises(InvalidRequestError):
        tool(with_unknown)
    with pytest.raises(InvalidRequestError):
        tool(name="has space")(bad_name)


async def test_a_whole_round_with_a_model(emulator: Emulator) -> None:
    emulator.script(Answer.tool_call("get_weather", {"place": {"city": "Oslo"}}), Answer.text("Fine."))
    conversation = [Message.user("Weather in Oslo?")]

    async with BedrockProvider(default_model="claude") as bedrock:
        answer = await bedrock.chat(conversation, tools=[get_weather])
        conversation += [answer.message, await get_weather.run(answer.tool_calls[0])]
        assert (await bedrock.chat(conversation, tools=[get_weather])).text == "Fine."

    schema = emulator.requests[0].json["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"]
    assert schema["properties"]["unit"]["enum"] == ["C", "F"]
