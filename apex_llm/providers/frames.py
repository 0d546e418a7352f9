"""Errors that leave a provider take no credentials along in their tracebacks.

A traceback keeps the frames that it went through, with their variables, and there are tools that print those
(rich, cgitb, error trackers). Ours hold signed headers, heads of requests and the environment. Lines and names
stay; the variables go. Frames of other libraries are left alone: they may belong to something that goes on.
"""

from __future__ import annotations

__all__ = ["clear_frames", "clears_frames"]

import contextlib
import functools
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - pathlib would have to be loaded


def clear_frames(error: BaseException) -> None:
    """Drop the variables of our frames that ``error`` went through, and those behind it; running ones keep theirs."""
    seen: set[int] = set()
    behind: list[BaseException | None] = [error]
    while behind:
        each = behind.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        behind += (each.__cause__, None if each.__suppress_context__ else each.__context__)
        step = each.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename.startswith(_OURS):
                with contextlib.suppress(RuntimeError):  # it is still running
                    step.tb_frame.clear()
            step = step.tb_next


def clears_frames(function: F) -> F:
    """Let a coroutine function clear what its errors went through. For what is not called often."""

    @functools.wraps(function)
    async def call(*arguments: Any, **options: Any) -> Any:
        try:
            return await function(*arguments, **options)
        except Exception as error:
            clear_frames(error)
            raise

    return cast("F", call)
