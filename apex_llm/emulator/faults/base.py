"""What a fault is, and what it has at hand when it is played.

A fault gets the good answer that the emulator would have given, on the wire that was asked for,
and the bare connection. What it makes of the two is its own business: so every fault is played
on Converse, InvokeModel and Azure alike, and its bytes are real up to the point where it strikes.
"""

from __future__ import annotations

__all__ = ["AZURE", "BEDROCK", "STREAM", "WHOLE", "CallKind", "Fault", "FaultCall", "Player", "Wire", "chunked"]

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Literal, TypeAlias

from apex_llm.emulator.raw import FaultConnection
from apex_llm.emulator.recorded import RecordedRequest
from apex_llm.emulator.wire import Reply

Wire: TypeAlias = Literal["bedrock", "azure"]
CallKind: TypeAlias = Literal["stream", "whole"]
BEDROCK: frozenset[Wire] = frozenset({"bedrock"})
AZURE: frozenset[Wire] = frozenset({"azure"})
STREAM: frozenset[CallKind] = frozenset({"stream"})
WHOLE: frozenset[CallKind] = frozenset({"whole"})


@dataclass(frozen=True, slots=True)
class FaultCall:
    """One request that a fault answers, and the good answer to it."""

    request: RecordedRequest
    reply: Reply
    """The good answer: its body, or the events of its stream."""
    headers: tuple[tuple[str, str], ...]
    """Headers of the good answer, without those that frame its body."""
    random: Random = field(default_factory=Random)

    @property
    def wire(self) -> Wire:
        """Which cloud was asked."""
        return "azure" if self.request.path.startswith("/openai/") else "bedrock"

    @property
    def streamed(self) -> bool:
        """Whether a stream was asked for."""
        return self.reply.parts is not None

    @property
    def parts(self) -> tuple[bytes, ...]:
        """The events of a stream in good order, or the whole body as one piece."""
        return (self.reply.body,) if self.reply.parts is None else self.reply.parts

    @property
    def body(self) -> bytes:
        """The good body as one piece."""
        return b"".join(self.parts)

    @property
    def begun(self) -> tuple[bytes, ...]:
        """The first half of a stream's events, with some text in it; the first half of any other body."""
        if self.reply.parts is None:
            return (self.reply.body[: len(self.reply.body) // 2],)
        return self.reply.parts[: len(self.reply.parts) // 2]

    def head(
        self,
        *more: str,
        status: int = 200,
        framing: Literal["length", "chunked", "none"] | None = None,
        length: int | None = None,
        content_type: str | None = None,
        last: bool = False,
    ) -> bytes:
        """A response head.

        Args:
            more: Further header lines, as they are.
            status: The status.
            framing: How the body is framed; chunked for streams, else by length.
            length: To promise, instead of the good body's.
            content_type: Instead of the good one.
            last: Whether the connection will be closed in good order.
        """
        lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Status'}"]
        lines += [
            f"{name}: {value}"
            for name, value in self.headers
            if name != "content-length" and not (content_type is not None and name == "content-type")
        ]
        if content_type is not None:
            lines.append(f"content-type: {content_type}")
        if last:
            lines.append("connection: close")
        framing = framing or ("chunked" if self.streamed else "length")
        if framing == "chunked":
            lines.append("transfer-encoding: chunked")
        elif framing == "length":
            lines.append(f"content-length: {len(self.body) if length is None else length}")
        return "\r\n".join([*lines, *more, "", ""]).encode("latin-1")

    def message(self, body: Iterable[bytes] | None = None, *, last: bool = False) -> bytes:
        """A whole and well-formed answer with ``body`` (the good one if left out), framed as a good one is."""
        pieces = list(self.parts if body is None else body)
        if self.streamed:
            return self.head(last=last) + chunked(pieces)
        whole = b"".join(pieces)
        return self.head(length=len(whole), last=last) + whole


def chunked(pieces: Iterable[bytes], *, ended: bool = True) -> bytes:
    """Each piece as one HTTP chunk; ``ended`` adds the last one, which is empty."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return framed + b"0\r\n\r\n" if ended else framed


Player: TypeAlias = Callable[[FaultConnection, FaultCall], Awaitable[None]]
"""Answers one call. The connection is closed in good order when it returns, unless it has ended already."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way of going wrong, under a name."""

    name: str
    row: int
    """Of the table in ``docs/reference/faults.md``."""
    summary: str
    """What the server does, in one sentence."""
    play: Player = field(repr=False)
    calls: frozenset[CallKind] = WHOLE | STREAM
    """Which calls it can strike; any other gets the good answer."""
    wires: frozenset[Wire] = BEDROCK | AZURE

    def strikes(self, call: FaultCall) -> bool:
        """Whether it applies to this call."""
        return call.wire in self.wires and ("stream" if call.streamed else "whole") in self.calls
