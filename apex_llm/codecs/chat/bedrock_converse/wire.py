"""The shapes of Converse that we read, as the service sends them.

Only members that we read are named; all others are ignored, the padding member ``p`` of stream
events among them. Clouds send ``null`` freely, so every member may be ``None``.
"""

from __future__ import annotations

__all__ = [
    "Answer",
    "Block",
    "BlockDelta",
    "BlockStart",
    "BlockStop",
    "Citation",
    "ExtraMembers",
    "Media",
    "MessageStop",
    "Metadata",
    "ToolResultBlock",
    "read_citation",
    "read_finish_reason",
    "read_server_result",
    "read_usage",
]

from typing import Any, TypeAlias, cast

import msgspec

from apex_llm.codecs.json_text import decode_json
from apex_llm.types.messages import CitationPart, ToolResultPart
from apex_llm.types.responses import FinishReason, Usage

Document: TypeAlias = dict[str, Any]
"""A JSON object that we hand on unread."""

_NULL = msgspec.Raw(b"null")


class _Wire(msgspec.Struct, rename="camel", gc=False):
    """Members in camelCase. What is decoded holds no cycles, so the collector need not look."""


class _Text(_Wire):
    text: str | None = None


class ToolUse(_Wire):
    tool_use_id: str | None = None
    name: str | None = None
    type: str | None = None
    input: msgspec.Raw = _NULL


class ToolResultBlock(_Wire):
    """Only in an assistant's turn: what a server-side tool answered."""

    tool_use_id: str | None = None
    content: list[Document | None] | None = None
    status: str | None = None
    type: str | None = None


class _ReasoningText(_Wire):
    text: str | None = None
    signature: str | None = None


class Reasoning(_Wire):
    reasoning_text: _ReasoningText | None = None
    redacted_content: str | None = None


class Citation(_Wire):
    """One source, whole in answers and streams alike."""

    title: str | None = None
    source: str | None = None
    source_content: list[_Text | None] | None = None
    location: Document | None = None


class Citations(_Wire):
    content: list[_Text | None] | None = None
    citations: list[Citation | None] | None = None


class _Failure(_Wire):
    message: str | None = None


class _MediaSource(_Wire):
    data: str | None = msgspec.field(default=None, name="bytes")
    """Base64."""
    s3_location: Document | None = None


class Media(_Wire):
    """An image, a sound or a film; in streams, a piece of an image."""

    format: str | None = None
    source: _MediaSource | None = None
    error: _Failure | None = None


class Block(_Wire):
    """One content block of an answer: exactly one member is set, or one that we do not know."""

    text: str | None = None
    tool_use: ToolUse | None = None
    tool_result: ToolResultBlock | None = None
    reasoning_content: Reasoning | None = None
    citations_content: Citations | None = None
    image: Media | None = None
    audio: Media | None = None
    video: Media | None = None


class _AnswerMessage(_Wire):
    content: list[Block | None] | None = None


class _Output(_Wire):
    message: _AnswerMessage | None = None


class ExtraMembers(_Wire):
    """What only Bedrock has; some of it in whole answers, some in one or the other event of a stream."""

    trace: Document | None = None
    additional_model_response_fields: Any = None
    metrics: Document | None = None
    performance_config: Document | None = None
    service_tier: Document | None = None


class Answer(ExtraMembers):
    """The body of Converse."""

    output: _Output | None = None
    stop_reason: str | None = None
    usage: msgspec.Raw = _NULL


class _ReasoningDelta(_Wire):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _ToolUseDelta(_Wire):
    input: str | None = None


class Delta(_Wire):
    text: str | None = None
    tool_use: _ToolUseDelta | None = None
    reasoning_content: _ReasoningDelta | None = None
    citation: Citation | None = None
    tool_result: list[Document | None] | None = None
    image: Media | None = None


class BlockDelta(_Wire):
    """``contentBlockDelta``."""

    delta: Delta | None = None
    content_block_index: int | None = None


class _Start(_Wire):
    tool_use: ToolUse | None = None
    tool_result: ToolResultBlock | None = None
    image: Media | None = None


class BlockStart(_Wire):
    """``contentBlockStart``: sent for tools, never for text or reasoning."""

    start: _Start | None = None
    content_block_index: int | None = None


class BlockStop(_Wire):
    """``contentBlockStop``."""

    content_block_index: int | None = None


class MessageStop(ExtraMembers):
    """``messageStop``, the terminal event."""

    stop_reason: str | None = None


class Metadata(ExtraMembers):
    """``metadata``, which follows ``messageStop``."""

    usage: msgspec.Raw = _NULL


class _UsageCounts(_Wire):
    """Cache counts come under two names, in one object, under either, or not at all."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_read_input_token_count: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_input_token_count: int | None = None


def read_usage(raw: msgspec.Raw) -> Usage | None:
    """The usage object; ``inputTokens`` leaves cached tokens out, our ``input_tokens`` counts them."""
    text = bytes(raw)
    if text == b"null":
        return None
    counts = decode_json(text, _UsageCounts, what="The usage of a Converse answer")
    if counts.input_tokens is None and counts.output_tokens is None:
        return None
    read = counts.cache_read_input_tokens or counts.cache_read_input_token_count or 0
    write = counts.cache_write_input_tokens or counts.cache_write_input_token_count or 0
    return Usage(
        input_tokens=(counts.input_tokens or 0) + read + write,
        output_tokens=counts.output_tokens or 0,
        cache_read_tokens=read,
        cache_write_tokens=write,
        raw=decode_json(text, dict[str, Any], what="The usage of a Converse answer"),
    )


_FINISH_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "guardrail_intervened": FinishReason.GUARDRAIL,
    "content_filtered": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
    "model_context_window_exceeded": FinishReason.CONTEXT_WINDOW,
}


def read_finish_reason(raw: str | None, warnings: list[str]) -> FinishReason:
    """The stop reason in our words; the unknown ones, and broken output, are told as a warning."""
    if raw is None:
        warnings.append("the answer gives no stopReason")
        return FinishReason.UNKNOWN
    reason = _FINISH_REASONS.get(raw)
    if reason is None:
        known = raw in {"malformed_model_output", "malformed_tool_use"}
        warnings.append(f"the model's output was malformed: {raw}" if known else f"unknown stopReason {raw[:80]!r}")
        return FinishReason.UNKNOWN
    return reason


def read_citation(citation: Citation) -> CitationPart:
    """The citation in our words; its location stays in the service's."""
    return CitationPart(
        title=citation.title,
        source=citation.source,
        quotes=tuple(piece.text for piece in citation.source_content or () if piece is not None and piece.text),
        location=citation.location,
    )


def read_server_result(block: ToolResultBlock) -> ToolResultPart:
    """What a tool that the service ran itself has answered."""
    return ToolResultPart(
        tool_call_id=block.tool_use_id or "",
        content=_read_tool_result(block.content),
        is_error=block.status == "error",
        name=block.type.removesuffix("_result") if block.type else None,
        server_side=True,
    )


def _read_tool_result(content: list[Document | None] | None) -> str | dict[str, Any] | list[Any]:
    """What a server-side tool answered: the one text or JSON object, or the list of several."""
    values: list[Any] = [
        block["text"] if "text" in block else block.get("json", block) for block in content or () if block
    ]
    if len(values) == 1 and isinstance(values[0], str | dict):
        return cast("str | dict[str, Any]", values[0])
    return values
