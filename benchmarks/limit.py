"""The floor: what the whole job costs when nothing stands around it.

Signing by hand, a hand-written HTTP/1.1 connection on ``asyncio.Protocol``, hand-written framing with
checksums, typed decoding by msgspec, one async generator on top. No retries, no deadlines, no limits, no
checks of what is sent, no errors worth reading: not a product, and not for use. What a product costs
above this is what its promises cost.
"""

from __future__ import annotations

__all__ = ["AzureLimit", "BedrockLimit", "Signer"]

import asyncio
import hashlib
import hmac
import ssl
import struct
import time
import zlib
from collections.abc import AsyncIterator

import msgspec

from benchmarks.payloads import AZURE_BODY, AZURE_STREAM_BODY, BEDROCK_BODY


class Signer:
    """Signature Version 4 of a POST without query; the derived key lives for a day, the date line for a second."""

    def __init__(self, access_key_id: str, secret_access_key: str, *, region: str, host: str) -> None:
        self._access_key_id = access_key_id
        self._secret = secret_access_key
        self._region = region
        self._host = host
        self._second = 0
        self._date = ""
        self._day = ""
        self._key = hmac.new(b"", b"", hashlib.sha256)

    def sign(self, path: str, body: bytes) -> tuple[str, str]:
        """The values of ``x-amz-date`` and ``authorization``."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            if self._date[:8] != self._day:
                self._day = self._date[:8]
                key = f"AWS4{self._secret}".encode()
                for part in (self._day, self._region, "bedrock", "aws4_request"):
                    key = hmac.digest(key, part.encode(), "sha256")
                self._key = hmac.new(key, b"", hashlib.sha256)
        scope = f"{self._day}/{self._region}/bedrock/aws4_request"
        canonical = (
            f"POST\n{path}\n\nhost:{self._host}\nx-amz-date:{self._date}\n\nhost;x-amz-date\n"
            f"{hashlib.sha256(body).hexdigest()}"
        )
        keyed = self._key.copy()
        keyed.update(
            f"AWS4-HMAC-SHA256\n{self._date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}".encode()
        )
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={self._access_key_id}/{scope}, "
            f"SignedHeaders=host;x-amz-date, Signature={keyed.hexdigest()}"
        )
        return self._date, authorization


class _Connection(asyncio.Protocol):
    """One exchange at a time; a body is a list of blocks that grows as the socket is read."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.blocks: list[bytes] = []
        self.ended = False
        self._rest = b""
        self._in_head = True
        self._chunked = False
        self._missing = 0
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, request: bytes) -> None:
        self.blocks, self.ended, self._in_head = [], False, True
        self.transport.write(request)

    async def wait(self) -> None:
        """Until there are blocks, or the end."""
        self._waiter = self._loop.create_future()
        await self._waiter

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if self._in_head:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            head = data[:end].lower()
            data = data[end + 4 :]
            self._in_head = False
            self._chunked = b"transfer-encoding: chunked" in head
            if not self._chunked:
                start = head.index(b"content-length: ") + 16
                stop = head.find(b"\r", start)
                self._missing = int(head[start:] if stop < 0 else head[start:stop])
        if self._chunked:
            self._take_chunks(data)
        else:
            self.blocks.append(data)
            self._missing -= len(data)
            self.ended = self._missing <= 0
            if not self.ended:
                return
        if (self.blocks or self.ended) and self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.set_result(None)

    def _take_chunks(self, data: bytes) -> None:
        position, size = 0, len(data)
        pieces: list[bytes] = []
        while True:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                break
            length = int(data[position:line_end], 16)
            end = line_end + 2 + length
            if end + 2 > size:
                break
            if not length:
                self.ended = True
                position = size
                break
            pieces.append(data[line_end + 2 : end])
            position = end + 2
        self._rest = data[position:]
        if pieces:
            self.blocks.append(b"".join(pieces))


class _Pool:
    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._host, self._port, self._context = host, port, context
        self._idle: list[_Connection] = []

    async def take(self) -> _Connection:
        if self._idle:
            return self._idle.pop()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._context)
        return connection

    def give_back(self, connection: _Connection) -> None:
        self._idle.append(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().transport.close()

    async def whole(self, request: bytes) -> bytes:
        connection = await self.take()
        connection.send(request)
        await connection.wait()
        self.give_back(connection)
        return b"".join(connection.blocks)

    async def blocks(self, request: bytes) -> AsyncIterator[bytes]:
        connection = await self.take()
        connection.send(request)
        while True:
            if connection.blocks:
                blocks, connection.blocks = connection.blocks, []
                for block in blocks:
                    yield block
            elif connection.ended:
                break
            else:
                await connection.wait()
        self.give_back(connection)


class _Text(msgspec.Struct, gc=False):
    text: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Text]


class _Output(msgspec.Struct, gc=False):
    message: _Message


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int = msgspec.field(name="inputTokens")
    output_tokens: int = msgspec.field(name="outputTokens")


class _Answer(msgspec.Struct, gc=False):
    output: _Output
    usage: _Usage
    stop_reason: str = msgspec.field(name="stopReason")


class _BlockDelta(msgspec.Struct, gc=False):
    delta: _Text
    index: int = msgspec.field(name="contentBlockIndex")


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_block_delta = msgspec.json.Decoder(_BlockDelta).decode
_lengths_at = struct.Struct(">II").unpack_from
_checksum_at = struct.Struct(">I").unpack_from


class BedrockLimit:
    """Converse and ConverseStream."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        access_key_id: str,
        secret_access_key: str,
        region: str,
        body: bytes = BEDROCK_BODY,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._authority = f"{host}:{port}"
        self._signer = Signer(access_key_id, secret_access_key, region=region, host=self._authority)
        self._body = body
        self._pool = _Pool(host, port, context)

    def _request(self, path: str, accept: str) -> bytes:
        date, authorization = self._signer.sign(path, self._body)
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self._authority}\r\ncontent-type: application/json\r\naccept: {accept}\r\n"
            f"x-amz-date: {date}\r\nauthorization: {authorization}\r\ncontent-length: {len(self._body)}\r\n\r\n"
        )
        return head.encode() + self._body

    async def call(self, model: str) -> str:
        """The text of one answer."""
        answer = _decode_answer(await self._pool.whole(self._request(f"/model/{model}/converse", "application/json")))
        return answer.output.message.content[0].text or ""

    async def texts(self, model: str) -> AsyncIterator[str]:
        """The pieces of one stream's text."""
        request = self._request(f"/model/{model}/converse-stream", "application/vnd.amazon.eventstream")
        rest = b""
        is_delta: dict[bytes, bool] = {}
        async for block in self._pool.blocks(request):
            data = rest + block if rest else block
            position, size = 0, len(data)
            while size - position >= 16:
                total, headers_bytes = _lengths_at(data, position)
                end = position + total
                if end > size:
                    break
                if zlib.crc32(data[position : end - 4]) != _checksum_at(data, end - 4)[0]:
                    raise ValueError("a frame is damaged")
                payload_at = position + 12 + headers_bytes
                headers = data[position + 12 : payload_at]
                wanted = is_delta.get(headers)
                if wanted is None:
                    wanted = is_delta[headers] = b"contentBlockDelta" in headers
                if wanted:
                    text = _decode_block_delta(data[payload_at : end - 4]).delta.text
                    if text:
                        yield text
                position = end
            rest = data[position:]

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class _Choice(msgspec.Struct, gc=False):
    message: _AzureText | None = None
    delta: _AzureText | None = None
    finish_reason: str | None = None


class _AzureText(msgspec.Struct, gc=False):
    content: str | None = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Choice]


_decode_completion = msgspec.json.Decoder(_Completion).decode


class AzureLimit:
    """Chat completions on a dated version of Azure OpenAI, with an API key."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        api_key: str,
        api_version: str,
        body: bytes = AZURE_BODY,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._head = (
            f"POST /openai/deployments/%s/chat/completions?api-version={api_version} HTTP/1.1\r\n"
            f"host: {host}:{port}\r\ncontent-type: application/json\r\naccept: %s\r\napi-key: {api_key}\r\n"
            "content-length: %d\r\n\r\n"
        )
        self._body = body
        self._pool = _Pool(host, port, context)

    async def call(self, deployment: str) -> str:
        """The text of one answer."""
        head = self._head % (deployment, "application/json", len(self._body))
        completion = _decode_completion(await self._pool.whole(head.encode() + self._body))
        message = completion.choices[0].message
        return (message.content if message else None) or ""

    async def texts(self, deployment: str) -> AsyncIterator[str]:
        """The pieces of one stream's text."""
        head = self._head % (deployment, "text/event-stream", len(AZURE_STREAM_BODY))
        rest = b""
        async for block in self._pool.blocks(head.encode() + AZURE_STREAM_BODY):
            events = (rest + block if rest else block).split(b"\n\n")
            rest = events.pop()
            for event in events:
                if event == b"data: [DONE]":
                    break
                choices = _decode_completion(event[6:]).choices
                if choices and (delta := choices[0].delta) is not None and delta.content:
                    yield delta.content

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()
