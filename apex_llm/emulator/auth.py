"""Strict checks of who is calling: AWS Signature Version 4, Bedrock bearer keys, Azure keys and tokens.

A request that a cloud might let pass by leniency is refused here, and a signature that
is wrong in one of the usual ways is told which. Nothing secret gets into a message.
"""

from __future__ import annotations

__all__ = ["AwsVerifier", "AzureVerifier"]

import hmac
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256

from apex_llm.emulator.recorded import RecordedRequest
from apex_llm.emulator.wire import Refusal
from apex_llm.errors import AuthenticationError
from apex_llm.protocol.sigv4_verify import (
    ParsedAuthorization,
    expected_signature,
    parse_authorization,
    recognise_mistake,
)

_MAX_SKEW_SECONDS = 300
_INVALID = "InvalidSignatureException"
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_SECURITY_HEADERS = (
    "authorization",
    "host",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
    "content-type",
)
_BEARER_REFUSED = "Authentication failed: Please make sure your API Key is valid."
_KEY_REFUSED = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource."
)
_TOKEN_REFUSED = (
    "Access token is missing, invalid, audience is incorrect (https://cognitiveservices.azure.com), or have expired."  # noqa: S105 # a message
)


class AwsVerifier:
    """Recomputes the signature of a request, or compares its bearer key."""

    def __init__(
        self,
        *,
        access_key_id: str,
        secret_access_key: str,
        session_token: str | None,
        bearer_token: str,
        region: str,
    ) -> None:
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._session_token = session_token
        self._bearer_token = bearer_token
        self._region = region

    def verify(self, request: RecordedRequest, *, now: float) -> None:
        """Return if the request may pass.

        Raises:
            Refusal: With the status and exception name that the service uses.
        """
        headers = _unique(request.raw_headers)
        authorization = headers.get("authorization")
        if authorization is None:
            raise Refusal(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        if authorization[:7].lower() == "bearer ":
            if not _same(authorization[7:].strip(), self._bearer_token):
                raise Refusal(403, "AccessDeniedException", _BEARER_REFUSED)
            return
        try:
            parsed = parse_authorization(authorization)
            self._check_date(headers, now=now)
            _check_signed_headers(parsed, headers)
            self._check_principal(parsed, headers)
            self._check_scope(parsed)
            self._check_signature(parsed, request, headers)
        except AuthenticationError as error:
            raise Refusal(error.status or 403, error.code or _INVALID, error.message) from error

    def _check_date(self, headers: dict[str, str], *, now: float) -> None:
        amz_date = headers.get("x-amz-date", "")
        try:
            signed_at = datetime.strptime(amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise Refusal(
                403,
                "IncompleteSignatureException",
                "Date must be in ISO-8601 'basic format'. The header X-Amz-Date is missing or malformed.",
            ) from None
        skew = signed_at.timestamp() - now
        server_time = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        if skew < -_MAX_SKEW_SECONDS:
            raise _wrong(f"Signature expired: {amz_date} is now earlier than {server_time} less 5 min.")
        if skew > _MAX_SKEW_SECONDS:
            raise _wrong(f"Signature not yet current: {amz_date} is still later than {server_time} plus 5 min.")

    def _check_principal(self, parsed: ParsedAuthorization, headers: dict[str, str]) -> None:
        key_known = _same(parsed.access_key_id, self._access_key_id)
        token_known = _same(headers.get("x-amz-security-token", ""), self._session_token or "")
        if not key_known or not token_known:
            raise Refusal(403, "UnrecognizedClientException", "The security token included in the request is invalid.")

    def _check_scope(self, parsed: ParsedAuthorization) -> None:
        if parsed.service != "bedrock":
            hint = " (emulator: 'bedrock-runtime' is the endpoint's prefix, not the signing name.)"
            raise _wrong(
                f"Credential should be scoped to correct service: 'bedrock', not '{parsed.service}'."
                f"{hint if parsed.service == 'bedrock-runtime' else ''}"
            )
        if parsed.region != self._region:
            raise _wrong(f"Credential should be scoped to a valid region: '{self._region}', not '{parsed.region}'.")

    def _check_signature(self, parsed: ParsedAuthorization, request: RecordedRequest, headers: dict[str, str]) -> None:
        declared = headers.get("x-amz-content-sha256")
        payload_sha256 = sha256(request.body).hexdigest()
        if declared is not None and declared != payload_sha256:
            raise _wrong("The header x-amz-content-sha256 is not the hash of the body that arrived.")
        target = f"{request.path}?{request.query_string}" if request.query_string else request.path
        secret, method, raw_headers = self._secret_access_key, request.method, request.raw_headers
        expected = expected_signature(
            parsed,
            secret_access_key=secret,
            method=method,
            target=target,
            headers=raw_headers,
            payload_sha256=payload_sha256,
        )
        if _same(expected, parsed.signature):
            return
        mistake = recognise_mistake(
            parsed, secret_access_key=secret, method=method, target=target, headers=raw_headers, body=request.body
        )
        raise _wrong(_MISMATCH if mistake is None else f"{_MISMATCH} (emulator: {mistake})")


class AzureVerifier:
    """Compares the key or the token of an Azure request."""

    def __init__(self, *, api_key: str, bearer_token: str) -> None:
        self._api_key = api_key
        self._bearer_token = bearer_token

    def verify(self, request: RecordedRequest, *, v1: bool) -> None:
        """Return if the request may pass. The key as a bearer token is taken on v1 paths only.

        Raises:
            Refusal: With status 401.
        """
        keys = [value for name, value in request.raw_headers if name == "api-key"]
        bearers = [value for name, value in request.raw_headers if name == "authorization"]
        if len(keys) > 1 or len(bearers) > 1:
            raise Refusal(400, "BadRequest", "A header that carries credentials was sent more than once.")
        if keys and keys[0]:
            if not _same(keys[0], self._api_key):
                raise Refusal(401, "401", _KEY_REFUSED)
            return
        if not bearers:
            raise Refusal(401, "401", _KEY_REFUSED)
        scheme, _, token = bearers[0].partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal(401, "401", _KEY_REFUSED)
        if _same(token, self._bearer_token) or (v1 and _same(token, self._api_key)):
            return
        raise Refusal(401, "401" if v1 else "Unauthorized", _KEY_REFUSED if v1 else _TOKEN_REFUSED)


def _check_signed_headers(parsed: ParsedAuthorization, headers: dict[str, str]) -> None:
    """Everything that AWS would not let anybody add on the way must be under the signature."""
    needed = (name for name in headers if name.startswith(("x-amz-", "x-amzn-bedrock-")))
    missing = sorted(set(needed) - set(parsed.signed_headers))
    if missing:
        raise _wrong(f"{', '.join(map(repr, missing))} must be a 'SignedHeader' in the AWS Authorization.")


def _unique(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by name; one that security hangs on may come once only."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in found and name in _SECURITY_HEADERS:
            raise Refusal(400, "IncompleteSignatureException", f"The header '{name}' was sent more than once.")
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _wrong(message: str) -> Refusal:
    return Refusal(403, _INVALID, message)
