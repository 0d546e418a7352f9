"""The Azure OpenAI provider: deployments by dated path or v1 body, a key or an Entra token."""

from __future__ import annotations

__all__ = ["AzureOpenAIProvider"]

import functools
import logging
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Literal

import msgspec

from apex_llm.codecs.azure_failures import azure_failure
from apex_llm.codecs.chat.openai_chat import OpenAIChatCodec
from apex_llm.codecs.chat.openai_chat_profile import DISPENSABLE, profile_for
from apex_llm.credentials.azure import AzureCredentials, azure_credentials
from apex_llm.credentials.azure_tokens import kind_mismatch
from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    UnknownModelError,
)
from apex_llm.providers.arguments import check_argument, check_plugin
from apex_llm.providers.azure_openai.endpoints import AzureSurface, chat_target, configured_surface
from apex_llm.providers.backend import Authentication, Backend, merge_headers, query_string
from apex_llm.providers.base import BaseLlmProvider, Plane, Resolved, Route
from apex_llm.providers.endpoints import parse_endpoint
from apex_llm.transport.authenticate import BearerAuthentication, HeaderKeyAuthentication, azure_attempt_headers
from apex_llm.transport.limits import Limits
from apex_llm.transport.observe import Observer
from apex_llm.transport.retry import RetryStrategy
from apex_llm.types.http import Framing, Headers, HttpRequest, Timeout
from apex_llm.types.models import ModelInfo
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import ChatResponse
from apex_llm.types.secrets import Secret
from apex_llm.types.sentinels import NOT_GIVEN, NotGiven
from apex_llm.types.tracebacks import clears_frames

_logger = logging.getLogger("apex_llm.azure_openai")

_SSE: Final = "text/event-stream"
_HEADERS: Final = (("content-type", "application/json"), ("accept", "application/json"))
_STREAM_HEADERS: Final = (("content-type", "application/json"), ("accept", _SSE))


class _Ready(msgspec.Struct, frozen=True):
    """What the first call found out."""

    surface: AzureSurface
    plane: Plane
    credentials: AzureCredentials


class AzureOpenAIProvider(BaseLlmProvider):
    """Deployments of an Azure OpenAI or Foundry resource.

    Args:
        api_key_manager: Holds credentials under ``azure_openai``; asked when no explicit ones are given.
        api_base: The resource's endpoint, in any form that the portal shows. Else the manager's, or
            ``AZURE_OPENAI_ENDPOINT``.
        api_version: A dated version chooses the deployments surface, ``"v1"`` the v1 surface. Else the manager's,
            ``OPENAI_API_VERSION``; without any, v1.
        plugin: Ask the manager in this plugin's name, so that its permissions are checked.
        api_key: The resource's key. Else ``AZURE_OPENAI_API_KEY``.
        azure_ad_token: An Entra token, as text. Else ``AZURE_OPENAI_AD_TOKEN``.
        azure_ad_token_provider: A callback, sync or async, that gives an Entra token.
        credential: An object with ``get_token``, sync or async, such as those of azure-identity, or one of ours.
        default_deployment: For calls that name none.
        api: ``"auto"`` or ``"chat"``: chat completions.
        resource_id: ``/subscriptions/…/accounts/…``, for listing deployments through the management plane.
        deployments: Which model stands behind a deployment: ``{"my-deployment": "gpt-5-mini"}``. Learned otherwise.
        http_client: An ``httpx.AsyncClient`` or ``httpx2.AsyncClient`` to send with; stays yours to close.
        max_connections: The most connections at a time, on each event loop; more calls wait until one is free, or until
            their deadline. As many as there are calls if left out. A client of your own has a limit of its own.
        timeout: Seconds for a whole call, or a ``Timeout``.
        retry: A ``RetryPolicy``; ``None`` switches retries off.
        limits: ``Limits``: retry quota, rates, concurrency, breaker. Shared by all that are given the same object.
        strict_streams: Whether content that arrives out of order, such as text for a block that had ended, is a
            ``ProtocolError``; otherwise it is taken as it comes.
        ssl_context: For private certificate authorities or client certificates.
        observers: Told of every attempt.
        trust_env: Whether ``HTTP_PROXY`` and its kin are honoured.
        allow_insecure: Whether ``http://`` may leave this machine.

    Raises:
        ConfigurationError: The arguments contradict each other, or the endpoint cannot be used.
    """

    name: ClassVar[str] = "azure_openai"
    _charged_at_admission: ClassVar[bool] = True

    def __init__(
        self,
        api_key_manager: Any = None,
        api_base: str | None = None,
        api_version: str | None = None,
        *,
        plugin: str | None = None,
        api_key: str | Secret | None = None,
        azure_ad_token: str | Secret | None = None,
        azure_ad_token_provider: Any = None,
        credential: Any = None,
        default_deployment: str | None = None,
        api: Literal["auto", "chat"] = "auto",
        resource_id: str | None = None,
        deployments: Mapping[str, str] | None = None,
        http_client: Any = None,
        max_connections: int | None = None,
        timeout: float | Timeout | NotGiven | None = NOT_GIVEN,
        retry: RetryStrategy | NotGiven | None = NOT_GIVEN,
        limits: Limits | None = None,
        strict_streams: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        observers: Sequence[Observer] = (),
        trust_env: bool = True,
        allow_insecure: bool = False,
    ) -> None:
        super().__init__(
            default_model=default_deployment, timeout=timeout, retry=retry, limits=limits, strict_streams=strict_streams
        )
        explicit: dict[str, Any] = {
            "api_key": api_key,
            "azure_ad_token": azure_ad_token,
            "azure_ad_token_provider": azure_ad_token_provider,
            "credential": credential,
        }
        given = [name for name, value in explicit.items() if value is not None]
        if len(given) > 1:
            raise ConfigurationError(
                f"{' and '.join(given)} were given together.",
                phase="prepare",
                provider=self.name,
                hint="Give one: a key, or one way to an Entra token.",
            )
        if api not in {"auto", "chat"}:
            raise ConfigurationError(f"api={api!r} is not known.", provider=self.name, hint="Use 'auto' or 'chat'.")
        for argument, value in (("api_base=", api_base), ("api_version=", api_version), ("resource_id=", resource_id)):
            check_argument(argument, value, str, "text")
        check_argument("deployments=", deployments, Mapping, "a dictionary of deployments to models")
        if azure_ad_token_provider is not None and not callable(azure_ad_token_provider):
            raise ConfigurationError(
                f"azure_ad_token_provider= is of type {type(azure_ad_token_provider).__name__}, and no function.",
                provider=self.name,
                hint="Pass a function that gives tokens; a token itself goes to azure_ad_token=, "
                "a credential of azure-identity to credential=.",
            )
        self._explicit = explicit if given else {}
        check_plugin(plugin, manager=api_key_manager)
        self._manager = api_key_manager
        self._plugin = plugin
        self._api_base = api_base
        self._api_version = api_version
        self._resource_id = resource_id
        self._allow_insecure = allow_insecure
        environ = dict(os.environ)
        if api_base is not None or (api_key_manager is None and environ.get("AZURE_OPENAI_ENDPOINT")):
            # Only to refuse early what cannot be used.
            configured_surface(api_base, api_version, environ=environ, allow_insecure=allow_insecure)
        self._backend = Backend(
            http_client=http_client,
            max_connections=max_connections,
            trust_env=trust_env,
            environ=environ,
            ssl_context=ssl_context,
            observers=observers,
            provider=self.name,
            stream_type=_SSE,
            failure=self._failure,
            obey_should_retry=True,
        )
        # Shared with copies made by with_options(), so that what is learned is learned once.
        self._memory: dict[str, _Ready] = {}
        self._models: dict[str, str] = dict(deployments or {})
        self._refused: dict[str, frozenset[str]] = {}

    @property
    def default_deployment(self) -> str | None:
        """The deployment of calls that name none."""
        return self.default_model

    async def aclose(self) -> None:
        """Close all connections. The provider can be used again afterwards; it connects anew."""
        self._memory.clear()
        await self._backend.aclose()

    # Set-up ----------------------------------------------------------------------------------

    async def _ready(self) -> _Ready:
        return self._memory.get("ready") or await self._set_up()

    async def _plane(self) -> Plane:
        return (await self._ready()).plane

    def _plane_now(self) -> Plane | None:
        ready = self._memory.get("ready")
        return None if ready is None else ready.plane

    @clears_frames
    async def _set_up(self) -> _Ready:
        environ = self._backend.environ
        kept: Mapping[str, Any] = {}
        manager_source = permit = None
        if self._manager is not None and not self._explicit:
            from apex_llm.credentials.manager import credentials_from_manager
            from apex_llm.providers.permission import model_check

            manager_source = credentials_from_manager(self._manager, "azure_openai", plugin=self._plugin)
            permit = model_check(manager_source)
            kept = await manager_source.settings()
        surface = configured_surface(
            self._api_base or kept.get("api_base"),
            self._api_version or kept.get("api_version"),
            environ=environ,
            allow_insecure=self._allow_insecure,
        )
        self._suggest_default_model(kept.get("default_deployment"), surface.deployment)
        credentials = azure_credentials(
            **self._explicit,
            manager=manager_source,
            environ=environ,
            send=self._backend.fetch,
            scope=surface.token_scope,
        )
        endpoint = surface.endpoint
        authentication: Authentication
        if credentials.kind == "api-key":
            authentication = HeaderKeyAuthentication(credentials.source, origin=endpoint.origin)
        else:
            authentication = BearerAuthentication(
                credentials.source, origin=endpoint.origin, attempt_headers=azure_attempt_headers
            )
        send = self._backend.stack(endpoint, authentication, *self.limits.layers())
        plane = Plane(endpoint, send, authentication.recover, permit)
        # Several calls may have got here at once; the first one's result is everybody's.
        return self._memory.setdefault("ready", _Ready(surface, plane, credentials))

    @clears_frames
    async def _check_credentials(self, plane: Plane) -> None:
        await (await self._ready()).credentials.source.get()

    # Routing ---------------------------------------------------------------------------------

    def _resolve_now(self, request: ChatRequest) -> Resolved | None:
        name = request.model.removeprefix("azure:").removeprefix("azure/")
        if name.startswith(("bedrock:", "bedrock/")):
            raise UnknownModelError(
                f"{request.model!r} is a model on Bedrock.", phase="prepare", hint="Use BedrockProvider."
            )
        return Resolved(name, self._models.get(name, ""))

    def _route(self, plane: Plane, resolved: Resolved, request: ChatRequest, *, stream: bool) -> Route:
        surface = self._memory["ready"].surface
        profile = profile_for(surface.api_version, resolved.family or None)
        refused = self._refused.get(resolved.model)
        codec = OpenAIChatCodec(profile.without(refused) if refused else profile)
        if request.model != resolved.model:
            request = msgspec.structs.replace(request, model=resolved.model)
        body, warnings = codec.encode(request, stream=stream)
        target = chat_target(surface.root, resolved.model, is_v1=surface.is_v1, query=surface.query)
        if request.extra_query:
            more = query_string(*request.extra_query.items())
            target += f"&{more[1:]}" if surface.query else more
        outgoing = HttpRequest(
            method="POST",
            origin=plane.endpoint.origin,
            target=target,
            headers=merge_headers(_STREAM_HEADERS if stream else _HEADERS, request.extra_headers),
            body=body,
            stream=stream,
            timeout=request.timeout,
            operation="chat-stream" if stream else "chat",
            model=resolved.model,
        )
        if not stream:
            return Route(outgoing, codec, None, warnings)
        return Route(outgoing, codec, _framing(resolved.model), warnings)

    def _learn(self, resolved: Resolved, error: InvalidRequestError) -> bool:
        """Services say which parameter a deployment refuses; the next request leaves it out."""
        refused = error.param or next((name for name in DISPENSABLE if f"'{name}'" in error.message), None)
        known = self._refused.get(resolved.model, frozenset())
        if refused not in DISPENSABLE or refused in known:
            return False
        _logger.info("deployment %s does not take %s; leaving it out from now on", resolved.model, refused)
        self._refused[resolved.model] = known | {refused}
        return True

    def _learn_from_answer(self, resolved: Resolved, answer: ChatResponse) -> None:
        if answer.model and resolved.model not in self._models:
            self._models[resolved.model] = answer.model

    def _failure(self, status: int, headers: Headers, body: bytes, request: HttpRequest) -> ApexLlmError:
        ready = self._memory.get("ready")
        error = azure_failure(
            status,
            headers,
            body,
            model=request.model or None,
            url=request.origin.url + request.target.partition("?")[0],
            api_version=ready.surface.api_version if ready else None,
        )
        if isinstance(error, AuthenticationError) and ready and (token := ready.credentials.source.current()):
            error.hint = kind_mismatch(token) or error.hint
        return error

    # Listings --------------------------------------------------------------------------------

    async def _list_models(self) -> list[ModelInfo]:
        from apex_llm.providers.azure_openai.listings import list_models

        ready = await self._ready()
        models = await list_models(
            ready.surface,
            ready.plane,
            get=self._get,
            resource_id=self._resource_id,
            management=partial(self._management, ready.surface),
        )
        for model in models:
            if model.kind == "deployment" and model.base_model:
                self._models.setdefault(model.id, model.base_model)
        return models

    def _management(self, surface: AzureSurface) -> Plane:
        """The management plane, which is another host and takes another token."""
        environ = self._backend.environ
        host = environ.get("AZURE_RESOURCE_MANAGER_URL") or surface.management_url
        endpoint, _ = parse_endpoint(host, name="The management endpoint", allow_insecure=self._allow_insecure)
        credentials = azure_credentials(
            **self._explicit,
            environ=environ,
            send=self._backend.fetch,
            scope=surface.management_scope(endpoint.origin.host),
        )
        if credentials.kind != "bearer":
            raise ConfigurationError(
                "The management plane takes an Entra token, and only a resource key is at hand.",
                hint="Pass credential= or azure_ad_token_provider= instead of the key.",
            )
        authentication = BearerAuthentication(credentials.source, origin=endpoint.origin)
        return Plane(endpoint, self._backend.stack(endpoint, authentication), authentication.recover)

    async def _get_deployment_model(self, deployment_id: str) -> str | None:
        """The model behind a deployment, or ``None`` where neither a listing nor an answer has told it."""
        if deployment_id not in self._models:
            try:
                await self._list_models()
            except (PermissionDeniedError, ModelNotFoundError, InvalidRequestError):
                return None
        return self._models.get(deployment_id)


@functools.lru_cache(maxsize=512)  # pure, and it saves each stream an import
def _framing(model: str) -> Callable[[], Framing]:
    from apex_llm.codecs.framing import SseFraming

    return partial(SseFraming, model=model)
