"""Errors of both clouds: literal bodies, and what the caller is told.

Bodies are those of the service models, of public issue reports and of recorded traffic.
"""

# ruff: noqa: E501 - the tables hold literal bodies, one row each

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_llm.codecs.failures import (
    azure_failure,
    bedrock_failure,
    bedrock_stream_failure,
    openai_stream_failure,
    unexpected_content,
)
from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    ContentFilteredError,
    ContextWindowExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelTimeoutError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ResponseFormatError,
)
from apex_llm.types.http import Headers

CORAL = ":http://internal.amazon.com/coral/com.amazon.bedrock/"


def said(text: str, **more: Any) -> bytes:
    return json.dumps({"message": text, **more}).encode()


# name in the header, status, body, class, retryable, words of the hint
BEDROCK: list[tuple[str | None, int, bytes, type[ApexLlmError], bool, str]] = [
    ("AccessDeniedException", 403, said("You don't have access to the model with the specified model ID."), PermissionDeniedError, False, "IAM"),
    ("AccessDeniedException", 403, said("User: arn:aws:iam::123456789012:user/x is not authorized to perform: bedrock:InvokeModel with an explicit deny in a service control policy"), PermissionDeniedError, False, "service control"),
    ("AccessDeniedException", 403, said("Model access is denied due to IAM user or service role is not authorized to perform the required AWS Marketplace actions"), PermissionDeniedError, False, "Marketplace"),
    (None, 403, b'{"Message":"Authentication failed: Please make sure your API Key is valid."}', AuthenticationError, False, "another region"),
    ("ExpiredTokenException", 403, said("The security token included in the request is expired"), AuthenticationError, False, "aws sso login"),
    ("ExpiredToken", 400, said("The provided token has expired."), AuthenticationError, False, "aws sso login"),
    ("UnrecognizedClientException", 403, said("The security token included in the request is invalid."), AuthenticationError, False, "session token"),
    ("InvalidSignatureException", 403, said("Signature expired: 20261122T120000Z is now earlier than 20261122T121500Z"), AuthenticationError, False, "clock"),
    ("SignatureDoesNotMatch", 403, said("The request signature we calculated does not match"), AuthenticationError, False, "Host header"),
    ("RequestTimeTooSkewed", 403, said("The difference between the request time and the current time is too large."), AuthenticationError, False, "clock"),
    ("MissingAuthenticationTokenException", 403, said("Missing Authentication Token"), AuthenticationError, False, "endpoint"),
    ("ResourceNotFoundException", 404, said("This model version has reached the end of its life. Please refer to the AWS documentation for more details."), ModelNotFoundError, False, "retired"),
    ("ResourceNotFoundException", 404, said("Access denied. This Model is marked by provider as Legacy and you have not been actively using the model in the last 15 days. Please upgrade to an active model on Amazon Bedrock"), ModelNotFoundError, False, "legacy"),
    ("ResourceNotFoundException", 404, said("Model use case details have not been submitted for this account."), ModelNotFoundError, False, "use-case form"),
    ("ResourceNotFoundException", 404, said("Could not resolve the foundation model from the provided model identifier."), ModelNotFoundError, False, "region"),
    ("ValidationException", 400, said("The provided model identifier is invalid."), ModelNotFoundError, False, "region"),
    ("ValidationException", 400, said("The provided model doesn't support counting tokens."), InvalidRequestError, False, "Estimate"),
    ("ValidationException", 400, said("This model doesn't support tool use in streaming mode."), InvalidRequestError, False, "chat()"),
    ("ValidationException", 400, said("Malformed input request: #/api_version: 1 is not greater or equal to 2, please reformat your input and try again."), InvalidRequestError, False, "extra_body"),
    ("ValidationException", 400, said("The model returned the following errors: `temperature` is deprecated for this model."), InvalidRequestError, False, "temperature"),
    ("ValidationException", 400, said("Input is too long for requested model."), ContextWindowExceededError, False, "Shorten"),
    ("ValidationException", 400, said("Too many input tokens. Max input tokens: 128000, request input token count: 130000"), ContextWindowExceededError, False, "Shorten"),
    ("ValidationException", 400, said("The model returned the following errors: prompt is too long: 210000 tokens > 200000 maximum"), ContextWindowExceededError, False, "Shorten"),
    ("ValidationException", 400, said("The model returned the following errors: input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000"), ContextWindowExceededError, False, "Shorten"),
    ("ServiceQuotaExceededException", 400, said("You have exceeded your service quota."), QuotaExceededError, False, "Service Quotas"),
    ("ConflictException", 400, said("conflict"), InvalidRequestError, False, "message"),
    ("TooManyTagsException", 400, said("too many tags"), InvalidRequestError, False, "message"),
    ("ThrottlingException", 429, said("Too many requests, please wait before trying again."), RateLimitError, True, "max_tokens"),
    ("ThrottlingException", 429, said("Too many tokens, please wait before trying again."), RateLimitError, True, "max_tokens"),
    ("ThrottlingException", 400, said("Rate exceeded"), RateLimitError, True, "max_tokens"),
    ("ThrottlingException", 429, said("Too many tokens per day, please wait before trying again."), QuotaExceededError, False, "Service Quotas"),
    ("ModelNotReadyException", 429, said("The model is not ready for inference yet."), OverloadedError, True, "try again"),
    ("ModelTimeoutException", 408, said("Model timed out"), ModelTimeoutError, False, "stream"),
    ("ModelErrorException", 424, said("boom", originalStatusCode=500, resourceName="m"), OverloadedError, False, "try again"),
    ("ModelErrorException", 424, said("bad input", originalStatusCode=400), InvalidRequestError, False, "message"),
    ("ModelStreamErrorException", 424, said("boom"), OverloadedError, True, "try again"),
    ("InternalServerException", 500, said("Internal server error"), OverloadedError, True, "try again"),
    ("ServiceUnavailableException", 503, said("Bedrock is unable to process your request."), OverloadedError, True, "try again"),
    ("UnknownOperationException", 404, b"{}", ModelNotFoundError, False, "model id"),
    (None, 529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', OverloadedError, True, "try again"),
    (None, 503, b"", OverloadedError, True, "try again"),
    (None, 500, b"<html><head><title>500</title></head><body><h1>Internal Server Error</h1></body></html>", OverloadedError, True, "try again"),
    (None, 502, b"\xff\xfe\x00", OverloadedError, True, "try again"),
    (None, 504, b"null", OverloadedError, True, "try again"),
    (None, 413, b"Request Entity Too Large", InvalidRequestError, False, "smaller"),
    (None, 429, b'{"message":null}', RateLimitError, True, "max_tokens"),
    (None, 400, b'{"__type":"com.amazon.coral.validate#ValidationException","message":"no"}', InvalidRequestError, False, "message"),
    (None, 400, b'{"code":"ThrottlingException","message":"slow"}', RateLimitError, True, "max_tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "body", "kind", "retryable", "hint"), BEDROCK)
@pytest.mark.parametrize("style", ["{}", "{}" + CORAL, "com.amazon.bedrock#{}", "com.amazon.bedrock#{}:x"])
def test_bedrock_errors_are_typed(
    name: str | None, status: int, body: bytes, kind: Any, retryable: bool, hint: str, style: str
) -> None:
    raw = (("x-amzn-requestid", "6f1d"),)
    if name is not None:
        raw += (("x-amzn-errortype", style.format(name)),)

    error = bedrock_failure(status, Headers(raw), body, model="some.model", region="us-east-1")

    assert type(error) is kind
    assert error.retryable is retryable
    assert (error.status, error.request_id, error.model, error.provider) == (status, "6f1d", "some.model", "bedrock")
    assert name is None or error.code == name
    assert error.message
    assert hint in (error.hint or "")
    assert error.headers["x-amzn-requestid"] == "6f1d"
    assert type(pickle.loads(pickle.dumps(error))) is kind


@pytest.mark.parametrize("name", sorted({name for name, *_ in BEDROCK if name}))
def test_a_name_means_the_same_in_a_header_in_a_body_and_in_a_stream(name: str) -> None:
    """Except for the status, which a stream does not have."""
    by_header = bedrock_failure(400, Headers((("x-amzn-errortype", name),)), said("x"))
    by_body = bedrock_failure(400, Headers(), said("x", __type=f"ns#{name}"))
    in_stream = bedrock_stream_failure(name[0].lower() + name[1:], said("x"))

    assert type(by_header) is type(by_body) is type(in_stream)
    assert by_header.retryable is by_body.retryable is in_stream.retryable


@pytest.mark.parametrize("apostrophe", ["\u2019", "'", "&#39;"])
@pytest.mark.parametrize(
    ("region", "names"),
    [
        ("us-east-1", ["'us.anthropic.claude-x'", "'global.anthropic.claude-x'"]),
        ("eu-central-1", ["'eu.anthropic.claude-x'"]),
        ("ap-northeast-1", ["'jp.anthropic.claude-x'", "'apac.anthropic.claude-x'"]),
        ("ap-south-1", ["'apac.anthropic.claude-x'"]),
        ("us-gov-west-1", ["'us-gov.anthropic.claude-x'"]),
        ("sa-east-1", ["'global.anthropic.claude-x'"]),
        (None, ["'us.anthropic.claude-x'", "'global.anthropic.claude-x'"]),
    ],
)
def test_a_model_that_needs_a_profile_is_answered_with_the_profiles_names(
    region: str | None, names: list[str], apostrophe: str
) -> None:
    """The first error that newcomers to Bedrock meet; the service writes U+2019."""
    text = (
        f"Invocation of model ID anthropic.claude-x with on-demand throughput isn{apostrophe}t supported. "
        "Retry your request with the ID or ARN of an inference profile that contains this model."
    )

    error = bedrock_failure(
        400,
        Headers((("x-amzn-errortype", "ValidationException"),)),
        said(text),
        model="anthropic.claude-x",
        region=region,
    )

    assert type(error) is InvalidRequestError
    for name in names:
        assert name in (error.hint or "")


FILTERED = (
    b'{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI\'s content management '
    b'policy. Please modify your prompt and retry.","type":null,"param":"prompt","code":"content_filter","status":400,'
    b'"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{"hate":{"filtered":false,"severity":'
    b'"safe"},"jailbreak":{"filtered":true,"detected":true},"violence":{"filtered":true,"severity":"medium"},'
    b'"custom_blocklists":[{"id":"x","filtered":false}]}}}}'
)


def azure(code: Any, text: str, **more: Any) -> bytes:
    return json.dumps({"error": {"code": code, "message": text, **more}}).encode()


# status, headers, body, class, code, retryable, retry_after, words of the hint
AZURE: list[tuple[int, dict[str, str], bytes, type[ApexLlmError], str | None, bool, float | None, str]] = [
    (401, {}, azure("401", "Access denied due to invalid subscription key or wrong API endpoint."), AuthenticationError, "401", False, None, "same resource"),
    (401, {}, azure("PermissionDenied", "Principal does not have access to API/Operation."), PermissionDeniedError, "PermissionDenied", False, None, "Cognitive Services OpenAI User"),
    (403, {}, azure("PermissionDenied", "Principal does not have access to API/Operation."), PermissionDeniedError, "PermissionDenied", False, None, "role"),
    (401, {}, azure("Unauthorized", "Access token is missing, invalid, audience is incorrect, or have expired."), AuthenticationError, "Unauthorized", False, None, "cognitiveservices"),
    (403, {}, azure("AuthenticationTypeDisabled", "Key based authentication is disabled for this resource."), PermissionDeniedError, "AuthenticationTypeDisabled", False, None, "Entra"),
    (403, {}, azure("403", "Access denied due to Virtual Network/Firewall rules."), PermissionDeniedError, "403", False, None, "private endpoint"),
    (404, {}, azure("DeploymentNotFound", "The API deployment for this resource does not exist."), ModelNotFoundError, "DeploymentNotFound", False, None, "name of a deployment"),
    (404, {}, azure("404", "Resource not found"), ModelNotFoundError, "404", False, None, "api-version '2024-10-21'"),
    (404, {}, b'{"statusCode":404,"message":"Resource not found"}', ModelNotFoundError, "404", False, None, "endpoint"),
    (404, {}, azure("model_not_found", "The model `x` does not exist.", type="invalid_request_error"), ModelNotFoundError, "model_not_found", False, None, "deployment"),
    (400, {}, azure("model_not_found", "The requested model 'x' does not exist.", type="invalid_request_error"), ModelNotFoundError, "model_not_found", False, None, "deployment"),
    (410, {}, azure("ModelDeprecated", "The model has been deprecated"), ModelNotFoundError, "ModelDeprecated", False, None, "retired"),
    (400, {}, FILTERED, ContentFilteredError, "content_filter", False, None, "prompt"),
    (400, {}, azure("contentFilter", "Your task failed as a result of our safety system."), ContentFilteredError, "contentFilter", False, None, "prompt"),
    (400, {}, azure("invalid_prompt", "Invalid prompt: your prompt was flagged as potentially violating our usage policy."), ContentFilteredError, "invalid_prompt", False, None, "prompt"),
    (400, {}, azure("context_length_exceeded", "This model's maximum context length is 8192 tokens.", type="invalid_request_error"), ContextWindowExceededError, "context_length_exceeded", False, None, "Shorten"),
    (400, {}, azure(None, "This model's maximum context length is 8192 tokens. However, you requested 9000."), ContextWindowExceededError, None, False, None, "Shorten"),
    (400, {}, azure("unsupported_parameter", "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", type="invalid_request_error", param="max_tokens"), InvalidRequestError, "unsupported_parameter", False, None, "reasoning model"),
    (400, {}, azure("unsupported_value", "Unsupported value: 'temperature'", param="temperature"), InvalidRequestError, "unsupported_value", False, None, "temperature"),
    (400, {}, azure("OperationNotSupported", "The chatCompletion operation does not work with the specified model"), InvalidRequestError, "OperationNotSupported", False, None, "another operation"),
    (400, {}, azure("BadRequest", "API version not supported"), InvalidRequestError, "BadRequest", False, None, "newer api_version"),
    (400, {}, azure("BadRequest", "Model {modelName} is enabled only for api versions 2024-12-01-preview and later"), InvalidRequestError, "BadRequest", False, None, "newer api_version"),
    (400, {}, azure(None, "Unrecognized request argument supplied: functions", type="invalid_request_error"), InvalidRequestError, "invalid_request_error", False, None, "newer api_version"),
    (400, {}, b'{"error":{"requestid":"r","code":400,"message":"Invalid AzureCognitiveSearch configuration detected: x"}}', InvalidRequestError, "400", False, None, "member"),
    (408, {}, azure("Timeout", "The operation was timeout."), OverloadedError, "Timeout", True, None, "try again"),
    (409, {}, azure("conflict", "x"), InvalidRequestError, "conflict", False, None, "message"),
    (413, {}, b"", InvalidRequestError, None, False, None, "too large"),
    (422, {}, b'{"detail":[{"loc":["body","messages"],"msg":"field required","input":"my secret prompt"}]}', InvalidRequestError, None, False, None, "message"),
    (424, {}, azure("424", "search failed"), OverloadedError, "424", False, None, "try again"),
    (425, {}, b"", OverloadedError, None, True, None, "try again"),
    (429, {}, azure("429", "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-05-01-preview have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 18 seconds."), RateLimitError, "429", True, 18.0, "quota"),
    (429, {}, azure("RateLimitReached", "Your requests have exceeded the token rate limit. Please retry after 45 seconds."), RateLimitError, "RateLimitReached", True, 45.0, "quota"),
    (429, {"retry-after": "3"}, azure("429", "Please retry after 18 seconds."), RateLimitError, "429", True, None, "quota"),
    (429, {"retry-after-ms": "700"}, azure("429", "Please retry after 1 second."), RateLimitError, "429", True, None, "quota"),
    (429, {"retry-after": "Sun, 22 Nov 2026 12:00:00 GMT"}, azure("429", "slow"), RateLimitError, "429", True, None, "quota"),
    (429, {"retry-after": "86400"}, azure("429", "slow"), QuotaExceededError, "429", False, 86400.0, "zero"),
    (429, {}, azure("429", "Please retry after 86400 seconds."), QuotaExceededError, "429", False, 86400.0, "zero"),
    (429, {}, azure("insufficient_quota", "You exceeded your current quota", type="insufficient_quota"), QuotaExceededError, "insufficient_quota", False, None, "quota"),
    (429, {}, azure("NoCapacity", "The system is currently experiencing high demand"), RateLimitError, "NoCapacity", True, None, "quota"),
    (429, {}, azure("too_many_requests", "Too Many Requests", type="too_many_requests"), RateLimitError, "too_many_requests", True, None, "quota"),
    (500, {}, azure("InternalServerError", "Backend returned unexpected response."), OverloadedError, "InternalServerError", True, None, "try again"),
    (500, {}, azure(None, "odd", type="invalid_request_error"), OverloadedError, "invalid_request_error", True, None, "try again"),
    (503, {}, azure("ServiceUnavailable", "x"), OverloadedError, "ServiceUnavailable", True, None, "try again"),
    (502, {}, b"<!DOCTYPE html><html><body>Bad Gateway</body></html>", OverloadedError, None, True, None, "try again"),
    (504, {}, b"", OverloadedError, None, True, None, "try again"),
    (522, {}, b"error code: 522", OverloadedError, None, True, None, "try again"),
    (501, {}, b"", OverloadedError, None, False, None, "try again"),
    (404, {}, b'{"error":"not found"}', ModelNotFoundError, None, False, None, "endpoint"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "raw", "body", "kind", "code", "retryable", "retry_after", "hint"), AZURE)
def test_azure_errors_are_typed(
    status: int,
    raw: dict[str, str],
    body: bytes,
    kind: Any,
    code: str | None,
    retryable: bool,
    retry_after: float | None,
    hint: str,
) -> None:
    headers = Headers((*raw.items(), ("apim-request-id", "a1"), ("x-request-id", "b2")))

    error = azure_failure(
        status, headers, body, model="chat", url="https://r.openai.azure.com/openai", api_version="2024-10-21"
    )

    assert type(error) is kind
    assert (error.code, error.retryable, error.retry_after) == (code, retryable, retry_after)
    assert (error.status, error.request_id, error.model, error.provider) == (status, "a1", "chat", "azure_openai")
    assert error.message
    assert hint in (error.hint or "")
    assert "secret prompt" not in str(error)
    assert type(pickle.loads(pickle.dumps(error))) is kind


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (azure("unsupported_parameter", "no", param="max_tokens"), "max_tokens"),
        (azure(None, "Unrecognized request argument supplied: stream_options"), "stream_options"),
        (azure(None, "Unrecognized request arguments supplied: tool_choice, tools"), "tool_choice"),
        (azure(None, "no"), None),
    ],
)
def test_the_refused_member_is_named(body: bytes, param: str | None) -> None:
    error = azure_failure(400, Headers(), body, model="chat")

    assert isinstance(error, InvalidRequestError)
    assert error.param == param


def test_a_blocked_prompt_names_what_was_found() -> None:
    error = azure_failure(400, Headers(), FILTERED, model="chat")

    assert isinstance(error, ContentFilteredError)
    assert error.categories == ("jailbreak", "violence")
    assert error.where == "prompt"


def test_a_filter_that_stops_a_stream_is_about_the_answer() -> None:
    error = openai_stream_failure(azure("content_filter", "The response was filtered"))

    assert isinstance(error, ContentFilteredError)
    assert error.where == "completion"


def test_the_address_that_was_called_is_in_the_hint() -> None:
    error = azure_failure(404, Headers(), azure("DeploymentNotFound", "x"), model="gpt-4o", url="https://r.azure.com/o")

    assert "https://r.azure.com/o" in (error.hint or "")
    assert "'gpt-4o'" in (error.hint or "")


@pytest.mark.parametrize("failure", [bedrock_failure, azure_failure])
@pytest.mark.parametrize("location", ["https://evil.example/path?token=abc", "/elsewhere", None, "http://[bad"])
def test_a_redirect_is_refused_and_only_its_host_is_named(failure: Any, location: str | None) -> None:
    raw = () if location is None else (("location", location),)

    error = failure(307, Headers(raw), b"", model="m")

    assert type(error) is ProtocolError
    assert error.retryable is False
    assert "unexpected redirect" in error.message
    assert "token" not in str(error)
    assert ("evil.example" in error.message) is (location is not None and "evil" in location)


SECRETS = [
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    "sk-abcdefghijklmnop1234",
    "ABSKQmVkcm9ja0FQSUtleS1hYmM9",
    "bedrock-api-key-YmVkcm9jaw==",
    "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln",
    "0123456789abcdef0123456789abcdef",
    "A" * 42 + "7" * 42,
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("failure", [bedrock_failure, azure_failure])
def test_what_looks_like_a_key_is_not_repeated(failure: Any, secret: str) -> None:
    for body in (said(f"bad key {secret}."), azure("401", f"'{secret}'"), f"<p>{secret}</p>".encode(), secret.encode()):
        for status in (401, 500):
            error = failure(status, Headers(), body, model="m")
            assert secret not in error.message
            assert secret[4:] not in error.message


def test_a_session_token_in_a_canonical_request_is_not_repeated() -> None:
    """The service repeats the whole canonical request when a signature does not match."""
    text = (
        "The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for "
        "this request should have been\n'POST\n/model\n\nhost:x\nx-amz-security-token:FwoGZXIvYXdzEB-short\n'"
    )

    error = bedrock_failure(403, Headers((("x-amzn-errortype", "InvalidSignatureException"),)), said(text))

    assert "FwoG" not in str(error)
    assert "Canonical" not in str(error)


def test_deployment_names_survive_redaction() -> None:
    name = "my-company-production-gpt-4o-mini-2024-07-18-sweden"

    assert name in azure_failure(404, Headers(), azure("404", f"No deployment {name} here")).message


def test_long_bodies_are_cut() -> None:
    for body in (said("word " * 100_000), b"word " * 100_000, azure("x", "word " * 100_000)):
        for error in (bedrock_failure(500, Headers(), body), azure_failure(500, Headers(), body)):
            assert len(error.message) <= 2048


@pytest.mark.parametrize(
    ("provider", "body", "kind"),
    [
        ("bedrock", said("Too many requests, please wait before trying again."), RateLimitError),
        ("bedrock", b'{"__type":"AccessDeniedException","message":"no"}', PermissionDeniedError),
        ("bedrock", said("whatever"), ApexLlmError),
        ("azure_openai", azure("429", "slow down, rate limit"), RateLimitError),
        ("azure_openai", azure("content_filter", "blocked"), ContentFilteredError),
        ("azure_openai", azure("DeploymentNotFound", "x"), ModelNotFoundError),
    ],
)
def test_an_error_in_place_of_a_stream_is_the_providers_error(provider: str, body: bytes, kind: Any) -> None:
    headers = Headers((("content-type", "application/json"), ("x-amzn-requestid", "1"), ("apim-request-id", "1")))

    error = unexpected_content(headers, body, expected="text/event-stream", provider=provider, model="m")

    assert type(error) is kind
    assert error.request_id == "1"


@pytest.mark.parametrize(
    ("content_type", "body", "shown"),
    [
        ("text/html", b"<html><script>var a = 1</script><h1>Sign in</h1></html>", "Sign in"),
        (None, b"", "no content"),
        ("application/json", b'{"choices":[{"message":{"content":"var a"}}]}', "the members choices"),
        ("text/plain", b"api-key: abcdef0123456789", "text/plain"),
        ("text/plain", b': hi\n\ndata: {"choices":[{"delta":{"content":"var a"}}]}\n\n', "server-sent events"),
        ("text/plain", b'\x00\x00\x00\x99\x0b:event-type\x07\x00\x11contentBlockDelta{"text":"var a"}', "frames"),
    ],
)
def test_other_content_is_named_and_shown_without_secrets(content_type: str | None, body: bytes, shown: str) -> None:
    headers = Headers(() if content_type is None else (("content-type", content_type),))

    error = unexpected_content(headers, body, expected="text/event-stream", provider="azure_openai")

    assert type(error) is ResponseFormatError
    assert shown in error.message
    assert "abcdef0123456789" not in error.message
    assert "var a" not in error.message
    assert error.hint


def test_an_error_under_status_200_is_typed_by_the_status_that_it_names() -> None:
    body = b'{"error":{"code":"429","message":"Too many requests."}}'

    error = unexpected_content(Headers(), body, expected="text/event-stream", provider="azure_openai")

    assert (type(error), error.retryable) == (RateLimitError, True)


@pytest.mark.parametrize("wait", ["1e400", "NaN", "-5", "soon"])
def test_a_wait_that_makes_no_sense_is_not_taken_for_a_quota_of_zero(wait: str) -> None:
    error = azure_failure(429, Headers((("retry-after", wait),)), b'{"error":{"code":"429","message":"Slow down."}}')

    assert (type(error), error.retryable) == (RateLimitError, True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["error", "code", "message", "type", "x"]), inner),
    max_leaves=8,
)


@given(st.integers(100, 999), st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_gives_an_error_with_a_message(status: int, body: bytes) -> None:
    for error in (
        bedrock_failure(status, Headers(), body),
        azure_failure(status, Headers(), body),
        openai_stream_failure(body),
        bedrock_stream_failure(None, body),
        unexpected_content(Headers(), body, expected="x", provider="bedrock"),
    ):
        assert isinstance(error, ApexLlmError)
        assert error.message
        assert error.hint


@pytest.mark.parametrize(
    "members",
    [
        {"innererror": {"content_filter_result": {"jailbreak": {"filtered": True, "detected": True}}}},
        {"inner_error": {"content_filter_results": {"jailbreak": {"filtered": True, "detected": True}}}},
        {"content_filters": [{"content_filter_results": {"jailbreak": {"filtered": True, "detected": True}}}]},
    ],
    ids=["chats", "images", "newer services"],
)
def test_what_a_filter_found_is_told_wherever_a_service_writes_it(members: dict[str, Any]) -> None:
    body = json.dumps({"error": {"code": "content_filter", "message": "Blocked.", **members}}).encode()

    error = azure_failure(400, Headers(()), body)

    assert isinstance(error, ContentFilteredError)
    assert error.categories == ("jailbreak",)
