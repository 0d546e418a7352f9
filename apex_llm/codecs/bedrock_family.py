"""What a Bedrock model id tells: the model behind it, its vendor, and the generation of a Claude.

Pure text work; ids that only the control plane can resolve (application profiles, provisioned
throughput, imported models, prompts, routers) stay as they are and have no vendor. The rules per
generation follow AWS's model cards and what the service refused in practice.
"""

from __future__ import annotations

__all__ = ["ClaudeTraits", "bare_model_id", "claude_traits", "claude_version", "vendor"]

import functools
from typing import Literal

import msgspec

from apex_llm.codecs.lazy_pattern import LazyPattern

_GEOGRAPHIES = frozenset({"us", "eu", "apac", "jp", "au", "ca", "in", "global", "us-gov"})
_TRANSPARENT_RESOURCES = frozenset({"foundation-model", "inference-profile", "custom-model"})
_CONTEXT_SUFFIX = LazyPattern(r"(:\d+):\w+$")


@functools.lru_cache(maxsize=512)  # pure, and asked for several times by every call
def bare_model_id(model_id: str) -> str:
    """The foundation model's id: no ARN around it, no geography before it, no context suffix after it.

    ``us.anthropic.claude-opus-4-6-v1`` gives ``anthropic.claude-opus-4-6-v1``. An ARN that does not
    name its model is given back unchanged.
    """
    bare = model_id
    if model_id.startswith("arn:"):
        resource = model_id.split(":", 5)[-1]
        kind, _, rest = resource.partition("/")
        if kind not in _TRANSPARENT_RESOURCES or not rest:
            return model_id
        bare = rest.partition("/")[0] if kind == "custom-model" else rest
    first, dot, after = bare.partition(".")
    if dot and first in _GEOGRAPHIES and "." in after:
        bare = after
    return _CONTEXT_SUFFIX.sub(r"\1", bare) if bare.count(":") > 1 else bare


def vendor(model_id: str) -> str:
    """Who made the model: ``anthropic``, ``amazon``, ``meta``, …; empty where the id does not say."""
    bare = bare_model_id(model_id)
    if bare.startswith("arn:"):
        return ""
    name, dot, _ = bare.partition(".")
    if dot:
        return name
    # Anthropic's own API and other clouds write the same models without the vendor.
    return "anthropic" if bare.startswith("claude-") else ""


class ClaudeTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What one generation of Claude takes, where the generations differ."""

    thinking: Literal["none", "budget", "adaptive"]
    """Whether thinking is asked for by a budget of tokens, by an effort, or not at all."""
    efforts: tuple[str, ...] = ()
    """Values of ``output_config.effort``, from little to much."""
    off: str | None = None
    """``thinking.type`` that switches thinking off; ``None`` where leaving it out does, or nothing does."""
    always_thinks: bool = False
    sampling: bool = True
    """Whether ``temperature``, ``top_p`` and ``top_k`` are taken."""
    temperature_with_top_p: bool = True
    forced_tools: Literal["yes", "without_thinking", "no"] = "yes"
    """Whether ``tool_choice`` may force a call."""
    system_messages: bool = False
    """Whether a system message may stand in the middle of the conversation."""


_NEW_STYLE = LazyPattern(r"claude-([a-z]+)-(\d{1,2})(?:-(\d{1,2}))?(?=[-:@]|$)")
_OLD_STYLE = LazyPattern(r"claude-(\d)(?:-(\d))?(?=[-:@]|$)")
_LEGACY = LazyPattern(r"claude-(?:v\d|instant|2)")

_EFFORTS = ("low", "medium", "high", "max")
_EFFORTS_WITH_XHIGH = ("low", "medium", "high", "xhigh", "max")


def claude_version(model_id: str) -> tuple[str, int, int] | None:
    """Tier, major and minor of a Claude: ``("sonnet", 4, 5)``; ``None`` where the id does not say.

    Unnumbered previews count as the newest generation.
    """
    bare = bare_model_id(model_id)
    if vendor(bare) != "anthropic":
        return None
    name = bare.rpartition(".")[2]
    if match := _NEW_STYLE.match(name):
        return match[1], int(match[2]), int(match[3] or 0)
    if match := _OLD_STYLE.match(name):
        return "claude", int(match[1]), int(match[2] or 0)
    if _LEGACY.match(name):
        return "claude", 2, 0
    return name.removeprefix("claude-").partition("-")[0], 99, 0


@functools.lru_cache(maxsize=512)
def claude_traits(model_id: str) -> ClaudeTraits | None:
    """What this Claude takes; ``None`` where the id is not that of a Claude."""
    parsed = claude_version(model_id)
    if parsed is None:
        return None
    tier, *numbers = parsed
    version = tuple(numbers)
    if version < (3, 7):
        return ClaudeTraits(thinking="none")
    if version < (4, 6):
        return ClaudeTraits(
            thinking="budget",
            temperature_with_top_p=not (version == (4, 5) and tier in {"sonnet", "haiku"}),
            forced_tools="without_thinking",
        )
    if version < (4, 7):
        return ClaudeTraits(thinking="adaptive", efforts=_EFFORTS, off="disabled", forced_tools="without_thinking")
    always_thinks = (tier, *version) in {("opus", 5, 5), ("fable", 5, 1)}
    never_forced = always_thinks or (tier, *version) == ("sonnet", 5, 5)
    off = "between_tools" if (tier, *version) == ("sonnet", 5, 5) else "disabled"
    return ClaudeTraits(
        thinking="adaptive",
        efforts=_EFFORTS_WITH_XHIGH,
        off=None if always_thinks else off,
        always_thinks=always_thinks,
        sampling=False,
        forced_tools="no" if never_forced else "without_thinking" if version == (4, 7) else "yes",
        system_messages=version >= (4, 8),
    )
