"""How each cloud words the failures that a script can ask for."""

from __future__ import annotations

__all__ = ["Worded", "azure_failure", "azure_retry_headers", "bedrock_failure", "bedrock_retry_headers"]

import msgspec

from apex_llm.emulator.answers import Failure


class Worded(msgspec.Struct, frozen=True):
    """A failure in one cloud's words."""

    status: int
    code: str
    message: str


_BEDROCK = {
    "throttled": Worded(429, "ThrottlingException", "Too many requests, please wait before trying again."),
    "unavailable": Worded(503, "ServiceUnavailableException", "The service is temporarily unavailable."),
    "internal": Worded(500, "InternalServerException", "The system encountered an unexpected error."),
    "overloaded": Worded(529, "overloaded_error", "Overloaded"),
    "timeout": Worded(408, "ModelTimeoutException", "The model took too long to answer."),
    "model_error": Worded(424, "ModelErrorException", "The model failed while it processed the request."),
    "model_stream_error": Worded(424, "ModelStreamErrorException", "The model failed while it streamed its answer."),
    "not_ready": Worded(
        429, "ModelNotReadyException", "Model is not ready for inference. Wait and try your request again."
    ),
    "validation": Worded(
        400, "ValidationException", "Malformed input request, please reformat your input and try again."
    ),
    "access_denied": Worded(
        403, "AccessDeniedException", "You don't have access to the model with the specified model ID."
    ),
    "not_found": Worded(404, "ResourceNotFoundException", "The requested resource was not found."),
    "quota": Worded(400, "ServiceQuotaExceededException", "Your request exceeds the service quota for your account."),
    "unauthorized": Worded(
        403, "UnrecognizedClientException", "The security token included in the request is invalid."
    ),
    "expired_token": Worded(403, "ExpiredTokenException", "The security token included in the request is expired"),
    "context_length": Worded(
        400,
        "ValidationException",
        "The model returned the following errors: prompt is too long: 210000 tokens > 200000 maximum",
    ),
    "content_filter": Worded(400, "ValidationException", "The request was blocked by content filters."),
}

_AZURE = {
    "throttled": Worded(
        429,
        "RateLimitReached",
        "Your requests to {model} for {model} in East US have exceeded the token rate limit for your current "
        "AIServices S0 pricing tier. Please retry after {seconds} seconds.",
    ),
    "unavailable": Worded(
        503, "ServiceUnavailable", "The service is temporarily unable to process your request. Please try again later."
    ),
    "internal": Worded(
        500, "InternalServerError", "The server had an error while processing your request. Sorry about that!"
    ),
    "overloaded": Worded(
        429, "NoCapacity", "The system is currently experiencing high demand and cannot process your request."
    ),
    "timeout": Worded(408, "Timeout", "The operation was timeout."),
    "model_error": Worded(500, "server_error", "The model produced invalid content."),
    "model_stream_error": Worded(500, "server_error", "The model failed while it streamed its answer."),
    "not_ready": Worded(503, "ServiceUnavailable", "The model is being loaded. Please try again later."),
    "validation": Worded(400, "invalid_request_error", "The request is malformed."),
    "access_denied": Worded(401, "PermissionDenied", "Principal does not have access to API/Operation."),
    "not_found": Worded(
        404,
        "DeploymentNotFound",
        "The API deployment for this resource does not exist. If you created the deployment within the last "
        "5 minutes, please wait a moment and try again.",
    ),
    "quota": Worded(
        429, "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."
    ),
    "unauthorized": Worded(
        401,
        "401",
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for "
        "an active subscription and use a correct regional API endpoint for your resource.",
    ),
    "expired_token": Worded(
        401, "Unauthorized", "Access token is missing, invalid, audience is incorrect, or have expired."
    ),
    "context_length": Worded(
        400,
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 210000 tokens. "
        "Please reduce the length of the messages.",
    ),
    "content_filter": Worded(
        400,
        "content_filter",
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        "Please modify your prompt and retry.",
    ),
}


def bedrock_failure(failure: Failure) -> Worded:
    """Status, exception name and text that Bedrock would use."""
    return _worded(_BEDROCK, failure, model="")


def azure_failure(failure: Failure, *, model: str) -> Worded:
    """Status, code and text that Azure would use."""
    return _worded(_AZURE, failure, model=model)


def bedrock_retry_headers(failure: Failure) -> tuple[tuple[str, str], ...]:
    """The wait that was asked for, in the header that AWS's own clients read."""
    return () if failure.retry_after_ms is None else (("x-amz-retry-after", str(failure.retry_after_ms)),)


def azure_retry_headers(failure: Failure) -> tuple[tuple[str, str], ...]:
    """The wait that was asked for, exactly and in whole seconds."""
    if failure.retry_after_ms is None:
        return ()
    return (
        ("retry-after-ms", str(failure.retry_after_ms)),
        ("retry-after", str(max(0, -(-failure.retry_after_ms // 1000)))),
    )


def _worded(table: dict[str, Worded], failure: Failure, *, model: str) -> Worded:
    usual = table[failure.kind]
    seconds = max(0, -(-(failure.retry_after_ms or 1000) // 1000))
    message = usual.message.replace("{model}", model).replace("{seconds}", str(seconds))
    return Worded(
        usual.status if failure.status is None else failure.status,
        failure.code or usual.code,
        failure.message or message,
    )
