"""Errors that leave the key store take no secrets along in their tracebacks.

A traceback keeps the frames that it went through, with their variables, and there are tools that print
those (rich, cgitb, error trackers, ``pytest -l``). Here they hold keys and passphrases. Lines and names
stay; the variables of our frames, and of what they called, are cleared at the door.
"""

from __future__ import annotations

__all__ = ["clears_tracebacks"]

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast

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
            _clear(error)
            raise

    return call


def _clear(error: BaseException) -> None:
    seen: set[int] = set()
    behind: list[BaseException | None] = [error]
    while behind:
        each = behind.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        behind += (each.__cause__, each.__context__)
        step = each.__traceback__
        while step is not None and not step.tb_frame.f_code.co_filename.startswith(_HERE):
            step = step.tb_next  # the caller's own frames are none of our business
        while step is not None:
            with contextlib.suppress(RuntimeError):  # it is still running
                step.tb_frame.clear()
            step = step.tb_next
