"""What Azure OpenAI refuses in a chat request: unknown members, by version; values; order of messages.

The words are those of public error reports. Addresses and keys are ``azure``'s business.
"""

from __future__ import annotations

__all__ = ["Context", "check_request"]

import re
from typing import Any

import msgspec

from apex_llm.emulator.wire import Refusal, list_of, mapping, text_of

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
_TYPES: dict[str, Any] = {
    "messages": list,
    "response_format": dict,
    "stop": (str, list),
    "stream": bool,
    "stream_options": dict,
    "tool_choice": (str, dict),
    "tools": list,
}
_ROLES = frozenset({"assistant", "developer", "function", "system", "tool", "user"})


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What the address of a call says about it."""

    model: str
    """The model behind the deployment, such as ``gpt-4o``."""
    version: str
    """The dated api-version, or ``"v1"``."""
    created: int
    """Seconds since the epoch."""
    choices: int = 1
    """How many choices were asked for."""


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
    for name, kind in _TYPES.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise _invalid(f"Invalid type for '{name}'.", param=name, code="invalid_type")
    _in_range(body, "temperature", 0, 2)
    _in_range(body, "top_p", 0, 1)
    for name in ("max_tokens", "max_completion_tokens"):
        _in_range(body, name, 1, None)
    _in_range(body, "n", 1, 128)
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
        if not isinstance(role, str) or role not in _ROLES:
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
