"""Makes the package do more work, in each of the ways that the guard is there to notice.

Imported by a child before it counts. What stands in for the package's own code says that it is in one of its files.
"""

from __future__ import annotations

__all__: list[str] = []

import asyncio
import logging.handlers  # noqa: F401 - as if the package needed it, and all that comes with it
import unittest.mock  # noqa: F401
import xml.dom.minidom  # noqa: F401
from collections.abc import Callable
from typing import Any

from apex_llm.providers import backend
from apex_llm.streaming.streams import TextStream
from tests.work.counting import PACKAGE

_seen: list[Any] = []


def _as_if_in(file: str, function: Any) -> Any:
    function.__code__ = function.__code__.replace(co_filename=PACKAGE + file)
    return function


def _one_more_layer(compose: Callable[..., Any]) -> Callable[..., Any]:
    def sound(byte: int) -> bool:
        return byte not in {10, 13}

    async def layer(request: Any, send: Any) -> Any:
        for byte in request.body:
            sound(byte)
        _seen.append([request.model])  # kept, as a cache without a bound would
        return await send(request)

    sound = _as_if_in("transport/body_checks.py", sound)
    layer = _as_if_in("transport/body_checks.py", layer)
    return lambda layers, send: compose([layer, *layers], send)


def _one_more_turn(following: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def turn(stream: Any) -> Any:
        text = await following(stream)
        copies: list[list[str]] = []
        for character in text * 2:
            copies.append([character])
        await asyncio.sleep(0)
        return text

    return _as_if_in("transport/limits.py", turn)


backend.compose = _one_more_layer(backend.compose)
TextStream.__anext__ = _one_more_turn(TextStream.__anext__)  # type: ignore[method-assign]
