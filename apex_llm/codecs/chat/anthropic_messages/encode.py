"""Requests for Claude in its own format."""

from __future__ import annotations

__all__ = ["encode_request"]

from typing import Any

from apex_llm.codecs.bedrock_family import ClaudeTraits, bare_model_id, claude_traits
from apex_llm.codecs.chat._claude import claude_sampling, claude_thinking, claude_tool_choice
from apex_llm.codecs.chat._common import (
    conversation,
    json_schema_format,
    leave_out,
    merge_extra_body,
    tool_schema,
)
from apex_llm.codecs.chat._earlier_calls import tools_in_history
from apex_llm.codecs.chat.anthropic_messages.blocks import BlockWriter
from apex_llm.codecs.json_text import encode_json
from apex_llm.types.requests import ChatRequest
from apex_llm.types.tools import ToolChoice

_VERSION = "bedrock-2023-05-31"
_DEFAULT_MAX_TOKENS = 4096


def encode_request(request: ChatRequest, *, model: str) -> tuple[bytes, tuple[str, ...]]:
    """The JSON body and warnings.

    Args:
        request: What is asked.
        model: The id that tells the generation; usually the request's own.
    """
    warnings: list[str] = []
    traits = claude_traits(model)
    system, turns = conversation(
        request.messages, system_messages=traits is not None and traits.system_messages, warnings=warnings
    )
    switches = _thinking(request, traits, warnings)
    thinking = switches.get("thinking", {}).get("type") in {"enabled", "adaptive"}
    sampling = claude_sampling(request, traits, warnings, thinking=thinking)
    max_tokens = request.max_tokens
    if max_tokens is None:
        # The budget for thinking counts against max_tokens; the answer keeps its own.
        max_tokens = _DEFAULT_MAX_TOKENS + switches.get("thinking", {}).get("budget_tokens", 0)

    writer = BlockWriter(warnings)
    body: dict[str, Any] = {"anthropic_version": _VERSION, "max_tokens": max_tokens}
    if prompt := writer.system(system):
        body["system"] = prompt
    body["messages"] = writer.messages(turns)
    options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    body.update({name: value for name, value in options.items() if value is not None})
    if request.stop:
        body["stop_sequences"] = list(request.stop)

    history = {} if "tools" in (request.extra_body or {}) else tools_in_history(turns, vendor="anthropic")
    choice = claude_tool_choice(request, traits, warnings, thinking=thinking)
    body.update(_tools(request, choice, history, warnings))
    body.update(switches)
    if wanted := json_schema_format(request, warnings, format_name="Claude"):
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": wanted.schema}
    body.update(_metadata(request, warnings))
    if request.seed is not None:
        leave_out(warnings, "seed", "Claude has no such option")
    merge_extra_body(body, request.extra_body)
    return encode_json(body, what="The request"), tuple(warnings)


def _thinking(request: ChatRequest, traits: ClaudeTraits | None, warnings: list[str]) -> dict[str, Any]:
    if traits is not None:
        return claude_thinking(request, traits, warnings)
    if request.reasoning_effort is not None:
        leave_out(warnings, "reasoning_effort", f"{bare_model_id(request.model)} does not tell its generation")
    return {}


def _tools(
    request: ChatRequest, choice: ToolChoice | None, history: dict[str, bool], warnings: list[str]
) -> dict[str, Any]:
    """``tools`` and ``tool_choice``. A history with tool blocks needs tools, even where none may be called any more."""
    tools: list[dict[str, Any]] = []
    for tool in request.tools:
        spec: dict[str, Any] = {"name": tool.name}
        if tool.description:
            spec["description"] = tool.description
        spec["input_schema"] = tool_schema(tool)
        if tool.strict:
            spec["strict"] = True
        tools.append(spec)
    if not tools:
        names = [name for name, server_side in history.items() if not server_side]
        if not names:
            if request.extra_body is not None and "tools" in request.extra_body:
                return {"tool_choice": said} if (said := _choice(choice)) else {}
            if choice is not None and choice.mode == "required":
                leave_out(warnings, "tool_choice", "there are no tools")
            return {}
        warnings.append(f"added: tools without a schema for the tool calls of the history ({', '.join(names)})")
        description = "Called earlier in this conversation; not available any more."
        schema: dict[str, Any] = {"type": "object", "properties": {}}
        tools = [{"name": name, "description": description, "input_schema": schema} for name in names]
        choice = ToolChoice("none")
    said = _choice(choice)
    if request.parallel_tool_calls is not None and said.get("type") != "none":
        said = {**(said or {"type": "auto"}), "disable_parallel_tool_use": not request.parallel_tool_calls}
    return {"tools": tools, "tool_choice": said} if said else {"tools": tools}


def _choice(choice: ToolChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    if choice.mode == "tool":
        return {"type": "tool", "name": choice.name}
    return {"type": "any" if choice.mode == "required" else choice.mode}


def _metadata(request: ChatRequest, warnings: list[str]) -> dict[str, Any]:
    """Claude keeps a ``user_id`` and nothing else."""
    others = sorted(name for name in request.metadata or () if name != "user_id")
    if others:
        leave_out(warnings, f"metadata {', '.join(others)}", "Claude's format keeps only user_id")
    user_id = (request.metadata or {}).get("user_id")
    return {"metadata": {"user_id": user_id}} if user_id else {}
