"""Tools from typed functions: the schema is read from the signature, the arguments are checked against it.

pydantic does both. ``Tool`` itself, in ``types``, is plain data and needs neither.
"""

from __future__ import annotations

__all__ = ["FunctionTool", "tool"]

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast, overload

from apex_llm.errors import InvalidRequestError
from apex_llm.types.messages import Message, ToolCallPart
from apex_llm.types.tools import Tool

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ARGUMENT = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")
_SECTION = re.compile(r"^[A-Z]\w*:$")


class FunctionTool(Tool, frozen=True, kw_only=True):
    """A ``Tool`` that knows the function behind it: pass it as a tool, run it with a call."""

    function: Callable[..., Any]
    adapter: Any
    """pydantic's ``TypeAdapter`` of the function."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function itself, as if it had not been made a tool."""
        return self.function(*arguments, **named)

    async def run(self, call: ToolCallPart) -> Message:
        """Run one call of the model, and give the message that answers it.

        A function that is not ``async`` runs in a worker thread. Arguments that do not fit, and
        exceptions of the function, become an answer that tells the model what went wrong.

        Raises:
            InvalidRequestError: The call is for another tool.
        """
        if call.name != self.name:
            raise InvalidRequestError(
                f"The call is for {call.name!r}; this tool is {self.name!r}.",
                phase="prepare",
                hint="Look the tool up by call.name.",
            )
        from pydantic import ValidationError
        from pydantic_core import ArgsKwargs, from_json

        try:
            arguments = from_json(call.arguments)
            if not isinstance(arguments, dict):
                return Message.tool(call.id, "The arguments must be a JSON object.", is_error=True)
            bound = ArgsKwargs((), cast("dict[str, Any]", arguments))
            return Message.tool(call.id, _as_content(await self._call(bound)))
        except ValidationError as error:
            complaints = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}" for item in error.errors()
            )
            return Message.tool(call.id, f"The arguments do not fit: {complaints}", is_error=True)
        except ValueError as error:
            return Message.tool(call.id, f"{type(error).__name__}: {error}", is_error=True)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises, the model is told
            return Message.tool(call.id, f"{type(error).__name__}: {error}", is_error=True)

    async def _call(self, arguments: Any) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await cast("Awaitable[Any]", self.adapter.validate_python(arguments))
        import anyio.to_thread

        return await anyio.to_thread.run_sync(self.adapter.validate_python, arguments)


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, strict: bool | None = None
) -> Callable[[Callable[..., Any]], FunctionTool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Make a typed function a tool: ``@tool``, ``@tool(name="…")`` or ``tool(function)``.

    Types become the JSON Schema, the docstring's first paragraph the description, and its
    ``Args:`` section the descriptions of the parameters (``Annotated[…, Field(description=…)]`` wins).

    Args:
        function: Sync or async. All parameters need types that pydantic knows.
        name: In place of the function's own name.
        description: In place of the docstring's.
        strict: Whether the model must follow the schema exactly, where it can be made to.

    Raises:
        InvalidRequestError: The name or a type cannot be told to a model.
    """
    if function is None:

        def decorate(decorated: Callable[..., Any]) -> FunctionTool:
            return _from_function(decorated, name=name, description=description, strict=strict)

        return decorate
    return _from_function(function, name=name, description=description, strict=strict)


def _from_function(
    function: Callable[..., Any], *, name: str | None, description: str | None, strict: bool | None
) -> FunctionTool:
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError

    called = name or function.__name__
    if not _NAME.fullmatch(called):
        raise InvalidRequestError(
            f"A tool cannot be named {called!r}.", phase="prepare", hint="Use 1 to 64 of a-z, A-Z, 0-9, _ and -."
        )
    try:
        adapter = cast("Any", TypeAdapter)(function)
        schema = cast("dict[str, Any]", adapter.json_schema())
    except (PydanticUserError, PydanticSchemaGenerationError, NameError) as error:
        raise InvalidRequestError(
            f"The parameters of {called!r} have no JSON Schema: {str(error).splitlines()[0]}",
            phase="prepare",
            hint="Give every parameter a type that JSON can express, and take no *args.",
        ) from error
    if schema.get("type") != "object":
        raise InvalidRequestError(
            f"{called!r} takes positional-only parameters or *args, which a model cannot name.", phase="prepare"
        )
    said = inspect.getdoc(function) or ""
    described = _argument_descriptions(said)
    for parameter, property_schema in cast("dict[str, dict[str, Any]]", schema.get("properties", {})).items():
        if parameter in described:
            property_schema.setdefault("description", described[parameter])
    return FunctionTool(
        name=called,
        description=description if description is not None else " ".join(said.partition("\n\n")[0].split()),
        parameters={"properties": {}, **schema},
        strict=strict,
        function=function,
        adapter=adapter,
    )


def _argument_descriptions(docstring: str) -> dict[str, str]:
    """The ``Args:`` section of a Google-style docstring."""
    found: dict[str, str] = {}
    inside = False
    current = ""
    for line in docstring.splitlines():
        if _SECTION.match(line):
            inside = line == "Args:"
        elif inside and (match := _ARGUMENT.match(line.strip())) and line.startswith("    ") and line[4:5] != " ":
            current = match[1]
            found[current] = match[2]
        elif inside and current and line.strip():
            found[current] = f"{found[current]} {line.strip()}".strip()
    return found


def _as_content(result: Any) -> str | Mapping[str, Any] | list[Any]:
    """A tool's result as text or JSON."""
    if isinstance(result, str):
        return result
    from pydantic_core import to_jsonable_python

    value: Any = to_jsonable_python(result)
    return cast("Mapping[str, Any] | list[Any]", value) if isinstance(value, dict | list) else str(value)
