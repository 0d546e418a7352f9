"""Errors of Azure OpenAI, and of every service that speaks OpenAI's error dialect, typed.

Sources: the Azure OpenAI document of 2024-10-21, and bodies that public reports quote.
Here ``code`` is sometimes a word, sometimes the status as text, sometimes a number, and
sometimes null; the word decides, then the status, and the text only refines.
"""

from __future__ import annotations

__all__ = ["azure_failure", "openai_stream_failure"]

import math
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from apex_llm.codecs.failure_details import (
    PROXY_HINTS,
    ErrorBody,
    as_mapping,
    error_for_status,
    flagged_categories,
    read_error_body,
    status_phrase,
    unexpected_redirect,
)
from apex_llm.codecs.lazy_pattern import LazyPattern
from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    ContentFilteredError,
    ContextWindowExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
)
from apex_llm.types.http import Headers

_PROVIDER: Final = "azure_openai"

_Verdict = tuple[type[ApexLlmError], bool]
_THROTTLED: Final[_Verdict] = (RateLimitError, True)
_OVERLOADED: Final[_Verdict] = (OverloadedError, True)
_UNAUTHENTICATED: Final[_Verdict] = (AuthenticationError, False)
_DENIED: Final[_Verdict] = (PermissionDeniedError, False)
_NOT_FOUND: Final[_Verdict] = (ModelNotFoundError, False)
_FILTERED: Final[_Verdict] = (ContentFilteredError, False)
_QUOTA: Final[_Verdict] = (QuotaExceededError, False)
_REFUSED: Final[_Verdict] = (InvalidRequestError, False)

# Codes and types in lower case, without "_" and "-", since each has several spellings.
_VERDICTS: Final[dict[str, _Verdict]] = {
    "contentfilter": _FILTERED,
    "contentfiltererror": _FILTERED,
    "contentpolicyviolation": _FILTERED,
    "responsibleaipolicyviolation": _FILTERED,
    "moderationblocked": _FILTERED,
    "contextlengthexceeded": (ContextWindowExceededError, False),
    "insufficientquota": _QUOTA,
    "quotaexceeded": _QUOTA,
    "billinghardlimitreached": _QUOTA,
    "billingnotactive": _QUOTA,
    "permissiondenied": _DENIED,
    "permissionerror": _DENIED,
    "authenticationtypedisabled": _DENIED,
    "accessdenied": _DENIED,
    "forbidden": _DENIED,
    "unauthorized": _UNAUTHENTICATED,
    "invalidtoken": _UNAUTHENTICATED,
    "invalidapikey": _UNAUTHENTICATED,
    "invalidauthenticationtoken": _UNAUTHENTICATED,
    "authenticationerror": _UNAUTHENTICATED,
    "deploymentnotfound": _NOT_FOUND,
    "modelnotfound": _NOT_FOUND,
    "resourcenotfound": _NOT_FOUND,
    "notfounderror": _NOT_FOUND,
    "modeldeprecated": _NOT_FOUND,
    "deploymentdeprecated": _NOT_FOUND,
    "ratelimitreached": _THROTTLED,
    "ratelimitexceeded": _THROTTLED,
    "ratelimiterror": _THROTTLED,
    "ratelimit": _THROTTLED,
    "toomanyrequests": _THROTTLED,
    "throttled": _THROTTLED,
    "requests": _THROTTLED,
    "tokens": _THROTTLED,
    "nocapacity": _THROTTLED,
    "internalservererror": _OVERLOADED,
    "internalerror": _OVERLOADED,
    "servererror": _OVERLOADED,
    "serviceunavailable": _OVERLOADED,
    "overloadederror": _OVERLOADED,
    "engineoverloaded": _OVERLOADED,
    "apierror": _OVERLOADED,
    "timeout": _OVERLOADED,
    "invalidrequesterror": _REFUSED,
    "unsupportedparameter": _REFUSED,
    "unsupportedvalue": _REFUSED,
    "operationnotsupported": _REFUSED,
    "invalidvalue": _REFUSED,
}
# These decide whatever the status is; for the others a client error stays a client error.
_DECISIVE: Final = frozenset({
    ContentFilteredError, ContextWindowExceededError, QuotaExceededError, PermissionDeniedError, ModelNotFoundError,
})  # fmt: skip

_TOO_LONG = LazyPattern(
    r"maximum context length|context_length_exceeded|exceeds? the context window|maximum input (?:length|tokens)",
    re.IGNORECASE,
)
_RETRY_AFTER = LazyPattern(
    r"\b(?:retry|try again) (?:after|in) (\d{1,9}(?:\.\d{1,9})?) ?(milliseconds|ms|s)?", re.IGNORECASE
)
_FLAGGED = LazyPattern(r"flagged as potentially violating|content management policy", re.IGNORECASE)
_API_VERSION = LazyPattern(r"api[- ]versions?\b", re.IGNORECASE)
_UNRECOGNISED = LazyPattern(r"unrecognized request arguments? supplied: (\w+)", re.IGNORECASE)
_RETIRED = LazyPattern(r"deprecated|retired", re.IGNORECASE)
_MANY = LazyPattern(r"too many requests|rate limit|high demand", re.IGNORECASE)
_TROUBLE = LazyPattern(r"server (?:had an )?error|unavailable|overloaded|internal error", re.IGNORECASE)
_QUOTA_TEXT = LazyPattern(r"exceeded your current quota", re.IGNORECASE)

_HOPELESS_WAIT = 86_400.0
"""Deployments without any quota ask for 86400 seconds."""


def azure_failure(
    status: int,
    headers: Headers,
    body: bytes,
    *,
    model: str | None = None,
    url: str | None = None,
    api_version: str | None = None,
) -> ApexLlmError:
    """The typed error for an HTTP answer that is not a success.

    Args:
        status: Of the answer.
        headers: Of the answer.
        body: All of it, or its beginning.
        model: The deployment or model as it was sent.
        url: What was called, without its query; named in hints about wrong addresses.
        api_version: The dated version that was sent; named in hints. ``None`` for v1.
    """
    facts: dict[str, Any] = {
        "provider": _PROVIDER,
        "model": model,
        "request_id": headers.get("apim-request-id") or headers.get("x-request-id") or headers.get("x-ms-request-id"),
        "headers": headers.to_dict(),
        "phase": "head",
    }
    if 300 <= status < 400:
        return unexpected_redirect(status, headers.get("location"), **facts)
    found = read_error_body(body)
    # An error under status 200 says its real status itself, or none.
    kind, retryable = _classified(found, (_embedded_status(found) or status) if status < 300 else status)
    retry_after = _wait_in_text(found.message) if retryable else None
    header_wait = _header_wait(headers)
    if kind is RateLimitError and max(header_wait or 0.0, retry_after or 0.0) >= _HOPELESS_WAIT:
        kind, retryable = QuotaExceededError, False
        retry_after = retry_after or header_wait
    elif header_wait is not None:
        retry_after = None
    facts["hint"] = _hint(kind, found, status=status, model=model, url=url, api_version=api_version)
    return _made(kind, found, status=status, retryable=retryable, retry_after=retry_after, facts=facts)


def openai_stream_failure(payload: bytes, *, model: str | None = None, provider: str = _PROVIDER) -> ApexLlmError:
    """The typed error for one that was sent inside a stream of server-sent events.

    Args:
        payload: The event's data: ``{"error": {...}}``, a flat ``{"type": "error", ...}``, or plain text.
        model: The deployment or model as it was sent.
        provider: Whose stream it is.
    """
    found = read_error_body(payload)
    status = _embedded_status(found)
    kind, retryable = _classified(found, status)
    retry_after = _wait_in_text(found.message) if retryable else None
    facts: dict[str, Any] = {
        "provider": provider,
        "model": model,
        "phase": "mid-stream",
        "hint": _hint(kind, found, status=status, model=model, url=None, api_version=None),
    }
    return _made(kind, found, status=status, retryable=retryable, retry_after=retry_after, facts=facts)


def _made(
    kind: type[ApexLlmError],
    found: ErrorBody,
    *,
    status: int | None,
    retryable: bool,
    retry_after: float | None,
    facts: dict[str, Any],
) -> ApexLlmError:
    what = status_phrase(status) if status is not None else "an error"
    message = found.message or f"The service answered with {found.code or what} and no message."
    facts |= {"status": status, "code": found.code, "retryable": retryable, "retry_after": retry_after}
    if kind is ContentFilteredError:
        where = "prompt" if facts["phase"] == "head" or found.param == "prompt" else "completion"
        return ContentFilteredError(message, categories=_categories(found), where=where, **facts)
    if kind is InvalidRequestError:
        unknown = _UNRECOGNISED.search(found.message)
        return InvalidRequestError(message, param=found.param or (unknown.group(1) if unknown else None), **facts)
    return kind(message, **facts)


def _classified(found: ErrorBody, status: int | None) -> _Verdict:
    inner = _inner_error(found)
    named: _Verdict | None = None
    for word in (inner.get("code"), found.code, found.kind):
        verdict = _VERDICTS.get(word.lower().replace("_", "").replace("-", "")) if isinstance(word, str) else None
        if verdict is not None and (named is None or verdict[0] in _DECISIVE):
            named = verdict
            if verdict[0] in _DECISIVE:
                break
    if status is None or status < 400:
        return _refined_by_text(named or _verdict_by_text(found), found)
    if named is None or named[0] not in _DECISIVE:
        by_status = error_for_status(status)
        if named is None or by_status != _REFUSED or named == _OVERLOADED:
            named = _THROTTLED if named == _THROTTLED and status >= 500 else by_status
    return _refined_by_text(named, found)


def _refined_by_text(verdict: _Verdict, found: ErrorBody) -> _Verdict:
    text = found.message
    if verdict == _REFUSED:
        if _TOO_LONG.search(text):
            return ContextWindowExceededError, False
        if _FLAGGED.search(text):
            return _FILTERED
    if verdict == _THROTTLED and _QUOTA_TEXT.search(text):
        return _QUOTA
    return verdict


def _verdict_by_text(found: ErrorBody) -> _Verdict:
    """For an error in a 200 whose code, if any, is in no table."""
    if _MANY.search(found.message):
        return _THROTTLED
    if _TROUBLE.search(found.message):
        return _OVERLOADED
    return ApexLlmError, False


def _embedded_status(found: ErrorBody) -> int | None:
    for name in ("status", "code", "statusCode", "status_code"):
        value: Any = found.members.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _wait_in_text(message: str) -> float | None:
    match = _RETRY_AFTER.search(message)
    if match is None:
        return None
    seconds = float(match.group(1))
    return seconds / 1000 if (match.group(2) or "").lower() in ("ms", "milliseconds") else seconds


def _header_wait(headers: Headers) -> float | None:
    """Roughly what the headers ask for: enough to tell hours from seconds, dates not read."""
    for name, scale in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is not None:
            try:
                wait = float(value) * scale
            except ValueError:
                return 0.0
            return wait if math.isfinite(wait) and wait > 0 else 0.0
    return None


def _inner_error(found: ErrorBody) -> Mapping[str, Any]:
    """What Azure says beneath its error: one word for chats, two for images."""
    return as_mapping(found.members.get("innererror")) or as_mapping(found.members.get("inner_error"))


def _categories(found: ErrorBody) -> tuple[str, ...]:
    filters: Any = found.members.get("content_filters")  # as newer services write them: a list, with their source
    listed = cast("list[Any]", filters) if isinstance(filters, list) else []
    # Singular in errors, plural everywhere else; both are looked for in all places.
    for holder in (_inner_error(found), found.members, *map(as_mapping, listed)):
        for name in ("content_filter_result", "content_filter_results"):
            categories = flagged_categories(holder.get(name))
            if categories:
                return categories
    return ()


def _hint(
    kind: type[ApexLlmError],
    found: ErrorBody,
    *,
    status: int | None,
    model: str | None,
    url: str | None,
    api_version: str | None,
) -> str:
    code = (found.code or "").lower()
    called = f" This call went to {url}." if url else ""
    if status is not None and (hint := PROXY_HINTS.get(status)):
        return hint
    if kind is AuthenticationError:
        return (
            "Key and endpoint must belong to the same resource, and an Entra token must be fresh and made for "
            f"https://cognitiveservices.azure.com/.default.{called}"
        )
    if kind is PermissionDeniedError:
        return _denied_hint(code)
    if kind is ModelNotFoundError:
        return _not_found_hint(code, found.message, model=model, called=called, api_version=api_version)
    if kind is InvalidRequestError:
        return _invalid_request_hint(found, code, status=status, api_version=api_version)
    return _GENERAL_HINTS.get(kind, "Quote the request id to the service's support.")


_GENERAL_HINTS: Final[dict[type[ApexLlmError], str]] = {
    ContentFilteredError: "Change the prompt; the same one will be blocked again. The deployment's content filter "
    "decides what is blocked, and .categories says what it found.",
    ContextWindowExceededError: "Shorten the conversation, or lower max_tokens.",
    QuotaExceededError: "The quota is used up or zero: raise the deployment's tokens per minute, or check billing.",
    RateLimitError: "Send less at once, lower max_tokens (it is charged in advance), or raise the deployment's quota.",
    OverloadedError: "The service failed inside or is overloaded; try again, or another deployment.",
}


def _denied_hint(code: str) -> str:
    if code == "authenticationtypedisabled":
        return "This resource takes no keys: sign in with Entra (credential= or azure_ad_token_provider=)."
    if code == "permissiondenied":
        return (
            "Give the principal the role 'Cognitive Services OpenAI User' on this resource; "
            "a new role takes some minutes to take effect."
        )
    return "Network rules or a private endpoint may keep this machine out, or the resource was blocked; ask its owner."


def _not_found_hint(code: str, message: str, *, model: str | None, called: str, api_version: str | None) -> str:
    if _RETIRED.search(message) or "deprecated" in code:
        return "The model behind this deployment was retired: deploy a current one."
    if code in ("deploymentnotfound", "model_not_found"):
        return (
            f"{model!r} must be the name of a deployment, which is not always the model's name, in the resource that "
            f"the endpoint and key belong to.{called}"
        )
    version = f"api-version {api_version!r}" if api_version else "the path"
    return (
        f"Check {version} and the endpoint, which is https://RESOURCE.openai.azure.com without a path.{called} "
        "Not every operation exists in every api-version."
    )


def _invalid_request_hint(found: ErrorBody, code: str, *, status: int | None, api_version: str | None) -> str:
    text = found.message
    if _UNRECOGNISED.search(text) or _API_VERSION.search(text):
        used = f" (this call used {api_version!r})" if api_version else ""
        return f"Use a newer api_version{used}, or leave it out to use the v1 API."
    if found.param == "max_tokens" and "max_completion_tokens" in text:
        return "This is a reasoning model: name it, so that max_completion_tokens is sent instead."
    if code in ("unsupported_parameter", "unsupported_value"):
        return f"This model does not take {found.param or 'that member'}: leave it out."
    if code == "operationnotsupported":
        return "This model answers another operation, such as responses or embeddings; choose another deployment."
    if status == 413:
        return "The body is too large: send smaller images and files."
    return "The message names the member that was refused. Members under extra_body are sent as they are."
