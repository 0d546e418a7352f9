"""Errors travel: across processes, and into logs, with everything that they know."""

from __future__ import annotations

import pickle

import pytest

from apex_llm import errors
from apex_llm.types.messages import Message
from apex_llm.types.responses import ChatResponse

EVERY_ERROR = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error_pickles_with_all_its_attributes(kind: type[errors.ApexLlmError]) -> None:
    """Ray, multiprocessing and job queues pickle exceptions; a lost attribute is a lost fact."""
    partial = ChatResponse(message=Message.assistant("so far"))
    error = kind(
        "what happened",
        status=429,
        code="X",
        request_id="r",
        attempts=2,
        retry_after=1.5,
        hint="do that",
        partial=partial,
    )
    error.headers = {"a": "b"}

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error_is_caught_by_the_one_base_class_and_says_what_it_is(kind: type[errors.ApexLlmError]) -> None:
    assert issubclass(kind, errors.ApexLlmError)
    assert kind.__doc__


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in errors.__doc__


def test_the_text_carries_the_facts_and_the_hint() -> None:
    error = errors.RateLimitError("Too many requests.", status=429, code="ThrottlingException", hint="Slow down.")

    assert str(error) == "Too many requests. [status=429, code=ThrottlingException]\n  hint: Slow down."
