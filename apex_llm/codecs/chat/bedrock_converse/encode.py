"""Requests of Converse and ConverseStream."""

from __future__ import annotations

__all__ = ["encode_request"]

from typing import TYPE_CHECKING, Any

from apex_llm.codecs.chat._claude import Sampling, claude_sampling, claude_thinking, claude_tool_choice
from apex_llm.codecs.chat._common import (
    conversation,
    json_schema_format,
    leave_out,
    merge_extra_body,
    only_text,
    tool_schema,
)
from apex_llm.codecs.chat.bedrock_converse.families import Family, family_of, family_reasoning, family_top_k
from apex_llm.codecs.json_text import encode_json
from apex_llm.types.messages import CachePoint, Part, TextPart
from apex_llm.types.requests import ChatRequest
from apex_llm.types.tools import Tool, ToolChoice

if TYPE_CHECKING:
    from apex_llm.codecs.chat.bedrock_converse.blocks import BlockWriter


def encode_request(request: ChatRequest, *, model: str) -> tuple[bytes, tuple[str, ...]]:
    """The JSON body and warnings.

    Args:
        request: What is asked.
        model: The id that tells the family; usually the request's own.
    """
    if text := only_text(request):
        return _encode_text(text, request.max_tokens), ()
    # A first answer does without.
    from apex_llm.codecs.chat._earlier_calls import tools_in_history
    from apex_llm.codecs.chat.bedrock_converse.blocks import BlockWriter

    warnings: list[str] = []
    family = family_of(model)
    system, turns = conversation(
        request.messages,
        system_messages=family.claude is not None and family.claude.system_messages,
        warnings=warnings,
    )
    writer = BlockWriter(family, warnings)
    body: dict[str, Any] = {"messages": writer.messages(turns)}
    if blocks := _system_blocks(system, writer):
        body["system"] = blocks

    additional = _reasoning(request, family, warnings)
    thinking = bool(additional) and additional.get("thinking", {}).get("type") in {"enabled", "adaptive"}
    sampling = claude_sampling(request, family.claude, warnings, thinking=thinking)
    if inference := _inference_config(request, sampling, family, additional, warnings):
        body["inferenceConfig"] = inference
    if sampling.top_k is not None:
        additional.update(family_top_k(family, sampling.top_k, warnings))

    has_own_tools = request.extra_body is not None and "toolConfig" in request.extra_body
    history = {} if has_own_tools else tools_in_history(turns, vendor=family.vendor)
    if request.tools or request.tool_choice is not None or history:
        choice = claude_tool_choice(request, family.claude, warnings, thinking=thinking)
        if tool_config := _tool_config(request, choice, family, history, additional, warnings):
            body["toolConfig"] = tool_config

    if wanted := json_schema_format(request, warnings, format_name="Converse"):
        schema: dict[str, Any] = {"schema": encode_json(wanted.schema, what="response_format's schema").decode()}
        if wanted.name:
            schema["name"] = wanted.name
        if wanted.description:
            schema["description"] = wanted.description
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
    if additional:
        body["additionalModelRequestFields"] = additional
    if request.metadata:
        body["requestMetadata"] = dict(request.metadata)
    if request.seed is not None:
        leave_out(warnings, "seed", "Converse has no such option")
    merge_extra_body(body, request.extra_body)
    return encode_json(body, what="The request"), tuple(warnings)


def _encode_text(text: str, max_tokens: int | None) -> bytes:
    """What most requests are. For every family, the long way round comes to the same."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": text}]}]}
    if max_tokens is not None:
        body["inferenceConfig"] = {"maxTokens": max_tokens}
    return encode_json(body, what="The request")


def _system_blocks(system: list[Part], writer: BlockWriter) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for part in system:
        if isinstance(part, TextPart):
            if part.text.strip():
                blocks.append({"text": part.text})
        elif isinstance(part, CachePoint):
            # A point with nothing before it is refused.
            if blocks and writer.caches(part):
                blocks.append(writer.cache_point(part))
        else:
            leave_out(writer.warnings, type(part).__name__, "a system prompt of Converse is text and cache points")
    return blocks


def _reasoning(request: ChatRequest, family: Family, warnings: list[str]) -> dict[str, Any]:
    if request.reasoning_effort is None:
        return {}
    if family.claude is not None:
        return claude_thinking(request, family.claude, warnings)
    return family_reasoning(family, request.reasoning_effort, warnings)


def _inference_config(
    request: ChatRequest, sampling: Sampling, family: Family, additional: dict[str, Any], warnings: list[str]
) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if request.max_tokens is not None:
        config["maxTokens"] = request.max_tokens
    if sampling.temperature is not None:
        config["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        config["topP"] = sampling.top_p
    if config and additional and additional.get("reasoningConfig", {}).get("maxReasoningEffort") == "high":
        words = {"maxTokens": "max_tokens", "temperature": "temperature", "topP": "top_p"}
        for name in config:
            leave_out(warnings, words[name], f"{family.name} refuses it beside high reasoning effort")
        config.clear()
    if request.stop:
        config["stopSequences"] = list(request.stop)
    return config


def _tool_config(
    request: ChatRequest,
    choice: ToolChoice | None,
    family: Family,
    history: dict[str, bool],
    additional: dict[str, Any],
    warnings: list[str],
) -> dict[str, Any]:
    """``toolConfig``; switches that Converse has no word for go into ``additional``.

    A history with tool blocks needs ``toolConfig``, even where no tool may be called any more.
    """
    forbidden = choice is not None and choice.mode == "none"
    tools = [_tool(tool) for tool in request.tools]
    if history and not tools:
        tools = [_stub(name, server_side=server_side) for name, server_side in history.items()]
        warnings.append(f"added: tools without a schema for the tool calls of the history ({', '.join(history)})")
        forbidden = True
    has_own_tools = request.extra_body is not None and "toolConfig" in request.extra_body
    if not tools and choice is not None and choice.mode == "required" and not has_own_tools:
        leave_out(warnings, "tool_choice", "there are no tools")
    if not tools or (forbidden and not history):
        return {}
    config: dict[str, Any] = {"tools": tools}
    native: dict[str, Any] = {}
    if forbidden:
        native = {"type": "none"}
        if family.vendor != "anthropic" and choice is not None:
            leave_out(warnings, "tool_choice", f"{family.name} cannot be told to call no tool; ignore its calls")
    elif request.parallel_tool_calls is False:
        if family.vendor == "anthropic":
            native = {**_native_choice(choice), "disable_parallel_tool_use": True}
        else:
            leave_out(warnings, "parallel_tool_calls", f"{family.name} has no such switch in Converse")
    if native and family.vendor == "anthropic":
        # Converse refuses its own toolChoice beside this one.
        additional["tool_choice"] = native
    elif choice is not None and not forbidden and (said := _choice(choice, family, request, warnings)):
        config["toolChoice"] = said
    return config


def _tool(tool: Tool) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": tool.name}
    if tool.description:
        spec["description"] = tool.description
    spec["inputSchema"] = {"json": tool_schema(tool)}
    if tool.strict:
        spec["strict"] = True
    return {"toolSpec": spec}


def _stub(name: str, *, server_side: bool) -> dict[str, Any]:
    if server_side:
        return {"systemTool": {"name": name}}
    return {
        "toolSpec": {
            "name": name,
            "description": "Called earlier in this conversation; not available any more.",
            "inputSchema": {"json": {"type": "object", "properties": {}}},
        }
    }


def _native_choice(choice: ToolChoice | None) -> dict[str, Any]:
    """The choice in the words of Anthropic's own API."""
    if choice is None or choice.mode == "auto":
        return {"type": "auto"}
    return {"type": "any"} if choice.mode == "required" else {"type": "tool", "name": choice.name}


def _choice(choice: ToolChoice, family: Family, request: ChatRequest, warnings: list[str]) -> dict[str, Any]:
    if choice.mode == "auto":
        return {"auto": {}} if "auto" in family.tool_choices else {}
    if choice.mode in family.tool_choices:
        return {"any": {}} if choice.mode == "required" else {"tool": {"name": choice.name}}
    if "required" in family.tool_choices:
        if len(request.tools) > 1:
            warnings.append(f"changed: tool_choice {choice.name!r} was sent as 'required', all that {family.name} has")
        return {"any": {}}
    leave_out(warnings, "tool_choice", f"{family.name} cannot be forced to call a tool")
    return {}
