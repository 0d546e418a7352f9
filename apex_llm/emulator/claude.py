"""Anthropic's message format as InvokeModel speaks it, the server's side.

Follows the Messages API with ``anthropic_version`` ``bedrock-2023-05-31``, and recorded answers.
"""

from __future__ import annotations

__all__ = ["check_request", "read_call", "write_response", "write_stream"]

import base64
import re
from typing import Any

from apex_llm.emulator.answers import Answer, ReasoningBlock, TextBlock, ToolCallBlock
from apex_llm.emulator.converse import output_tokens, padding
from apex_llm.emulator.defaults import Call, ToolSpec, count_tokens
from apex_llm.emulator.wire import Refusal, compact, event_frame, int_of, list_of, mapping, strings_of, text_of

_MEMBERS = frozenset({
    "anthropic_beta", "anthropic_version", "cache_control", "context_management", "max_tokens", "messages", "metadata",
    "output_config", "output_format", "stop_sequences", "system", "temperature", "thinking", "tool_choice", "tools",
    "top_k", "top_p",
})  # fmt: skip
_GUARDRAIL_PREFIX = "amazon-bedrock-"
_VERSION = "bedrock-2023-05-31"
# Anthropic's clients from 2.12 on send their own version unless told otherwise. Anthropic's page on InvokeModel says
# that rows up to 4.6 refuse it; it is silent about later rows, so these are given the benefit of the doubt.
_SDK_VERSION = "2026-10-21"
# They also decide on their own how to sample, and refuse to be told.
_NEWEST_ROWS = re.compile(r"anthropic\.claude-(opus-4-[78]|(opus|sonnet|haiku|fable|mythos)-5)")
_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "guardrail": "end_turn",
    "context_window": "model_context_window_exceeded",
}


def check_request(body: dict[str, Any], *, model: str) -> None:
    """Refuse what the model behind InvokeModel refuses.

    Raises:
        Refusal: With status 400 and the service's words.
    """
    for name in body:
        if name not in _MEMBERS and not name.startswith(_GUARDRAIL_PREFIX):
            raise _malformed(f"extraneous key [{name}] is not permitted")
    for name in ("anthropic_version", "max_tokens", "messages"):
        if name not in body:
            raise _malformed(f"#: required key [{name}] not found")
    version = body["anthropic_version"]
    if version != _VERSION and (version != _SDK_VERSION or _NEWEST_ROWS.match(model) is None):
        raise _malformed(f"#/anthropic_version: {version} is not a valid enum value, only {_VERSION} is")
    max_tokens = body["max_tokens"]
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise _malformed("max_tokens: Input should be greater than or equal to 1")
    messages = list_of(body["messages"])
    if not messages:
        raise _malformed("messages: at least one message is required")
    for index, item in enumerate(messages):
        message = mapping(item)
        if message.get("role") not in ("user", "assistant", "system"):
            raise _malformed(f"messages.{index}.role: Input should be 'user' or 'assistant'")
        content = message.get("content")
        if not content and not (index == len(messages) - 1 and message.get("role") == "assistant"):
            raise _malformed(f"messages.{index}: user messages must have non-empty content")
        for position, part in enumerate(list_of(content)):
            block = mapping(part)
            if block.get("type") == "text" and not text_of(block.get("text")):
                raise _malformed(f"messages.{index}.content.{position}.text: text content blocks must be non-empty")
    refuse_sampling(body, model=model)


def refuse_sampling(values: dict[str, Any], *, model: str) -> None:
    """The newest rows take no sampling parameters, on any wire.

    Raises:
        Refusal: With status 400.
    """
    if _NEWEST_ROWS.match(model) is None:
        return
    for name in ("temperature", "top_p", "top_k", "topP"):
        if values.get(name) is not None:
            wire_name = "top_p" if name == "topP" else name
            raise Refusal(
                400,
                "ValidationException",
                f"The model returned the following errors: `{wire_name}` is deprecated for this model.",
            )


def read_call(body: dict[str, Any], *, model: str) -> Call:
    """The request, as far as the default answer depends on it."""
    messages = [mapping(message) for message in list_of(body.get("messages"))]
    prompts = [text for message in messages if message.get("role") == "user" for text in _texts(message.get("content"))]
    everything = [text for message in messages for text in _texts(message.get("content"))]
    everything.extend(_texts(body.get("system")))
    choice = mapping(body.get("tool_choice"))
    last = [mapping(block) for block in list_of(messages[-1].get("content"))] if messages else []
    result = next((block for block in last if block.get("type") == "tool_result"), None)
    output = mapping(mapping(body.get("output_config")).get("format"))
    kind = choice.get("type")
    return Call(
        model=model,
        prompt=prompts[-1] if prompts else "",
        tool_result=None if result is None else " ".join(_texts(result.get("content"))),
        everything="\n".join(everything),
        max_tokens=int_of(body.get("max_tokens")),
        stop=strings_of(body.get("stop_sequences")),
        tools=tuple(
            ToolSpec(text_of(mapping(tool).get("name")), mapping(mapping(tool).get("input_schema")))
            for tool in list_of(body.get("tools"))
        ),
        forced_tool="*" if kind == "any" else text_of(choice.get("name")) if kind == "tool" else None,
        reasoning=mapping(body.get("thinking")).get("type") in ("enabled", "adaptive"),
        schema=mapping(output.get("schema")) if output else None,
    )


def write_response(answer: Answer, call: Call) -> dict[str, Any]:
    """The body of an unstreamed answer."""
    import json

    content: list[dict[str, Any]] = []
    for index, block in enumerate(answer.blocks):
        match block:
            case ReasoningBlock():
                content.append({"type": "thinking", "thinking": block.text, "signature": block.signature})
            case TextBlock():
                content.append({"type": "text", "text": block.text})
            case ToolCallBlock():
                content.append(
                    {
                        "type": "tool_use",
                        "id": block.id or _tool_id(index),
                        "name": block.name,
                        "input": json.loads(block.arguments or "{}"),
                    }
                )
    return {
        "id": "msg_bdrk_emulated0001",
        "type": "message",
        "role": "assistant",
        "model": _model_name(call.model),
        "content": content,
        "stop_reason": _stop(answer),
        "stop_sequence": _stop_sequence(answer, call),
        "stop_details": None,
        "usage": _usage(answer, call),
    }


def write_stream(answer: Answer, call: Call) -> tuple[tuple[bytes, ...], int]:
    """The ``chunk`` frames of a streamed answer, and the index of ``message_stop``."""
    usage = _usage(answer, call)
    start: dict[str, Any] = {
        **write_response(answer, call),
        "content": list[Any](),
        "stop_reason": None,
        "stop_sequence": None,
    }
    start["usage"] = {**usage, "output_tokens": 1}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(answer.blocks):
        match block:
            case ReasoningBlock():
                opening: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": piece} for piece in block.pieces]
                deltas.append({"type": "signature_delta", "signature": block.signature})
            case TextBlock():
                opening = {"type": "text", "text": ""}
                deltas = [{"type": "text_delta", "text": piece} for piece in block.pieces]
            case ToolCallBlock():
                opening = {"type": "tool_use", "id": block.id or _tool_id(index), "name": block.name, "input": {}}
                deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *block.pieces)]
        events.append({"type": "content_block_start", "index": index, "content_block": opening})
        if index == 0:
            events.append({"type": "ping"})
        events.extend({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": _stop(answer), "stop_sequence": _stop_sequence(answer, call)}
    events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": usage["output_tokens"]}})
    terminal = len(events)
    events.append({"type": "message_stop", "amazon-bedrock-invocationMetrics": _metrics(answer, usage)})
    return tuple(chunk(compact(event), position) for position, event in enumerate(events)), terminal


def chunk(payload: bytes, position: int) -> bytes:
    """One ``chunk`` frame around a model's own JSON."""
    wrapped = {"bytes": base64.b64encode(payload).decode(), "p": padding(position)}
    return event_frame("chunk", compact(wrapped))


def _metrics(answer: Answer, usage: dict[str, Any]) -> dict[str, int]:
    metrics = {
        "inputTokenCount": usage["input_tokens"],
        "outputTokenCount": usage["output_tokens"],
        "invocationLatency": 412,
        "firstByteLatency": 97,
    }
    if answer.usage.cache_read or answer.usage.cache_write:
        metrics["cacheReadInputTokenCount"] = answer.usage.cache_read
        metrics["cacheWriteInputTokenCount"] = answer.usage.cache_write
    return metrics


def _usage(answer: Answer, call: Call) -> dict[str, Any]:
    tokens = answer.usage
    total = tokens.input if tokens.input is not None else max(1, count_tokens(call.everything))
    return {
        "input_tokens": total - tokens.cache_read - tokens.cache_write,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": tokens.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": tokens.output if tokens.output is not None else output_tokens(answer),
        "output_tokens_details": {"thinking_tokens": tokens.reasoning},
        "service_tier": "standard",
    }


def _stop(answer: Answer) -> str:
    return _STOPS.get(answer.finish, answer.finish)


def _stop_sequence(answer: Answer, call: Call) -> str | None:
    return call.stop[0] if answer.finish == "stop_sequence" and call.stop else None


def _tool_id(index: int) -> str:
    return f"toolu_bdrk_emulated{index:04d}"


def _model_name(model: str) -> str:
    return model.rpartition("anthropic.")[2].partition(":")[0]


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    return [text for block in list_of(content) if (text := text_of(mapping(block).get("text")))]


def _malformed(detail: str) -> Refusal:
    return Refusal(
        400, "ValidationException", f"Malformed input request: {detail}, please reformat your input and try again."
    )
