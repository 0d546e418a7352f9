"""Managed identity of Azure: instance metadata of a machine, and the App Service family.

The machine's endpoint is a link-local address, App Service's a local one from the environment;
neither is asked through a proxy. Azure Arc, Azure ML, Cloud Shell and Service Fabric have
protocols of their own; those are left to azure-identity.
"""

from __future__ import annotations

__all__ = ["ManagedIdentity"]

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from apex_llm.credentials.azure_entra import Surroundings, token_from
from apex_llm.credentials.azure_tokens import AzureToken
from apex_llm.credentials.cached import Fetched
from apex_llm.credentials.http import Reply, decode, fetch, is_link_local, is_loopback, split_url
from apex_llm.errors import (
    ApexLlmError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidEndpointError,
    MissingCredentialsError,
    OverloadedError,
    RequestTimeoutError,
    ResponseFormatError,
)
from apex_llm.types.http import Origin

_INSTANCE = "http://169.254.169.254"
_ATTEMPTS = 5
_BASE = 0.8
_BASE_GONE = 2.5
# Status 410 means that the service is being updated, which takes up to 70 seconds.
_CONNECT = 2.0
_TIMEOUT = 10.0


class _Refusal(msgspec.Struct):
    error: str | None = None
    error_description: str | None = None


class ManagedIdentity:
    """The identity of the machine or service that this runs on.

    Args:
        client_id: One of its user-assigned identities; at most one of the three may be given.
        object_id: The same, by its principal.
        resource_id: The same, by its path in the subscription.
    """

    def __init__(
        self, *, client_id: str | None = None, object_id: str | None = None, resource_id: str | None = None
    ) -> None:
        given = {"client_id": client_id, "object_id": object_id, "resource_id": resource_id}
        self._identity = {name: value for name, value in given.items() if value}
        if len(self._identity) > 1:
            raise ConfigurationError(
                f"ManagedIdentity was given {' and '.join(self._identity)}.", hint="Give one: each names an identity."
            )

    def __repr__(self) -> str:
        return f"ManagedIdentity({', '.join(f'{name}={value!r}' for name, value in self._identity.items())})"

    async def fetch_token(self, scope: str, surroundings: Surroundings, /) -> Fetched[AzureToken]:
        """A new token.

        Raises:
            MissingCredentialsError: There is no such identity here.
            TransientError: The endpoint could not be reached, or was overloaded.
        """
        resource = quote(scope.removesuffix("/.default"), safe=":/")
        origin, target, header, source = self._endpoint(surroundings.environ, resource)
        failure: ApexLlmError | None = None
        for number in range(_ATTEMPTS):
            base = _BASE
            try:
                reply = await fetch(
                    surroundings.send,
                    "GET",
                    origin,
                    target,
                    headers=(header,),
                    timeout=_TIMEOUT,
                    connect=_CONNECT,
                    operation="managed-identity",
                )
            except (ConnectionFailedError, RequestTimeoutError) as error:
                failure = error
                if isinstance(error, ConnectionFailedError) and error.kind in {"refused", "dns", "network"}:
                    break  # nobody is there
            else:
                if reply.status == 200:
                    return token_from(reply, source=source, clock=surroundings.clock)
                failure = _refused(reply, source)
                if not failure.retryable:
                    raise failure
                base = _BASE_GONE if reply.status == 410 else _BASE
            if number < _ATTEMPTS - 1:
                await surroundings.sleep(base * 2**number)
        assert failure is not None
        raise failure

    def _endpoint(self, environ: Mapping[str, str], resource: str) -> tuple[Origin, str, tuple[str, str], str]:
        endpoint, key = environ.get("IDENTITY_ENDPOINT"), environ.get("IDENTITY_HEADER")
        for names in (
            ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT"),
            ("IDENTITY_ENDPOINT", "IMDS_ENDPOINT"),
            ("MSI_ENDPOINT",),
        ):
            if all(environ.get(name) for name in names) and not (len(names) < 3 and endpoint and key):
                raise MissingCredentialsError(
                    f"The managed identity that {' and '.join(names)} stand for is not supported here.",
                    hint='pip install "apex-llm[azure]", credential=azure.identity.aio.ManagedIdentityCredential().',
                )
        if endpoint and key:
            origin, path = split_url(endpoint, name="IDENTITY_ENDPOINT")
            target = f"{path}{'&' if '?' in path else '?'}api-version=2019-08-01&resource={resource}"
            header, parameter, source = ("x-identity-header", key), "mi_res_id", "App Service managed identity"
            if not key.isascii() or not key.isprintable():
                raise MissingCredentialsError(
                    "IDENTITY_HEADER holds a character that no header may have.",
                    hint="App Service sets it; pass it on unchanged.",
                )
        else:
            base = environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or _INSTANCE
            origin, path = split_url(base, name="AZURE_POD_IDENTITY_AUTHORITY_HOST")
            path = f"{path.rstrip('/')}/metadata/identity/oauth2/token"
            target = f"{path}?api-version=2018-02-01&resource={resource}"
            header, parameter, source = ("metadata", "true"), "msi_res_id", "managed identity"
        if origin.scheme != "https" and not is_loopback(origin.host) and not is_link_local(origin.host):
            raise InvalidEndpointError(
                f"{origin.url} is not asked for a managed identity: over http only local and link-local addresses are.",
                hint="Check IDENTITY_ENDPOINT and AZURE_POD_IDENTITY_AUTHORITY_HOST.",
            )
        for name, value in self._identity.items():
            target += f"&{parameter if name == 'resource_id' else name}={quote(value, safe='/')}"
        return origin, target, header, f"{source} at {origin.url}"


def _refused(reply: Reply, source: str) -> ApexLlmError:
    try:
        said = decode(reply.body, _Refusal, name=source)
    except ResponseFormatError:
        said = _Refusal()
    told = (said.error_description or said.error or "no reason was given").partition("\n")[0][:300]
    if reply.status in {404, 410, 429} or reply.status >= 500:
        return OverloadedError(f"{source}: status {reply.status}: {told}", status=reply.status, code=said.error)
    return MissingCredentialsError(
        f"{source} gave no token: {told}",
        status=reply.status,
        code=said.error,
        hint="Assign an identity to this machine or service, and name it by client_id if it has several.",
    )
