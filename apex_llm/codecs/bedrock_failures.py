"""Errors of AWS Bedrock, typed.

Sources: the service model of ``bedrock-runtime`` and the user guide's error pages; texts
are those of public reports. The exception's name decides, then the status; the text only
refines, because "Too many tokens" is a throttle in one exception and a prompt that is too
long in another.
"""

from __future__ import annotations

__all__ = ["bedrock_failure", "bedrock_stream_failure"]

import re
from typing import Any, Final

import msgspec

from apex_llm.codecs.failure_details import (
    PROXY_HINTS,
    ErrorBody,
    error_for_status,
    read_error_body,
    redact,
    shorten,
    status_phrase,
    unexpected_redirect,
)
from apex_llm.codecs.lazy_pattern import LazyPattern
from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    ContextWindowExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelTimeoutError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
)
from apex_llm.types.http import Headers

_PROVIDER: Final = "bedrock"
_LONGEST_NAME: Final = 200
"""Of an exception; a header that names one may hold 64 KiB."""

_Verdict = tuple[type[ApexLlmError], bool]
_THROTTLED: Final[_Verdict] = (RateLimitError, True)
_OVERLOADED: Final[_Verdict] = (OverloadedError, True)
_UNAUTHENTICATED: Final[_Verdict] = (AuthenticationError, False)
_DENIED: Final[_Verdict] = (PermissionDeniedError, False)
_REFUSED: Final[_Verdict] = (InvalidRequestError, False)
_NOT_FOUND: Final[_Verdict] = (ModelNotFoundError, False)

# Names in lower case, without a trailing "exception": streams write them in camel case,
# and AWS front ends use several spellings of the same name.
_VERDICTS: Final[dict[str, _Verdict]] = {
    "accessdenied": _DENIED,
    "optinrequired": _DENIED,
    "subscriptionrequired": _DENIED,
    "notauthorized": _DENIED,
    "permission_error": _DENIED,
    "expiredtoken": _UNAUTHENTICATED,
    "requestexpired": _UNAUTHENTICATED,
    "unrecognizedclient": _UNAUTHENTICATED,
    "invalidclienttokenid": _UNAUTHENTICATED,
    "invalidaccesskeyid": _UNAUTHENTICATED,
    "invalidsignature": _UNAUTHENTICATED,
    "signaturedoesnotmatch": _UNAUTHENTICATED,
    "incompletesignature": _UNAUTHENTICATED,
    "missingauthenticationtoken": _UNAUTHENTICATED,
    "missingauthentication": _UNAUTHENTICATED,
    "requesttimetooskewed": _UNAUTHENTICATED,
    "authfailure": _UNAUTHENTICATED,
    "unauthorized": _UNAUTHENTICATED,
    "authentication_error": _UNAUTHENTICATED,
    "resourcenotfound": _NOT_FOUND,
    "unknownoperation": _NOT_FOUND,
    "not_found_error": _NOT_FOUND,
    "validation": _REFUSED,
    "validationerror": _REFUSED,
    "serialization": _REFUSED,
    "conflict": _REFUSED,
    "toomanytags": _REFUSED,
    "badrequest": _REFUSED,
    "invalid_request_error": _REFUSED,
    "request_too_large": _REFUSED,
    "servicequotaexceeded": (QuotaExceededError, False),
    "limitexceeded": (QuotaExceededError, False),
    "throttling": _THROTTLED,
    "throttled": _THROTTLED,
    "throttledexception": _THROTTLED,
    "requestthrottled": _THROTTLED,
    "toomanyrequests": _THROTTLED,
    "requestlimitexceeded": _THROTTLED,
    "provisionedthroughputexceeded": _THROTTLED,
    "bandwidthlimitexceeded": _THROTTLED,
    "priorrequestnotcomplete": _THROTTLED,
    "slowdown": _THROTTLED,
    "rate_limit_error": _THROTTLED,
    "modelnotready": _OVERLOADED,
    "internalserver": _OVERLOADED,
    "internalservererror": _OVERLOADED,
    "internalfailure": _OVERLOADED,
    "internalerror": _OVERLOADED,
    "serviceunavailable": _OVERLOADED,
    "serviceunavailableerror": _OVERLOADED,
    "servicefailure": _OVERLOADED,
    "overloaded_error": _OVERLOADED,
    "api_error": _OVERLOADED,
    "modelstreamerror": _OVERLOADED,
    "modeltimeout": (ModelTimeoutError, False),
    "modelerror": (OverloadedError, False),
}


def bedrock_failure(
    status: int, headers: Headers, body: bytes, *, model: str | None = None, region: str | None = None
) -> ApexLlmError:
    """The typed error for an HTTP answer that is not a success.

    Args:
        status: Of the answer.
        headers: Of the answer.
        body: All of it, or its beginning.
        model: The model id as it was sent; names the inference profiles in a hint.
        region: The region that was asked, for the same hint.
    """
    facts: dict[str, Any] = {
        "provider": _PROVIDER,
        "model": model,
        "request_id": headers.get("x-amzn-requestid") or headers.get("x-amz-request-id"),
        "headers": headers.to_dict(),
        "phase": "head",
    }
    if 300 <= status < 400:
        return unexpected_redirect(status, headers.get("location"), **facts)
    found = read_error_body(body)
    header_name = _bare_name(headers.get("x-amzn-errortype"))
    return _error(
        header_name or _bare_name(found.code),
        found,
        status=status,
        model=model,
        region=region,
        facts=facts,
    )


def bedrock_stream_failure(
    exception_type: str | None,
    payload: bytes,
    *,
    message: str | None = None,
    model: str | None = None,
    region: str | None = None,
) -> ApexLlmError:
    """The typed error for an exception frame or an error frame of an event stream.

    Args:
        exception_type: ``:exception-type`` or ``:error-code``, as it came; kept as ``code``.
        payload: The frame's payload, JSON with a ``message`` for exception frames.
        message: ``:error-message`` of an error frame.
        model: The model id as it was sent.
        region: The region that was asked.
    """
    found = read_error_body(payload)
    if message:
        found = msgspec.structs.replace(found, message=shorten(redact(message)))
    facts: dict[str, Any] = {"provider": _PROVIDER, "model": model, "phase": "mid-stream"}
    return _error(exception_type or _bare_name(found.code), found, status=None, model=model, region=region, facts=facts)


def _bare_name(name: str | None) -> str | None:
    """``com.amazon.coral#ThrottlingException:http://…`` is ``ThrottlingException``."""
    return name.partition(":")[0].rpartition("#")[2].strip() or None if name else None


def _error(
    name: str | None, found: ErrorBody, *, status: int | None, model: str | None, region: str | None, facts: Any
) -> ApexLlmError:
    if name is not None:
        name = shorten(name, limit=_LONGEST_NAME)
    key = (name or "").lower().removesuffix("exception")
    verdict = _VERDICTS.get(key)
    if verdict is None:
        verdict = _verdict_by_status(status, found.message) if status is not None else _verdict_by_name(key)
    kind, retryable = _refined(key, *verdict, found)
    return kind(
        _sentence(name, found.message, status),
        status=status,
        code=name,
        retryable=retryable,
        hint=_hint(kind, key, found.message, status=status, model=model, region=region),
        **facts,
    )


def _verdict_by_status(status: int, message: str) -> _Verdict:
    if status >= 400:
        return error_for_status(status)
    # An error in the body of a 200, without a name: only its text is left to go by.
    if _MANY.search(message):
        return _THROTTLED
    return _OVERLOADED if _SERVER_TROUBLE.search(message) else (ApexLlmError, False)


def _verdict_by_name(key: str) -> _Verdict:
    """For a name in a stream that no table knows: newer than this package."""
    if "throttl" in key or "toomany" in key:
        return _THROTTLED
    if "timeout" in key:
        return ModelTimeoutError, False
    if "unavailable" in key or "internal" in key or "overload" in key:
        return _OVERLOADED
    return ApexLlmError, False


_MANY = LazyPattern(r"too many (?:requests|tokens|connections)|rate exceeded|throttl", re.IGNORECASE)
_SERVER_TROUBLE = LazyPattern(r"internal server error|unavailable|unable to process|overloaded", re.IGNORECASE)
_PER_DAY = LazyPattern(r"\bper day\b|\bdaily\b", re.IGNORECASE)
_TOO_LONG = LazyPattern(
    r"input is too long|too many input tokens|prompt is too long|(?:maximum|max) context length"
    r"|exceeds? the (?:model.?s )?(?:maximum )?(?:context|number of input tokens|input token)"
    r"|context (?:window|limit)|input (?:length|tokens).{0,60}exceed"
    r"|too large for model with \d+ maximum context",
    re.IGNORECASE | re.DOTALL,
)
# The apostrophe of the service is U+2019; some proxies write an ASCII one.
_ON_DEMAND = LazyPattern(r"on-demand throughput isn.{1,6}t supported", re.IGNORECASE)
_BAD_IDENTIFIER = LazyPattern(r"model identifier is invalid|model is not (?:supported|found)", re.IGNORECASE)
_BAD_KEY = LazyPattern(
    r"api key is valid|invalid api key|bearer token (?:has expired|is)|api key has expired", re.IGNORECASE
)
_STREAMED_TOOLS = LazyPattern(r"tool use in streaming mode", re.IGNORECASE)
_NOT_COUNTED = LazyPattern(r"doesn.t support counting tokens", re.IGNORECASE)
_RETIRED = LazyPattern(r"end of its life|marked by provider as legacy", re.IGNORECASE)
_USE_CASE = LazyPattern(r"use case", re.IGNORECASE)
_MARKETPLACE = LazyPattern(r"marketplace", re.IGNORECASE)
_SAMPLING = LazyPattern(r"temperature|top_p|top_k|topP", re.IGNORECASE)
_CANONICAL = LazyPattern(r"\s*The Canonical String.*", re.IGNORECASE | re.DOTALL)


def _refined(key: str, kind: type[ApexLlmError], retryable: bool, found: ErrorBody) -> tuple[type[ApexLlmError], bool]:  # noqa: FBT001
    """The class, once the text is read too."""
    text = found.message
    if kind is RateLimitError and _PER_DAY.search(text):
        return QuotaExceededError, False
    if kind is InvalidRequestError:
        if _TOO_LONG.search(text):
            return ContextWindowExceededError, False
        if _BAD_IDENTIFIER.search(text):
            return ModelNotFoundError, False
    if kind is PermissionDeniedError and _BAD_KEY.search(text):
        return AuthenticationError, False
    if key == "modelerror":
        # The model's own server refused the request: the same request will be refused again.
        original = found.members.get("originalStatusCode")
        if isinstance(original, int) and 400 <= original < 500 and original not in (408, 425, 429):
            return InvalidRequestError, False
    return kind, retryable


def _sentence(name: str | None, message: str, status: int | None) -> str:
    # The service repeats the whole canonical request, session token included.
    text = _CANONICAL.sub("", message)
    if text:
        return text
    what = name or (status_phrase(status) if status is not None else "an error without a name")
    return f"Bedrock answered with {what} and no message."


_KEY_HINT = (
    "The Bedrock API key is wrong, has expired or belongs to another region. Short-term keys last 12 hours at most."
)
_AUTHENTICATION_HINTS: Final[dict[str, str]] = {
    "expiredtoken": "The session token has expired: refresh it, for example with `aws sso login --profile NAME`.",
    "requestexpired": "The request was signed too long ago: check this machine's clock, and slow proxies.",
    "unrecognizedclient": "The access key is unknown, inactive or belongs to another partition. Check the credentials; "
    "temporary keys need their session token too.",
    "requesttimetooskewed": "This machine's clock is off. Synchronise it.",
    "missingauthenticationtoken": "No signature arrived. Check the endpoint, and proxies that drop headers.",
}


def _hint(
    kind: type[ApexLlmError], key: str, message: str, *, status: int | None, model: str | None, region: str | None
) -> str:
    if status is not None and (hint := PROXY_HINTS.get(status)):
        return hint
    if kind is AuthenticationError:
        if _BAD_KEY.search(message):
            return _KEY_HINT
        return _AUTHENTICATION_HINTS.get(
            key,
            "Check access key and secret, this machine's clock, and proxies that rewrite the Host header or the path.",
        )
    if kind is InvalidRequestError:
        return _invalid_request_hint(message, status=status, model=model, region=region)
    if kind is ModelNotFoundError:
        return _not_found_hint(message)
    if kind is PermissionDeniedError:
        if _MARKETPLACE.search(message):
            return (
                "The Marketplace agreement for this model is pending or not allowed: wait 15 minutes after the first "
                "use, or have somebody with aws-marketplace:Subscribe call the model once."
            )
        return (
            "Check that the model is offered in this region, and that the IAM policy (and service control policies) "
            "allow bedrock:InvokeModel, for streams bedrock:InvokeModelWithResponseStream, on the model and on every "
            "region of its inference profile."
        )
    if kind is QuotaExceededError:
        return "An account limit is used up; waiting a little will not help. Request an increase under Service Quotas."
    return _GENERAL_HINTS.get(kind, "See the service's status page, and quote the request id to AWS support.")


_GENERAL_HINTS: Final[dict[type[ApexLlmError], str]] = {
    RateLimitError: "Send less at once, or lower max_tokens: it is charged in advance on several models.",
    OverloadedError: "The service or the model failed inside; try again, or another region or inference profile.",
    ModelTimeoutError: "Ask for less in one call (max_tokens, reasoning), or stream the answer.",
    ContextWindowExceededError: "Shorten the conversation or lower max_tokens;",
}


def _invalid_request_hint(message: str, *, status: int | None, model: str | None, region: str | None) -> str:
    if _ON_DEMAND.search(message):
        return _profile_hint(model, region)
    if _STREAMED_TOOLS.search(message):
        return "Use chat() instead of chat_stream(): this model takes tools only when the answer is not streamed."
    if _NOT_COUNTED.search(message):
        return "Estimate instead, or count with another model of the same family."
    if _SAMPLING.search(message):
        return "This model refuses a sampling parameter: leave out temperature, top_p or top_k."
    if status == 413:
        return "The body is too large: send smaller images and documents, or refer to them in S3."
    return "The message names the member that was refused. Members under extra_body go to the model as they are."


def _not_found_hint(message: str) -> str:
    if _RETIRED.search(message):
        return "The model was retired or is locked as legacy. Choose an active one; get_available_models() lists them."
    if _USE_CASE.search(message):
        return (
            "Fill in the use-case form for Anthropic models once per account: Bedrock console, Model catalog. "
            "It takes effect after about 15 minutes."
        )
    return "Check the model id and the region; get_available_models() lists what this account can call."


_GEOGRAPHIES: Final[tuple[tuple[str, str], ...]] = (
    ("us-gov-", "us-gov"),
    ("us-", "us"),
    ("ca-", "us"),
    ("eu-", "eu"),
    ("ap-northeast-1", "jp"),
    ("ap-northeast-3", "jp"),
    ("ap-southeast-2", "au"),
    ("ap-southeast-4", "au"),
    ("ap-", "apac"),
)


def _profile_hint(model: str | None, region: str | None) -> str:
    bare = model.rpartition("/")[2] if model else "MODEL_ID"
    found = next((geography for start, geography in _GEOGRAPHIES if (region or "us-").startswith(start)), None)
    names = [f"{found}.{bare}"] if found else []
    if found in ("jp", "au"):
        names.append(f"apac.{bare}")
    names.append(f"global.{bare}")
    return f"Call it through an inference profile: pass model={' or model='.join(map(repr, names))}."
