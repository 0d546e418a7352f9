"""What the failures of both clouds share: reading an error body, and saying it without its secrets.

Error bodies come from the service, from gateways in front of it and from proxies, so any
shape is possible: JSON in a dozen dialects, HTML, plain text, nothing. Everything here is
total: whatever the bytes are, a sentence comes out.
"""

from __future__ import annotations

__all__ = [
    "PROXY_HINTS",
    "ErrorBody",
    "as_mapping",
    "error_for_status",
    "excerpt",
    "flagged_categories",
    "read_error_body",
    "read_error_object",
    "redact",
    "shorten",
    "status_phrase",
    "unexpected_redirect",
]

import contextlib
import re
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from apex_llm.codecs.json_text import decode_json
from apex_llm.codecs.lazy_pattern import LazyPattern
from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ResponseFormatError,
)

_LONGEST_MESSAGE = 2048
_LONGEST_PARSED = 1 << 20

_SECRETS = LazyPattern(
    r"""
    (?P<kept>\b(?:authorization|x-amz-security-token|api-key|x-api-key|ocp-apim-subscription-key|x-amz-signature
               |aws_secret_access_key|secret_?access_?key|session_?token|access_token|client_secret|password)
        ["']?\s*[:=]\s*["']?(?:Bearer\s+|Basic\s+|AWS4-HMAC-SHA256\s+)?)[^\s"'&,<>]{4,}
    | \bBearer\s+[A-Za-z0-9._~+/=-]{8,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{12,}
    | \bABSK[A-Za-z0-9+/=]{8,}
    | \bbedrock-api-key-[A-Za-z0-9+/=_-]{4,}
    | \bsk-[A-Za-z0-9*_-]{8,}
    | \beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*
    | \b[0-9a-fA-F]{32,}\b
    | (?<![A-Za-z0-9+=])(?=[A-Za-z+=]*[0-9])[A-Za-z0-9+=]{40,}
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TAGS = LazyPattern(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.DOTALL | re.IGNORECASE)
_SPACES = LazyPattern(r"\s+")


def redact(text: str) -> str:
    """``text`` with everything that looks like a key, a token or a signature replaced by ``***``."""
    return _SECRETS.sub(lambda match: f"{match.group('kept') or ''}***", text)


def excerpt(body: bytes, *, limit: int) -> str:
    """The beginning of a body for people to read: markup and secrets removed, on one line."""
    # A secret that the cut would split must be seen whole, so that it is recognised.
    text = body[: limit * 8 + 4096].decode("utf-8", "replace")
    if "<" in text:
        text = _TAGS.sub(" ", text)
    return shorten(redact(_SPACES.sub(" ", text).strip()), limit=limit)


def shorten(text: str, *, limit: int = _LONGEST_MESSAGE) -> str:
    """At most ``limit`` characters, an ellipsis where something was cut."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What an error body says, in whichever dialect."""

    message: str
    """Redacted and shortened; empty where the body says nothing."""
    code: str | None = None
    """The most specific word: ``code``, ``__type`` or ``type``."""
    kind: str | None = None
    """OpenAI's and Anthropic's ``type``."""
    param: str | None = None
    members: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """The error object itself, or the whole JSON object; empty where the body is none."""
    recognised: bool = False
    """Whether this is an error in JSON at all."""


def as_mapping(value: Any) -> Mapping[str, Any]:
    """``value`` where it is a JSON object, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def read_error_body(body: bytes) -> ErrorBody:
    """The error in ``body``; for HTML and plain text an excerpt of it becomes the message."""
    value = _json_object(body)
    if value is None:
        return ErrorBody(message=excerpt(body, limit=_LONGEST_MESSAGE))
    return read_error_object(value)


def read_error_object(value: Mapping[str, Any]) -> ErrorBody:
    """The error in a JSON object, whether nested under ``error`` or flat."""
    inner: Any = value.get("error")
    members = as_mapping(inner) or value
    message = _first_text(members, "message", "Message", "errorMessage", "msg", "detail", "title", "error_description")
    if not message and isinstance(inner, str):
        message = inner
    if not message:
        message = _validation_messages(members.get("detail"))
    kind = _word(members.get("type"))
    code = (
        _word(members.get("code"))
        or _word(members.get("__type"))
        or (kind if kind != "error" else None)
        or _word(members.get("statusCode"))
    )
    return ErrorBody(
        message=shorten(redact(message.strip())),
        code=code,
        kind=kind,
        param=_word(members.get("param")),
        members=members,
        recognised=bool(message or code),
    )


def _json_object(body: bytes) -> Mapping[str, Any] | None:
    if not body or len(body) > _LONGEST_PARSED:
        return None
    try:
        value: Any = decode_json(body, object, what="The error")
    except ProtocolError:
        return None
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else None


def _first_text(members: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _validation_messages(detail: Any) -> str:
    # pydantic's list of complaints repeats the input that it refused, which may be the
    # prompt: only its sentences are taken.
    if not isinstance(detail, list):
        return ""
    return "; ".join(filter(None, (_first_text(as_mapping(item), "msg") for item in cast("list[Any]", detail))))


def _word(value: Any) -> str | None:
    if isinstance(value, str) and value:
        return shorten(value, limit=200)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


PROXY_HINTS: Final[Mapping[int, str]] = {
    407: "A proxy in between wants credentials: put them into the proxy's URL (HTTPS_PROXY), or go without it.",
    511: "The network in between wants a login: open a web page from this machine to get to it.",
}
"""What to do about the statuses that come from whatever stands before the service."""

_NOT_RETRYABLE_SERVER_ERRORS = frozenset({501, 505, 506, 507, 508, 510, 511})


def error_for_status(status: int) -> tuple[type[ApexLlmError], bool]:
    """The class that a bare HTTP status stands for, and whether to try again."""
    match status:
        case 401 | 407:
            return AuthenticationError, False
        case 403:
            return PermissionDeniedError, False
        case 404 | 410:
            return ModelNotFoundError, False
        case 429:
            return RateLimitError, True
        case 408 | 425:
            return OverloadedError, True
        case 424:
            return OverloadedError, False
        case _ if 400 <= status < 500:
            return InvalidRequestError, False
        case _ if status >= 500:
            return OverloadedError, status not in _NOT_RETRYABLE_SERVER_ERRORS
        case _:
            return ResponseFormatError, False


def status_phrase(status: int) -> str:
    """``HTTP 503 Service Unavailable``."""
    try:
        from http import HTTPStatus  # as urllib.parse below: milliseconds that only failures need

        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except (ValueError, ImportError, OSError):  # an error must be told even where no file can be opened
        return f"HTTP {status}"


def unexpected_redirect(status: int, location: str | None, **facts: Any) -> ProtocolError:
    """The error for a 3xx: no redirect is followed, since it would carry credentials elsewhere."""
    host: str | None = None
    with contextlib.suppress(ValueError, ImportError, OSError):
        from urllib.parse import urlsplit

        host = urlsplit(location).hostname if location else None
    target = f"to the host {shorten(host, limit=253)!r}" if host else "without naming another host"
    return ProtocolError(
        f"The service answered with an unexpected redirect {target}.",
        status=status,
        hint="Redirects are never followed, because credentials would travel along. Check the endpoint.",
        **facts,
    )


def flagged_categories(results: Any) -> tuple[str, ...]:
    """The categories of a content filter's result that found something, in the order given."""
    return tuple(name for name, result in as_mapping(results).items() if _is_flagged(result))


def _is_flagged(result: Any) -> bool:
    if isinstance(result, list):  # the older form of custom_blocklists
        return any(_is_flagged(item) for item in cast("list[Any]", result))
    members: Mapping[str, Any] = as_mapping(result)
    return members.get("filtered") is True or members.get("detected") is True
