"""Random values of other people's types: botocore's shapes, and the models and dictionaries of openai and anthropic.

Every text and number is different from every other, so that a value that was lost on the way can be told by name.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random
from typing import Any, Literal, Union, get_args, get_origin

import pydantic
import typing_extensions
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape
from typed_dictionaries import members_of

DEEPEST = 9
_ODD = ("", "", " ", "\n", '"', "é", "😀", "\u2028", "{", "x" * 40)


class Values:
    """Makes values. ``forced`` says what a member must be, by its last names: ``{"message.role": "assistant"}``."""

    def __init__(
        self, random: Random, *, forced: Mapping[str, Any] | None = None, rate: float = 0.6, longest: int = 2
    ) -> None:
        self.random = random
        self.forced = dict(forced or {})
        self.rate = rate
        self.longest = longest
        self.number = 0

    def text(self) -> str:
        """Text that occurs nowhere else."""
        self.number += 1
        return f"«{self.number}{self.random.choice(_ODD)}»"

    def integer(self, low: int | None = None) -> int:
        """A number that occurs nowhere else, unless its shape keeps it small."""
        self.number += 1
        return max(low or 0, 100_000 + self.number)

    def some(self) -> bool:
        """Whether something that may be left out is there."""
        return self.random.random() < self.rate

    def document(self, depth: int = 0) -> Any:
        """Any JSON object."""
        return {self.text(): self._json(depth + 1) for _ in range(self.random.randint(0, 2))}

    def _json(self, depth: int) -> Any:
        kind = self.random.randrange(7 if depth < 3 else 5)
        if kind == 5:
            return [self._json(depth + 1) for _ in range(self.random.randint(0, 2))]
        if kind == 6:
            return self.document(depth)
        return (self.text(), self.integer(), True, None, self.number + 0.5)[kind]

    def _forced(self, path: tuple[str, ...]) -> tuple[bool, Any]:
        for length in range(min(len(path), 3), 0, -1):
            name = ".".join(path[-length:])
            if name in self.forced:
                value = self.forced[name]
                return True, value() if callable(value) else value
        return False, None

    # botocore -------------------------------------------------------------------------------------------------

    def of_shape(self, shape: Shape, path: tuple[str, ...] = ()) -> Any:
        """A value as the service would send it in JSON: blobs as base64, times as ISO 8601."""
        is_forced, value = self._forced(path)
        if is_forced:
            return value
        if getattr(shape, "is_document_type", False):
            return self.document()
        match shape:
            case StructureShape():
                return self._structure(shape, path)
            case ListShape():
                most = self.longest if len(path) < DEEPEST else 1
                least = min(shape.metadata.get("min", 0), 1)
                return [self.of_shape(shape.member, path) for _ in range(self.random.randint(least, max(most, least)))]
            case MapShape():
                return {self.text(): self.of_shape(shape.value, path) for _ in range(self.random.randint(0, 2))}
            case StringShape() if shape.enum:
                return self.random.choice(shape.enum)
            case _:
                return self._scalar(shape)

    def _structure(self, shape: StructureShape, path: tuple[str, ...]) -> dict[str, Any]:
        members = shape.members
        if getattr(shape, "is_tagged_union", False):
            allowed = [name for name in members if self.forced.get(f"{shape.name}.{name}", True) is not None]
            name = self.random.choice(allowed)
            return {name: self.of_shape(members[name], (*path, name))}
        rate = 1.0 if len(path) < 2 else self.rate
        return {
            name: self.of_shape(member, (*path, name))
            for name, member in members.items()
            if name in shape.required_members or self.random.random() < rate
        }

    def _scalar(self, shape: Shape) -> Any:
        match shape.type_name:
            case "string":
                return self.text()
            case "integer" | "long":
                return self.integer(shape.metadata.get("min"))
            case "float" | "double":
                return self.integer() + 0.25
            case "boolean":
                return self.random.random() < 0.5
            case "blob":
                return base64.b64encode(self.text().encode()).decode()
            case "timestamp":
                return f"2026-01-02T03:04:{self.random.randrange(60):02}Z"
            case other:
                raise AssertionError(f"no values for the shape {shape.name} of type {other}")

    # pydantic models and typed dictionaries -------------------------------------------------------------------

    def of_type(self, annotation: Any, path: tuple[str, ...] = ()) -> Any:
        """A value as JSON would hold it."""
        is_forced, value = self._forced(path)
        if is_forced:
            return value
        origin = get_origin(annotation)
        if typing_extensions.is_typeddict(annotation):
            hints, required = members_of(annotation)
            there = [name for name in hints if name in required or self.some()]
            return {name: self.of_type(hints[name], (*path, name)) for name in there}
        if origin in (typing.Annotated, typing_extensions.Annotated, typing_extensions.Required, typing.Required):
            return self.of_type(get_args(annotation)[0], path)
        if isinstance(annotation, (typing.TypeAliasType if hasattr(typing, "TypeAliasType") else type(None),)):
            return self.of_type(annotation.__value__, path)
        if isinstance(annotation, typing_extensions.TypeAliasType):
            return self.of_type(annotation.__value__, path)
        if origin in (Literal, typing_extensions.Literal):
            return self.random.choice(get_args(annotation))
        if origin in (Union, types.UnionType):
            choices = list(get_args(annotation))
            if len(path) > DEEPEST and type(None) in choices:
                return None
            return self.of_type(self.random.choice(choices), path)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return {self.text(): self.of_type(get_args(annotation)[1], path) for _ in range(self.random.randint(0, 2))}
        if origin is not None and isinstance(origin, type) and issubclass(origin, Iterable):
            most = self.longest if len(path) < DEEPEST else 0
            return [self.of_type(get_args(annotation)[0], path) for _ in range(self.random.randint(0, most))]
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            return self._model(annotation, path)
        if annotation is type(None) or annotation is None:
            return None
        simple: dict[Any, Callable[[], Any]] = {
            str: self.text,
            int: self.integer,
            float: lambda: self.integer() + 0.5,
            bool: lambda: self.random.random() < 0.5,
            object: self.document,
            Any: self.document,
            dt.datetime: lambda: f"2026-01-02T03:04:{self.random.randrange(60):02}Z",
        }
        if annotation in simple:
            return simple[annotation]()
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return self.random.choice(list(annotation)).value
        if annotation in (dict, Mapping):
            return self.document()
        raise AssertionError(f"no values for {annotation!r} at {'.'.join(path)}")

    def _model(self, model: type[pydantic.BaseModel], path: tuple[str, ...]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for name, field in model.model_fields.items():
            wire = field.alias or name
            if field.is_required() or self.some() or self._forced((*path, wire))[0]:
                value[wire] = self.of_type(field.annotation, (*path, wire))
        return value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every text and number of a JSON value, with where it stands."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from leaves(member, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for member in value:
            yield from leaves(member, f"{path}[]")
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield path, value
