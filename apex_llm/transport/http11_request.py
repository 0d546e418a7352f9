"""A request as the bytes that go on the wire.

RFC 9112 section 3 (request line) and section 5 (fields). Everything is checked before a byte goes
out: a value that could end its own line would let its author write headers, or a second request.
"""

from __future__ import annotations

__all__ = ["sender_headers", "serialise"]

import re

from apex_llm.errors import InvalidRequestError
from apex_llm.types.http import HttpRequest

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OWNED = frozenset({"host", "content-length", "connection"})
_REFUSED = frozenset({"transfer-encoding", "upgrade", "expect", "te", "trailer"})
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


def sender_headers(request: HttpRequest) -> list[tuple[str, str]]:
    """The header fields of ``request`` but for ``host``, in the order in which they are sent.

    Raises:
        InvalidRequestError: a field, the method or the target could not be sent safely.
    """
    method, target = request.method, request.target
    if not (target.startswith("/") and target.isascii() and target.isprintable() and " " not in target):
        raise InvalidRequestError("The request target is not a percent-encoded path.", phase="prepare")
    if _TOKEN.fullmatch(method) is None:
        raise InvalidRequestError(f"{method!r} is not an HTTP method.", phase="prepare")
    fields: list[tuple[str, str]] = []
    identity = True
    for name, value in request.headers:
        # A name is a few bytes, and matching it costs less than remembering the good ones.
        if _TOKEN.fullmatch(name) is None:
            raise InvalidRequestError(f"{name!r} is not a header name.", phase="prepare")
        lower = name.lower()
        if lower in _OWNED:
            continue
        if lower in _REFUSED:
            raise InvalidRequestError(f"The header {lower!r} belongs to the connection; it cannot be set.")
        if lower == "accept-encoding":
            identity = False
        if "\r" in value or "\n" in value or "\0" in value:
            raise InvalidRequestError(
                f"The value of the header {lower!r} contains a line break or a NUL.", phase="prepare"
            )
        fields.append((name, value))
    if identity:
        fields.append(("accept-encoding", "identity"))
    if request.body or method not in _WITHOUT_BODY:
        fields.append(("content-length", str(len(request.body))))
    return fields


def serialise(request: HttpRequest) -> bytes:
    """The head of ``request``, up to and including the empty line.

    Raises:
        InvalidRequestError: see ``sender_headers``.
    """
    lines = [f"{request.method} {request.target} HTTP/1.1\r\nhost: {request.origin.authority}\r\n"]
    lines.extend([f"{name}: {value}\r\n" for name, value in sender_headers(request)])
    lines.append("\r\n")
    try:
        return "".join(lines).encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            "A header value holds characters that HTTP cannot carry (only Latin-1 can be sent).", phase="prepare"
        ) from error
