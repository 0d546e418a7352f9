"""Tokens of Microsoft Entra ID in one HTTP call: client secret, and workload identity.

OAuth 2.0 client credentials at ``{authority}/{tenant}/oauth2/v2.0/token``. Only what may pass
by itself is tried again (429, 5xx, the network); Entra's codes (``AADSTS…``) come with what to
do about the frequent ones.
"""

from __future__ import annotations

__all__ = ["ClientSecret", "EntraCredential", "Surroundings", "WorkloadIdentity", "aadsts_hint", "token_from"]

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import msgspec

from apex_llm.credentials.azure_tokens import AzureToken, azure_bearer, seconds_of
from apex_llm.credentials.cached import Fetched
from apex_llm.credentials.http import Reply, decode, fetch, is_loopback, split_url
from apex_llm.credentials.threads import run_in_thread
from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidEndpointError,
    MissingCredentialsError,
    OverloadedError,
    RequestTimeoutError,
    ResponseFormatError,
)
from apex_llm.types.http import Origin, Send
from apex_llm.types.secrets import Secret

_AUTHORITY = "https://login.microsoftonline.com"
_ATTEMPTS = 3
_TIMEOUT = 10.0
_LONGEST_WAIT = 30.0
_LONG_LIFE = 7200.0
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,253}")
_CODE = re.compile(r"AADSTS[0-9]+")

_HINTS = {
    "AADSTS7000215": "The client secret is wrong: use the secret's value, not its id.",
    "AADSTS7000222": "The client secret has expired: make a new one in the app registration.",
    "AADSTS700016": "The tenant knows no application with this client id: check AZURE_CLIENT_ID and AZURE_TENANT_ID.",
    "AADSTS90002": "There is no such tenant: check AZURE_TENANT_ID, and AZURE_AUTHORITY_HOST for national clouds.",
    "AADSTS900023": "The tenant id is neither a GUID nor a domain name: check AZURE_TENANT_ID.",
    "AADSTS500011": "The tenant knows no such resource: check the scope.",
    "AADSTS70011": "The scope is wrong: it is https://cognitiveservices.azure.com/.default for Azure OpenAI.",
    "AADSTS700024": "The assertion is not valid now: check this machine's clock, and that the token file is renewed.",
    "AADSTS70021": "No federated credential matches: compare issuer, subject and audience with the token's.",
    "AADSTS700211": "No federated credential matches the token's issuer.",
    "AADSTS700212": "No federated credential matches the token's audience.",
    "AADSTS700213": "No federated credential matches the token's subject.",
    "AADSTS53003": "A conditional access policy blocks this sign-in.",
    "AADSTS7000112": "The application is disabled in this tenant.",
}


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a credential needs to do its call."""

    send: Send
    environ: Mapping[str, str]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class EntraCredential(Protocol):
    """A way to a token that needs nothing but HTTP: ``ClientSecret``, ``WorkloadIdentity``, ``ManagedIdentity``."""

    async def fetch_token(self, scope: str, surroundings: Surroundings, /) -> Fetched[AzureToken]:
        """A new token for ``scope``, with the time at which to replace it."""
        ...


class TokenAnswer(msgspec.Struct):
    """What Entra, instance metadata and App Service answer; the last two give numbers as strings."""

    access_token: str | None = None
    expires_in: int | float | str | None = None
    expires_on: int | float | str | None = None
    refresh_in: int | float | str | None = None


class _Refusal(msgspec.Struct):
    error: str | None = None
    error_description: str | None = None
    trace_id: str | None = None


class ClientSecret:
    """An application's id and secret in one tenant.

    Args:
        tenant_id: A GUID or a domain name.
        client_id: The application.
        client_secret: The secret's value.
        authority: Such as ``https://login.microsoftonline.us``; else ``AZURE_AUTHORITY_HOST``, else the public cloud.
    """

    def __init__(
        self, tenant_id: str, client_id: str, client_secret: str | Secret, *, authority: str | None = None
    ) -> None:
        self.tenant_id: str = _tenant(tenant_id)
        self.client_id = client_id
        self._secret = Secret(client_secret, name="azure_client_secret")
        self._authority = authority

    def __repr__(self) -> str:
        return f"ClientSecret(tenant_id={self.tenant_id!r}, client_id={self.client_id!r})"

    async def fetch_token(self, scope: str, surroundings: Surroundings, /) -> Fetched[AzureToken]:
        """A new token.

        Raises:
            AuthenticationError: Entra refused.
            TransientError: Entra could not be reached, or was overloaded.
        """
        secret = self._secret.reveal()
        form = {"client_id": self.client_id, "client_secret": secret}
        return await _ask(form, secret, scope, self.tenant_id, self._authority, surroundings, "Entra client secret")


class WorkloadIdentity:
    """A token file that the tenant trusts (AKS and other federated issuers); read anew each time.

    Args:
        tenant_id: A GUID or a domain name.
        client_id: The application or the user-assigned identity.
        token_file: Renewed by whoever runs the workload.
        authority: As for ``ClientSecret``.
    """

    def __init__(self, tenant_id: str, client_id: str, token_file: str | Path, *, authority: str | None = None) -> None:
        self.tenant_id: str = _tenant(tenant_id)
        self.client_id = client_id
        self.token_file: Path = Path(token_file)
        self._authority = authority

    def __repr__(self) -> str:
        return f"WorkloadIdentity(tenant_id={self.tenant_id!r}, client_id={self.client_id!r})"

    async def fetch_token(self, scope: str, surroundings: Surroundings, /) -> Fetched[AzureToken]:
        """A new token.

        Raises:
            MissingCredentialsError: The file cannot be read.
            AuthenticationError: Entra refused.
            TransientError: Entra could not be reached, or was overloaded.
        """
        try:
            assertion = (await run_in_thread(self.token_file.read_text, "utf-8")).strip()
        except (OSError, ValueError) as error:
            raise MissingCredentialsError(
                f"The federated token file {self.token_file} cannot be read: {type(error).__name__}.",
                hint="Check AZURE_FEDERATED_TOKEN_FILE.",
            ) from error
        form = {
            "client_id": self.client_id,
            "client_assertion": assertion,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        }
        return await _ask(
            form, assertion, scope, self.tenant_id, self._authority, surroundings, "Entra workload identity"
        )


async def _ask(
    form: dict[str, str],
    secret: str,
    scope: str,
    tenant: str,
    authority: str | None,
    surroundings: Surroundings,
    source: str,
) -> Fetched[AzureToken]:
    origin, path = _token_endpoint(authority or surroundings.environ.get("AZURE_AUTHORITY_HOST") or _AUTHORITY, tenant)
    body = urlencode({**form, "grant_type": "client_credentials", "scope": scope}).encode("ascii")
    headers = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))
    failure: ApexLlmError | None = None
    for number in range(1, _ATTEMPTS + 1):
        wait = min(0.5 * 2 ** (number - 1), _LONGEST_WAIT)
        try:
            reply = await fetch(
                surroundings.send, "POST", origin, path, headers=headers, body=body, timeout=_TIMEOUT, operation="token"
            )
        except (ConnectionFailedError, RequestTimeoutError) as error:
            failure = error
        else:
            if reply.status == 200:
                return token_from(reply, source=source, clock=surroundings.clock)
            failure = _refused(reply, secret, f"{source} at {origin.url}")
            if not failure.retryable:
                raise failure
            if failure.retry_after is not None:
                if failure.retry_after > _LONGEST_WAIT:
                    raise failure
                wait = failure.retry_after
        if number < _ATTEMPTS:
            await surroundings.sleep(wait)
    assert failure is not None
    raise failure


def token_from(reply: Reply, *, source: str, clock: Callable[[], float]) -> Fetched[AzureToken]:
    """The token of a 200 answer, and when to replace it: ``refresh_in``, or half of a life of two hours or more.

    Raises:
        ResponseFormatError: The answer holds no token.
    """
    answer = decode(reply.body, TokenAnswer, name=source)
    if not answer.access_token:
        raise ResponseFormatError(f"{source} answered without an access_token.")
    now = clock()
    life = seconds_of(answer.expires_in)
    ends = seconds_of(answer.expires_on)
    # The span is preferred: it does not depend on this machine's clock.
    expires_at = now + life if life is not None else ends
    value = azure_bearer(answer.access_token, source=source, expires_at=expires_at)
    refresh_in = seconds_of(answer.refresh_in)
    if refresh_in is None and value.expires_at is not None and value.expires_at - now >= _LONG_LIFE:
        refresh_in = (value.expires_at - now) / 2
    return Fetched(value, refresh_at=None if refresh_in is None else now + refresh_in)


def aadsts_hint(text: str) -> tuple[str | None, str | None]:
    """The ``AADSTS…`` code in ``text``, and what to do about it."""
    found = _CODE.search(text)
    return (None, None) if found is None else (found[0], _HINTS.get(found[0]))


def _refused(reply: Reply, secret: str, source: str) -> ApexLlmError:
    try:
        said = decode(reply.body, _Refusal, name=source)
    except ResponseFormatError:
        said = _Refusal()
    described = said.error_description or ""
    code, hint = aadsts_hint(described)
    # The first sentence tells; what follows are ids and a time, and nothing may tell the secret.
    told = re.split(r"\s*(?:Trace ID:|\r|\n)", described, maxsplit=1)[0][:300].replace(secret or "\0", "***")
    text = f"{source} refused: {told or said.error or 'no reason was given'}"
    facts: dict[str, Any] = {
        "status": reply.status,
        "code": code or said.error,
        "request_id": said.trace_id,
        "hint": hint,
        "phase": "prepare",
    }
    if reply.status == 429 or reply.status >= 500:
        return OverloadedError(text, **facts, retry_after=_wait(reply))
    if reply.status in {400, 401, 403}:
        return AuthenticationError(text, **facts)
    return MissingCredentialsError(text, **facts)


def _wait(reply: Reply) -> float | None:
    wait = seconds_of(reply.headers.get("retry-after"))
    return wait if wait is not None and wait >= 0 else None


def _token_endpoint(authority: str, tenant: str) -> tuple[Origin, str]:
    if "://" not in authority:
        authority = f"https://{authority}"
    origin, path = split_url(authority, name="AZURE_AUTHORITY_HOST")
    if origin.scheme != "https" and not is_loopback(origin.host):
        raise InvalidEndpointError(f"The authority {origin.url} must use https.", hint="Check AZURE_AUTHORITY_HOST.")
    return origin, f"{path.rstrip('/')}/{quote(tenant, safe='')}/oauth2/v2.0/token"


def _tenant(tenant_id: str) -> str:
    if not _TENANT.fullmatch(tenant_id):
        raise ConfigurationError("The tenant id is neither a GUID nor a domain name.", hint="Check AZURE_TENANT_ID.")
    return tenant_id
