"""The targets that need a connection: both senders, and whole calls of both providers, against one loopback server.

The server writes the input and hangs up. So nothing may wait: whatever the bytes were, the call is over at once.
"""

from __future__ import annotations

__all__ = ["socket_targets"]

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any

import httpx
from fuzz_samples import chat_streams, converse_streams, http_answer
from fuzz_targets import Target
from mutations import mutate_frames, mutate_http, mutate_sse, pieces_of

from apex_llm import AzureOpenAIProvider, BedrockProvider
from apex_llm.errors import ApexLlmError
from apex_llm.transport.http11_sender import Http11Sender
from apex_llm.transport.httpx_sender import HttpxSender
from apex_llm.types.http import HttpRequest, Origin, Timeout

_SECONDS = 10.0
"""More than any call on loopback takes; what takes longer hangs."""
_TIMEOUT = Timeout(connect=_SECONDS, first_byte=_SECONDS, idle=_SECONDS, total=_SECONDS)


class _Server(asyncio.Protocol):
    """Answers the first bytes of a connection with the input, and hangs up."""

    def __init__(self, pieces: list[bytes], *, reset: bool) -> None:
        self._pieces = pieces
        self._reset = reset

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        pieces, self._pieces = self._pieces, []
        for piece in pieces[:20]:
            self._transport.write(piece)
        self._transport.write(b"".join(pieces[20:]))
        if self._reset:
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.close()


class _Stage:
    """The server, the clients, and the loop that they share."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._pieces: list[bytes] = []
        self._reset = False
        self.port = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Server(self._pieces, reset=self._reset), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.httpx = httpx.AsyncClient(trust_env=False)
        self.senders = {"http11": Http11Sender(), "httpx": HttpxSender(self.httpx)}
        address = f"http://127.0.0.1:{self.port}"
        usual: dict[str, Any] = {"retry": None, "timeout": _TIMEOUT, "trust_env": False}
        keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": "secret"}
        self.bedrock = BedrockProvider(credentials=keys, aws_region="us-east-1", endpoint_url=address, **usual)
        self.azure = AzureOpenAIProvider(api_base=address, api_version="2024-10-21", api_key="key", **usual)

    async def stop(self) -> None:
        await self.bedrock.aclose()
        await self.azure.aclose()
        for sender in self.senders.values():
            await sender.aclose()
        await self.httpx.aclose()
        self._server.close()

    def play(self, call: Callable[[], Awaitable[object]], data: bytes, dice: Random) -> None:
        self._pieces = pieces_of(data, dice)
        self._reset = dice.random() < 0.2

        async def in_time() -> None:
            async with asyncio.timeout(_SECONDS / 2):
                await call()

        self._runner.run(in_time())

    def target(self, name: str, weight: int, make: Callable[[Random], bytes], call: Callable[..., Any]) -> Target:
        return Target(name, weight, make, lambda data, dice: self.play(lambda: call(dice), data, dice))

    def sending(self, sender: str) -> Callable[[Random], Awaitable[None]]:
        async def send(dice: Random) -> None:
            request = HttpRequest(
                method="POST",
                origin=Origin("http", "127.0.0.1", self.port),
                target="/",
                body=b"{}",
                stream=dice.random() < 0.5,
                timeout=_TIMEOUT,
            )
            response = await self.senders[sender](request)
            try:
                assert len(response.headers.raw) <= 200
                await response.read_all(limit=1 << 20)
            finally:
                response.close()

        return send

    async def converse(self, dice: Random) -> None:
        await self._ask(self.bedrock, "us.anthropic.claude-sonnet-4-6", dice)

    async def chat(self, dice: Random) -> None:
        await self._ask(self.azure, "chat", dice)

    async def _ask(self, provider: Any, model: str, dice: Random) -> None:
        if dice.random() < 0.2:
            await provider.chat("Hi", model=model)
            return
        seen: list[str] = []
        try:
            async with provider.generate_text_stream("Hi", model=model) as stream:
                async for text in stream:
                    seen.append(text)
        except ApexLlmError as error:
            partial = error.partial.text if error.partial else ""
            # Shuffled blocks interleave, and the answer puts each block's text together.
            assert sorted(partial) == sorted("".join(seen)), "partial is not what was handed over"
            raise


def _answered(streams: Callable[[], tuple[bytes, ...]], change: Callable[[bytes, Random], bytes], kind: bytes) -> Any:
    def make(dice: Random) -> bytes:
        body = change(dice.choice(streams()), dice)
        whole = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            kind,
            len(body),
            body,
        )
        return mutate_http(whole, dice) if dice.random() < 0.2 else whole

    return make


@contextlib.contextmanager
def socket_targets() -> Iterator[tuple[Target, ...]]:
    """The targets, while the server runs; at the end nothing of theirs may be open."""
    with asyncio.Runner() as runner:
        stage = _Stage(runner)
        runner.run(stage.start())
        answers = lambda dice: mutate_http(http_answer(dice), dice)  # noqa: E731
        frames = _answered(converse_streams, mutate_frames, b"application/vnd.amazon.eventstream")
        events = _answered(chat_streams, mutate_sse, b"text/event-stream")
        try:
            yield (
                stage.target("http11 sender", 8, answers, stage.sending("http11")),
                stage.target("httpx sender", 4, answers, stage.sending("httpx")),
                stage.target("bedrock call", 4, frames, stage.converse),
                stage.target("azure call", 4, events, stage.chat),
            )
        finally:
            runner.run(stage.stop())
            assert not stage.senders["http11"].open_connections
