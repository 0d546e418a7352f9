"""Chat requests as OpenAI chat-completions bodies.

Source: the Azure OpenAI document of 2024-10-21 and OpenAI's own reference. What the endpoint's
profile cannot take is left out with a warning, unless the answer would mean something else
without it: tools and images are refused before anything is sent.
"""

from __future__ import annotations

__all__ = ["encode_request"]

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from apex_llm.codecs.chat._common import check_effort, only_text
from apex_llm.codecs.chat._earlier_calls import called_name, fitting_call_id
from apex_llm.codecs.chat.openai_chat_media import audio_part, file_part, image_part
from apex_llm.codecs.chat.openai_chat_profile import OpenAIChatProfile
from apex_llm.codecs.json_text import encode_json
from apex_llm.errors import InvalidRequestError
from apex_llm.types.messages import (
    AudioPart,
    CachePoint,
    CitationPart,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from apex_llm.types.requests import ChatRequest
from apex_llm.types.tools import Tool, ToolChoice

_MOST_STOPS: Final = 4
_LONGEST_ID: Final = 40


def encode_request(request: ChatRequest, profile: OpenAIChatProfile, *, stream: bool) -> tuple[bytes, tuple[str, ...]]:
    """The JSON body, and a warning for each option that had to be left out."""
    if text := only_text(request):
        # What most requests are; the long way round comes to the same.
        body: dict[str, Any] = {"model": request.model} if profile.body_model else {}
        body["messages"] = [{"role": "user", "content": text}]
        if request.max_tokens is not None:
            body[profile.token_limit] = request.max_tokens
        if stream:
            _add_stream(body, profile)
        return encode_json(body, what="The chat request"), ()
    body, warnings = _Request(request, profile).build(stream=stream)
    return encode_json(body, what="The chat request"), tuple(warnings)


def _add_stream(body: dict[str, Any], profile: OpenAIChatProfile, extra: Mapping[str, Any] | None = None) -> None:
    if profile.stream_flag:
        body["stream"] = True
        # Azure's own-data search refuses stream_options.
        if profile.stream_options and (extra is None or "data_sources" not in extra):
            body["stream_options"] = {"include_usage": True}


def _refuse(problem: str, hint: str) -> InvalidRequestError:
    return InvalidRequestError(problem, phase="prepare", hint=hint)


class _Request:
    """One body in the making."""

    def __init__(self, request: ChatRequest, profile: OpenAIChatProfile) -> None:
        self._request = request
        self._profile = profile
        self._warnings: list[str] = []
        where = f"api-version {profile.api_version}" if profile.api_version else "this model's endpoint"
        self._where = where

    def build(self, *, stream: bool) -> tuple[dict[str, Any], list[str]]:
        request, profile = self._request, self._profile
        body: dict[str, Any] = {}
        if profile.body_model:
            body["model"] = request.model
        body["messages"] = [wire for message in request.messages for wire in self._messages(message)]
        self._add_limits(body)
        if request.tools:
            self._add_tools(body)
        elif request.tool_choice is not None and request.tool_choice.mode == "required":
            if request.extra_body is not None and "tools" in request.extra_body:
                body["tool_choice"] = _tool_choice(request.tool_choice)
            else:
                self._warnings.append("tool_choice was left out: there are no tools.")
        if request.response_format is not None:
            self._add_format(body, request.response_format)
        if request.metadata and self._can(profile.metadata, "metadata"):
            body["metadata"] = dict(request.metadata)
        if request.reasoning_effort is not None and self._can(profile.reasoning_effort, "reasoning_effort"):
            check_effort(request.reasoning_effort)
            body["reasoning_effort"] = request.reasoning_effort
        extra = request.extra_body or {}
        if stream:
            _add_stream(body, profile, extra)
        _merge(body, extra)
        return body, self._warnings

    def _can(self, able: bool, name: str) -> bool:  # noqa: FBT001
        if not able:
            self._warnings.append(f"{name} was left out: {self._where} does not take it.")
        return able

    # -- options ---------------------------------------------------------------------------

    def _add_limits(self, body: dict[str, Any]) -> None:
        request, profile = self._request, self._profile
        if request.max_tokens is not None:
            body[profile.token_limit] = request.max_tokens
        if request.temperature is not None:
            self._add_sampling(body, "temperature", request.temperature)
        if request.top_p is not None:
            self._add_sampling(body, "top_p", request.top_p)
        if request.top_k is not None:
            self._warnings.append("top_k was left out: the OpenAI chat format has no such member.")
        if len(request.stop) > _MOST_STOPS:
            raise _refuse(
                f"{len(request.stop)} stop sequences were given; the OpenAI chat format takes {_MOST_STOPS} at most.",
                "Leave some out, or cut the answer yourself.",
            )
        if request.stop:
            body["stop"] = list(request.stop)
        if request.seed is not None and self._can(profile.seed, "seed"):
            body["seed"] = request.seed

    def _add_sampling(self, body: dict[str, Any], name: str, value: float) -> None:
        if self._profile.sampling or self._request.reasoning_effort == "none":
            body[name] = value
        else:
            self._warnings.append(f"{name} was left out: reasoning models do not take it.")

    def _add_tools(self, body: dict[str, Any]) -> None:
        request, profile = self._request, self._profile
        self._require_tools()
        body["tools"] = [self._tool(tool) for tool in request.tools]
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice)
        if request.parallel_tool_calls is not None and self._can(profile.parallel_tool_calls, "parallel_tool_calls"):
            body["parallel_tool_calls"] = request.parallel_tool_calls

    def _require_tools(self) -> None:
        if not self._profile.tools:
            raise _refuse(f"Tools were given, but {self._where} does not take them.", _NEWER)

    def _tool(self, tool: Tool) -> dict[str, Any]:
        function: dict[str, Any] = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        function["parameters"] = tool.parameters
        if tool.strict is not None and self._can(self._profile.strict_tools, f"strict of the tool {tool.name!r}"):
            function["strict"] = tool.strict
        return {"type": "function", "function": function}

    def _add_format(self, body: dict[str, Any], wanted: Mapping[str, Any]) -> None:
        if wanted.get("type") not in _FORMATS:
            raise _refuse(f"response_format has the type {wanted.get('type')!r}.", f"Use one of {', '.join(_FORMATS)}.")
        schema = wanted.get("type") == "json_schema"
        able = self._profile.json_schema if schema else self._profile.json_object
        if self._can(able or wanted.get("type") == "text", f"response_format {wanted.get('type')!r}"):
            body["response_format"] = _nested(wanted) if schema else dict(wanted)

    # -- messages --------------------------------------------------------------------------

    def _messages(self, message: Message) -> list[dict[str, Any]]:
        parts = message.parts
        if message.role == "user" and len(parts) == 1 and isinstance(parts[0], TextPart):
            return [{"role": "user", "content": parts[0].text}]
        match message.role:
            case "system":
                return [{"role": "system", "content": self._content(message.parts, role="system")}]
            case "assistant":
                return [self._assistant(message)]
            case "user" | "tool":
                results = [part for part in message.parts if isinstance(part, ToolResultPart)]
                others = tuple(part for part in message.parts if not isinstance(part, ToolResultPart | CachePoint))
                wire = [self._tool_result(result) for result in results]
                if others and message.role == "tool":
                    raise _refuse(
                        f"A tool message holds a {type(others[0]).__name__}; it can hold tool results only.",
                        "Say it in a user message after the tool results.",
                    )
                if others or not results:
                    wire.append({"role": "user", "content": self._content(others, role="user")})
                return wire

    def _assistant(self, message: Message) -> dict[str, Any]:
        calls: list[dict[str, Any]] = []
        spoken: list[Part] = []
        for part in message.parts:
            match part:
                case ToolCallPart(server_side=False):
                    name = called_name(part.name, self._warnings)
                    calls.append({
                        "id": fitting_call_id(part.id, longest=_LONGEST_ID, characters=None),
                        "type": "function",
                        "function": {"name": name, "arguments": part.arguments or "{}"},
                    })  # fmt: skip
                case ToolCallPart() | ToolResultPart():
                    self._leave_out("A tool that another provider ran itself")
                case ReasoningPart():
                    # What models of this format thought does not go back; what another signed would have had to.
                    if part.signature or part.redacted:
                        self._leave_out("Reasoning that another provider signed")
                case CachePoint() | CitationPart():
                    pass
                case _:
                    spoken.append(part)
        wire: dict[str, Any] = {"role": "assistant"}
        if calls:
            self._require_tools()
            wire["content"] = self._content(tuple(spoken), role="assistant") if spoken else None
            wire["tool_calls"] = calls
        else:
            wire["content"] = self._content(tuple(spoken), role="assistant")
        return wire

    def _leave_out(self, what: str) -> None:
        warning = f"{what} was left out of the assistant's earlier message."
        if warning not in self._warnings:
            self._warnings.append(warning)

    def _tool_result(self, result: ToolResultPart) -> dict[str, Any]:
        self._require_tools()
        text = _result_text(result.content)
        if result.is_error and "error" not in text[:40].lower():
            text = f"Error: {text}"  # the format has no other way to say that a tool failed
        call_id = fitting_call_id(result.tool_call_id, longest=_LONGEST_ID, characters=None)
        return {"role": "tool", "tool_call_id": call_id, "content": text}

    def _content(self, parts: Sequence[Part], *, role: str) -> str | list[dict[str, Any]]:
        said = [part for part in parts if not isinstance(part, CachePoint | ReasoningPart | CitationPart)]
        if not said:
            return ""
        texts = [part.text for part in said if isinstance(part, TextPart)]
        if len(texts) == len(said) and (len(texts) == 1 or not self._profile.content_parts):
            return "\n\n".join(texts)
        return [self._part(part, role) for part in said]

    def _part(self, part: Part, role: str) -> dict[str, Any]:
        if isinstance(part, TextPart):
            return {"type": "text", "text": part.text}
        if role != "user":
            raise _refuse(
                f"{type(part).__name__} in the {role} message: the OpenAI chat format cannot say that.",
                "Only user messages hold images, audio and documents.",
            )
        if isinstance(part, ImagePart):
            if not self._profile.content_parts:
                raise _refuse(f"An image was given, but {self._where} does not take images.", _NEWER)
            return image_part(part)
        if isinstance(part, AudioPart | DocumentPart) and not self._profile.files:
            raise _refuse(
                f"{type(part).__name__} was given, but {self._where} does not take audio or documents.", _NEWER
            )
        if isinstance(part, AudioPart):
            return audio_part(part)
        if isinstance(part, DocumentPart):
            return file_part(part)
        raise _refuse(
            f"{type(part).__name__} in the {role} message: the OpenAI chat format cannot say that.",
            "Text, images, audio and documents can be said.",
        )


_NEWER: Final = "Use a newer api_version, such as 2024-10-21, or leave it out to use the v1 API."


_FORMATS: Final = ("text", "json_object", "json_schema")


def _nested(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """``json_schema`` as chat completions want it; OpenAI's Responses API writes the same members flat."""
    details = wanted.get("json_schema")
    inner: Mapping[str, Any]
    if isinstance(details, Mapping):
        inner = cast("Mapping[str, Any]", details)
    else:
        inner = {name: value for name, value in wanted.items() if name != "type"}
    if not isinstance(inner.get("schema"), Mapping):
        raise _refuse(
            "response_format has the type 'json_schema' and no usable schema.",
            'Write {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}.',
        )
    return {"type": "json_schema", "json_schema": {"name": "answer", **inner}}


def _tool_choice(choice: ToolChoice) -> Any:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _result_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        items = list(cast("Sequence[Any]", content))
        if items and all(isinstance(item, TextPart) for item in items):
            return "".join(item.text for item in items)
        if any(isinstance(item, ImagePart | AudioPart | DocumentPart) for item in items):
            raise _refuse(
                "A tool result holds an image, audio or a document; the OpenAI chat format takes text only.",
                "Describe it in the result, and pass it in a user message afterwards.",
            )
    return encode_json(content, what="A tool result").decode()


def _merge(body: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """The caller's own members last; where both sides hold an object, their members are merged."""
    for name, value in extra.items():
        present = body.get(name)
        if isinstance(present, dict) and isinstance(value, Mapping):
            body[name] = {**cast("dict[str, Any]", present), **cast("Mapping[str, Any]", value)}
        else:
            body[name] = value
