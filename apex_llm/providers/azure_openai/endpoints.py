"""What users paste as an Azure endpoint, read for what it says: address, surface, deployment, version.

A resource's address, a Foundry address (of the resource, of a project, or of the older inference
API), a gateway with a path of its own, an address that ends in ``/openai`` or ``/openai/v1``, and the
portal's "target URI" with deployment, operation and version in it are all understood. The address of
the portal itself is not an endpoint, and says so.
"""

from __future__ import annotations

__all__ = ["AzureSurface", "azure_surface", "chat_target", "configured_surface"]

import functools
import re
from collections.abc import Mapping

import msgspec

from apex_llm.errors import ConfigurationError, InvalidEndpointError, InvalidRequestError
from apex_llm.providers.backend import query_string
from apex_llm.providers.endpoints import Endpoint, host_of, is_loopback, parse_endpoint, path_segment

_TARGET = r"(?P<base>.*?)/openai/deployments/(?P<deployment>[^/]+)(?:/.*)?"
_OPERATION = (
    r"(?P<base>.*?)/openai/(deployments|models|responses|chat/completions|completions|embeddings|files|batches)"
)
_FOUNDRY = ".services.ai.azure.com"
_FOUNDRY_EXTRAS = r"/models(/.*)?|/api/projects/[^/]+"
# The older inference API, and a project by itself: the resource serves their models too, to a key as well as to Entra.
_PROJECT = "/api/projects/"
_MANAGEMENT = {
    "azure.com": "management.azure.com",
    "azure.us": "management.usgovcloudapi.net",
    "azure.cn": "management.chinacloudapi.cn",
}
_VERSION = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(-preview)?"
_VERSIONLESS = {"v1", "latest", "preview"}
_PORTALS = ("portal.azure.com", "ai.azure.com", "oai.azure.com", "portal.azure.us", "azure.microsoft.com")
_DEPLOYMENT_HINT = "Pass the name of a deployment, as the portal lists it; it is not the model's name."


class AzureSurface(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a resource is spoken to."""

    endpoint: Endpoint
    """Its base path is what comes before ``/openai``."""
    api_version: str | None
    """The dated version; ``None`` on v1."""
    query: tuple[tuple[str, str], ...] = ()
    """What every request carries."""
    deployment: str | None = None
    """Named by a pasted target URI."""

    @property
    def is_v1(self) -> bool:
        """Whether the deployment travels in the body, rather than in the path."""
        return self.api_version is None

    @property
    def token_scope(self) -> str:
        """What a token of Entra must be for; another cloud, or a Foundry project, is another audience."""
        host = self.endpoint.origin.host
        if host.endswith(_FOUNDRY) and self.endpoint.base_path.startswith(_PROJECT):
            return "https://ai.azure.com/.default"
        return f"https://cognitiveservices.{self._cloud}/.default"

    @property
    def management_url(self) -> str:
        """The management plane of the same cloud."""
        return f"https://{_MANAGEMENT[self._cloud]}"

    def management_scope(self, host: str) -> str:
        """What a token for the management plane at ``host`` must be for; an unknown host stands in for ours."""
        known = host if host in _MANAGEMENT.values() else _MANAGEMENT[self._cloud]
        return f"https://{known}/.default"

    @property
    def _cloud(self) -> str:
        host = self.endpoint.origin.host
        return next((cloud for cloud in _MANAGEMENT if host.endswith(f".{cloud}")), "azure.com")

    @property
    def root(self) -> str:
        """The path in front of resource-level operations, such as ``/openai`` or ``/openai/v1``."""
        return f"{self.endpoint.base_path}/openai{'/v1' if self.is_v1 else ''}"


def azure_surface(
    url: str, *, api_version: str | None, configured_version: str | None, name: str, allow_insecure: bool = False
) -> AzureSurface:
    """The surface that an endpoint and a version stand for.

    Args:
        url: As the user wrote it.
        api_version: Given in code; a dated one chooses the dated surface, ``"v1"`` the other.
        configured_version: From the environment; gives way to what the URL itself says.
        name: Where ``url`` came from, for messages.
        allow_insecure: Take ``http://`` to a host that is not this machine.

    Raises:
        InvalidEndpointError: It is not an endpoint.
        ConfigurationError: URL and version contradict each other.
    """
    host = host_of(url, name=name)
    if host in _PORTALS:
        raise InvalidEndpointError(
            f"{name} is the address of a web portal ({host}), not of a resource.",
            phase="prepare",
            hint="Copy 'Endpoint' from the resource's 'Keys and Endpoint' page: https://<resource>.openai.azure.com",
        )
    if host and "." not in host and ":" not in host and not is_loopback(host):
        raise InvalidEndpointError(
            f"{name} is {url[:80]!r}, which is a resource's name rather than its address.",
            phase="prepare",
            hint=f"Write https://{host}.openai.azure.com",
        )
    if host == "api.openai.com" or host.endswith((".amazonaws.com", ".api.aws")):
        raise InvalidEndpointError(
            f"{name} is an address of another service ({host}), which takes no key of Azure.",
            phase="prepare",
            hint="Give the Azure resource's endpoint; for models on AWS, use BedrockProvider.",
        )
    endpoint, query_text = parse_endpoint(url, name=name, allow_insecure=allow_insecure)
    pasted = _pasted_version(query_text)
    base = endpoint.base_path
    deployment = None
    says_v1 = False
    if host.endswith(_FOUNDRY) and re.fullmatch(_FOUNDRY_EXTRAS, base):
        base, pasted = "", None
    elif "/openai/deployments/" in base and (target := re.fullmatch(_TARGET, base)):
        from urllib.parse import unquote

        base, deployment = target["base"], unquote(target["deployment"])
    elif "/openai/v1" in f"{base}/":
        base, says_v1 = base.partition("/openai/v1")[0], True
    elif base.endswith("/openai"):
        base = base.removesuffix("/openai")
    elif operation := re.fullmatch(_OPERATION, base):
        base = operation["base"]
    endpoint = Endpoint(endpoint.origin, base.rstrip("/"))
    given, configured = (api_version or "").strip(), (configured_version or "").strip()
    version = given or (pasted or "").strip() or (None if says_v1 else configured or None)
    if version in _VERSIONLESS:
        query = (("api-version", "preview"),) if version == "preview" else ()
        return AzureSurface(endpoint=endpoint, api_version=None, query=query, deployment=deployment)
    if version is None and deployment is None:
        return AzureSurface(endpoint=endpoint, api_version=None)
    if says_v1:
        raise ConfigurationError(
            f"{name} ends in /openai/v1, which takes no dated version, and api_version={version!r} was given.",
            phase="prepare",
            hint="Leave api_version out, or give the endpoint without /openai/v1.",
        )
    if version is None:
        raise ConfigurationError(
            f"{name} names a deployment in its path, which needs a dated version, and none was given.",
            phase="prepare",
            hint="Pass api_version='2024-10-21' or a later one, or give the endpoint without /openai/deployments/….",
        )
    if not re.fullmatch(_VERSION, version):
        source = "api_version" if given else "The api-version of the endpoint" if pasted else "OPENAI_API_VERSION"
        raise ConfigurationError(
            f"{source}={version!r} is not a version of the Azure OpenAI API.",
            phase="prepare",
            hint="Use a date such as '2024-10-21' (or '2025-04-01-preview'), or 'v1'.",
        )
    return AzureSurface(
        endpoint=endpoint, api_version=version, query=(("api-version", version),), deployment=deployment
    )


def _pasted_version(query: str) -> str | None:
    if not query:
        return None
    from urllib.parse import parse_qs

    return parse_qs(query).get("api-version", [None])[0]


def configured_surface(
    base: str | None, version: str | None, *, environ: Mapping[str, str], allow_insecure: bool
) -> AzureSurface:
    """The surface that was given in code, or else in the environment.

    Raises:
        InvalidEndpointError: It is not an endpoint.
        ConfigurationError: There is none, or URL and version contradict each other.
    """
    url = base or environ.get("AZURE_OPENAI_ENDPOINT")
    if not url:
        from apex_llm.credentials.misnamed import ENDPOINTS_OF_AZURE, misnamed

        raise ConfigurationError(
            "No Azure OpenAI endpoint was given.",
            phase="prepare",
            provider="azure_openai",
            hint=misnamed(ENDPOINTS_OF_AZURE, environ)
            or "Pass api_base='https://<resource>.openai.azure.com', or set AZURE_OPENAI_ENDPOINT.",
        )
    return azure_surface(
        url,
        api_version=version,
        configured_version=environ.get("OPENAI_API_VERSION") or environ.get("AZURE_OPENAI_API_VERSION"),
        name="api_base" if base else "AZURE_OPENAI_ENDPOINT",
        allow_insecure=allow_insecure,
    )


@functools.lru_cache(maxsize=512)  # pure: the same few deployments, call after call
def chat_target(root: str, deployment: str, *, is_v1: bool, query: tuple[tuple[str, str], ...]) -> str:
    """Path and query of chat completions.

    Args:
        root: Of the surface, and so are ``is_v1`` and ``query``.
        deployment: In the path of a dated version; in the body of v1, and checked all the same.
        is_v1: See ``root``.
        query: See ``root``.

    Raises:
        InvalidRequestError: It cannot be the name of a deployment.
    """
    if "/" in deployment:
        raise InvalidRequestError(
            f"The deployment contains a slash ({deployment[:80]!r}).", phase="prepare", hint=_DEPLOYMENT_HINT
        )
    segment = path_segment(deployment, what="deployment", hint=_DEPLOYMENT_HINT)
    path = "/chat/completions" if is_v1 else f"/deployments/{segment}/chat/completions"
    return root + path + query_string(*query)
