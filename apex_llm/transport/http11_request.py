"""A request as the bytes that go on the wire.

RFC 9112 section 3 (request line) and section 5 (fields). Everything is checked before a byte goes
out: a value that could end its own line would let its author write headers, or a second request.
"""

from __future__ import annotations

__all__ = ["HeadWriter", "is_token", "sender_headers"]

from apex_llm.errors import InvalidRequestError
from apex_llm.types.http import HttpRequest

_IN_TOKENS = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_OWNED = frozenset({"host", "content-length", "connection"})
_REFUSED = frozenset({"transfer-encoding", "upgrade", "expect", "te", "trailer"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_MOST_NAMES = 512


def sender_headers(request: HttpRequest) -> list[tuple[str, str]]:
    """The header fields of ``request`` as they are sent, but for ``host``; names in lower case.

    Raises:
        InvalidRequestError: a field, the method or the target could not be sent safely.
    """
    _check_request_line(request.method, request.target)
    fields: list[tuple[str, str]] = []
    for name, value in request.headers:
        lower = _checked_name(name)
        if "\r" in value or "\n" in value or "\0" in value:
            raise InvalidRequestError(
                f"The value of the header {lower!r} contains a line break or a NUL.", phase="prepare"
            )
        try:
            value.encode("latin-1")
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"The value of the header {lower!r} holds characters that HTTP cannot carry (it has Latin-1 only).",
                phase="prepare",
            ) from error
        if lower not in _OWNED:
            fields.append((lower, value))
    if not any(name == "accept-encoding" for name, _ in fields):
        fields.append(("accept-encoding", "identity"))
    if request.body or request.method not in _WITHOUT_BODY:
        fields.append(("content-length", str(len(request.body))))
    return fields


class HeadWriter:
    """Writes heads; remembers the header names that it has checked, for a caller's names are few and fixed."""

    __slots__ = ("_prefixes",)

    def __init__(self) -> None:
        self._prefixes: dict[str, str] = {}

    def write(self, request: HttpRequest, *, authority: str) -> bytes:
        """The head of ``request``, up to and including the empty line.

        Raises:
            InvalidRequestError: see ``sender_headers``.
        """
        method, target = request.method, request.target
        prefixes = self._prefixes
        parts = [method, " ", target, " HTTP/1.1\r\nhost: ", authority]
        for name, value in request.headers:
            prefix = prefixes.get(name)
            if prefix is None:
                prefix = self._learn(name)
            if prefix:
                parts.append(prefix)
                parts.append(value)
        lines = len(parts) >> 1
        text = "".join(parts)
        # One look at the whole head instead of three at every value: each line end that we did not write is foul.
        if (
            text.count("\n") != lines - 1
            or text.count("\r") != lines - 1
            or "\0" in text
            or method not in _METHODS
            or target[:1] != "/"
            or not (target.isascii() and target.isprintable() and " " not in target)
        ):
            sender_headers(request)
        body_length = len(request.body)
        if "\r\naccept-encoding: " not in text:
            text += "\r\naccept-encoding: identity"
        if body_length or method not in _WITHOUT_BODY:
            text += f"\r\ncontent-length: {body_length}"
        try:
            return f"{text}\r\n\r\n".encode("latin-1")
        except UnicodeEncodeError:
            sender_headers(request)
            raise

    def _learn(self, name: str) -> str:
        lower = _checked_name(name)
        prefix = "" if lower in _OWNED else f"\r\n{lower}: "
        if len(self._prefixes) < _MOST_NAMES:
            self._prefixes[name] = prefix
        return prefix


def is_token(text: str) -> bool:
    """Whether ``text`` may be a method or the name of a header (RFC 9110 section 5.6.2)."""
    return bool(text) and _IN_TOKENS.issuperset(text)


def _checked_name(name: str) -> str:
    if not is_token(name):
        raise InvalidRequestError(f"{name!r} is not a header name.", phase="prepare")
    lower = name.lower()
    if lower in _REFUSED:
        raise InvalidRequestError(f"The header {lower!r} belongs to the connection; it cannot be set.", phase="prepare")
    return lower


def _check_request_line(method: str, target: str) -> None:
    if not (target.startswith("/") and target.isascii() and target.isprintable() and " " not in target):
        raise InvalidRequestError("The request target is not a percent-encoded path.", phase="prepare")
    if not is_token(method):
        raise InvalidRequestError(f"{method!r} is not an HTTP method.", phase="prepare")
