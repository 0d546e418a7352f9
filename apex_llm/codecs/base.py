"""The two interfaces that a chat format fulfils.

A codec knows JSON and nothing else: no addresses, no credentials, no I/O. A new model
family is one module with one codec, and one line in a provider's table.
"""

from __future__ import annotations

__all__ = ["DONE", "ChatCodec", "StreamDecoder"]

from collections.abc import Sequence
from typing import Final, Protocol

from apex_llm.types.events import StreamEvent
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import ChatResponse

DONE: Final = "[DONE]"
"""The event name by which the server-sent-events framing reports OpenAI's ``data: [DONE]`` line."""


class ChatCodec(Protocol):
    """One format for chat, both ways. Stateless: one instance serves all calls."""

    def encode(self, request: ChatRequest, *, stream: bool) -> tuple[bytes, tuple[str, ...]]:
        """The JSON body, and warnings about what had to be left out.

        Raises:
            InvalidRequestError: The request cannot be said in this format.
        """
        ...

    def decode(self, body: bytes) -> ChatResponse:
        """The answer; members that we do not know are ignored.

        Raises:
            ResponseFormatError: The body is not this format.
        """
        ...

    def stream_decoder(self) -> StreamDecoder:
        """A fresh decoder for one stream."""
        ...


class StreamDecoder(Protocol):
    """The state of one stream: fed payloads in order, finished once.

    Decoders may be copied (``copy.deepcopy``) between feeds; tests cut streams that way.
    """

    def feed(self, name: str, payload: bytes) -> Sequence[StreamEvent]:
        """Events of one payload; empty for keep-alives and empty deltas.

        Args:
            name: The event's name as its framing gave it: ``contentBlockDelta``, ``chunk``, ``message``, ….
            payload: The JSON.

        Raises:
            ResponseFormatError: The payload is not this format.
        """
        ...

    def finish(self) -> Sequence[StreamEvent]:
        """Called once, after the body has ended cleanly: the last events, ``StreamFinished`` among them.

        Raises:
            StreamTruncatedError: The format's terminal event was never seen.
        """
        ...
