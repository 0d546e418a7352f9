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
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_MOST_NAMES = 512
_MOST_TARGETS = 256


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

    __slots__ = ("_prefixes", "_starts")

    def __init__(self) -> None:
        self._prefixes: dict[str, str] = {}
        self._starts: dict[tuple[str, str, str], str] = {}

    def write(self, request: HttpRequest, *, authority: str) -> bytes:
        """The head of ``request``, up to and including the empty line.

        Raises:
            InvalidRequestError: see ``sender_headers``.
        """
        method, headers, prefixes = request.method, request.headers, self._prefixes
        start = self._starts.get((method, request.target, authority)) or self._begin(request, authority)
        try:
            fields = "".join([prefixes[name] + value for name, value in headers])
        except KeyError:
            headers = [field for field in headers if self._learn(field[0])]
            fields = "".join([f"\r\n{name.lower()}: {value}" for name, value in headers])
        # One look at all fields instead of three at every value: each line end that we did not write is foul.
        lines = len(headers)
        if fields.count("\n") != lines or fields.count("\r") != lines or "\0" in fields:
            sender_headers(request)
        if "\r\naccept-encoding: " not in fields:
            fields += "\r\naccept-encoding: identity"
        body_length = len(request.body)
        if body_length or method not in _WITHOUT_BODY:
            fields += f"\r\ncontent-length: {body_length}"
        try:
            return f"{start}{fields}\r\n\r\n".encode("latin-1")
        except UnicodeEncodeError:
            sender_headers(request)
            raise

    def _begin(self, request: HttpRequest, authority: str) -> str:
        """Request line and host, remembered once they are found safe: a program calls few targets, many times."""
        method, target = request.method, request.target
        _check_request_line(method, target)
        start = f"{method} {target} HTTP/1.1\r\nhost: {authority}"
        if len(self._starts) >= _MOST_TARGETS:
            self._starts.clear()
        self._starts[method, target, authority] = start
        return start

    def _learn(self, name: str) -> bool:
        """Whether a field of this name is the caller's to send; remembered if it is."""
        lower = _checked_name(name)
        if lower in _OWNED:
            return False
        if len(self._prefixes) < _MOST_NAMES:
            self._prefixes[name] = f"\r\n{lower}: "
        return True


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
