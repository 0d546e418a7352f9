"""The shapes of Anthropic's Messages format that we read, as the service sends them.

Only members that we read are named. Clouds send ``null`` freely, so every member may be ``None``.
One struct serves all stream events, since their members hardly overlap; a small one reads ahead
for the deltas that a stream mostly consists of.
"""

from __future__ import annotations

__all__ = [
    "Answer",
    "Block",
    "Delta",
    "Event",
    "EventType",
    "SimpleDelta",
    "guardrail_extra",
    "merge_usage",
    "particulars",
    "read_citation",
    "read_finish_reason",
    "usage_of",
    "usage_of_metrics",
]

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

import msgspec

from apex_llm.codecs.json_text import decode_json, raw_text
from apex_llm.types.messages import CitationPart
from apex_llm.types.responses import FinishReason, Usage

Document: TypeAlias = dict[str, Any]
"""A JSON object that we hand on, or read member by member."""

_NULL = msgspec.Raw(b"null")


class Block(msgspec.Struct):
    """One content block, whole or at its start."""

    type: str | None = None
    text: str | None = None
    citations: list[Document | None] | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    """Of ``redacted_thinking``."""
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NULL
    tool_use_id: str | None = None
    content: Any = None
    """Of server-side tool results."""


class _Guarded(msgspec.Struct):
    """What Bedrock adds to a body or a chunk."""

    guardrail_action: str | None = msgspec.field(name="amazon-bedrock-guardrailAction", default=None)
    trace: Document | None = msgspec.field(name="amazon-bedrock-trace", default=None)
    metrics: Document | None = msgspec.field(name="amazon-bedrock-invocationMetrics", default=None)


class Answer(_Guarded):
    """The body of a whole answer, and of ``message_start`` without its content."""

    type: str | None = None
    id: str | None = None
    model: str | None = None
    content: list[Block | None] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Document | None = None
    container: Document | None = None
    context_management: Document | None = None
    diagnostics: Document | None = None
    input_transformations: list[Any] | None = None
    usage: Document | None = None


class Delta(msgspec.Struct):
    """``delta`` of ``content_block_delta`` and of ``message_delta``."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: Document | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Document | None = None
    container: Document | None = None


class _Failure(msgspec.Struct):
    type: str | None = None
    message: str | None = None


class Event(_Guarded):
    """Any event of a stream."""

    type: str | None = None
    index: int | None = None
    delta: Delta | None = None
    content_block: Block | None = None
    message: Answer | None = None
    usage: Document | None = None
    context_management: Document | None = None
    input_transformations: list[Any] | None = None
    error: _Failure | None = None


class _Piece(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class SimpleDelta(msgspec.Struct, gc=False):
    """A ``content_block_delta`` with text in it: nearly every event of a stream, so worth a decoder of its own."""

    type: str | None = None
    index: int | None = None
    delta: _Piece | None = None


class EventType(msgspec.Struct):
    """The type alone, for events that have another shape than we know."""

    type: str | None = None


def merge_usage(usage: dict[str, Any], update: Mapping[str, Any] | None) -> None:
    """Take later counts over earlier ones: they are cumulative, and ``null`` says nothing."""
    usage.update({name: value for name, value in (update or {}).items() if value is not None})


def usage_of(raw: Mapping[str, Any] | None) -> Usage | None:
    """The usage object; ``input_tokens`` leaves cached tokens out, ours counts them."""
    if not raw or not ("input_tokens" in raw or "output_tokens" in raw):
        return None
    read = _count(raw, "cache_read_input_tokens")
    write = _count(raw, "cache_creation_input_tokens")
    details = raw.get("output_tokens_details")
    return Usage(
        input_tokens=_count(raw, "input_tokens") + read + write,
        output_tokens=_count(raw, "output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=write,
        reasoning_tokens=_count(cast("Document", details), "thinking_tokens") if isinstance(details, dict) else 0,
        raw=raw,
    )


def usage_of_metrics(raw: Mapping[str, Any] | None) -> Usage | None:
    """The same from Bedrock's own invocation metrics, where the format's own usage is missing."""
    if not raw or not ("inputTokenCount" in raw or "outputTokenCount" in raw):
        return None
    read = _count(raw, "cacheReadInputTokenCount")
    write = _count(raw, "cacheWriteInputTokenCount")
    return Usage(
        input_tokens=_count(raw, "inputTokenCount") + read + write,
        output_tokens=_count(raw, "outputTokenCount"),
        cache_read_tokens=read,
        cache_write_tokens=write,
        raw=raw,
    )


def _count(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


_FINISH_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.REFUSAL,
    "model_context_window_exceeded": FinishReason.CONTEXT_WINDOW,
    "guardrail_intervened": FinishReason.GUARDRAIL,
    "content_filtered": FinishReason.CONTENT_FILTER,
}


def read_finish_reason(raw: str | None, guardrail_action: str | None, warnings: list[str]) -> FinishReason:
    """The stop reason in our words; a guardrail that stepped in outranks it."""
    if guardrail_action == "INTERVENED":
        return FinishReason.GUARDRAIL
    if raw is None:
        warnings.append("the answer gives no stop_reason")
        return FinishReason.UNKNOWN
    reason = _FINISH_REASONS.get(raw)
    if reason is not None:
        return reason
    if raw == "pause_turn":
        warnings.append("the model paused its turn (pause_turn): send the answer back to let it go on")
    else:
        warnings.append(f"unknown stop_reason {raw[:80]!r}")
    return FinishReason.UNKNOWN


def read_citation(citation: Mapping[str, Any]) -> CitationPart:
    """The citation in our words; its whole object stays as the location."""
    title = citation.get("document_title") or citation.get("title")
    source = citation.get("source") or citation.get("url")
    quote = citation.get("cited_text")
    return CitationPart(
        title=str(title) if title else None,
        source=str(source) if source else None,
        quotes=(quote,) if isinstance(quote, str) and quote else (),
        location=citation,
    )


_PARTICULARS = (
    *("stop_sequence", "stop_details", "container", "context_management", "diagnostics", "input_transformations"),
)


def particulars(*sources: Answer | Delta | Event | None) -> dict[str, Any]:
    """Members that only Claude has, for ``extra``, under its own names; absent ones are left out."""
    return {
        name: value for source in sources for name in _PARTICULARS if (value := getattr(source, name, None)) is not None
    }


def guardrail_extra(source: _Guarded) -> dict[str, Any]:
    """Bedrock's additions, for ``extra``; absent ones are left out."""
    extra: dict[str, Any] = {}
    if source.trace is not None:
        extra["trace"] = source.trace
    if source.guardrail_action is not None:
        extra["amazon-bedrock-guardrailAction"] = source.guardrail_action
    if source.metrics is not None:
        extra["amazon-bedrock-invocationMetrics"] = source.metrics
    return extra


def tool_arguments(raw: msgspec.Raw) -> str:
    """A tool's input as JSON text; empty where there is none."""
    text = raw_text(raw, what="The input of a tool")
    if text in {"null", "{}", '""'}:
        return ""
    if text.startswith('"'):
        inner = decode_json(text.encode(), str, what="The input of a tool").strip()
        return inner if inner.startswith("{") else text
    return text
