"""Where Azure credentials come from: one of a key, a token, a function that gives tokens, or a credential.

Explicit arguments exclude each other. Without any, the key manager, ``AZURE_OPENAI_AD_TOKEN``,
``AZURE_OPENAI_API_KEY`` and then what the environment says of Entra: client secret, workload
identity, App Service identity. Other ways are for azure-identity, whose credentials are taken as
``credential=``; any object with ``get_token`` is.
"""

from __future__ import annotations

__all__ = [
    "AzureCredentials",
    "AzureToken",
    "azure_credentials",
]

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from apex_llm.credentials.azure_tokens import AzureToken, HeaderKind, azure_api_key, azure_bearer
from apex_llm.credentials.cached import CachedCredentials, Fetched, StaticCredentials
from apex_llm.credentials.threads import call
from apex_llm.errors import ApexLlmError, AuthenticationError, ConfigurationError, MissingCredentialsError
from apex_llm.types.http import Send
from apex_llm.types.secrets import CredentialSource, Secret

# Entra is imported where it is needed: a key, which most calls have, needs none of it.
if TYPE_CHECKING:
    from apex_llm.credentials.azure_entra import EntraCredential, Surroundings
    from apex_llm.credentials.manager import ManagerCredentials

_SCOPE = "https://cognitiveservices.azure.com/.default"
_ADVISORY = 300.0
_MANDATORY = 60.0
_RECHECK = 60.0
# Seconds after which a provider of tokens that name no expiry is asked again, in the background.


class AzureCredentials(msgspec.Struct, frozen=True):
    """A source, and the header that its values go into (each value says so too: ``.header``)."""

    source: CredentialSource[AzureToken]
    kind: HeaderKind


def azure_credentials(
    *,
    api_key: str | Secret | None = None,
    azure_ad_token: str | Secret | None = None,
    azure_ad_token_provider: Callable[[], Any] | None = None,
    credential: Any = None,
    manager: ManagerCredentials | None = None,
    environ: Mapping[str, str] | None = None,
    send: Send | None = None,
    scope: str = _SCOPE,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AzureCredentials:
    """A source of what authenticates to Azure OpenAI, kept fresh. Reads nothing yet but the environment.

    Args:
        api_key: The resource's key.
        azure_ad_token: A token of Entra, sent as it is until the service refuses it.
        azure_ad_token_provider: Gives tokens, as strings or with ``.token`` and ``.expires_on``; sync
            ones run in a thread. A token is kept for as long as it says, other than a minute at most.
        credential: ``ClientSecret``, ``WorkloadIdentity`` or ``ManagedIdentity``, or any object with
            ``get_token(scope)``, sync or async, such as those of azure-identity.
        manager: From ``credentials_from_manager``, whose ``settings()`` were awaited; the environment is asked where
            it holds nothing.
        environ: Instead of ``os.environ``.
        send: For Entra and managed identity. It must reach link-local addresses.
        scope: What a token is for.
        clock: Seconds since the epoch.
        sleep: Waits between tries.

    Raises:
        ConfigurationError: More than one way was given.
        MissingCredentialsError: What was given is empty. What the environment lacks is told by ``get()``.
    """
    environ = os.environ if environ is None else environ
    given = {
        "api_key": api_key,
        "azure_ad_token": azure_ad_token,
        "azure_ad_token_provider": azure_ad_token_provider,
        "credential": credential,
    }
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ConfigurationError(f"{' and '.join(f'{name}=' for name in names)} were given.", hint="Give one of them.")
    if api_key is not None:
        return AzureCredentials(StaticCredentials(azure_api_key(api_key, source="api_key")), "api-key")
    if azure_ad_token is not None:
        return AzureCredentials(StaticCredentials(azure_bearer(azure_ad_token, source="azure_ad_token")), "bearer")
    if azure_ad_token_provider is not None:
        fetch = partial(_from_provider, azure_ad_token_provider, clock)
        return AzureCredentials(_kept(fetch, "The token of azure_ad_token_provider", clock), "bearer")

    def surroundings() -> Surroundings | None:
        if send is None:
            return None
        from apex_llm.credentials.azure_entra import Surroundings

        return Surroundings(send=send, environ=environ, clock=clock, sleep=sleep)

    if credential is not None:
        return AzureCredentials(_from_credential(credential, scope, surroundings, clock), "bearer")
    found = _from_environment(environ, scope, surroundings, clock)
    if manager is None:
        return found
    return AzureCredentials(manager.azure(fallback=found.source), manager.header or found.kind)


def _from_environment(
    environ: Mapping[str, str], scope: str, surroundings: Callable[[], Surroundings | None], clock: Callable[[], float]
) -> AzureCredentials:
    for name, make in (("AZURE_OPENAI_AD_TOKEN", azure_bearer), ("AZURE_OPENAI_API_KEY", azure_api_key)):
        if value := environ.get(name, "").strip():
            token = make(value, source=name)
            return AzureCredentials(StaticCredentials(token, reload=partial(_again, environ, name, make)), token.header)
    tenant, client = environ.get("AZURE_TENANT_ID"), environ.get("AZURE_CLIENT_ID")
    secret, token_file = environ.get("AZURE_CLIENT_SECRET"), environ.get("AZURE_FEDERATED_TOKEN_FILE")
    credential: EntraCredential | None = None
    if tenant and client and secret:
        from apex_llm.credentials.azure_entra import ClientSecret

        credential = ClientSecret(tenant, client, secret)
    elif tenant and client and token_file:
        from apex_llm.credentials.azure_entra import WorkloadIdentity

        credential = WorkloadIdentity(tenant, client, token_file)
    elif environ.get("IDENTITY_ENDPOINT") and environ.get("IDENTITY_HEADER"):
        from apex_llm.credentials.azure_managed import ManagedIdentity

        credential = ManagedIdentity(client_id=client)
    if credential is not None:
        return AzureCredentials(_from_credential(credential, scope, surroundings, clock), "bearer")
    return AzureCredentials(_kept(partial(_nothing, environ), "Azure credentials", clock), "api-key")


async def _nothing(environ: Mapping[str, str]) -> NoReturn:
    entra = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
    there = [name for name in entra if environ.get(name)]
    lacking = [name for name in entra if not environ.get(name)]
    half = (
        f" ({' and '.join(there)} set, but not {' and '.join(lacking)})" if there else " (AZURE_TENANT_ID is not set)"
    )
    from apex_llm.credentials.misnamed import KEYS_OF_AZURE, misnamed

    hint = (
        misnamed(KEYS_OF_AZURE, environ)
        or "Pass api_key=, azure_ad_token_provider= or credential=, or set AZURE_OPENAI_API_KEY."
    )
    if environ.get("AZURE_CLIENT_CERTIFICATE_PATH"):
        hint = (
            'For a certificate: pip install "apex-llm[azure]", credential=azure.identity.aio.EnvironmentCredential().'
        )
    raise MissingCredentialsError(
        "No Azure credentials were found. Tried: AZURE_OPENAI_AD_TOKEN and AZURE_OPENAI_API_KEY (not set); "
        f"client secret{half}; workload identity (AZURE_FEDERATED_TOKEN_FILE is not set); "
        "App Service identity (IDENTITY_ENDPOINT and IDENTITY_HEADER are not set).",
        hint=hint,
        phase="prepare",
    )


def _again(environ: Mapping[str, str], name: str, make: Callable[..., AzureToken]) -> AzureToken | None:
    try:
        return make(environ.get(name, ""), source=name)
    except ApexLlmError:
        return None


def _from_credential(
    credential: Any, scope: str, surroundings: Callable[[], Surroundings | None], clock: Callable[[], float]
) -> CredentialSource[AzureToken]:
    name = f"The token of {type(credential).__name__}"
    if callable(getattr(credential, "fetch_token", None)):
        around = surroundings()
        if around is None:
            raise ConfigurationError(
                f"{type(credential).__name__} needs a sender to reach Azure with.", hint="Give it to a provider."
            )
        return _kept(partial(credential.fetch_token, scope, around), name, clock)
    if callable(getattr(credential, "get_token", None)):
        return _kept(partial(_from_get_token, credential, scope, clock), name, clock)
    if all(callable(getattr(credential, method, None)) for method in ("current", "get", "invalidate")):
        return credential
    raise ConfigurationError(
        f"credential= is a {type(credential).__module__}.{type(credential).__qualname__}, which has no get_token().",
        hint="Pass a credential of azure-identity, or ClientSecret, WorkloadIdentity or ManagedIdentity; "
        "a function goes to azure_ad_token_provider=, a key to api_key=.",
    )


def _kept(
    fetch: Callable[[], Awaitable[AzureToken | Fetched[AzureToken]]], name: str, clock: Callable[[], float]
) -> CachedCredentials[AzureToken]:
    return CachedCredentials(fetch, name=name, advisory=_ADVISORY, mandatory=_MANDATORY, clock=clock)


async def _from_provider(provider: Callable[[], Any], clock: Callable[[], float]) -> Fetched[AzureToken]:
    try:
        given = await call(provider)
    except ApexLlmError:
        raise
    except Exception as error:
        raise _translated(error, "azure_ad_token_provider") from error
    return _token(given, "azure_ad_token_provider", clock)


async def _from_get_token(credential: Any, scope: str, clock: Callable[[], float]) -> Fetched[AzureToken]:
    name = type(credential).__name__
    try:
        given = await call(credential.get_token, scope)
    except ApexLlmError:
        raise
    except Exception as error:
        raise _translated(error, name) from error
    return _token(given, name, clock)


def _token(given: Any, source: str, clock: Callable[[], float]) -> Fetched[AzureToken]:
    expires_at, refresh_at = None, None
    if not isinstance(given, str | Secret) and hasattr(given, "token"):
        ends, renew = getattr(given, "expires_on", None), getattr(given, "refresh_on", None)
        expires_at = float(ends) if isinstance(ends, int | float) else None
        refresh_at = float(renew) if isinstance(renew, int | float) else None
        given = given.token
    value = azure_bearer(given, source=source, expires_at=expires_at)
    if value.expires_at is None:
        refresh_at = clock() + _RECHECK
    return Fetched(value, refresh_at=refresh_at)


def _translated(error: Exception, source: str) -> ApexLlmError:
    """An error of azure-identity or of the user's function. Its text may hold anything, so only the code is told."""
    from apex_llm.credentials.azure_entra import aadsts_hint

    code, hint = aadsts_hint(str(error))
    kind = type(error).__name__
    if code is not None or kind == "ClientAuthenticationError":
        return AuthenticationError(f"{source} gave no token: {code or kind}.", code=code, hint=hint)
    return MissingCredentialsError(
        f"{source} gave no token: {kind} was raised.",
        code=kind,
        hint="What it said is this error's __cause__.",
        retryable=kind in {"ServiceRequestError", "ServiceResponseError", "ConnectionError", "TimeoutError"},
    )
