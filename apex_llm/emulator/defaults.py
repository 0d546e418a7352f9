"""What the emulator says when nobody told it what to say.

Each wire reads its request into a ``Call``; the answer depends on that alone, so the same
prompt gives the same answer on every wire.
"""

from __future__ import annotations

__all__ = ["Call", "ToolSpec", "count_tokens", "default_answer"]

import json
from typing import Any, cast

import msgspec

from apex_llm.emulator.answers import Answer, ReasoningBlock, TextBlock
from apex_llm.emulator.wire import int_of, list_of, mapping, strings_of

_CHARACTERS_PER_TOKEN = 4
_DEPTH = 8
_MOST_ITEMS = 100


class ToolSpec(msgspec.Struct, frozen=True):
    """One tool that the caller offers."""

    name: str
    schema: dict[str, Any]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a request that the default answer depends on."""

    model: str = ""
    prompt: str = ""
    """The last user text."""
    tool_result: str | None = None
    """The result that the last message carries, if it carries one."""
    everything: str = ""
    """All texts, to count tokens by."""
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    forced_tool: str | None = None
    """A tool's name, or ``"*"`` for any."""
    reasoning: bool = False
    schema: dict[str, Any] | None = None
    """What a structured answer must look like; empty for any JSON object."""


def count_tokens(text: str) -> int:
    """A count that is near enough: a token for every four characters begun."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def default_answer(call: Call) -> Answer:
    """An echo of the prompt, a tool call where one is demanded, JSON where a schema asks for it."""
    if call.forced_tool is not None and call.tools:
        tool = next((tool for tool in call.tools if tool.name == call.forced_tool), call.tools[0])
        example = _example(tool.schema, _DEPTH)
        return Answer.tool_call(tool.name, cast("dict[str, Any]", example) if isinstance(example, dict) else {})
    reasoning = "The user wrote something; I repeat it." if call.reasoning else None
    if call.schema is not None:
        return Answer.text(json.dumps(_example(call.schema or {"type": "object"}, _DEPTH)), reasoning=reasoning)
    if call.tool_result is not None:
        text = f"The tool answered: {call.tool_result}"
    else:
        text = f"You said: {call.prompt}" if call.prompt else "You said nothing."
    finish = "stop"
    for stop in call.stop:
        if stop and stop in text:
            text, finish = text.partition(stop)[0], "stop_sequence"
    answer = Answer.text(text, reasoning=reasoning, finish=finish)
    return answer if call.max_tokens is None else _limited(answer, call.max_tokens)


def _limited(answer: Answer, max_tokens: int) -> Answer:
    """The answer, a word a token, up to ``max_tokens`` of text."""
    *before, last = answer.blocks
    if not isinstance(last, TextBlock) or len(last.pieces) <= max_tokens:
        return answer
    pieces = last.pieces[:max_tokens]
    reasoning = [block for block in before if isinstance(block, ReasoningBlock)]
    return msgspec.structs.replace(answer, blocks=(*reasoning, TextBlock("".join(pieces), pieces)), finish="length")


def _example(given: Any, depth: int) -> Any:  # one branch a JSON type
    """The smallest value that suits a JSON Schema, as far as the common keywords go."""
    schema = mapping(given)
    if depth <= 0:
        return None
    if "const" in schema:
        return schema["const"]
    if choices := list_of(schema.get("enum")):
        return choices[0]
    for union in ("anyOf", "oneOf", "allOf"):
        if members := list_of(schema.get(union)):
            return _example(members[0], depth - 1)
    kinds = strings_of(schema.get("type"))
    match kinds[0] if kinds else "object":
        case "string":
            return "example"
        case "integer" | "number":
            return int_of(schema.get("minimum")) or 1
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            count = min(_MOST_ITEMS, max(1, int_of(schema.get("minItems")) or 1))
            return [_example(schema["items"], depth - 1)] * count if "items" in schema else []
        case _:
            properties = mapping(schema.get("properties"))
            wanted = strings_of(schema.get("required")) or tuple(properties)
            return {name: _example(properties.get(name, {"type": "string"}), depth - 1) for name in wanted}
