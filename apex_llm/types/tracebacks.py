"""Errors that leave us take no credentials along in their tracebacks.

A traceback keeps the frames that it went through, with their variables, and there are tools that print those
(rich, cgitb, error trackers, ``pytest -l``). Ours hold keys, signed headers and the environment. Lines and names
stay; the variables go. Who lets an error out calls this last: providers, and the key store.
"""

from __future__ import annotations

__all__ = ["clear_frames", "clears_frames"]

import contextlib
import functools
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - pathlib would have to be loaded


def clear_frames(error: BaseException, *, within: str = _PACKAGE, and_called: bool = False) -> None:
    """Drop the variables of frames that ``error`` went through, and of those behind it; running ones keep theirs.

    Args:
        error: With its causes and contexts.
        within: The beginning of the file names of the frames that are meant.
        and_called: Also what those have called, whoever wrote it. Only where nothing of it may be suspended
            and go on later: clearing ends it.
    """
    seen: set[int] = set()
    behind: list[BaseException | None] = [error]
    while behind:
        each = behind.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        behind += (each.__cause__, each.__context__)
        step, entered = each.__traceback__, False
        while step is not None:
            ours = step.tb_frame.f_code.co_filename.startswith(within)
            entered = entered or ours
            if ours or (and_called and entered):
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
