"""Whole answers of Claude."""

from __future__ import annotations

__all__ = ["decode_answer", "is_server_call", "is_server_result", "read_server_result"]

from typing import Any, cast

from apex_llm.codecs.chat.anthropic_messages.wire import (
    Answer,
    Block,
    guardrail_extra,
    particulars,
    read_citation,
    read_finish_reason,
    tool_arguments,
    usage_of,
    usage_of_metrics,
)
from apex_llm.codecs.json_text import decode_json
from apex_llm.errors import ResponseFormatError
from apex_llm.types.messages import Message, Part, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from apex_llm.types.responses import ChatResponse

_WHAT = "Claude's answer"


def decode_answer(body: bytes) -> ChatResponse:
    """The body as a response.

    Raises:
        ResponseFormatError: It is not one.
        LimitExceededError: It is nested too deep.
    """
    answer = decode_json(body, Answer, what=_WHAT)
    if answer.content is None:
        raise ResponseFormatError(
            f"{_WHAT} has no content ({len(body)} bytes).",
            hint="The model may not speak this format, or a proxy may have answered in Bedrock's place.",
        )
    warnings: list[str] = []
    parts: list[Part] = []
    for block in answer.content:
        if block is None or not _read_block(block, parts):
            kind = repr((block.type or "")[:80]) if block is not None else "null"
            warnings.append(f"unknown content block {kind} was ignored")
    finish_reason = read_finish_reason(answer.stop_reason, answer.guardrail_action, warnings)
    usage = usage_of(answer.usage) or usage_of_metrics(answer.metrics)
    if usage is None:
        warnings.append("the answer gives no usage")
    return ChatResponse(
        message=Message("assistant", tuple(parts)),
        finish_reason=finish_reason,
        raw_finish_reason=answer.stop_reason,
        usage=usage,
        model=answer.model or "",
        id=answer.id,
        warnings=tuple(dict.fromkeys(warnings)),
        extra=particulars(answer) | guardrail_extra(answer),
        body=body,
    )


def is_server_call(kind: str | None) -> bool:
    """Whether the block is a call that the provider runs itself."""
    return kind in {"server_tool_use", "mcp_tool_use"}


def is_server_result(kind: str | None) -> bool:
    """Whether the block is what such a call answered: ``web_search_tool_result`` and its like."""
    return kind is not None and kind.endswith("_tool_result")


def _read_block(block: Block, parts: list[Part]) -> bool:
    """Add the block's parts; false for a type that we do not know."""
    kind = block.type
    if kind == "text":
        if block.text:
            parts.append(TextPart(text=block.text))
        parts.extend(read_citation(citation) for citation in block.citations or () if citation)
    elif kind == "tool_use" or is_server_call(kind):
        parts.append(
            ToolCallPart(
                id=block.id or "",
                name=block.name or "",
                arguments=tool_arguments(block.input) or "{}",
                server_side=kind != "tool_use",
            )
        )
    elif kind == "thinking":
        if block.thinking or block.signature:
            parts.append(ReasoningPart(text=block.thinking or "", signature=block.signature or None))
    elif kind == "redacted_thinking":
        if block.data:
            parts.append(ReasoningPart(redacted=block.data))
    elif is_server_result(kind):
        parts.append(read_server_result(block))
    else:
        return False
    return True


def read_server_result(block: Block) -> ToolResultPart:
    """What a tool that the service ran itself has answered."""
    content = block.content
    return ToolResultPart(
        tool_call_id=block.tool_use_id or "",
        content=cast("str | dict[str, Any] | list[Any]", content) if isinstance(content, str | dict | list) else "",
        name=block.type,
        server_side=True,
    )
