"""The blocking surface is the async one, by ``inspect``, where the generator goes by ``ast``."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from typing import Any

import pytest

import apex_llm
import apex_llm.sync
from apex_llm.providers import registry
from apex_llm.sync import _generated

RENAMED = {"aclose": "close"}
PLANNED = {"_get_deployment_model"}
TWINS = {
    getattr(apex_llm, name): getattr(apex_llm.sync, name)
    for name in ("AzureOpenAIProvider", "BaseLlmProvider", "BedrockProvider", "EventStream", "TextStream")
}
PROVIDERS = [twin for twin in TWINS.items() if issubclass(twin[0], apex_llm.BaseLlmProvider)]
STREAMS = [(apex_llm.EventStream, apex_llm.sync.EventStream), (apex_llm.TextStream, apex_llm.sync.TextStream)]


def public(kind: type) -> dict[str, Any]:
    return {
        RENAMED.get(name, name): inspect.getattr_static(kind, name)
        for name in dir(kind)
        if not name.startswith("_") or name in PLANNED
    }


def instance_attributes(provider: object) -> set[str]:
    return {name for name in vars(provider) if not name.startswith("_")}


def unwrapped(annotation: Any) -> Any:
    """``T`` of ``Awaitable[T]``, and the blocking class of an async one."""
    if typing.get_origin(annotation) in {collections.abc.Awaitable, collections.abc.Coroutine}:
        annotation = typing.get_args(annotation)[-1]
    return TWINS.get(annotation, annotation) if isinstance(annotation, collections.abc.Hashable) else annotation


def shape(function: Any) -> list[tuple[str, Any, Any, Any]]:
    # What a module imports only when it is needed.
    later = {kind.__name__: kind for kind in TWINS if kind.__name__ not in function.__globals__}
    hints = typing.get_type_hints(function, localns=later)
    return [
        *(
            (parameter.name, parameter.kind, parameter.default, hints.get(parameter.name))
            for parameter in inspect.signature(function).parameters.values()
        ),
        ("return", None, None, unwrapped(hints.get("return"))),
    ]


@pytest.mark.parametrize(("theirs", "ours"), [*PROVIDERS, *STREAMS], ids=lambda kind: kind.__name__)
def test_the_public_names_are_the_same(theirs: type, ours: type) -> None:
    extra = {"async_provider"} if issubclass(theirs, apex_llm.BaseLlmProvider) else set()
    attributes = {"default_model", "limits"} if extra else set()

    assert set(public(ours)) - extra - attributes == set(public(theirs)) - attributes


@pytest.mark.parametrize("kind", ["AzureOpenAIProvider", "BedrockProvider"])
def test_attributes_that_instances_have_are_properties(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in instance_attributes(getattr(apex_llm, kind)()):
        found = inspect.getattr_static(getattr(apex_llm.sync, kind), name)
        assert isinstance(found, property)
        assert found.fset is not None


@pytest.mark.parametrize(("theirs", "ours"), [*PROVIDERS, *STREAMS], ids=lambda kind: kind.__name__)
def test_parameters_defaults_annotations_and_words_are_the_same(theirs: type, ours: type) -> None:
    here = public(ours)
    for name, member in public(theirs).items():
        twin = here[name]
        if isinstance(member, property):
            assert isinstance(twin, property)
            assert shape(twin.fget) == shape(member.fget)
            assert (twin.fset is None) == (member.fset is None)
            assert twin.__doc__ == member.__doc__
        elif callable(member):
            assert shape(twin) == shape(member), name
            assert not inspect.iscoroutinefunction(twin)
            if issubclass(theirs, apex_llm.BaseLlmProvider):
                assert twin.__doc__ == member.__doc__
        else:
            assert twin == member


@pytest.mark.parametrize("kind", ["AzureOpenAIProvider", "BedrockProvider"])
def test_constructors_and_class_docstrings_are_the_same(kind: str) -> None:
    theirs, ours = getattr(apex_llm, kind), getattr(apex_llm.sync, kind)

    assert shape(ours.__init__) == shape(theirs.__init__)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert ours.__doc__ == theirs.__doc__


@pytest.mark.parametrize("name", registry.__all__)
def test_the_functions_that_make_providers_are_the_same(name: str) -> None:
    theirs, ours = getattr(registry, name), getattr(_generated, name)

    assert shape(ours) == shape(theirs)
    assert ours.__doc__ == theirs.__doc__
    assert [shape(overload) for overload in typing.get_overloads(ours)] == [
        shape(overload) for overload in typing.get_overloads(theirs)
    ]


def test_each_async_context_or_iterator_is_a_plain_one() -> None:
    for theirs, ours in TWINS.items():
        for name in ("enter", "exit", "iter", "next"):
            asynchronous = "anext" if name == "next" else f"a{name}"
            assert hasattr(ours, f"__{name}__") == hasattr(theirs, f"__{asynchronous}__")
