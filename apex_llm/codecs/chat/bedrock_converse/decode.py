"""Whole answers of Converse."""

from __future__ import annotations

__all__ = ["decode_answer", "extra_members", "invoked_model", "read_media", "tool_arguments"]

import base64
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from apex_llm.codecs.chat.bedrock_converse.wire import (
    Answer,
    Block,
    ExtraMembers,
    Media,
    read_citation,
    read_finish_reason,
    read_server_result,
    read_usage,
)
from apex_llm.codecs.json_text import decode_json, raw_text
from apex_llm.errors import ResponseFormatError
from apex_llm.types.messages import (
    AudioPart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    VideoPart,
)
from apex_llm.types.responses import ChatResponse

_WHAT = "The Converse answer"
_SERVER_TOOL = "server_tool_use"


def decode_answer(body: bytes) -> ChatResponse:
    """The body of Converse as a response.

    Raises:
        ResponseFormatError: It is not one.
        LimitExceededError: It is nested too deep.
    """
    answer = decode_json(body, Answer, what=_WHAT)
    if answer.output is None or answer.output.message is None:
        raise ResponseFormatError(
            f"{_WHAT} has no output.message ({len(body)} bytes).",
            hint="A proxy or another service may have answered in Bedrock's place; look at the endpoint.",
        )
    warnings: list[str] = []
    parts: list[Part] = []
    for position, block in enumerate(answer.output.message.content or ()):
        if block is None or not _read_block(block, parts, warnings):
            warnings.append(f"unknown content block {_names_of_block(body, position)} was ignored")
    if len(parts) > 1:
        _name_server_results(parts)
    finish_reason = read_finish_reason(answer.stop_reason, warnings)
    usage = read_usage(answer.usage)
    if usage is None:
        warnings.append("the answer gives no usage")
    return ChatResponse(
        message=Message("assistant", tuple(parts)),
        finish_reason=finish_reason,
        raw_finish_reason=answer.stop_reason,
        usage=usage,
        model=invoked_model(answer.trace),
        warnings=tuple(warnings),
        extra=extra_members(answer),
        body=body,
    )


def _read_block(block: Block, parts: list[Part], warnings: list[str]) -> bool:
    """Add the block's parts; false where it has no member that we know."""
    if block.text is not None:
        if block.text:
            parts.append(TextPart(text=block.text))
    elif (use := block.tool_use) is not None:
        parts.append(
            ToolCallPart(
                id=use.tool_use_id or "",
                name=use.name or "",
                arguments=tool_arguments(use.input) or "{}",
                server_side=use.type == _SERVER_TOOL,
            )
        )
    elif (reasoning := block.reasoning_content) is not None:
        if reasoning.reasoning_text is not None:
            text = reasoning.reasoning_text
            if text.text or text.signature:
                parts.append(ReasoningPart(text=text.text or "", signature=text.signature or None))
        elif reasoning.redacted_content:
            parts.append(ReasoningPart(redacted=reasoning.redacted_content))
    elif (cited := block.citations_content) is not None:
        text = "".join(piece.text for piece in cited.content or () if piece is not None and piece.text)
        if text:
            parts.append(TextPart(text=text))
        parts.extend(read_citation(citation) for citation in cited.citations or () if citation is not None)
    elif (result := block.tool_result) is not None:
        parts.append(read_server_result(result))
    else:
        return _read_media_block(block, parts, warnings)
    return True


def _read_media_block(block: Block, parts: list[Part], warnings: list[str]) -> bool:
    if block.image is not None:
        if source := read_media([block.image], warnings, what="an image"):
            parts.append(ImagePart(format=block.image.format, **source))
    elif block.audio is not None:
        if source := read_media([block.audio], warnings, what="a sound"):
            parts.append(AudioPart(format=block.audio.format or "", **source))
    elif block.video is not None:
        if source := read_media([block.video], warnings, what="a film"):
            parts.append(VideoPart(format=block.video.format or "", **source))
    else:
        return False
    return True


def read_media(pieces: Sequence[Media], warnings: list[str], *, what: str) -> dict[str, Any]:
    """``data`` or ``url`` of what came in one piece or several; empty, with a warning, where it is missing.

    Raises:
        ResponseFormatError: The bytes are not base64.
    """
    data = b""
    for piece in pieces:
        if piece.error is not None:
            warnings.append(f"{what} of the answer is missing: {(piece.error.message or 'no reason given')[:200]}")
            return {}
        if piece.source is None:
            continue
        if piece.source.s3_location is not None:
            return {"url": str(piece.source.s3_location.get("uri", ""))}
        try:
            data += base64.b64decode(piece.source.data or "", validate=True)
        except ValueError as error:
            raise ResponseFormatError(f"Bytes of {what} of the Converse answer are not base64.") from error
    if not data:
        warnings.append(f"{what} of the answer is missing: it has no bytes")
        return {}
    return {"data": data}


def tool_arguments(raw: msgspec.Raw) -> str:
    """A tool's input as JSON text; empty where there is none.

    Some models answer with the JSON text in a JSON string, or with an empty string for no arguments.
    """
    text = raw_text(raw, what="The input of a tool")
    if text == "null":
        return ""
    if text.startswith('"'):
        inner = decode_json(text.encode(), str, what="The input of a tool").strip()
        return inner if not inner or inner.startswith("{") else text
    return text


def _name_server_results(parts: list[Part]) -> None:
    """Give server-side results the name of their call, which may differ from what their type says."""
    names = {part.id: part.name for part in parts if isinstance(part, ToolCallPart) and part.server_side}
    for position, part in enumerate(parts):
        if isinstance(part, ToolResultPart) and part.tool_call_id in names:
            parts[position] = msgspec.structs.replace(part, name=names[part.tool_call_id])


def _names_of_block(body: bytes, position: int) -> str:
    """The members of a block that we do not know, for the warning."""
    try:
        block = cast("Any", decode_json(body, Any, what=_WHAT))["output"]["message"]["content"][position]  # pyright: ignore[reportArgumentType]
        names = sorted(name[:40] for name in cast("dict[str, Any]", block)) if isinstance(block, dict) else []
    except (KeyError, IndexError, TypeError):
        names = []
    return f"({', '.join(names[:5])})" if names else "(null)"


def invoked_model(trace: Mapping[str, Any] | None) -> str:
    """The model that a prompt router chose; empty without one. Converse names the model nowhere else."""
    router = (trace or {}).get("promptRouter")
    return str(cast("dict[str, Any]", router).get("invokedModelId") or "") if isinstance(router, dict) else ""


def extra_members(source: ExtraMembers) -> dict[str, Any]:
    """Members that only Bedrock has, under the names that it gives them; absent ones are left out."""
    members: dict[str, Any] = {}
    if source.trace is not None:
        members["trace"] = source.trace
    if source.additional_model_response_fields is not None:
        members["additionalModelResponseFields"] = source.additional_model_response_fields
    if source.metrics is not None:
        members["metrics"] = source.metrics
    if source.performance_config is not None:
        members["performanceConfig"] = source.performance_config
    if source.service_tier is not None:
        members["serviceTier"] = source.service_tier
    return members
