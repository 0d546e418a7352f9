"""Whether a JSON value is what a typed dictionary of openai or anthropic describes, without a member too many."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typing_extensions

_WRAPPERS = (Annotated, typing_extensions.Annotated, typing.Required, typing.NotRequired)
_SIMPLE: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), type(None): (type(None),), None: (type(None),)}


def problems(value: Any, annotation: Any, path: str = "") -> Iterator[str]:
    """What is wrong with the value; nothing where it fits."""
    origin = get_origin(annotation)
    if origin in _WRAPPERS or origin in (typing_extensions.Required, typing_extensions.NotRequired):
        yield from problems(value, get_args(annotation)[0], path)
    elif isinstance(annotation, typing_extensions.TypeAliasType):
        yield from problems(value, annotation.__value__, path)
    elif origin in (Union, types.UnionType):
        # The alternative that comes closest says best what is wrong.
        kinds = (f"{path} is ", f"{path}.type is ", f"{path}.role is ")
        yield from min(
            (list(problems(value, each, path)) for each in _likely(value, annotation)),
            key=lambda found: (sum(each.startswith(kinds) for each in found), len(found)),
        )
    elif origin in (Literal, typing_extensions.Literal):
        if value not in get_args(annotation):
            yield f"{path} is {value!r}, none of {get_args(annotation)}"
    elif typing_extensions.is_typeddict(annotation):
        yield from _dictionary(value, annotation, path)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from _mapping(value, get_args(annotation)[1], path)
    elif origin is not None:
        yield from _list(value, get_args(annotation)[0], path)
    elif annotation is float or annotation is int:
        if isinstance(value, bool) or not isinstance(value, int | annotation):
            yield f"{path} is {value!r}, no number"
    elif annotation in _SIMPLE:
        if not isinstance(value, _SIMPLE[annotation]):
            yield f"{path} is a {type(value).__name__}, not {annotation}"
    elif annotation is not object and annotation is not Any:
        # Files and pydantic models are alternatives that JSON cannot hold.
        yield f"{path} is no {annotation!r}"


def _dictionary(value: Any, annotation: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} is a {type(value).__name__}, not {annotation.__name__}"
        return
    hints, required = members_of(annotation)
    for name in sorted(required - value.keys()):
        yield f"{path}.{name} is missing"
    for name, member in value.items():
        if name not in hints:
            yield f"{path}.{name} is unknown to {annotation.__name__}"
        else:
            yield from problems(member, hints[name], f"{path}.{name}")


def _mapping(value: Any, annotation: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} is a {type(value).__name__}, not a mapping"
        return
    for name, member in value.items():
        yield from problems(member, annotation, f"{path}[{name!r}]")


def _list(value: Any, annotation: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path} is a {type(value).__name__}, not a list"
        return
    for member in value:
        yield from problems(member, annotation, f"{path}[]")


def _likely(value: Any, annotation: Any) -> tuple[Any, ...]:
    """Of all alternatives those that say of themselves what the value says, if there are any."""
    alternatives = get_args(annotation)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return alternatives
    return tuple(each for each in alternatives if value["type"] in _kinds(each)) or alternatives


@functools.cache
def _kinds(annotation: Any) -> tuple[Any, ...]:
    hint = members_of(annotation)[0].get("type") if typing_extensions.is_typeddict(annotation) else None
    while hint is not None and get_origin(hint) in (*_WRAPPERS, typing_extensions.Required):
        hint = get_args(hint)[0]
    return get_args(hint)


@functools.cache
def members_of(annotation: Any) -> tuple[Mapping[str, Any], set[str]]:
    """The members of a typed dictionary, and which ones it needs."""
    hints = typing_extensions.get_type_hints(annotation, include_extras=True)
    # What is written as text, as it all is here, typing does not look at when it counts what is required.
    said = {name for name, hint in hints.items() if get_origin(hint) in (typing.Required, typing_extensions.Required)}
    return hints, said | {
        name for name in annotation.__required_keys__ if get_origin(hints[name]) is not typing.NotRequired
    }
