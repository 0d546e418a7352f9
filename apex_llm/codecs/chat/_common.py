"""What several chat formats do alike: turns, media, tool arguments, the merge of ``extra_body``.

Pure helpers without a format of their own. What is repaired or left out on the way is told
through ``warnings``, a list that the caller owns and that ends up on the response.
"""

from __future__ import annotations

__all__ = [
    "LEFT_OUT",
    "JsonSchemaFormat",
    "Media",
    "ToolCallBuilder",
    "arguments_as_object",
    "conversation",
    "image_format",
    "json_schema_format",
    "leave_out",
    "media",
    "merge_extra_body",
    "nearest_effort",
    "only_text",
    "results_first",
    "tool_result_text",
    "tool_schema",
]

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar, cast

import msgspec

from apex_llm.codecs.json_text import encode_json
from apex_llm.errors import InvalidRequestError
from apex_llm.types.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCallPart,
    VideoPart,
)
from apex_llm.types.requests import ChatRequest
from apex_llm.types.tools import Tool

_T = TypeVar("_T")

LEFT_OUT: Final = "left out: "


def leave_out(warnings: list[str], option: str, reason: str) -> None:
    """Note that an option was not sent: ``left out: seed (Converse has no such option)``."""
    warnings.append(f"{LEFT_OUT}{option} ({reason})")


# ------------------------------------------------------------------------------------------- turns


def only_text(request: ChatRequest) -> str | None:
    """The text of a request that is one text of the user and asks for nothing else."""
    messages = request.messages
    if len(messages) != 1 or len(messages[0].parts) != 1:
        return None
    part = messages[0].parts[0]
    if not isinstance(part, TextPart) or messages[0].role != "user" or not part.text.strip():
        return None
    without_options = ChatRequest(
        model=request.model,
        messages=messages,
        max_tokens=request.max_tokens,
        extra_headers=request.extra_headers,
        extra_query=request.extra_query,
        timeout=request.timeout,
    )
    return part.text if request == without_options else None


Turn: TypeAlias = tuple[str, list[Part]]
"""Role (``user``, ``assistant``, ``system``) and parts."""


def conversation(
    messages: Sequence[Message], *, system_messages: bool, warnings: list[str]
) -> tuple[list[Part], list[Turn]]:
    """System parts, and turns in which no two neighbours have the same role.

    Tool results travel in user turns. A system message after the first turn stays where it is when
    the model takes that (``system_messages``) and it stands between a user turn and an answer;
    otherwise it joins the system prompt, with a warning.
    """
    system: list[Part] = []
    turns: list[Turn] = []
    last = len(messages) - 1
    for position, message in enumerate(messages):
        if message.role == "system" and not (
            turns
            and system_messages
            and turns[-1][0] == "user"
            and (position == last or messages[position + 1].role == "assistant")
        ):
            if turns and message.parts:
                warnings.append("moved: a system message in mid-conversation joined the system prompt")
            system.extend(message.parts)
            continue
        role = "user" if message.role == "tool" else message.role
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(message.parts)
        elif message.parts:
            turns.append((role, list(message.parts)))
    return system, turns


def results_first(blocks: list[_T], *, is_result: Sequence[bool]) -> list[_T]:
    """The blocks with tool results in front: every service wants them before the user's own words."""
    if not any(is_result):
        return blocks
    front = [block for block, result in zip(blocks, is_result, strict=True) if result]
    return front + [block for block, result in zip(blocks, is_result, strict=True) if not result]


# ------------------------------------------------------------------------------------------- tools


def tool_schema(tool: Tool) -> Mapping[str, Any]:
    """The tool's parameters; ``type: object`` is added where it was left out, as every service wants it."""
    return tool.parameters if "type" in tool.parameters else {"type": "object", **tool.parameters}


def arguments_as_object(part: ToolCallPart, warnings: list[str]) -> Any:
    """The call's arguments as a JSON object, byte for byte where they are one.

    Models that were cut short leave arguments that are not JSON; services refuse to read those back.
    """
    text = part.arguments.strip() or "{}"
    try:
        if isinstance(msgspec.json.decode(text), dict):
            return msgspec.Raw(text.encode())
    except (ValueError, RecursionError):
        pass
    warnings.append(f"repaired: the arguments of tool call {part.id!r} are not a JSON object, sent as text")
    return {"arguments": part.arguments}


def tool_result_text(content: str | Mapping[str, Any] | Sequence[Any]) -> str:
    """A tool's result as text: JSON unless it is text already."""
    return content if isinstance(content, str) else encode_json(content, what="A tool result").decode()


class ToolCallBuilder:
    """One tool call of a stream, while its arguments arrive."""

    __slots__ = ("fallback", "id", "name", "pieces", "server_side")

    def __init__(self, id: str, name: str, *, server_side: bool, fallback: str = "") -> None:  # noqa: A002
        self.id = id
        self.name = name
        self.server_side = server_side
        self.fallback = fallback
        """Arguments that came with the start; used when no piece follows."""
        self.pieces: list[str] = []

    @property
    def arguments(self) -> str:
        """The JSON text so far; ``{}`` when the model gave none."""
        return "".join(self.pieces) or self.fallback or "{}"


# ------------------------------------------------------------------------------------------- media


class Media(msgspec.Struct, frozen=True):
    """Where the bytes of a part are: exactly one of the two."""

    data: bytes | None
    url: str | None


def media(part: ImagePart | DocumentPart | AudioPart | VideoPart) -> Media:
    """The part's bytes or address; a ``data:`` URL is turned into bytes.

    Raises:
        InvalidRequestError: Both or neither are given, or a ``data:`` URL is not base64.
    """
    kind = type(part).__name__
    if (part.data is None) == (part.url is None):
        given = "neither data nor url" if part.data is None else "both data and url"
        raise InvalidRequestError(f"{kind} has {given}.", phase="prepare", hint=f"Pass {kind}(data=...) or url=.")
    if part.data is not None:
        if not part.data:
            raise InvalidRequestError(f"{kind} is empty.", phase="prepare", hint="Pass at least one byte.")
        return Media(part.data, None)
    url = cast("str", part.url)
    if not url.startswith("data:"):
        return Media(None, url)
    try:
        return Media(base64.b64decode(url.partition(",")[2], validate=True), None)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(
            f"{kind} has a data: URL that is not base64.", phase="prepare", hint=f"Pass {kind}(data=...)."
        ) from error


_MAGIC = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF87a", "gif"), (b"GIF89a", "gif"))


def image_format(part: ImagePart, source: Media) -> str:
    """``png``, ``jpeg``, ``gif`` or ``webp``: as given, else from the first bytes, else from the address.

    Raises:
        InvalidRequestError: It is none of these.
    """
    if part.format:
        given = part.format.lower().removeprefix("image/")
        return "jpeg" if given == "jpg" else given
    if source.data is not None:
        for magic, name in _MAGIC:
            if source.data.startswith(magic):
                return name
        if source.data[:4] == b"RIFF" and source.data[8:12] == b"WEBP":
            return "webp"
    else:
        suffix = (source.url or "").partition("?")[0].rpartition(".")[2].lower()
        if suffix in {"png", "jpeg", "jpg", "gif", "webp"}:
            return "jpeg" if suffix == "jpg" else suffix
    raise InvalidRequestError(
        "An image's format could not be recognised.",
        phase="prepare",
        hint="Pass ImagePart(format='png'), 'jpeg', 'gif' or 'webp'.",
    )


# ----------------------------------------------------------------------------------------- options


class JsonSchemaFormat(msgspec.Struct, frozen=True):
    """A structured answer that was asked for."""

    schema: Mapping[str, Any]
    name: str | None
    description: str | None


def json_schema_format(request: ChatRequest, warnings: list[str], *, format_name: str) -> JsonSchemaFormat | None:
    """The JSON Schema that the answer must follow, from OpenAI's ``response_format``, if any.

    Raises:
        InvalidRequestError: The option has another shape.
    """
    wanted = request.response_format
    if wanted is None:
        return None
    match wanted.get("type"):
        case "text":
            return None
        case "json_object":
            leave_out(warnings, "response_format", f"{format_name} has no JSON mode without a schema")
            return None
        case "json_schema":
            details = wanted.get("json_schema")
            # OpenAI's Responses API writes the same members flat; take both.
            inner = cast("Mapping[str, Any]", details if isinstance(details, Mapping) else wanted)
            schema = inner.get("schema")
            if isinstance(schema, Mapping):
                return JsonSchemaFormat(
                    cast("Mapping[str, Any]", schema), inner.get("name") or None, inner.get("description") or None
                )
        case _:
            pass
    raise InvalidRequestError(
        f"response_format has the type {wanted.get('type')!r} and no usable schema.",
        phase="prepare",
        hint='Write {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}.',
    )


_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def nearest_effort(effort: str, available: Sequence[str], warnings: list[str]) -> str:
    """The effort that the model has and that comes closest, from below where possible.

    Args:
        effort: What was asked for.
        available: The model's own, from little to much.
        warnings: Told when another one was taken.

    Raises:
        InvalidRequestError: There is no such effort.
    """
    if effort in available:
        return effort
    check_effort(effort)
    rank = _EFFORTS.index(effort)
    thinking = [name for name in available if name != "none"]
    chosen = max((name for name in thinking if _EFFORTS.index(name) <= rank), key=_EFFORTS.index, default=thinking[0])
    warnings.append(f"changed: reasoning_effort {effort!r} was sent as {chosen!r}, the nearest that the model has")
    return chosen


def check_effort(effort: str) -> None:
    """Refuse a word that stands for no effort."""
    if effort not in _EFFORTS:
        raise InvalidRequestError(
            f"reasoning_effort is {effort!r}.", phase="prepare", hint=f"Choose one of: {', '.join(_EFFORTS)}."
        )


def merge_extra_body(body: dict[str, Any], extra: Mapping[str, Any] | None) -> None:
    """Put the caller's own members into the body, last; dictionaries are merged one level deep."""
    for name, value in (extra or {}).items():
        ours = body.get(name)
        if isinstance(ours, dict) and isinstance(value, Mapping):
            body[name] = {**cast("dict[str, Any]", ours), **cast("Mapping[str, Any]", value)}
        else:
            body[name] = value
