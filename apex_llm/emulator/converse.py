"""Bedrock Converse, the server's side: what is accepted, and how an answer is written.

Follows the service model of bedrock-runtime 2023-09-30 and recorded traffic. Addresses,
signatures and model ids are ``bedrock``'s business.
"""

from __future__ import annotations

__all__ = ["check_request", "read_call", "write_response", "write_stream"]

import re
import string
from typing import Any, cast

from apex_llm.emulator.answers import Answer, ReasoningBlock, TextBlock, ToolCallBlock
from apex_llm.emulator.defaults import Call, ToolSpec, count_tokens
from apex_llm.emulator.models import BedrockModel
from apex_llm.emulator.wire import Refusal, compact, event_frame, int_of, list_of, mapping, strings_of, text_of

_MEMBERS = frozenset({
    "additionalModelRequestFields", "additionalModelResponseFieldPaths", "guardrailConfig", "inferenceConfig",
    "messages", "outputConfig", "performanceConfig", "promptVariables", "requestMetadata", "serviceTier",
    "system", "toolConfig",
})  # fmt: skip
_TYPES: dict[str, type] = {
    "additionalModelRequestFields": object,
    "additionalModelResponseFieldPaths": list,
    "messages": list,
    "system": list,
}
_INFERENCE_MEMBERS = frozenset({"maxTokens", "temperature", "topP", "stopSequences"})
_BLOCKS = frozenset({
    "text", "image", "document", "video", "audio", "toolUse", "toolResult", "guardContent", "cachePoint",
    "reasoningContent", "citationsContent", "searchResult", "toolAddition", "toolRemoval",
})  # fmt: skip
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "content_filtered",
    "guardrail": "guardrail_intervened",
    "refusal": "refusal",
    "context_window": "model_context_window_exceeded",
}
_PADDING = string.ascii_lowercase + string.ascii_uppercase + string.digits


def check_request(body: dict[str, Any], *, model: BedrockModel | None, stream: bool) -> None:
    """Refuse what the service refuses.

    Raises:
        Refusal: With status 400 and the service's words.
    """
    _no_unknown(body, _MEMBERS, "")
    for name, value in body.items():
        if value is not None and not isinstance(value, _TYPES.get(name, dict)):
            raise Refusal(400, "SerializationException", f"Unexpected type of value for {name}.")
    inference = mapping(body.get("inferenceConfig"))
    _no_unknown(inference, _INFERENCE_MEMBERS, "inferenceConfig.")
    _in_range(inference, "temperature", 0, 1)
    _in_range(inference, "topP", 0, 1)
    _in_range(inference, "maxTokens", 1, None)
    messages = list_of(body.get("messages"))
    if not messages:
        raise _invalid("The value at messages is empty. Add at least one message, and try again.")
    vendor = "" if model is None else model.vendor
    if mapping(messages[0]).get("role") == "assistant" and vendor not in {"anthropic", "qwen"}:
        raise _invalid(
            "A conversation must start with a user message. Try again with a conversation that starts "
            "with a user message."
        )
    for index, message in enumerate(messages):
        _check_message(mapping(message), f"messages.{index}")
    _check_tool_results(messages)
    _check_tools(body, messages, model=model, stream=stream)


def read_call(body: dict[str, Any], *, model: str) -> Call:
    """The request, as far as the default answer depends on it."""
    inference = mapping(body.get("inferenceConfig"))
    tools = mapping(body.get("toolConfig"))
    extra = mapping(body.get("additionalModelRequestFields"))
    choice = mapping(tools.get("toolChoice"))
    messages = [mapping(message) for message in list_of(body.get("messages"))]
    texts = [text for message in messages for text in _texts(message)]
    texts.extend(text_of(mapping(block).get("text")) for block in list_of(body.get("system")))
    last = messages[-1] if messages else {}
    prompts = [text for message in messages if message.get("role") == "user" for text in _texts(message)]
    results = [mapping(mapping(block).get("toolResult")) for block in list_of(last.get("content"))]
    result = next((found for found in results if found), None)
    text_format = mapping(mapping(body.get("outputConfig")).get("textFormat"))
    schema = mapping(mapping(text_format.get("structure")).get("jsonSchema")).get("schema")
    return Call(
        model=model,
        prompt=prompts[-1] if prompts else "",
        tool_result=None if result is None else _result_text(result),
        everything="\n".join(texts),
        max_tokens=int_of(inference.get("maxTokens")),
        stop=strings_of(inference.get("stopSequences")),
        tools=tuple(
            ToolSpec(text_of(spec.get("name")), mapping(mapping(spec.get("inputSchema")).get("json")))
            for tool in list_of(tools.get("tools"))
            if (spec := mapping(mapping(tool).get("toolSpec")))
        ),
        forced_tool="*" if "any" in choice else text_of(mapping(choice.get("tool")).get("name")) or None,
        reasoning=mapping(extra.get("thinking")).get("type") in ("enabled", "adaptive"),
        schema=_parsed(schema),
    )


def write_response(answer: Answer, call: Call) -> dict[str, Any]:
    """The body of an unstreamed answer."""
    content: list[dict[str, Any]] = []
    for index, block in enumerate(answer.blocks):
        match block:
            case ReasoningBlock():
                content.append(
                    {"reasoningContent": {"reasoningText": {"text": block.text, "signature": block.signature}}}
                )
            case TextBlock():
                content.append({"text": block.text})
            case ToolCallBlock():
                content.append(
                    {
                        "toolUse": {
                            "toolUseId": block.id or _tool_use_id(index),
                            "name": block.name,
                            "input": _parsed(block.arguments) or {},
                            "type": "tool_use",
                        }
                    }
                )
    return {
        "metrics": {"latencyMs": 412},
        "output": {"message": {"content": content, "role": "assistant"}},
        "stopReason": _stop(answer),
        "usage": usage(answer, call),
    }


def write_stream(answer: Answer, call: Call) -> tuple[tuple[bytes, ...], int]:
    """The frames of a streamed answer, and the index of ``messageStop``."""
    events, terminal = stream_events(answer, call)
    frames = tuple(
        event_frame(name, compact({**payload, "p": padding(position)}))
        for position, (name, payload) in enumerate(events)
    )
    return frames, terminal


def stream_events(answer: Answer, call: Call) -> tuple[list[tuple[str, dict[str, Any]]], int]:
    """Name and payload of each event, and the index of ``messageStop``."""
    events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
    for index, block in enumerate(answer.blocks):
        match block:
            case ReasoningBlock():
                events.extend(_delta(index, {"reasoningContent": {"text": piece}}) for piece in block.pieces)
                events.append(_delta(index, {"reasoningContent": {"signature": block.signature}}))
            case TextBlock():
                events.extend(_delta(index, {"text": piece}) for piece in block.pieces)
            case ToolCallBlock():
                tool = {"name": block.name, "toolUseId": block.id or _tool_use_id(index), "type": "tool_use"}
                events.append(("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": tool}}))
                events.append(_delta(index, {"toolUse": {"input": ""}}))
                events.extend(_delta(index, {"toolUse": {"input": piece}}) for piece in block.pieces)
        events.append(("contentBlockStop", {"contentBlockIndex": index}))
    terminal = len(events)
    events.append(("messageStop", {"stopReason": _stop(answer)}))
    events.append(("metadata", {"metrics": {"latencyMs": 412}, "usage": usage(answer, call)}))
    return events, terminal


def usage(answer: Answer, call: Call) -> dict[str, Any]:
    """Tokens as Converse counts them: ``inputTokens`` is what no cache served."""
    tokens = answer.usage
    total_input = tokens.input if tokens.input is not None else max(1, count_tokens(call.everything))
    output = tokens.output if tokens.output is not None else output_tokens(answer)
    return {
        "cacheReadInputTokenCount": tokens.cache_read,
        "cacheReadInputTokens": tokens.cache_read,
        "cacheWriteInputTokenCount": tokens.cache_write,
        "cacheWriteInputTokens": tokens.cache_write,
        "inputTokens": total_input - tokens.cache_read - tokens.cache_write,
        "outputTokens": output,
        "serverToolUsage": {},
        "totalTokens": total_input + output,
    }


def output_tokens(answer: Answer) -> int:
    """A token for each piece that a stream would send."""
    return max(1, sum(len(block.pieces) for block in answer.blocks))


def padding(position: int) -> str:
    """The member ``p``: of varying length, so that the frame's size tells nothing."""
    return _PADDING[: 2 + (position * 37) % 60]


def _stop(answer: Answer) -> str:
    if answer.filtered is not None and answer.filtered_where == "prompt":
        return "guardrail_intervened"
    return _STOPS.get(answer.finish, answer.finish)


def _delta(index: int, delta: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return ("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})


def _tool_use_id(index: int) -> str:
    return f"tooluse_emulated{index:04d}"


def _texts(message: dict[str, Any]) -> list[str]:
    return [text for block in list_of(message.get("content")) if (text := text_of(mapping(block).get("text")))]


def _result_text(result: dict[str, Any]) -> str:
    parts: list[str] = []
    for part in list_of(result.get("content")):
        block = mapping(part)
        parts.append(compact(block["json"]).decode() if "json" in block else text_of(block.get("text")))
    return " ".join(parts)


def _parsed(value: Any) -> dict[str, Any] | None:
    import json

    if isinstance(value, str):
        try:
            value = json.loads(value) if value else {}
        except ValueError:
            return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _invalid(message: str) -> Refusal:
    return Refusal(400, "ValidationException", message)


def _no_unknown(value: dict[str, Any], known: frozenset[str], where: str) -> None:
    for name in value:
        if name not in known:
            raise _invalid(
                f"The model returned the following errors: {where}{name}: Extra inputs are not permitted"
                if where
                else f"Malformed input request: extraneous key [{name}] is not permitted, "
                "please reformat your input and try again."
            )


def _in_range(value: dict[str, Any], name: str, low: float, high: float | None) -> None:
    number = value.get(name)
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise Refusal(400, "SerializationException", f"STRING_VALUE can not be converted to a number: {name}")
    path = f"inferenceConfig.{name}"
    if number < low:
        raise _invalid(
            f"1 validation error detected: Value '{number}' at '{path}' failed to satisfy constraint: "
            f"Member must have value greater than or equal to {low}"
        )
    if high is not None and number > high:
        raise _invalid(
            f"1 validation error detected: Value '{number}' at '{path}' failed to satisfy constraint: "
            f"Member must have value less than or equal to {high}"
        )


def _check_message(message: dict[str, Any], where: str) -> None:
    role = message.get("role")
    if role not in ("user", "assistant", "system"):
        raise _invalid(
            f"1 validation error detected: Value '{role}' at '{where}.role' failed to satisfy constraint: "
            "Member must satisfy enum value set: [user, assistant]"
        )
    blocks = list_of(message.get("content"))
    if not blocks:
        raise _invalid(
            f"The content field in the Message object at {where} is empty. "
            "Add a ContentBlock object to the content field and try again."
        )
    for index, item in enumerate(blocks):
        block = mapping(item)
        path = f"{where}.content.{index}"
        kinds = [name for name in block if name in _BLOCKS]
        if len(block) != 1 or len(kinds) != 1:
            raise _invalid(
                f"The content block at {path} must set one of the following keys: {', '.join(sorted(_BLOCKS))}."
            )
        if "text" in block and not text_of(block["text"]).strip():
            raise _invalid(
                f"The text field in the ContentBlock object at {path} is blank. Add text to the text "
                "field, and try again."
            )
        if "toolUse" in block:
            use = mapping(block["toolUse"])
            if not _TOOL_USE_ID.fullmatch(text_of(use.get("toolUseId"))) or not _NAME.fullmatch(
                text_of(use.get("name"))
            ):
                raise _invalid(f"The toolUse block at {path} has no valid name and toolUseId.")
            if not isinstance(use.get("input"), dict):
                raise _invalid(
                    f"The format of the value at {path}.toolUse.input is invalid. Provide a json object "
                    "for the field and try again."
                )


def _check_tool_results(messages: list[Any]) -> None:
    waiting: list[str] = []
    for index, item in enumerate(messages):
        message = mapping(item)
        blocks = [mapping(block) for block in list_of(message.get("content"))]
        results = [text_of(mapping(block["toolResult"]).get("toolUseId")) for block in blocks if "toolResult" in block]
        if waiting and set(waiting) - set(results) and message.get("role") == "user":
            missing = ", ".join(identifier for identifier in waiting if identifier not in results)
            raise _invalid(f"Expected toolResult blocks at messages.{index}.content for the following Ids: {missing}")
        if set(results) - set(waiting):
            raise _invalid(
                f"The number of toolResult blocks at messages.{index}.content exceeds the number of "
                "toolUse blocks of previous turn."
            )
        waiting = [text_of(mapping(block["toolUse"]).get("toolUseId")) for block in blocks if "toolUse" in block]


def _check_tools(body: dict[str, Any], messages: list[Any], *, model: BedrockModel | None, stream: bool) -> None:
    config = body.get("toolConfig")
    used = any(
        "toolUse" in mapping(block) or "toolResult" in mapping(block)
        for message in messages
        for block in list_of(mapping(message).get("content"))
    )
    if config is None:
        if used:
            raise _invalid("The toolConfig field must be defined when using toolUse and toolResult content blocks.")
        return
    tools = list_of(mapping(config).get("tools"))
    if not tools:
        raise _invalid(
            "1 validation error detected: Value '[]' at 'toolConfig.tools' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1"
        )
    for index, tool in enumerate(tools):
        spec = mapping(tool).get("toolSpec")
        if spec is None:
            continue
        if not _NAME.fullmatch(text_of(mapping(spec).get("name"))):
            raise _invalid(
                f"1 validation error detected: Value at 'toolConfig.tools.{index}.member.toolSpec.name' "
                "failed to satisfy "
                "constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_-]+"
            )
        if mapping(spec).get("description") == "":
            raise _invalid(f"The description of toolConfig.tools.{index}.toolSpec is empty.")
        if not isinstance(mapping(mapping(spec).get("inputSchema")).get("json"), dict):
            raise _invalid(f"The value at toolConfig.tools.{index}.toolSpec.inputSchema.json is not an object.")
    if stream and model is not None and not model.streaming_tools:
        raise _invalid("This model doesn't support tool use in streaming mode.")
