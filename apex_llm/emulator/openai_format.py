"""OpenAI's chat format, as far as Azure and the families on Bedrock that speak it have it in common."""

from __future__ import annotations

__all__ = ["deltas", "message", "read_call", "stop_reason", "usage"]

from typing import Any

from apex_llm.emulator.answers import Answer, ReasoningBlock, TextBlock, ToolCallBlock
from apex_llm.emulator.converse import output_tokens
from apex_llm.emulator.defaults import Call, ToolSpec, count_tokens
from apex_llm.emulator.wire import int_of, list_of, mapping, strings_of, text_of

_STOPS = {
    "tool_calls": "tool_calls",
    "length": "length",
    "content_filter": "content_filter",
    "context_window": "length",
}


def read_call(body: dict[str, Any], *, model: str) -> Call:
    """The request, as far as the default answer depends on it."""
    messages = [mapping(message) for message in list_of(body.get("messages"))]
    prompts = [text for message in messages if message.get("role") == "user" for text in _texts(message)]
    last = messages[-1] if messages else {}
    choice = body.get("tool_choice")
    forced = "*" if choice == "required" else text_of(mapping(mapping(choice).get("function")).get("name")) or None
    response_format = mapping(body.get("response_format"))
    schema: dict[str, Any] | None = None
    if response_format.get("type") == "json_schema":
        schema = mapping(mapping(response_format.get("json_schema")).get("schema"))
    elif response_format.get("type") == "json_object":
        schema = {}
    return Call(
        model=model,
        prompt=prompts[-1] if prompts else "",
        tool_result=" ".join(_texts(last)) if last.get("role") == "tool" else None,
        everything="\n".join(text for message in messages for text in _texts(message)),
        max_tokens=int_of(body.get("max_tokens")) or int_of(body.get("max_completion_tokens")),
        stop=strings_of(body.get("stop")),
        tools=tuple(
            ToolSpec(text_of(function.get("name")), mapping(function.get("parameters")))
            for tool in list_of(body.get("tools"))
            if (function := mapping(mapping(tool).get("function")))
        ),
        forced_tool=forced,
        schema=schema,
    )


def message(answer: Answer) -> dict[str, Any]:
    """The assistant's message, whole. Reasoning is hidden on this wire; the usage alone counts it."""
    text = "".join(block.text for block in answer.blocks if isinstance(block, TextBlock))
    calls = [
        {
            "id": block.id or _call_id(index),
            "type": "function",
            "function": {"name": block.name, "arguments": block.arguments},
        }
        for index, block in enumerate(answer.blocks)
        if isinstance(block, ToolCallBlock)
    ]
    whole: dict[str, Any] = {"content": text or (None if calls else ""), "role": "assistant"}
    if calls:
        whole["tool_calls"] = calls
    return whole


def deltas(answer: Answer) -> list[dict[str, Any]]:
    """The message in pieces, the role first."""
    has_text = any(isinstance(block, TextBlock) for block in answer.blocks)
    pieces: list[dict[str, Any]] = [{"content": "" if has_text or not answer.blocks else None, "role": "assistant"}]
    tool_index = -1
    for index, block in enumerate(answer.blocks):
        match block:
            case ReasoningBlock():
                continue
            case TextBlock():
                pieces.extend({"content": piece} for piece in block.pieces)
            case ToolCallBlock():
                tool_index += 1
                opening = {
                    "index": tool_index,
                    "id": block.id or _call_id(index),
                    "type": "function",
                    "function": {"name": block.name, "arguments": ""},
                }
                pieces.append({"tool_calls": [opening]})
                pieces.extend(
                    {"tool_calls": [{"index": tool_index, "function": {"arguments": piece}}]} for piece in block.pieces
                )
    return pieces


def stop_reason(answer: Answer) -> str:
    """The format's word for how an answer ended."""
    return _STOPS.get(answer.finish, "stop")


def usage(answer: Answer, call: Call) -> dict[str, Any]:
    """Tokens as this format counts them: ``prompt_tokens`` is everything read."""
    tokens = answer.usage
    read = tokens.input if tokens.input is not None else max(1, count_tokens(call.everything))
    written = tokens.output if tokens.output is not None else output_tokens(answer)
    reasoning = tokens.reasoning or sum(
        len(block.pieces) for block in answer.blocks if isinstance(block, ReasoningBlock)
    )
    return {
        "completion_tokens": written,
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": 0,
            "reasoning_tokens": reasoning,
            "rejected_prediction_tokens": 0,
        },
        "prompt_tokens": read,
        "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": tokens.cache_read},
        "total_tokens": read + written,
    }


def _call_id(index: int) -> str:
    return f"call_Emulated{index:04d}"


def _texts(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content] if content else []
    return [text for part in list_of(content) if (text := text_of(mapping(part).get("text")))]
