"""The door of the key store, at which errors leave the variables of their frames behind.

``apex_llm.types.tracebacks`` says why. Here the frames hold keys and passphrases, and so do those of what is
called: nothing of it goes on after an error, so they are cleared as well.
"""

from __future__ import annotations

__all__ = ["clears_tracebacks"]

import functools
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast

from apex_llm.types.tracebacks import clear_frames

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
_HERE = str(Path(__file__).parent)


def clears_tracebacks(owner: C) -> C:
    """Let every public method and property of a class, inherited ones too, clear what its errors went through."""
    for kind in reversed(owner.__mro__[:-1]):
        for name, member in list(vars(kind).items()):
            if name.startswith("_") and name != "__init__":
                continue
            if isinstance(member, FunctionType):
                setattr(owner, name, _clearing(member))
            elif isinstance(member, classmethod):
                method = cast("Callable[..., Any]", cast("Any", member).__func__)
                setattr(owner, name, classmethod(_clearing(method)))
            elif isinstance(member, property) and member.fget is not None:
                setattr(owner, name, property(_clearing(member.fget), doc=member.__doc__))
    return owner


def _clearing(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return function(*arguments, **options)
        except BaseException as error:
            del arguments, options  # this frame stays in the traceback
            clear_frames(error, within=_HERE, and_called=True)
            raise

    return call
