"""Errors of the services as errors of this package: one door to both clouds.

``bedrock_failure`` and ``azure_failure`` turn an HTTP answer into a typed error;
``bedrock_stream_failure`` and ``openai_stream_failure`` do so for errors that were sent
inside a stream. All are pure and total. How long to wait, where a header says so, is read
by the retry policy, not here.
"""

from __future__ import annotations

__all__ = [
    "azure_failure",
    "bedrock_failure",
    "bedrock_stream_failure",
    "failure_in_body",
    "openai_stream_failure",
    "unexpected_content",
]

from apex_llm.codecs.azure_failures import azure_failure, openai_stream_failure
from apex_llm.codecs.bedrock_failures import bedrock_failure, bedrock_stream_failure
from apex_llm.codecs.failure_details import excerpt, read_error_body, shorten
from apex_llm.errors import ApexLlmError, ResponseFormatError
from apex_llm.types.http import Headers

_SHOWN = 200
_LOOKED_AT = 4096


def failure_in_body(
    headers: Headers, body: bytes, *, provider: str, model: str | None = None, status: int = 200
) -> ApexLlmError | None:
    """The provider's own error, where the body of an answer with status 200 is one in JSON.

    Args:
        headers: Of the answer.
        body: All of it, or its beginning.
        provider: ``"bedrock"`` or ``"azure_openai"``: whose error dialect the body may be in.
        model: The model or deployment as it was sent.
        status: Of the answer.
    """
    found = read_error_body(body)
    if not (found.recognised and (found.message or "x-amzn-errortype" in headers)):
        return None
    failure = bedrock_failure if provider == "bedrock" else azure_failure
    return failure(status, headers, body, model=model)


def unexpected_content(
    headers: Headers, body: bytes, *, expected: str, provider: str, model: str | None = None, status: int = 200
) -> ApexLlmError:
    """The error for an answer with status 200 whose content is not the stream or JSON that was asked for.

    Args:
        headers: Of the answer.
        body: Its beginning; a few KiB are enough.
        expected: The content type that the operation documents.
        provider: ``"bedrock"`` or ``"azure_openai"``: whose error dialect the body may be in.
        model: The model or deployment as it was sent.
        status: Of the answer.

    Returns:
        The provider's own error where the body is one in JSON, else a ``ResponseFormatError``
        that names the content type and shows the first 200 characters without secrets.
    """
    failure = failure_in_body(headers, body, provider=provider, model=model, status=status)
    if failure is not None:
        return failure
    found = read_error_body(body)
    content_type = headers.get("content-type") or "no content type"
    if found.members:  # JSON may hold what a model or a user said: its outline is enough
        shown = shorten(f"is JSON with the members {', '.join(found.members)}", limit=_SHOWN)
    elif stream := _stream_in(body):  # so may a stream under another name
        shown = f"holds {stream}"
    else:
        text = excerpt(body, limit=_SHOWN)
        shown = f"begins: {text!r}" if text else "has no content"
    return ResponseFormatError(
        f"Expected {expected}, but the answer is {content_type!r} and {shown}.",
        provider=provider,
        model=model,
        status=status,
        code="unexpected_content",
        request_id=headers.get("x-amzn-requestid") or headers.get("apim-request-id") or headers.get("x-request-id"),
        headers=headers.to_dict(),
        phase="head",
        hint="A proxy, gateway or login page may stand between here and the service. Check the endpoint.",
    )


def _stream_in(body: bytes) -> str | None:
    """What kind of stream a body looks like, whatever it was called."""
    if any(line.startswith((b"data:", b"event:")) for line in body[:_LOOKED_AT].splitlines()):
        return "server-sent events: the server must name that type"
    if b":event-type" in body[:_LOOKED_AT] or b":exception-type" in body[:_LOOKED_AT]:
        return "event-stream frames: the server must name that type"
    return None
