"""What callers may write instead of our own values, turned into our own values.

OpenAI-style dictionaries are taken everywhere a ``Message``, ``Tool`` or ``ToolChoice`` is.
Whatever cannot be understood is refused here, before anything is sent, with a sentence
that says what to write.
"""

from __future__ import annotations

__all__ = [
    "NAME_CHARACTERS",
    "as_messages",
    "as_stop",
    "as_timeout",
    "as_tool_choice",
    "as_tools",
    "check_options",
    "is_tool_name",
]

import base64
import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from apex_llm.errors import InvalidRequestError
from apex_llm.types.http import Timeout
from apex_llm.types.messages import (
    AudioPart,
    CachePoint,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    VideoPart,
)
from apex_llm.types.requests import ChatOptions
from apex_llm.types.sentinels import NOT_GIVEN, NotGiven
from apex_llm.types.tools import Tool, ToolChoice

_KNOWN_OPTIONS = frozenset(ChatOptions.__annotations__)
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("model", "deployment_id", "system", "reasoning_effort"), ((str,), "text")),
    **dict.fromkeys(("max_tokens", "top_k", "seed"), ((int,), "a whole number")),
    **dict.fromkeys(("temperature", "top_p"), ((int, float), "a number")),
    "parallel_tool_calls": ((bool,), "True or False"),
    "response_format": ((Mapping,), 'a dictionary, such as {"type": "json_schema", "json_schema": {...}}'),
    "extra_body": ((Mapping,), "a dictionary"),
    **dict.fromkeys(("metadata", "extra_headers", "extra_query"), ((Mapping,), "a dictionary of text to text")),
}
"""What options must be; those that are not here are checked where they are turned into values of ours."""
_MEDIA = (ImagePart, DocumentPart, AudioPart, VideoPart)


def check_options(options: Mapping[str, Any], *, method: str) -> None:
    """Refuse options that no provider has, and values of the wrong kind.

    Raises:
        TypeError: There is no such option; names the one that was probably meant.
        InvalidRequestError: A value is of the wrong kind.
    """
    for name, value in options.items():
        if (kinds := _KINDS.get(name)) is not None:
            if value is not None:
                _check_kind(name, value, *kinds)
        elif name not in _KNOWN_OPTIONS:
            near: list[str] = []
            with contextlib.suppress(ImportError, OSError):  # where no file can be opened
                import difflib  # for the message only

                near = difflib.get_close_matches(name, _KNOWN_OPTIONS, n=1)
            advice = f" Did you mean {near[0]!r}?" if near else " Use extra_body={...} for provider-specific members."
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}.{advice}")


def _check_kind(name: str, value: object, kinds: tuple[type, ...], wanted: str) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise _bad(f"{name} is of type {type(value).__name__}", f"Pass {wanted}.", param=name)
    if isinstance(value, float) and not math.isfinite(value):
        raise _bad(f"{name}={value} cannot be sent", f"Pass {wanted}.", param=name)  # JSON has no word for it
    if name in {"temperature", "top_p"} and cast("float", value) < 0:
        # How large it may be is for the model to say.
        raise _bad(f"{name}={value} is below 0", "Use a number between 0 and 1.", param=name)
    if wanted == "a dictionary of text to text":
        for pair in cast("Mapping[Any, Any]", value).items():
            if not all(isinstance(text, str) for text in pair):
                raise _bad(f"{name} holds something other than text", f"Pass {wanted}.", param=name)
        if "" in cast("Mapping[Any, Any]", value):
            raise _bad(f"{name} holds a value without a name", f"Pass {wanted}.", param=name)


def as_messages(
    messages: str | Message | Mapping[str, Any] | Iterable[Message | Mapping[str, Any]], *, system: str | None = None
) -> tuple[Message, ...]:
    """The conversation as messages; ``system`` goes in front. At least one message must not be a system message."""
    if isinstance(messages, str):
        if messages and not system:
            return (Message("user", (TextPart(text=messages),)),)
        items: list[Message] = [Message.user(messages)]
    elif isinstance(messages, Message):
        items = [messages]
    elif isinstance(messages, Mapping):
        items = [_message_from_mapping(cast("Mapping[str, Any]", messages), 0)]
    elif isinstance(cast("object", messages), Iterable):
        items = [
            item if isinstance(item, Message) else _message_from_mapping(item, position)
            for position, item in enumerate(messages)
        ]
    else:
        raise _bad(f"The prompt is of type {type(messages).__name__}", "Pass text, or a list of messages.")
    if system:
        items.insert(0, Message.system(system))
    said = False
    for item in items:
        for part in item.parts:
            if part.__class__ is TextPart:
                says_something = bool(cast("TextPart", part).text)
            else:
                _check_part(part)
                says_something = True
            if says_something and item.role != "system":
                said = True
    if not said:
        raise InvalidRequestError(
            "There is nothing to answer: no message besides the system prompt has any content.",
            phase="prepare",
            hint="Pass a prompt, or at least one Message.user(...) with some text.",
        )
    return tuple(items)


def _check_part(part: object) -> None:
    if not isinstance(part, msgspec.Struct):
        raise _bad(
            f"A message holds a value of type {type(part).__name__} where a part belongs",
            "Build messages with Message.user(...), Message.system(...) and their fellows, from text and parts.",
        )
    if isinstance(part, _MEDIA) and not isinstance(part.data, bytes | bytearray | memoryview | None):
        raise _bad(f"The data of a part is of type {type(part.data).__name__}", "Pass the file's bytes.")


_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_FUNCTION_CALL = "function_call"
"""Stands for the id that calls and results of the deprecated form do not have; the codec writes the same."""


def _message_from_mapping(item: Any, position: int) -> Message:
    if not isinstance(item, Mapping):
        raise _bad(
            f"messages[{position}] is of type {type(item).__name__}", "Pass Message values or {'role', 'content'}."
        )
    message = cast("Mapping[str, Any]", item)
    role = _ROLES.get(str(message.get("role")))
    if role is None:
        raise _bad(f"messages[{position}] has the role {message.get('role')!r}", f"Roles are {', '.join(_ROLES)}.")
    where = f"messages[{position}].content"
    content: Any = message.get("content")
    if role == "tool":
        call_id = _FUNCTION_CALL if message.get("role") == "function" else message.get("tool_call_id")
        if not isinstance(call_id, str):
            raise _bad(f"messages[{position}] is a tool result without tool_call_id", "Copy it from the tool call.")
        said = content if isinstance(content, str) else _text_or_parts(_parts(content, where))
        return Message("tool", (ToolResultPart(tool_call_id=call_id, content=said),))
    parts = _parts(content, where)
    if role == "assistant":
        if isinstance(refusal := message.get("refusal"), str) and refusal:
            parts.append(TextPart(text=refusal))
        parts += _calls(message, f"messages[{position}]")
    return Message(role, tuple(parts))


def _calls(message: Mapping[str, Any], where: str) -> list[Part]:
    calls: Any = message.get("tool_calls") or ()
    if not isinstance(calls, Sequence):
        raise _bad(f"{where}.tool_calls is of type {type(calls).__name__}", "Write a list, as in the OpenAI API.")
    parts: list[Part] = []
    for item in cast("Sequence[Any]", calls):
        call = _mapping(item, f"{where}.tool_calls[…] is")
        if call.get("type") == "custom":
            raise _bad(
                f"{where} calls a custom tool", "Only calls of functions, whose arguments are JSON, can be said."
            )
        function = _mapping(call.get("function"), f"{where}.tool_calls[…].function is")
        parts.append(_call(str(call.get("id", "")), function))
    if message.get("function_call"):
        parts.append(_call(_FUNCTION_CALL, _mapping(message["function_call"], f"{where}.function_call is")))
    return parts


def _call(call_id: str, function: Mapping[str, Any]) -> ToolCallPart:
    arguments = str(function.get("arguments") or "{}")
    return ToolCallPart(id=call_id, name=str(function.get("name", "")), arguments=arguments)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise _bad(f"{where} of type {type(value).__name__}", "Write a dictionary, as in the OpenAI API.")
    return cast("Mapping[str, Any]", value or {})


def _parts(content: Any, where: str) -> list[Part]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [TextPart(text=content)]
    if isinstance(content, Sequence):
        parts: list[Part] = []
        for index, item in enumerate(cast("Sequence[Any]", content)):
            parts.append(_part(item, f"{where}[{index}]"))
            if isinstance(item, Mapping) and (mark := cast("Mapping[str, Any]", item).get("cache_control")):
                # Anthropic's mark, which others took over: it belongs to the part that it stands in.
                ttl = _mapping(mark, f"{where}[{index}].cache_control is").get("ttl")
                parts.append(CachePoint(ttl=ttl if isinstance(ttl, str) else None))
        return parts
    raise _bad(f"{where} is of type {type(content).__name__}", "Content is text, or a list of parts.")


def _part(item: Any, where: str) -> Part:
    if isinstance(item, msgspec.Struct):
        return cast("Part", item)
    if isinstance(item, str):
        return TextPart(text=item)
    if not isinstance(item, Mapping):
        raise _bad(
            f"{where} is of type {type(item).__name__}", "A part is text, a part value or a dictionary with 'type'."
        )
    part = cast("Mapping[str, Any]", item)
    match part.get("type"):
        case "text" | "input_text" | "output_text" | "refusal":
            return TextPart(text=str(part.get("text", part.get("refusal", ""))))
        case "image_url":
            image: Any = part.get("image_url")
            details = cast("Mapping[str, Any]", image) if isinstance(image, Mapping) else {"url": image}
            return _image(str(details.get("url", "")), details.get("detail"), where)
        case "input_audio":
            audio = _mapping(part.get("input_audio"), f"{where}.input_audio is")
            return AudioPart(data=_base64(str(audio.get("data", "")), where), format=str(audio.get("format", "wav")))
        case "file":
            return _file(_mapping(part.get("file"), f"{where}.file is"), where)
        case other:
            raise _bad(
                f"{where} has the type {other!r}",
                "Known types are text, image_url, input_audio and file; or use ImagePart, DocumentPart, ….",
            )


def _image(url: str, detail: Any, where: str) -> ImagePart:
    if url.startswith("data:"):
        media_type, _, data = url[5:].partition(";base64,")
        return ImagePart(data=_base64(data, where), format=media_type.partition("/")[2] or None, detail=detail)
    return ImagePart(url=url, detail=detail)


def _file(file: Mapping[str, Any], where: str) -> DocumentPart:
    name = str(file.get("filename") or "document")
    media_type, _, data = str(file.get("file_data", "")).removeprefix("data:").partition(";base64,")
    if not data:
        raise _bad(f"{where} has no inline file_data", "Pass DocumentPart(data=..., format='pdf').")
    suffix = name.rpartition(".")[2].lower() if "." in name else media_type.rpartition("/")[2]
    return DocumentPart(data=_base64(data, where), format=suffix or "pdf", name=name.rpartition(".")[0] or name)


def _base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii's own, or text beyond ASCII
        raise _bad(f"{where} holds data that is not base64", "Encode the bytes with base64.b64encode().") from error


def _text_or_parts(parts: list[Part]) -> str | list[Part]:
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "".join(texts) if len(texts) == len(parts) else parts


def as_tools(tools: Iterable[Tool | Mapping[str, Any]] | None) -> tuple[Tool, ...]:
    """Tools from ``Tool`` values, or from OpenAI-style dictionaries, nested under ``function`` or flat."""
    result: list[Tool] = []
    given = cast("object", tools)
    if given is not None and (isinstance(given, str | Mapping) or not isinstance(given, Iterable)):
        raise _bad(f"tools is of type {type(cast('object', given)).__name__}", "Pass a list of tools.", param="tools")
    for position, item in enumerate(tools or ()):
        if isinstance(item, Tool):
            result.append(item)
            continue
        if not isinstance(item, Mapping):
            advice = "Put @tool on the function." if callable(item) else "Pass Tool values or dictionaries."
            raise _bad(f"tools[{position}] is of type {type(item).__name__}", advice, param="tools")
        function = _mapping(item.get("function") or item, f"tools[{position}].function is")
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise _bad(f"tools[{position}] has no name", 'Write {"type": "function", "function": {"name": ...}}.')
        result.append(
            Tool(
                name=name,
                description=str(function.get("description") or ""),
                parameters=cast(
                    "Mapping[str, Any]", function.get("parameters") or {"type": "object", "properties": {}}
                ),
                strict=cast("bool | None", function.get("strict")),
            )
        )
    names = [tool.name for tool in result]
    for name in names:
        if not is_tool_name(name):
            raise _bad(
                f"A tool is named {name[:80]!r}, which no service takes",
                "Use 1 to 64 letters, digits, underscores and hyphens, none of them accented.",
            )
        if names.count(name) > 1:
            raise _bad(f"Two tools are named {name!r}", "Give each tool a name of its own.")
    return tuple(result)


def as_tool_choice(choice: str | ToolChoice | Mapping[str, Any] | None, tools: Sequence[Tool]) -> ToolChoice | None:
    """The choice as a value; a name must be that of one of ``tools``."""
    if choice is None or isinstance(choice, ToolChoice):
        value = choice
    elif isinstance(choice, Mapping):
        function = cast("Mapping[str, Any]", choice.get("function") or choice)
        value = ToolChoice("tool", str(function.get("name", "")))
    elif choice == "auto" or choice == "none" or choice == "required":
        value = ToolChoice(choice)
    else:
        value = ToolChoice("tool", choice)
    if value is not None and value.mode == "tool" and value.name not in {tool.name for tool in tools}:
        raise _bad(
            f"tool_choice names {value.name!r}, which is not among the tools",
            f"Choose 'auto', 'none', 'required' or one of: {', '.join(t.name for t in tools) or '(no tools given)'}.",
        )
    return value


NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
"""What names of tools are made of, on every service."""


def is_tool_name(name: str) -> bool:
    """Whether every service takes it as the name of a tool."""
    return 0 < len(name) <= 64 and NAME_CHARACTERS.issuperset(name)


def as_stop(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """One or several stop sequences; empty ones are refused, as every service refuses them."""
    if not isinstance(cast("object", stop), str | Iterable | None):
        raise _bad(f"stop is of type {type(stop).__name__}", "Pass text, or a list of texts.", param="stop")
    sequences = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(cast("object", sequence), str) for sequence in sequences):
        raise _bad("stop holds something other than text", "Pass text, or a list of texts.", param="stop")
    if not all(sequences):
        raise _bad("A stop sequence is empty", "Leave out stop=, or give text that is not empty.")
    return sequences


def as_timeout(timeout: float | Timeout | NotGiven | None, default: Timeout) -> Timeout:
    """A number is the total in seconds; ``None`` switches all deadlines off; left out keeps ``default``."""
    if timeout is NOT_GIVEN:
        return default
    if timeout is None:
        return Timeout(connect=None, first_byte=None, idle=None, total=None)
    if isinstance(timeout, Timeout):
        return timeout
    if not isinstance(cast("object", timeout), int | float) or not timeout > 0:
        raise _bad(f"timeout={timeout!r} is not a positive number of seconds", "Use a number above 0, or None.")
    return msgspec.structs.replace(default, total=float(timeout))


def _bad(problem: str, hint: str, *, param: str | None = None) -> InvalidRequestError:
    return InvalidRequestError(f"{problem}.", phase="prepare", hint=hint, param=param)
