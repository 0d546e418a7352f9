"""Small HTTP calls to the places that hand out credentials: one request, one short answer.

Which hosts may be asked is decided here too: credentials and identity headers go over plain
``http`` only to this machine and to the link-local addresses that clouds reserve for it.
"""

from __future__ import annotations

__all__ = ["Reply", "decode", "fetch", "is_link_local", "is_loopback", "seconds_from_iso", "split_url"]

import asyncio
import datetime as dt
from typing import TypeVar

import msgspec

from apex_llm.errors import (
    ApexLlmError,
    ConnectionFailedError,
    InvalidEndpointError,
    RequestTimeoutError,
    ResponseFormatError,
)
from apex_llm.protocol import addresses
from apex_llm.types.decoders import decoder_for
from apex_llm.types.http import Headers, HttpRequest, Origin, Send, Timeout

_LIMIT = 64 * 1024
_SECRET_HEADERS = frozenset({"authorization", "x-aws-ec2-metadata-token", "x-identity-header", "secret", "metadata"})

S = TypeVar("S")


class Reply(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes

    def __repr__(self) -> str:
        return f"Reply({self.status}, {len(self.body)} bytes)"


_URL_HINT = "Write it as https://host[:port]/path."


def split_url(url: str, *, name: str) -> tuple[Origin, str]:
    """Origin and target of ``url``.

    Args:
        url: An absolute ``http`` or ``https`` URL without user information.
        name: The variable or argument it came from, for the message.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidEndpointError(f"{name} is not a URL.", hint=_URL_HINT) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise InvalidEndpointError(
            f"{name} is no http or https URL with a host and without user information.", hint=_URL_HINT
        )
    if any(character <= " " or character == "\x7f" or not character.isascii() for character in url):
        raise InvalidEndpointError(f"{name} has a character that a URL cannot hold.", hint=_URL_HINT)
    target = parts.path or "/"
    if parts.query:
        target = f"{target}?{parts.query}"
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)), target


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine."""
    return host == "localhost" or addresses.is_loopback(host)


def is_link_local(host: str) -> bool:
    """Whether ``host`` is a link-local address, or the unique local one that AWS uses alike."""
    return host in {"fd00:ec2::254", "fd00:ec2::23"} or addresses.is_link_local(host)


async def fetch(
    send: Send,
    method: str,
    origin: Origin,
    target: str,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes = b"",
    timeout: float,  # noqa: ASYNC109 - also part of the request, for the sender
    connect: float | None = None,
    operation: str,
) -> Reply:
    """One request and its whole answer (64 KiB at most); redirects are not followed.

    ``timeout`` is seconds for everything, ``connect`` for the connection alone, if shorter.

    Raises:
        TransientError: No answer; ``RequestTimeoutError`` for none in time.
        ProtocolError: Not an answer one can read.
    """
    loop = asyncio.get_running_loop()
    request = HttpRequest(
        method=method,
        origin=origin,
        target=target,
        headers=headers,
        body=body,
        timeout=Timeout(connect=connect or timeout, first_byte=timeout, idle=timeout, total=timeout),
        deadline=loop.time() + timeout,
        operation=operation,
        secret_headers=_SECRET_HEADERS,
    )
    try:
        async with asyncio.timeout(timeout):
            response = await send(request)
            try:
                content = await response.read_all(limit=_LIMIT)
            finally:
                response.close()
    except TimeoutError as error:
        raise RequestTimeoutError(f"{origin.url} did not answer within {timeout:g} s.", phase="total") from error
    except ApexLlmError:
        raise
    except OSError as error:
        raise ConnectionFailedError(f"{origin.url} could not be reached.", phase="connect") from error
    return Reply(response.status, response.headers, content)


def decode(content: bytes, shape: type[S], *, name: str) -> S:
    """``content`` as JSON of ``shape``; ``ResponseFormatError``, without the content, if it is not."""
    try:
        return decoder_for(shape).decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Not chained: messages of the decoder may quote what they could not read.
        raise ResponseFormatError(
            f"{name} answered with {len(content)} bytes that are not the JSON expected."
        ) from None


def seconds_from_iso(text: str, *, name: str) -> float:
    """Seconds since the epoch of an ISO 8601 time; UTC where it names no zone."""
    try:
        moment = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        raise ResponseFormatError(f"{name} is not an ISO 8601 time.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp()
