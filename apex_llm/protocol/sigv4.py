"""AWS Signature Version 4 in the ``Authorization`` header.

Follows "Create a signed AWS API request" of the AWS IAM user guide, with the rules for services other
than S3: the path is normalised, then percent-encoded once more. botocore's ``SigV4Auth`` is the oracle;
the vectors in ``tests/vectors/sigv4_vectors.json`` were made by it.

Finding credentials, the time, and sending are left to others. Nothing here reads a clock.
"""

from __future__ import annotations

__all__ = [
    "ALGORITHM",
    "EMPTY_SHA256",
    "TERMINATOR",
    "SigV4Signer",
    "basic_format",
    "canonical_query",
    "canonical_request",
    "canonical_uri",
    "encode_path_segment",
    "percent_encode",
    "signing_key",
    "string_to_sign",
]

import hmac
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeAlias

from apex_llm.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from _hashlib import HASH

_Shape: TypeAlias = tuple[str, str, str, tuple[tuple[str, str], ...], bool]
"""Method, target, authority, headers, whether every header is signed."""

ALGORITHM: Final = "AWS4-HMAC-SHA256"
EMPTY_SHA256: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The payload hash of a request without a body."""

TERMINATOR: Final = "aws4_request"
"""The end of every credential scope."""
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_MAX_CACHED_TARGETS = 256
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))

# What proxies, clients and tracers add or change on the way. botocore's list, and the two names that signing replaces.
_NEVER_SIGNED = frozenset(
    {
        "authorization",
        "baggage",
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-amzn-trace-id",
    }
)
# AWS asks for every x-amz-* header that is present. Bedrock's own say which guardrail holds.
_SIGNED_PREFIXES = ("content-type", "x-amz-", "x-amzn-bedrock-")


class SigV4Signer:
    """Signs requests with one set of credentials, for one region and service.

    The signing key depends on the day only, so it is kept until the date changes. Instances may be
    shared between threads: what is cached is replaced as a whole.

    Args:
        access_key_id: Such as ``AKIDEXAMPLE``.
        secret_access_key: Never sent, logged or shown.
        session_token: Of temporary credentials; ``""`` counts as none.
        region: Such as ``us-east-1``.
        service: The signing name: ``bedrock`` for runtime and control plane alike.

    Raises:
        ConfigurationError: A part is empty, or has white space, control or non-ASCII characters.
    """

    def __init__(
        self,
        *,
        access_key_id: str,
        secret_access_key: str,
        session_token: str | None = None,
        region: str,
        service: str,
    ) -> None:
        _check_part("access key id", access_key_id, separators="/,")
        _check_part("secret access key", secret_access_key)
        _check_part("region", region, separators="/,")
        _check_part("service", service, separators="/,")
        if session_token:
            _check_part("session token", session_token)
        self.access_key_id = access_key_id
        self.region = region
        self.service = service
        self._secret_access_key = secret_access_key
        self._session_token = session_token or None
        self._day: tuple[str, str, HASH, HASH] | None = None
        self._second: _Second | None = None
        self._targets: dict[str, str] = {}

    def sign(
        self,
        *,
        method: str,
        target: str,
        authority: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        payload_sha256: str | None = None,
        timestamp: datetime | float,
        every_header: bool = False,
    ) -> tuple[tuple[str, str], ...]:
        """The headers to add: ``x-amz-date``, ``x-amz-security-token`` if there is a token, ``authorization``.

        Signed are host, date and token, content-type, and every ``x-amz-*`` and ``x-amzn-bedrock-*``:
        all that matters, and nothing that a proxy touches.

        Args:
            method: As it goes on the wire.
            target: Path and query exactly as they go on the wire.
            authority: The ``Host`` header's value.
            headers: Names in lower case. Any ``host`` and those that this method returns are passed over.
            body: Exactly the bytes that will be sent.
            payload_sha256: Lower-case hex SHA-256 of the body, if it is known already; ``body`` is then not read.
            timestamp: Now, in seconds since the epoch; a ``datetime`` without a zone is taken as UTC.
            every_header: Sign all headers that botocore would.

        Raises:
            InvalidRequestError: The target or a header is not Unicode text.
        """
        if isinstance(timestamp, datetime):
            timestamp = (timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)).timestamp()
        second = self._second
        if second is None or second.number != int(timestamp):
            second = self._second = self._begin_second(int(timestamp))
        # All but the body is the same for the many requests that go to one target within a second.
        shape = (method, target, authority, tuple(headers), every_header)
        request, credential = second.known.get(shape) or self._begin_shape(second, shape)
        if payload_sha256 is None:
            payload_sha256 = sha256(body).hexdigest() if body else EMPTY_SHA256
        request = request.copy()
        request.update(payload_sha256.encode())
        # HMAC with both keyed states ready: two thirds of the time that hmac.HMAC.copy() takes.
        inner = second.inner.copy()
        inner.update(request.hexdigest().encode())
        outer = second.outer.copy()
        outer.update(inner.digest())
        return (*second.headers, ("authorization", credential + outer.hexdigest()))

    def _begin_second(self, number: int) -> _Second:
        """What all signatures of one second share."""
        amz_date = basic_format(number)
        date = amz_date[:8]
        day = self._day
        if day is None or day[0] != date:
            key = signing_key(self._secret_access_key, date=date, region=self.region, service=self.service)
            block = key.ljust(64, b"\0")
            scope = f"{date}/{self.region}/{self.service}/{TERMINATOR}"
            day = (date, scope, sha256(block.translate(_INNER_PAD)), sha256(block.translate(_OUTER_PAD)))
            self._day = day
        return _Second(number, amz_date, *day[1:], token=self._session_token)

    def _begin_shape(self, second: _Second, shape: _Shape) -> tuple[HASH, str]:
        """The hash of the canonical request before its last line, and the header before the signature."""
        method, target, authority, headers, every_header = shape
        signed_headers, lines = self._canonical_headers(authority, second.amz_date, headers, every_header=every_header)
        try:
            request = sha256(f"{method}\n{self._canonical_target(target)}\n{lines}\n{signed_headers}\n".encode())
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                "The path or a header cannot be sent: it has a lone surrogate.", phase="prepare"
            ) from error
        credential = (
            f"{ALGORITHM} Credential={self.access_key_id}/{second.scope}, SignedHeaders={signed_headers}, Signature="
        )
        if len(second.known) < _MAX_CACHED_TARGETS:
            second.known[shape] = request, credential
        return request, credential

    def _canonical_headers(
        self, authority: str, amz_date: str, headers: Sequence[tuple[str, str]], *, every_header: bool
    ) -> tuple[str, str]:
        """Names to sign, joined with semicolons, and the lines of names and values."""
        own = {"host": authority, "x-amz-date": amz_date}
        if self._session_token is not None:
            own["x-amz-security-token"] = self._session_token
        chosen = [
            (name, value)
            for name, value in headers
            if name not in own
            and (
                name not in _NEVER_SIGNED
                if every_header
                else name == "content-type" or name.startswith(_SIGNED_PREFIXES)
            )
        ]
        return _canonical_headers([*own.items(), *chosen])

    def _canonical_target(self, target: str) -> str:
        """Canonical path and query, in two lines. A program calls few targets, many times."""
        known = self._targets.get(target)
        if known is None:
            path, _, query = target.partition("?")
            known = f"{canonical_uri(path)}\n{canonical_query(query)}"
            if len(self._targets) >= _MAX_CACHED_TARGETS:
                self._targets.clear()
            self._targets[target] = known
        return known


class _Second:
    """One second's date, scope and keyed hash states, and what was signed in it so far."""

    __slots__ = ("amz_date", "headers", "inner", "known", "number", "outer", "scope")

    def __init__(self, number: int, amz_date: str, scope: str, inner: HASH, outer: HASH, *, token: str | None) -> None:
        self.number = number
        self.amz_date = amz_date
        self.scope = scope
        self.inner = inner.copy()
        self.inner.update(f"{ALGORITHM}\n{amz_date}\n{scope}\n".encode())
        self.outer = outer
        date = ("x-amz-date", amz_date)
        self.headers = (date,) if token is None else (date, ("x-amz-security-token", token))
        self.known: dict[_Shape, tuple[HASH, str]] = {}


def canonical_request(
    *,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]],
    payload_sha256: str,
    uri: str | None = None,
) -> str:
    """The text whose hash is signed.

    Args:
        method: As on the wire.
        target: Path and query as on the wire.
        headers: Those to sign, and no others; names in lower case, in any order, ``host`` among them.
        payload_sha256: Lower-case hex SHA-256 of the body.
        uri: Taken in place of the canonical path, to find out how another signer spelled it.
    """
    signed_headers, lines = _canonical_headers(headers)
    path, _, query = target.partition("?")
    if uri is None:
        uri = canonical_uri(path)
    return f"{method}\n{uri}\n{canonical_query(query)}\n{lines}\n{signed_headers}\n{payload_sha256}"


def string_to_sign(*, amz_date: str, scope: str, request: str) -> str:
    """What the key is applied to: algorithm, time, credential scope, and the canonical request's hash."""
    return f"{ALGORITHM}\n{amz_date}\n{scope}\n{sha256(request.encode()).hexdigest()}"


def signing_key(secret_access_key: str, *, date: str, region: str, service: str) -> bytes:
    """The key of one day (``YYYYMMDD``), region and service: 32 bytes."""
    key = f"AWS4{secret_access_key}".encode()
    for part in (date, region, service, TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def canonical_uri(path: str) -> str:
    """The wire path, normalised and percent-encoded once more, so that ``%3A`` becomes ``%253A``.

    Empty and ``.`` segments are dropped and ``..`` is resolved, as everywhere but on S3.
    """
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if segments:
                segments.pop()
        elif segment not in {"", "."}:
            segments.append(segment)
    first = "/" if path.startswith("/") or not path else ""
    last = "/" if path.endswith("/") and segments else ""
    return percent_encode(f"{first}{'/'.join(segments)}{last}", keep="/")


def canonical_query(query: str) -> str:
    """The wire query, sorted by name and value. It is encoded already, and stays as it is."""
    if not query:
        return ""
    pairs = [pair.partition("=") for pair in query.split("&")]
    return "&".join([f"{name}={value}" for name, value in sorted([(name, value) for name, _, value in pairs])])


def encode_path_segment(text: str, *, keep: str = "") -> str:
    """``text`` as one path segment: everything is percent-encoded but ``A-Z a-z 0-9 - . _ ~``.

    Args:
        text: Such as a model id or an ARN; its slashes become ``%2F``.
        keep: Characters to leave as they are. Bedrock's paths keep ``":"``, which some HTTP
            clients would restore behind the signer's back.

    Raises:
        InvalidRequestError: No single segment can say it: empty, ``.``, ``..``, or not Unicode text.
    """
    if text in {"", ".", ".."}:
        raise InvalidRequestError(f"{text!r} cannot be a segment of a path.", phase="prepare")
    try:
        return percent_encode(text, keep=keep)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{text!r} cannot be a segment of a path: it has a lone surrogate.", phase="prepare"
        ) from error


def percent_encode(text: str, *, keep: str = "") -> str:
    """``text`` as UTF-8 with everything percent-encoded but ``A-Z a-z 0-9 - . _ ~`` and the characters of ``keep``.

    ``urllib.parse.quote`` gives the same, but importing it takes longer than a call does.

    Raises:
        UnicodeEncodeError: It has a lone surrogate.
    """
    safe = _UNRESERVED.union(keep.encode())
    octets = text.encode()
    if safe.issuperset(octets):
        return text
    return "".join([chr(octet) if octet in safe else f"%{octet:02X}" for octet in octets])


def _canonical_headers(headers: Iterable[tuple[str, str]]) -> tuple[str, str]:
    values: dict[str, str] = {}
    for name, value in headers:
        folded = " ".join(value.split())
        values[name] = f"{values[name]},{folded}" if name in values else folded
    names = sorted(values)
    lines = "".join([f"{name}:{values[name]}\n" for name in names])
    return ";".join(names), lines


def basic_format(timestamp: datetime | float) -> str:
    """The time as ``x-amz-date`` has it, such as ``20261122T094318Z``."""
    if isinstance(timestamp, datetime):
        moment = timestamp.astimezone(UTC) if timestamp.tzinfo else timestamp
    else:
        moment = datetime.fromtimestamp(int(timestamp), UTC)
    return moment.strftime("%Y%m%dT%H%M%SZ")


def _check_part(name: str, value: str, *, separators: str = "") -> None:
    """A line end from a careless copy would otherwise become a broken header, or a signature that never fits."""
    if not value or not (value.isascii() and value.isprintable()) or any(mark in value for mark in f" {separators}"):
        raise ConfigurationError(
            f"The AWS {name} is empty, or has characters that cannot be in one.",
            phase="prepare",
            hint="Give it without quotes, spaces or line ends.",
        )
