"""One attempt at a stream: send, read, decode, and understand the first event.

Bytes become events here, a batch for each read of the socket. What an event means is the
codec's business, how bytes arrive the transport's, and how a stream looks to its caller
that of ``streams``.
"""

from __future__ import annotations

__all__ = ["Exchange", "open_exchange", "place_in_body", "request_id_in", "request_id_of"]

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from apex_llm.codecs.base import StreamDecoder
from apex_llm.errors import ApexLlmError, RequestTimeoutError
from apex_llm.types.events import StreamEvent, StreamStarted, UnknownEvent
from apex_llm.types.http import Framing, HttpRequest, HttpResponse, Send

_BEFORE_CONTENT = frozenset({StreamStarted, UnknownEvent})


class Exchange:
    """One response that is being read: bytes to events, a batch at a time.

    Idle time is counted between events that carry meaning, and only while somebody waits for
    them: neither keep-alives nor unknown events postpone it, though these are handed over as they
    come, and a caller who takes their time does not cause it.
    """

    __slots__ = (
        "_decoder",
        "_failure",
        "_first",
        "_framing",
        "_idle",
        "_left",
        "_loop",
        "_over",
        "_response",
        "_rest",
        "_straight",
        "_tell",
        "attempt",
        "model",
    )

    def __init__(
        self, response: HttpResponse, framing: Framing, decoder: StreamDecoder, *, request: HttpRequest
    ) -> None:
        # Not the request itself, whose body may be large.
        self.attempt: int = request.attempt
        self.model: str = request.model
        self._response = response
        self._framing = framing
        self._decoder = decoder
        self._idle = request.timeout.idle
        self._loop = asyncio.get_running_loop()
        self._over = False
        self._failure: ApexLlmError | None = None
        self._first: list[StreamEvent] | None = None
        self._rest: Iterator[tuple[str, bytes]] | None = None
        self._left: float | None = None
        """After events that carry no meaning, the seconds of silence that are left of those allowed."""
        self._straight = True
        """Whether the next events are those of the next bytes: none are at hand, the stream is not over, and the
        time that it may be silent begins anew."""
        self._tell: Callable[[ApexLlmError], None] | None = None

    @property
    def request_id(self) -> str | None:
        """The provider's id of this exchange, from the response's headers."""
        return request_id_of(self._response)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd about the bytes, such as text that was not UTF-8."""
        return tuple(getattr(self._framing, "warnings", ()))

    async def understand(self) -> None:
        """Read up to the first event that carries meaning; before it, every error is the typed error itself."""
        try:
            self._first = await self._events(opening=True)
            self._straight = False
            if self._idle is None:
                self._response.read_deadline = None  # that of the first event, and of no other
        except BaseException:
            self.close()
            raise

    def watch(self, tell: Callable[[ApexLlmError], None]) -> None:
        """Have ``tell`` called, once, with the error by which this stream breaks; at once if it is broken already."""
        if self._failure is not None:
            tell(self._failure)
        else:
            self._tell = tell

    def read(self) -> Coroutine[Any, Any, list[StreamEvent]]:
        """The next events, at least one; an empty list after the end."""
        if not self._straight:
            return self._known()
        if self._idle is not None:
            self._response.read_deadline = self._loop.time() + self._idle
        return self._events()

    async def _known(self) -> list[StreamEvent]:
        if self._first is not None:
            events, self._first = self._first, None
            self._straight = self._rest is None and self._failure is None and not self._over
            return events
        if self._rest is not None:
            rest, self._rest = self._rest, None
            return await self._after(rest)
        if self._failure is not None:
            raise self._failure
        if self._over:
            return []
        left, self._left = self._left, None
        self._straight = True
        if left is not None:
            self._response.read_deadline = self._loop.time() + left
        return await self._events()

    async def _after(self, rest: Iterator[tuple[str, bytes]]) -> list[StreamEvent]:
        """What is left of the bytes in which the first events came."""
        events: list[StreamEvent] = []
        self._straight = True
        try:
            for name, payload in rest:
                events += self._decoder.feed(name, payload)
        except ApexLlmError as error:
            self._damaged(error)
            if not events:
                raise
            return events
        if _meaningful(events):
            return events
        if self._idle is not None:
            self._response.read_deadline = self._loop.time() + self._idle
        if not events:
            return await self._events()
        self._pause()
        return events

    async def _events(self, *, opening: bool = False) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        feed = self._decoder.feed
        while True:
            try:
                data = await self._response.read()
            except ApexLlmError as error:
                self._broke(error)
                raise
            try:
                if data:
                    payloads = self._framing.feed(data)
                    for name, payload in payloads:
                        events += feed(name, payload)
                        if opening and events and type(events[-1]) not in _BEFORE_CONTENT:
                            # Handed over at once, rather than when all that came with it is decoded.
                            self._rest = payloads
                            return events
                else:
                    for name, payload in self._framing.finish():
                        events += feed(name, payload)
                    events += self._decoder.finish()
                    self._over = True
                    self._straight = False
                    self.close()
            except ApexLlmError as error:
                self._damaged(error)
                if not events or (opening and not _meaningful(events)):
                    raise
                return events  # what was complete before the damage is delivered first
            if self._over or (events and (type(events[-1]) is not UnknownEvent or _meaningful(events))):
                return events
            if events and not opening:  # what begins with unknown events may still have to be tried again
                self._pause()
                return events

    def _pause(self) -> None:
        """Count on, from where it stands, how long there has been nothing that carries meaning."""
        self._straight = False
        until = self._response.read_deadline
        self._left = None if until is None else until - self._loop.time()

    def _damaged(self, error: ApexLlmError) -> None:
        self._failure = error
        self._straight = False
        self._broke(error)
        self.close()

    def _broke(self, error: ApexLlmError) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(error)

    def close(self) -> None:
        """Give the connection back, or drop it; at once and without waiting."""
        self._tell = None  # a read that is still waiting fails by our own doing
        self._response.close()


def _meaningful(events: Sequence[StreamEvent]) -> bool:
    return any(type(event) is not UnknownEvent for event in events)


def request_id_of(response: HttpResponse) -> str | None:
    """The id that the provider's support asks for, under any of the names in use."""
    return request_id_in(response.headers.to_dict())


def request_id_in(headers: Mapping[str, str]) -> str | None:
    """The same, among headers with names in lower case."""
    return headers.get("x-amzn-requestid") or headers.get("apim-request-id") or headers.get("x-request-id")


async def open_exchange(
    send: Send, request: HttpRequest, *, framing: Callable[[], Framing], decoder: Callable[[], StreamDecoder]
) -> Exchange:
    """One attempt at a stream: send, and understand the first event.

    A service may answer 200 and then refuse inside the stream. Because that happens in here,
    it is the typed error of an attempt, and can be retried like a refusal in the status line.
    """
    # Made before anything is sent: the first of its kind loads its module, for which there must be a descriptor.
    frames, events = framing(), decoder()
    response = await send(request)
    exchange = Exchange(response, frames, events, request=request)
    try:
        await exchange.understand()
    except ApexLlmError as error:
        if isinstance(error, RequestTimeoutError) and error.phase == "idle":
            error.phase = "first_byte"
        place_in_body(error, response)
        raise
    return exchange


def place_in_body(error: ApexLlmError, response: HttpResponse) -> None:
    """Say of an error in a body, of which nothing was handed over, which answer it was."""
    if error.phase is None or error.phase == "mid-stream":
        error.phase = "body"
    error.request_id = error.request_id or request_id_of(response)
    if not error.headers:
        error.headers = response.headers.to_dict()
