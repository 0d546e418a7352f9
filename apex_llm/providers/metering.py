"""What limits want to know of a call: what it may cost, what it has used, and how it failed late.

All of it travels on values: the estimate down on the request, usage and errors up on the answer.
Not on the path of a provider whose limits have nothing but the retry quota.
"""

from __future__ import annotations

__all__ = ["metered", "metered_decoder"]

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from apex_llm.codecs.base import StreamDecoder
from apex_llm.errors import ApexLlmError
from apex_llm.streaming.exchange import Exchange
from apex_llm.transport.limits import Limits
from apex_llm.types.events import StreamEvent, StreamFinished
from apex_llm.types.http import HttpRequest
from apex_llm.types.responses import ChatResponse, Usage

T = TypeVar("T")


async def metered(
    limits: Limits,
    request: HttpRequest,
    understand: Callable[[HttpRequest], Awaitable[T]],
    *,
    at_admission: bool,
) -> T:
    """One attempt, with everything that limits need to know of it.

    Args:
        limits: Told.
        request: What is sent.
        understand: Sends it and understands the answer.
        at_admission: See ``Limits.settle``.
    """
    request = limits.opened(request)
    try:
        result = await understand(request)
    except ApexLlmError as error:
        limits.report(request, error)
        raise
    if isinstance(result, ChatResponse):
        if result.usage is not None:
            limits.settle(request, result.usage, at_admission=at_admission)
    elif isinstance(result, Exchange):
        result.watch(partial(_broken, limits, request))
    return result


def _broken(limits: Limits, request: HttpRequest, error: ApexLlmError) -> None:
    # A stream that takes longer than its caller had time for it says nothing about the service.
    if error.phase != "total":
        limits.report(request, error)


def metered_decoder(make: Callable[[], StreamDecoder], tell: Callable[[Usage], None]) -> Callable[[], StreamDecoder]:
    """Decoders like those of ``make``, which call ``tell`` when a stream has finished and said what it used."""
    return lambda: _MeteredDecoder(make(), tell)


class _MeteredDecoder:
    __slots__ = ("_inner", "_tell", "feed")

    def __init__(self, inner: StreamDecoder, tell: Callable[[Usage], None]) -> None:
        self.feed = inner.feed  # itself, so that no event costs a call more
        self._inner = inner
        self._tell = tell

    def finish(self) -> Sequence[StreamEvent]:
        events = self._inner.finish()
        for event in events:
            if type(event) is StreamFinished and event.usage is not None:
                self._tell(event.usage)
        return events
