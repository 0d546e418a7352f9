"""Blocking work, off the event loop, on daemon threads of our own.

Neither the loop's default executor nor a pool: a look-up that hangs (a file on a dead mount,
a ``credential_process`` that waits for ever) must hold up neither other work nor the exit of
the interpreter, and a cancelled caller must be free at once.
"""

from __future__ import annotations

__all__ = ["call", "is_async_callable", "run_in_thread"]

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from apex_llm.errors import MissingCredentialsError

T = TypeVar("T")


async def run_in_thread(function: Callable[..., T], *arguments: Any, name: str = "apex_llm-credentials") -> T:
    """What ``function(*arguments)`` returns or raises, run on a daemon thread in a copy of this context.

    Cancelling the caller abandons the thread; its result is dropped.

    Raises:
        MissingCredentialsError: There is no thread to be had.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if not arrived.done():
            arrived.set_result((result, error))

    def work() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = context.run(function, *arguments)
        except BaseException as caught:  # noqa: BLE001 - raised again where it is awaited
            error = caught
        try:
            loop.call_soon_threadsafe(deliver, result, error)
        except RuntimeError:
            return  # the loop closed meanwhile: nobody is waiting

    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError as error:
        raise MissingCredentialsError(
            "No thread could be started to look for credentials or settings.",
            retryable=True,
            phase="prepare",
            hint="There are too many threads already, or the interpreter is about to exit.",
        ) from error
    result, error = await arrived
    if error is not None:
        raise error
    return result  # pyright: ignore[reportReturnType] # set whenever there is no error


def is_async_callable(function: object) -> bool:
    """Whether calling ``function`` only makes a coroutine, so that it may be called on the loop."""
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function given by the user, sync or async: a sync one runs in a thread, as it may block."""
    if is_async_callable(function):
        return await function(*arguments)
    result = await run_in_thread(function, *arguments)
    return await result if inspect.isawaitable(result) else result
