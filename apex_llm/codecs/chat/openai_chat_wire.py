"""What is read from OpenAI chat answers and chunks: the wire's own shapes, and their meaning.

Sources: the Azure OpenAI document of 2024-10-21, recorded answers of Azure, OpenAI, DeepSeek
on Azure and Bedrock's OpenAI-compatible hosts. Services write ``null`` for anything, so every
member may be missing or null; members that are not read are not named.
"""

from __future__ import annotations

__all__ = [
    "NOTHING",
    "Answer",
    "Chunk",
    "Delta",
    "Function",
    "Particulars",
    "ToolCallDelta",
    "add_particulars",
    "arguments_text",
    "citation_of",
    "custom_call_of",
    "finding",
    "finish_reason_of",
    "prompt_findings",
    "reasoning_text",
    "text_of",
    "usage_of",
]

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

import msgspec

from apex_llm.codecs.failure_details import as_mapping, flagged_categories
from apex_llm.types.events import ContentFiltered
from apex_llm.types.messages import CitationPart
from apex_llm.types.responses import FinishReason, Usage

Content: TypeAlias = str | list[Any] | None
"""Text; Mistral's models give a list of parts."""
NOTHING: Final = msgspec.Raw()
Thought: TypeAlias = str | dict[str, Any] | list[Any] | None


class Function(msgspec.Struct, gc=False):
    """Name and arguments of a tool call, or pieces of them."""

    name: str | None = None
    arguments: str | dict[str, Any] | list[Any] | None = None
    """JSON text; some compatible servers give the value itself."""


class ToolCallDelta(msgspec.Struct, gc=False):
    """A tool call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None
    custom: dict[str, Any] | None = None
    """Of a custom tool, whose input is text and not JSON."""


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds to a choice, and, in whole answers, the message."""

    content: Content = None
    tool_calls: list[ToolCallDelta] | None = None
    reasoning_content: Thought = None
    """DeepSeek and others."""
    reasoning: Thought = None
    """The same on Bedrock's OpenAI-compatible host."""
    refusal: str | None = None
    function_call: Function | None = None
    """The deprecated form of tool calls."""
    context: dict[str, Any] | None = None
    """Citations of Azure's own-data search."""
    annotations: list[dict[str, Any] | None] | None = None
    """Citations of a web search."""
    audio: dict[str, Any] | None = None
    """A spoken answer."""


class Choice(msgspec.Struct, gc=False):
    """One of the answers; in Azure's asynchronous filter mode it may hold annotations only."""

    index: int | None = None
    delta: Delta | None = None
    message: Delta | None = None
    """The whole answer, from gateways that only seem to stream."""
    finish_reason: str | None = None
    content_filter_results: msgspec.Raw = NOTHING
    """Not parsed: Azure repeats the same bytes with every piece of text."""
    content_filter_offsets: msgspec.Raw = NOTHING
    """Of the asynchronous filter: which text it speaks of."""
    logprobs: dict[str, Any] | None = None


class Particulars(msgspec.Struct, gc=False):
    """What stands beside the choices, and is the same or missing in most chunks: looked for in the first and last."""

    service_tier: str | None = None
    system_fingerprint: str | None = None
    moderation: Any = None
    metadata: Any = None


class Chunk(msgspec.Struct, gc=False):
    """One ``chat.completion.chunk``. Its ``obfuscation`` is padding and is not read."""

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")
    prompt_filter_results: Any = None
    prompt_annotations: Any = None
    """The name before 2023-07."""
    error: Any = None


class AnswerChoice(msgspec.Struct):
    """One of the answers, whole."""

    index: int | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    content_filter_results: Any = None
    content_filter_result: Any = None
    logprobs: dict[str, Any] | None = None


class Answer(Particulars):
    """A ``chat.completion``."""

    id: str | None = None
    model: str | None = None
    choices: list[AnswerChoice] | None = None
    usage: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = msgspec.field(default=None, name="amazon-bedrock-invocationMetrics")
    prompt_filter_results: Any = None
    prompt_annotations: Any = None
    error: Any = None


_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    # Compatible servers: Mistral, and models behind Bedrock.
    "model_length": FinishReason.CONTEXT_WINDOW,
    "end_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
}


def finish_reason_of(raw: str | None, *, has_calls: bool, refused: bool) -> FinishReason:
    """The common word for a finish reason.

    A named ``tool_choice`` makes OpenAI answer ``stop`` beside tool calls; callers who wait
    for calls must still see them.
    """
    reason = _FINISH_REASONS.get(raw or "", FinishReason.UNKNOWN)
    if reason is FinishReason.STOP:
        if has_calls:
            return FinishReason.TOOL_CALLS
        if refused:
            return FinishReason.REFUSAL
    return reason


def text_of(content: Content) -> str:
    """The text of a content member; of a list, that of its text parts."""
    if isinstance(content, str):
        return content
    return "".join(_part_text(part, "text") for part in content or ())


def reasoning_text(delta: Delta) -> str:
    """The thinking, under any of its names."""
    for thought in (delta.reasoning_content, delta.reasoning):
        if isinstance(thought, str) and thought:
            return thought
    if isinstance(delta.content, list):
        return "".join(_part_text(part, "thinking") for part in delta.content)
    return ""


def _part_text(part: Any, kind: str) -> str:
    members = as_mapping(part)
    if members.get("type") != kind:
        return part if kind == "text" and isinstance(part, str) else ""
    value: Any = members.get(kind)
    if isinstance(value, list):
        return "".join(_part_text(item, "text") for item in cast("list[Any]", value))
    return value if isinstance(value, str) else ""


def citation_of(annotation: Mapping[str, Any]) -> CitationPart:
    """A source of a web search; the annotation itself stays as the location."""
    details = as_mapping(annotation.get(str(annotation.get("type")))) or annotation
    title, url = details.get("title"), details.get("url")
    return CitationPart(
        title=title if isinstance(title, str) and title else None,
        source=url if isinstance(url, str) and url else None,
        location=annotation,
    )


def custom_call_of(call: ToolCallDelta) -> dict[str, Any]:
    """A call of a custom tool as the service writes it: our own calls have JSON for arguments, this one has text."""
    return {"id": call.id, "type": "custom", "custom": {**(call.custom or {})}}


def add_particulars(source: Particulars, extra: dict[str, Any]) -> None:
    """Add what the answer says of itself, under the service's own names."""
    if source.service_tier:
        extra["service_tier"] = source.service_tier
    if source.system_fingerprint:
        extra["system_fingerprint"] = source.system_fingerprint
    if source.moderation:
        extra["moderation"] = source.moderation
    if source.metadata:
        extra["metadata"] = source.metadata


def arguments_text(arguments: str | dict[str, Any] | list[Any] | None) -> str:
    """Tool arguments as JSON text."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()


def usage_of(usage: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None = None) -> Usage | None:
    """The token counts; ``prompt_tokens`` is the total already. Bedrock's own metrics where there is nothing else."""
    if usage and ("prompt_tokens" in usage or "completion_tokens" in usage):
        read = written = thought = None
        if prompt := usage.get("prompt_tokens_details"):
            prompt = as_mapping(prompt)
            read, written = prompt.get("cached_tokens"), prompt.get("cache_write_tokens")
        if completion := usage.get("completion_tokens_details"):
            thought = as_mapping(completion).get("reasoning_tokens")
        return Usage(
            input_tokens=_count(usage.get("prompt_tokens")),
            output_tokens=_count(usage.get("completion_tokens")),
            cache_read_tokens=(_count(read) if read else 0) or _count(usage.get("prompt_cache_hit_tokens")),
            cache_write_tokens=_count(written) if written else 0,
            reasoning_tokens=(_count(thought) if thought else 0) or _count(usage.get("reasoning_tokens")),
            raw=usage,
        )
    if metrics and "inputTokenCount" in metrics:
        read, written = (
            _count(metrics.get("cacheReadInputTokenCount")),
            _count(metrics.get("cacheWriteInputTokenCount")),
        )
        return Usage(
            input_tokens=_count(metrics.get("inputTokenCount")) + read + written,
            output_tokens=_count(metrics.get("outputTokenCount")),
            cache_read_tokens=read,
            cache_write_tokens=written,
            raw=metrics,
        )
    return None


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and value > 0 else 0


def finding(where: str, results: Any) -> ContentFiltered | None:
    """The event for one filter result, or nothing where it found nothing."""
    categories = flagged_categories(results)
    return ContentFiltered(where, categories, as_mapping(results)) if categories else None


def prompt_findings(prompts: Any) -> list[ContentFiltered]:
    """What the filter found in the prompts; usually there is one."""
    found: list[ContentFiltered] = []
    for prompt in cast("list[Any]", prompts) if isinstance(prompts, list) else []:
        members = as_mapping(prompt)
        event = finding("prompt", members.get("content_filter_results") or members.get("content_filter_result"))
        if event is not None:
            found.append(event)
    return found
