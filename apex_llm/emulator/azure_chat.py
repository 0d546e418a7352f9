"""Azure OpenAI chat completions, the server's side: how a request is read and an answer is written.

Follows the OpenAPI document 2024-10-21 and recorded answers. What is
refused is ``azure_checks``'s business.
"""

from __future__ import annotations

__all__ = ["filter_error", "read_call", "write_response", "write_stream"]

from typing import Any

from apex_llm.emulator.answers import Answer, ReasoningBlock, TextBlock, ToolCallBlock
from apex_llm.emulator.azure_checks import Context
from apex_llm.emulator.converse import output_tokens, padding
from apex_llm.emulator.defaults import Call, ToolSpec, count_tokens
from apex_llm.emulator.wire import compact, data_event, list_of, mapping, text_of

_SAFE = {"filtered": False, "severity": "safe"}
_CATEGORIES = ("hate", "self_harm", "sexual", "violence")
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
    stop = body.get("stop")
    return Call(
        model=model,
        prompt=prompts[-1] if prompts else "",
        tool_result=" ".join(_texts(last)) if last.get("role") == "tool" else None,
        everything="\n".join(text for message in messages for text in _texts(message)),
        max_tokens=body.get("max_tokens") or body.get("max_completion_tokens"),
        stop=(stop,) if isinstance(stop, str) else tuple(list_of(stop)),
        tools=tuple(
            ToolSpec(text_of(function.get("name")), mapping(function.get("parameters")))
            for tool in list_of(body.get("tools"))
            if (function := mapping(mapping(tool).get("function")))
        ),
        forced_tool=forced,
        schema=schema,
    )


def write_response(answer: Answer, call: Call, *, context: Context) -> dict[str, Any]:
    """The body of an unstreamed answer."""
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
    message: dict[str, Any] = {
        "annotations": [],
        "content": text or (None if calls else ""),
        "refusal": None,
        "role": "assistant",
    }
    if calls:
        message["tool_calls"] = calls
    choice: dict[str, Any] = {
        "content_filter_results": _results(answer) if text or answer.filtered else {},
        "finish_reason": _stop(answer),
        "index": 0,
        "logprobs": None,
        "message": message,
    }
    return {
        "choices": [choice],
        "created": context.created,
        "id": "chatcmpl-Emulated0001",
        "model": _snapshot(context.model),
        "object": "chat.completion",
        "prompt_filter_results": _prompt_results(),
        "system_fingerprint": "fp_emulated00",
        "usage": _usage(answer, call),
    }


def write_stream(
    answer: Answer, call: Call, *, context: Context, options: dict[str, Any]
) -> tuple[tuple[bytes, ...], int]:
    """The server-sent events of a streamed answer, and the index of the chunk with the finish reason.

    Args:
        answer: What is said.
        call: What was asked.
        context: Model, version and time.
        options: The request's ``stream_options``.
    """
    chunks: list[dict[str, Any]] = []

    def add(delta: dict[str, Any], results: dict[str, Any] | None = None, finish: str | None = None) -> None:
        choice = {
            "content_filter_results": results or {},
            "delta": delta,
            "finish_reason": finish,
            "index": 0,
            "logprobs": None,
        }
        chunk: dict[str, Any] = {
            "choices": [choice],
            "created": context.created,
            "id": "chatcmpl-Emulated0001",
            "model": _snapshot(context.model),
            "object": "chat.completion.chunk",
            "system_fingerprint": "fp_emulated00",
        }
        if options.get("include_usage"):
            chunk["usage"] = None
        if options.get("include_obfuscation", True):
            chunk["obfuscation"] = padding(len(chunks))[:16]
        chunks.append(chunk)

    prompt = {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": _prompt_results(),
    }
    chunks.append(prompt)
    has_text = any(isinstance(block, TextBlock) for block in answer.blocks)
    add({"content": "" if has_text or not answer.blocks else None, "refusal": None, "role": "assistant"})
    tool_index = -1
    for index, block in enumerate(answer.blocks):
        match block:
            case ReasoningBlock():
                continue  # hidden on this wire; counted in the usage only
            case TextBlock():
                for piece in block.pieces:
                    add({"content": piece}, _safe())
            case ToolCallBlock():
                tool_index += 1
                function = {"name": block.name, "arguments": ""}
                opening = {
                    "index": tool_index,
                    "id": block.id or _call_id(index),
                    "type": "function",
                    "function": function,
                }
                add({"tool_calls": [opening]})
                for piece in block.pieces:
                    add({"tool_calls": [{"index": tool_index, "function": {"arguments": piece}}]})
    terminal = len(chunks)
    add({}, _results(answer) if answer.filtered else {}, _stop(answer))
    if options.get("include_usage"):
        chunks.append({**chunks[-1], "choices": list[Any](), "usage": _usage(answer, call)})
    events = [data_event(compact(chunk)) for chunk in chunks]
    events.append(data_event(b"[DONE]"))
    return tuple(events), terminal


def filter_error(category: str) -> dict[str, Any]:
    """Further members of the error for a blocked prompt."""
    found: dict[str, dict[str, Any]] = {name: dict(_SAFE) for name in _CATEGORIES}
    found["jailbreak"] = {"filtered": False, "detected": False}
    if category in _CATEGORIES:
        found[category] = {"filtered": True, "severity": "high"}
    else:
        found[category] = {"filtered": True, "detected": True}
    return {
        "type": None,
        "param": "prompt",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": found},
    }


def _stop(answer: Answer) -> str:
    return _STOPS.get(answer.finish, "stop")


def _safe() -> dict[str, Any]:
    return {name: dict(_SAFE) for name in _CATEGORIES}


def _results(answer: Answer) -> dict[str, Any]:
    results = _safe()
    results["protected_material_code"] = {"detected": False, "filtered": False}
    results["protected_material_text"] = {"detected": False, "filtered": False}
    if answer.filtered is not None:
        severity = answer.filtered in _CATEGORIES
        results[answer.filtered] = {"filtered": True, **({"severity": "high"} if severity else {"detected": True})}
    return results


def _prompt_results() -> list[dict[str, Any]]:
    return [
        {"prompt_index": 0, "content_filter_results": {**_safe(), "jailbreak": {"detected": False, "filtered": False}}}
    ]


def _usage(answer: Answer, call: Call) -> dict[str, Any]:
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


def _snapshot(model: str) -> str:
    return {"gpt-4o": "gpt-4o-2024-11-20", "gpt-4.1": "gpt-4.1-2025-04-14", "gpt-5-mini": "gpt-5-mini-2025-08-07"}.get(
        model, model
    )


def _call_id(index: int) -> str:
    return f"call_Emulated{index:04d}"


def _texts(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content] if content else []
    return [text for part in list_of(content) if (text := text_of(mapping(part).get("text")))]
