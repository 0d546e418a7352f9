"""Where the model families behind Converse differ: options that Converse has no word for.

Sources: the members that Bedrock accepted in recorded requests, and AWS's parameter pages. Families
are told by the bare model id; where it tells nothing, nothing family-specific is sent.
"""

from __future__ import annotations

__all__ = ["Family", "family_of", "family_reasoning", "family_top_k"]

import functools
from typing import Any

import msgspec

from apex_llm.codecs.bedrock_family import ClaudeTraits, bare_model_id, claude_traits, vendor
from apex_llm.codecs.chat._common import check_effort, leave_out, nearest_effort

_ALL_CHOICES = frozenset({"auto", "required", "tool"})
_AUTO_OR_ANY = frozenset({"auto", "required"})


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One model's family and what follows from it."""

    id: str
    """The bare model id."""
    vendor: str
    """Empty where the id does not say."""
    claude: ClaudeTraits | None
    tool_choices: frozenset[str]
    """Modes that may be sent; ``auto`` is every model's default."""
    caches: bool
    """Whether cache points may be sent."""
    cites: bool
    """Whether citations may be sent back."""
    replays_reasoning: bool
    """Whether reasoning may be sent back."""

    @property
    def name(self) -> str:
        """For warnings."""
        return self.id or "this model"


@functools.lru_cache(maxsize=512)  # pure, and the same few models call after call
def family_of(model: str) -> Family:
    """The family behind a model id or ARN."""
    bare, maker = bare_model_id(model), vendor(model)
    is_claude = maker == "anthropic"
    return Family(
        id=bare,
        vendor=maker,
        claude=claude_traits(bare),
        tool_choices=_tool_choices(bare, maker),
        caches=is_claude or not maker or bare.startswith("amazon.nova"),
        cites=is_claude or not maker,
        replays_reasoning=is_claude or maker in {"", "deepseek"},
    )


def _tool_choices(bare: str, maker: str) -> frozenset[str]:
    if maker in {"meta", "writer"} or bare.startswith("mistral.pixtral"):
        return frozenset()
    if maker in {"mistral", "deepseek", "zai"}:
        return _AUTO_OR_ANY
    return _ALL_CHOICES


def family_top_k(family: Family, top_k: int, warnings: list[str]) -> dict[str, Any]:
    """``top_k`` under the family's own name; an unknown member would be refused, so it is left out there."""
    if family.vendor == "anthropic":
        return {"top_k": top_k}
    if family.id.startswith("amazon.nova"):
        return {"inferenceConfig": {"topK": top_k}}
    if family.id.startswith(("mistral.mistral-7b", "mistral.mixtral")):
        return {"top_k": top_k}
    if family.id.startswith("cohere.command"):
        return {"k": top_k}
    leave_out(warnings, "top_k", f"{family.name} has no such option in Converse")
    return {}


def family_reasoning(family: Family, effort: str, warnings: list[str]) -> dict[str, Any]:
    """The effort in the family's own words, for families other than Claude."""
    check_effort(effort)
    bare, maker = family.id, family.vendor
    if bare.startswith("openai.gpt-oss"):
        return {"reasoning_effort": nearest_effort(effort, ("low", "medium", "high"), warnings)}
    if maker in {"openai", "xai"}:
        efforts = ("none", "minimal", "low", "medium", "high", "xhigh")
        return {"reasoning": {"effort": nearest_effort(effort, efforts, warnings)}}
    if bare.startswith("qwen.qwen3"):
        return {"reasoning_config": nearest_effort(effort, ("none", "low", "high"), warnings)}
    if bare.startswith("deepseek.v3") or maker == "zai":
        return {"reasoning_effort": nearest_effort(effort, ("none", "high"), warnings)}
    if bare.startswith("amazon.nova-2"):
        if effort == "none":
            return {"reasoningConfig": {"type": "disabled"}}
        chosen = nearest_effort(effort, ("low", "medium", "high"), warnings)
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": chosen}}
    always_thinks = bare.startswith(("deepseek.r1", "moonshot.kimi-k2-thinking"))
    if effort != "none" or always_thinks:
        leave_out(warnings, "reasoning_effort", f"{family.name} has no such switch in Converse")
    return {}
