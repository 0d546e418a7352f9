"""What both ways to Claude must know of its generations: sampling, thinking, forced tools.

The members are those of Anthropic's Messages API; Converse carries the ones it has no word for in
``additionalModelRequestFields``, under the same names.
"""

from __future__ import annotations

__all__ = ["Sampling", "claude_sampling", "claude_thinking", "claude_tool_choice"]

from typing import Any

import msgspec

from apex_llm.codecs.bedrock_family import ClaudeTraits, bare_model_id
from apex_llm.codecs.chat._common import check_effort, leave_out, nearest_effort
from apex_llm.types.requests import ChatRequest
from apex_llm.types.tools import ToolChoice

_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32000}
_LEAST_BUDGET = 1024


def claude_thinking(request: ChatRequest, traits: ClaudeTraits, warnings: list[str]) -> dict[str, Any]:
    """The ``thinking`` and ``output_config`` members for the effort that was asked for; empty without one."""
    effort = request.reasoning_effort
    if effort is None:
        return {}
    check_effort(effort)
    if effort == "none":
        if traits.always_thinks:
            leave_out(warnings, "reasoning_effort", f"{bare_model_id(request.model)} always thinks")
        return {} if traits.off is None else {"thinking": {"type": traits.off}}
    if traits.thinking == "adaptive":
        chosen = nearest_effort(effort, traits.efforts, warnings)
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": chosen}}
    if traits.thinking == "none":
        leave_out(warnings, "reasoning_effort", f"{bare_model_id(request.model)} does not think")
        return {}
    budget = _BUDGETS[effort]
    if request.max_tokens is not None and budget > request.max_tokens // 2:
        # The budget is part of max_tokens: half of it is left for the answer.
        budget = max(request.max_tokens // 2, _LEAST_BUDGET)
        if budget >= request.max_tokens:
            leave_out(warnings, "reasoning_effort", f"thinking needs max_tokens above {_LEAST_BUDGET}")
            return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


class Sampling(msgspec.Struct, frozen=True):
    """What is left of the sampling parameters."""

    temperature: float | None
    top_p: float | None
    top_k: int | None


def claude_sampling(
    request: ChatRequest, traits: ClaudeTraits | None, warnings: list[str], *, thinking: bool
) -> Sampling:
    """The sampling parameters that this Claude takes.

    Args:
        request: What was asked.
        traits: ``None`` where the generation is not known: then everything is sent.
        warnings: Told what was left out.
        thinking: Whether thinking was switched on in this request.
    """
    temperature, top_p, top_k = request.temperature, request.top_p, request.top_k
    if traits is None or (temperature is None and top_p is None and top_k is None):
        return Sampling(temperature, top_p, top_k)
    name = bare_model_id(request.model)
    if not traits.sampling:
        reason = f"{name} takes no sampling parameters"
        for option, value in (("temperature", temperature), ("top_p", top_p), ("top_k", top_k)):
            if value is not None:
                leave_out(warnings, option, reason)
        return Sampling(None, None, None)
    if thinking:
        reason = f"{name} does not take it while it thinks"
        if temperature is not None and temperature != 1:
            leave_out(warnings, "temperature", reason)
            temperature = None
        if top_p is not None and top_p < 0.95:
            leave_out(warnings, "top_p", reason)
            top_p = None
        if top_k is not None:
            leave_out(warnings, "top_k", reason)
            top_k = None
    if not traits.temperature_with_top_p and temperature is not None and top_p is not None:
        leave_out(warnings, "top_p", f"{name} does not take it beside temperature")
        top_p = None
    return Sampling(temperature, top_p, top_k)


def claude_tool_choice(
    request: ChatRequest, traits: ClaudeTraits | None, warnings: list[str], *, thinking: bool
) -> ToolChoice | None:
    """The tool choice, softened to ``auto`` where this Claude refuses to be forced."""
    choice = request.tool_choice
    if choice is None or traits is None or choice.mode not in {"required", "tool"} or traits.forced_tools == "yes":
        return choice
    if traits.forced_tools == "no" or thinking:
        name = bare_model_id(request.model)
        when = "" if traits.forced_tools == "no" else " while it thinks"
        leave_out(warnings, "tool_choice", f"{name} cannot be forced to call a tool{when}")
        return ToolChoice("auto")
    return choice
