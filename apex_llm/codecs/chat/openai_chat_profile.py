"""What one endpoint of the OpenAI chat format can be told: by api-version and by model.

Source: the change lists of Azure OpenAI's api-versions. Months between the documented GA
versions may be off by one preview, so the limits here err on the side of sending.
"""

from __future__ import annotations

__all__ = ["DISPENSABLE", "OpenAIChatProfile", "is_reasoning_model", "profile_for"]

import functools
from typing import Final, Literal

import msgspec

from apex_llm.codecs.lazy_pattern import LazyPattern


class OpenAIChatProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The abilities of one endpoint; the default is the newest form of the format."""

    body_model: bool = True
    """Whether the body names the model; on dated deployments the path does."""
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"  # noqa: S105 - these are counted
    stream_flag: bool = True
    """Whether ``"stream": true`` is sent; elsewhere the path says so."""
    stream_options: bool = True
    """Whether the last chunk can be asked for the usage."""
    tools: bool = True
    strict_tools: bool = True
    parallel_tool_calls: bool = True
    content_parts: bool = True
    """Whether content may be a list of parts; images need it."""
    files: bool = True
    """Audio and documents."""
    json_object: bool = True
    json_schema: bool = True
    seed: bool = True
    metadata: bool = True
    reasoning_effort: bool = True
    sampling: bool = True
    """Whether ``temperature`` and ``top_p`` are taken; reasoning models refuse them."""
    api_version: str | None = None
    """For hints."""

    def without(self, refused: frozenset[str]) -> OpenAIChatProfile:
        """The profile, less those of ``DISPENSABLE`` that a deployment was seen to refuse."""
        profile = self
        if "max_tokens" in refused:
            profile = msgspec.structs.replace(profile, token_limit="max_completion_tokens")  # noqa: S106 - these are counted
        elif "max_completion_tokens" in refused:
            profile = msgspec.structs.replace(profile, token_limit="max_tokens")  # noqa: S106 - these are counted
        if "stream_options" in refused:
            profile = msgspec.structs.replace(profile, stream_options=False)
        if refused & {"temperature", "top_p"}:
            profile = msgspec.structs.replace(profile, sampling=False)
        if "parallel_tool_calls" in refused:
            profile = msgspec.structs.replace(profile, parallel_tool_calls=False)
        return profile


DISPENSABLE: Final = (
    "max_tokens",
    "max_completion_tokens",
    "stream_options",
    "temperature",
    "top_p",
    "parallel_tool_calls",
)
"""Members that a deployment may refuse without the call losing its sense: said otherwise, or left out."""

_DATED: Final = LazyPattern(r"\d{4}-\d{2}-\d{2}")
_REASONING: Final = LazyPattern(r"(?:o\d|gpt-(?:[5-9]|1\d)(?!\d)|codex|computer-use|chat-latest|gpt-chat-latest)")
_NOT_REASONING: Final = LazyPattern(r"gpt-5-chat")
_OLD: Final = LazyPattern(r"gpt-(?:3|4)")


def is_reasoning_model(model: str) -> bool:
    """Whether ``model`` (a model's name, not a deployment's) thinks before it answers, as its name tells."""
    name = _bare(model)
    return _REASONING.match(name) is not None and _NOT_REASONING.match(name) is None


@functools.lru_cache(maxsize=512)  # pure: the same few deployments, call after call
def profile_for(api_version: str | None, model: str | None) -> OpenAIChatProfile:
    """What to send to this api-version and model.

    Args:
        api_version: A dated version such as ``2024-10-21`` or ``2025-04-01-preview``, which
            implies a deployment in the path; ``None``, ``"v1"``, ``"preview"`` and ``"latest"`` mean v1.
        model: The model behind the deployment (``gpt-4o``, ``o3-mini``); ``None`` where it is not known.
    """
    profile = _for_version(api_version)
    if model is None:
        return profile
    if is_reasoning_model(model):
        # Reasoning models refuse max_tokens on every version; where max_completion_tokens is
        # not known either, the service says so better than we could.
        return msgspec.structs.replace(profile, sampling=False, token_limit="max_completion_tokens")  # noqa: S106
    if _OLD.match(_bare(model)):
        return msgspec.structs.replace(profile, reasoning_effort=False)
    return profile


def _for_version(api_version: str | None) -> OpenAIChatProfile:
    if api_version is None or api_version.lower() in ("", "v1", "preview", "latest"):
        return OpenAIChatProfile()
    match = _DATED.match(api_version)
    if match is None:
        return OpenAIChatProfile(body_model=False, api_version=api_version)
    date = match.group()
    return OpenAIChatProfile(
        body_model=False,
        token_limit="max_completion_tokens" if date >= "2024-09-01" else "max_tokens",
        stream_options=date >= "2024-09-01",
        tools=date >= "2023-12-01",
        strict_tools=date >= "2024-08-01",
        parallel_tool_calls=date >= "2024-09-01",
        content_parts=date >= "2023-12-01",
        files=date >= "2025-01-01",
        json_object=date >= "2023-12-01",
        json_schema=date >= "2024-08-01",
        seed=date >= "2023-12-01",
        metadata=date >= "2024-12-01",
        reasoning_effort=date >= "2024-12-01",
        api_version=api_version,
    )


def _bare(model: str) -> str:
    return model.rpartition("/")[2].lower().removeprefix("openai.")
