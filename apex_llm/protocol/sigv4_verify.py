"""The receiving end of Signature Version 4: what the emulator checks requests with.

Reads the ``Authorization`` header strictly and computes the signature that the request as received
ought to have. Error codes are AWS's own ("Common Errors" of the Bedrock API reference, and SigV4
troubleshooting in the IAM user guide). Whether the key is known, and how old a request may be,
is for the caller to say.
"""

from __future__ import annotations

__all__ = ["ParsedAuthorization", "expected_signature", "parse_authorization", "recognise_mistake"]

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from apex_llm.errors import AuthenticationError
from apex_llm.protocol.sigv4 import ALGORITHM, canonical_request, canonical_uri, signing_key, string_to_sign

_INCOMPLETE = "IncompleteSignatureException"
_INVALID = "InvalidSignatureException"
_CREDENTIAL_PARTS = 5
_FIELDS = frozenset({"Credential", "SignedHeaders", "Signature"})
_AMZ_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_DATE = re.compile(r"[0-9]{8}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedAuthorization:
    """An ``Authorization`` header of Signature Version 4, taken apart."""

    access_key_id: str
    date: str
    """``YYYYMMDD``."""
    region: str
    service: str
    signed_headers: tuple[str, ...]
    """Lower case and sorted."""
    signature: str
    """64 lower-case hex digits."""

    @property
    def scope(self) -> str:
        """``date/region/service/aws4_request``."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def parse_authorization(value: str) -> ParsedAuthorization:
    """Read an ``Authorization`` header.

    Raises:
        AuthenticationError: It is malformed; ``code`` is ``IncompleteSignatureException``, or
            ``InvalidSignatureException`` where host or date are not signed.
    """
    algorithm, _, rest = value.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise _refused(_INCOMPLETE, f"The Authorization header does not start with {ALGORITHM}.")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        name, _, content = part.strip().partition("=")
        if name not in _FIELDS or name in fields:
            raise _refused(_INCOMPLETE, f"{name[:80]!r} is repeated or unknown in the Authorization header.")
        fields[name] = content
    if fields.keys() != _FIELDS:
        raise _refused(_INCOMPLETE, "The Authorization header requires Credential, SignedHeaders and Signature.")
    credential = fields["Credential"].split("/")
    if len(credential) != _CREDENTIAL_PARTS or not all(credential) or credential[-1] != "aws4_request":
        raise _refused(_INCOMPLETE, "Credential is not access-key-id/YYYYMMDD/region/service/aws4_request.")
    access_key_id, date, region, service, _ = credential
    if not _DATE.fullmatch(date):
        raise _refused(_INCOMPLETE, "The date of the credential scope is not YYYYMMDD.")
    names = tuple(fields["SignedHeaders"].split(";"))
    if not all(map(_HEADER_NAME.fullmatch, names)) or list(names) != sorted(set(names)):
        raise _refused(_INCOMPLETE, "SignedHeaders is not a sorted list of lower-case names.")
    if not _SIGNATURE.fullmatch(fields["Signature"]):
        raise _refused(_INCOMPLETE, "Signature is not 64 lower-case hex digits.")
    for name in ("host", "x-amz-date"):
        if name not in names:
            raise _refused(_INVALID, f"{name!r} must be among the signed headers.")
    return ParsedAuthorization(
        access_key_id=access_key_id,
        date=date,
        region=region,
        service=service,
        signed_headers=names,
        signature=fields["Signature"],
    )


def expected_signature(
    authorization: ParsedAuthorization,
    *,
    secret_access_key: str,
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]],
    body: bytes = b"",
    payload_sha256: str | None = None,
    uri: str | None = None,
) -> str:
    """The signature that this request ought to carry. Compare with ``hmac.compare_digest``.

    Args:
        authorization: Names the scope and the headers that were signed.
        secret_access_key: Of the key named there.
        method: As received.
        target: Path and query exactly as received, before any decoding.
        headers: As received, ``host`` included, names in lower case.
        body: As received, with its transfer encoding undone.
        payload_sha256: Its lower-case hex SHA-256, if it is known already.
        uri: Taken in place of the canonical path.

    Raises:
        AuthenticationError: A signed header is missing, ``x-amz-date`` is malformed or of another day
            than the scope, or a security token is present but not signed.
    """
    names = frozenset(authorization.signed_headers)
    signed = [header for header in headers if header[0] in names]
    present = {name for name, _ in signed}
    if present < names:
        missing = ", ".join(sorted(names - present))
        raise _refused(_INVALID, f"These signed headers are not in the request: {missing}.")
    if "x-amz-security-token" not in names and any(name == "x-amz-security-token" for name, _ in headers):
        raise _refused(_INVALID, "The security token is in the request, but was not signed.")
    dates = [value.strip() for name, value in signed if name == "x-amz-date"]
    if len(dates) != 1 or not _AMZ_DATE.fullmatch(dates[0]):
        raise _refused(_INCOMPLETE, "X-Amz-Date is not one time of the form YYYYMMDDTHHMMSSZ.")
    if dates[0][:8] != authorization.date:
        raise _refused(
            _INVALID, f"The credential scope is of {authorization.date}, the request's date of {dates[0][:8]}."
        )
    request = canonical_request(
        method=method,
        target=target,
        headers=signed,
        payload_sha256=sha256(body).hexdigest() if payload_sha256 is None else payload_sha256,
        uri=uri,
    )
    text = string_to_sign(amz_date=dates[0], scope=authorization.scope, request=request)
    key = signing_key(
        secret_access_key, date=authorization.date, region=authorization.region, service=authorization.service
    )
    return hmac.digest(key, text.encode(), "sha256").hex()


def recognise_mistake(
    authorization: ParsedAuthorization,
    *,
    secret_access_key: str,
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]],
    body: bytes = b"",
) -> str | None:
    """Which common mistake a signature that does not fit was made with, as a sentence, or ``None``.

    Raises:
        AuthenticationError: As ``expected_signature``.
    """
    if authorization.service == "bedrock-runtime":
        return "The credential scope names the service 'bedrock-runtime', the endpoint's prefix; it must be 'bedrock'."
    path = target.partition("?")[0]
    spellings = {
        path: "The canonical path is the path as sent; it must be percent-encoded once more. "
        "Or the path was signed with ':', and something between signer and socket made it '%3A'.",
        path.replace("%3A", ":"): "The canonical path has a raw ':' where '%3A' was sent; it must have '%253A'.",
        canonical_uri(path.replace(":", "%3A")): "The path was signed with '%3A' but sent with ':': "
        "something between signer and socket decoded it.",
    }
    for uri, mistake in spellings.items():
        signature = expected_signature(
            authorization,
            secret_access_key=secret_access_key,
            method=method,
            target=target,
            headers=headers,
            body=body,
            uri=uri,
        )
        if uri != canonical_uri(path) and hmac.compare_digest(signature, authorization.signature):
            return mistake
    return None


def _refused(code: str, message: str) -> AuthenticationError:
    return AuthenticationError(message, status=403, code=code)
