"""Azure OpenAI chat completions, the server's side: what is accepted, and how an answer is written.

Follows the OpenAPI document 2024-10-21 and recorded answers. Addresses, versions and keys
are ``azure``'s business.
"""

from __future__ import annotations

__all__ = ["check_request", "read_call", "write_response", "write_stream"]

import re
from typing import Any

import msgspec

from apex_llm.emulator.answers import Answer, ReasoningBlock, TextBlock, ToolCallBlock
from apex_llm.emulator.converse import output_tokens, padding
from apex_llm.emulator.defaults import Call, ToolSpec, count_tokens
from apex_llm.emulator.wire import Refusal, compact, data_event, list_of, mapping, text_of

_FIRST_MEMBERS = frozenset({
    "frequency_penalty", "logit_bias", "max_tokens", "messages", "model", "n", "presence_penalty", "stop", "stream",
    "temperature", "top_p", "user",
})  # fmt: skip
# Members, and the api-version from which on they are known.
_LATER_MEMBERS = {
    "2023-07-01": ("function_call", "functions"),
    "2023-12-01": ("response_format", "seed", "tool_choice", "tools"),
    "2024-02-01": ("data_sources", "enhancements"),
    "2024-02-15": ("logprobs", "top_logprobs"),
    "2024-09-01": ("max_completion_tokens", "parallel_tool_calls", "stream_options"),
    "2024-12-01": ("metadata", "reasoning_effort", "store", "user_security_context"),
    "2025-01-01": ("audio", "modalities", "prediction"),
}
_V1_MEMBERS = (
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "verbosity",
    "web_search_options",
)
_REASONING_MODEL = re.compile(r"(gpt-5|gpt-6|o\d)")
_FIXED_SAMPLING = (
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "presence_penalty",
    "temperature",
    "top_logprobs",
    "top_p",
)
_ROLES = frozenset({"assistant", "developer", "function", "system", "tool", "user"})
_SAFE = {"filtered": False, "severity": "safe"}
_CATEGORIES = ("hate", "self_harm", "sexual", "violence")
_STOPS = {
    "tool_calls": "tool_calls",
    "length": "length",
    "content_filter": "content_filter",
    "context_window": "length",
}


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What the address of a call says about it."""

    model: str
    """The model behind the deployment, such as ``gpt-4o``."""
    version: str
    """The dated api-version, or ``"v1"``."""
    created: int
    """Seconds since the epoch."""


def check_request(body: dict[str, Any], *, context: Context) -> None:
    """Refuse what the service refuses.

    Raises:
        Refusal: With status 400 and the service's words.
    """
    known = set(_FIRST_MEMBERS)
    for since, members in _LATER_MEMBERS.items():
        if context.version == "v1" or context.version[:10] >= since:
            known.update(members)
    if context.version == "v1" or context.version[:10] >= "2025-01-01":
        known.update(_V1_MEMBERS)
    unknown = [name for name in body if name not in known]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        raise _invalid(f"Unrecognized request argument{plural} supplied: {', '.join(unknown)}")
    if _REASONING_MODEL.match(context.model):
        _check_reasoning_model(body)
    _in_range(body, "temperature", 0, 2)
    _in_range(body, "top_p", 0, 1)
    for name in ("max_tokens", "max_completion_tokens"):
        _in_range(body, name, 1, None)
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise _invalid("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    _check_messages(body)
    if body.get("stream_options") is not None and not body.get("stream"):
        raise _invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    if "tool_choice" in body and not body.get("tools"):
        raise _invalid("'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    if "tools" in body and not list_of(body["tools"]):
        raise _invalid("[] is too short - 'tools'", param="tools")
    kind = mapping(body.get("response_format")).get("type")
    if kind == "json_schema" and context.version != "v1" and context.version[:10] < "2024-08-01":
        raise Refusal(
            400,
            "BadRequest",
            "response_format value as json_schema is enabled only for api versions 2024-08-01-preview and later",
        )


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


def _check_reasoning_model(body: dict[str, Any]) -> None:
    if "max_tokens" in body:
        raise Refusal(
            400,
            "unsupported_parameter",
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            type="invalid_request_error",
            param="max_tokens",
        )
    for name in _FIXED_SAMPLING:
        if body.get(name) is None or (name in {"temperature", "top_p"} and body[name] == 1):
            continue
        if name == "temperature":
            raise Refusal(
                400,
                "unsupported_value",
                f"Unsupported value: 'temperature' does not support {body[name]} with this model. "
                "Only the default (1) value is supported.",
                type="invalid_request_error",
                param=name,
            )
        raise Refusal(
            400,
            "unsupported_parameter",
            f"Unsupported parameter: '{name}' is not supported with this model.",
            type="invalid_request_error",
            param=name,
        )


def _check_messages(body: dict[str, Any]) -> None:
    if "messages" not in body:
        raise _invalid("Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter")
    messages = list_of(body["messages"])
    if not messages:
        raise _invalid("[] is too short - 'messages'", param="messages")
    waiting: set[str] = set()
    for index, item in enumerate(messages):
        message = mapping(item)
        role = message.get("role")
        if role not in _ROLES:
            raise _invalid(
                f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', "
                "'function', 'tool', and 'developer'.",
                param=f"messages[{index}].role",
                code="invalid_value",
            )
        if role == "tool":
            identifier = text_of(message.get("tool_call_id"))
            if identifier not in waiting:
                raise _invalid(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding "
                    "message with 'tool_calls'.",
                    param=f"messages.[{index}].role",
                )
            waiting.discard(identifier)
            continue
        if waiting:
            break
        waiting = {text_of(mapping(call).get("id")) for call in list_of(message.get("tool_calls"))}
        if message.get("content") is None and not waiting and not message.get("function_call"):
            raise _invalid(
                "Invalid value for 'content': expected a string, got null.", param=f"messages.[{index}].content"
            )
    if waiting:
        raise _invalid(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. "
            f"The following tool_call_ids did not have response messages: {', '.join(sorted(waiting))}",
            param="messages",
        )


def _in_range(body: dict[str, Any], name: str, low: float, high: float | None) -> None:
    number = body.get(name)
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _invalid(f"Invalid type for '{name}': expected a number.", param=name, code="invalid_type")
    if number < low:
        raise _invalid(
            f"{number} is less than the minimum of {low} - '{name}'", param=name, code="integer_below_min_value"
        )
    if high is not None and number > high:
        raise _invalid(
            f"{number} is greater than the maximum of {high} - '{name}'", param=name, code="decimal_above_max_value"
        )


def _invalid(message: str, *, param: str | None = None, code: str = "") -> Refusal:
    return Refusal(400, code, message, type="invalid_request_error", param=param)


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
