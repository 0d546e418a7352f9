"""The Bedrock provider: two addresses, SigV4 or a bearer key, and which format for which model."""

from __future__ import annotations

__all__ = ["BedrockProvider"]

import functools
import logging
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Literal

import msgspec

from apex_llm.codecs.base import ChatCodec
from apex_llm.codecs.bedrock_failures import bedrock_failure
from apex_llm.codecs.bedrock_family import vendor
from apex_llm.codecs.chat.bedrock_converse import BedrockConverseCodec
from apex_llm.credentials.aws import aws_credentials, aws_region, bedrock_bearer, region_of
from apex_llm.credentials.threads import run_in_thread
from apex_llm.errors import (
    ApexLlmError,
    ConfigurationError,
    InvalidRequestError,
    ModelNotFoundError,
    UnknownModelError,
)
from apex_llm.providers.arguments import check_argument, check_plugin
from apex_llm.providers.backend import Authentication, Backend, merge_headers, query_string
from apex_llm.providers.base import BaseLlmProvider, Plane, Resolved, Route
from apex_llm.providers.bedrock.endpoints import bedrock_endpoints, check_configured_region
from apex_llm.providers.bedrock.models import is_opaque, model_segment, resolve_alias, similar_alias
from apex_llm.providers.endpoints import Endpoint, parse_endpoint
from apex_llm.transport.authenticate import BearerAuthentication, SigV4Authentication, aws_attempt_headers
from apex_llm.transport.limits import Limits
from apex_llm.transport.observe import Observer
from apex_llm.transport.retry import RetryPolicy, RetryStrategy
from apex_llm.types.http import Framing, Headers, HttpRequest, Timeout
from apex_llm.types.models import ModelInfo
from apex_llm.types.requests import ChatRequest
from apex_llm.types.secrets import CredentialSource, Secret
from apex_llm.types.sentinels import NOT_GIVEN, NotGiven
from apex_llm.types.tracebacks import clears_frames

# What a first call may do without is imported where it begins: streams, listings, managers, Claude's own format.
_logger = logging.getLogger("apex_llm.bedrock")

_CONVERSE: Final = BedrockConverseCodec()
_EVENT_STREAM: Final = "application/vnd.amazon.eventstream"
_HEADERS: Final = (("content-type", "application/json"), ("accept", "application/json"))
_STREAM_HEADERS: Final = (("content-type", "application/json"), ("accept", _EVENT_STREAM))
_MOST_NAMES: Final = 512


class _Ready(msgspec.Struct, frozen=True):
    """What the first call found out."""

    region: str
    runtime: Plane
    control: Plane
    credentials: CredentialSource[Any]
    resolved: dict[str, Resolved]
    """What names turned out to stand for: a program uses few, many times."""


class BedrockProvider(BaseLlmProvider):
    """Models on AWS Bedrock.

    Args:
        api_key_manager: Holds credentials under the name ``aws_bedrock``; asked when no explicit ones are given.
        aws_region: Else the manager's, ``AWS_REGION``, ``AWS_DEFAULT_REGION``, the profile's, ``us-east-1`` (logged).
        plugin: Ask the manager in this plugin's name, so that its permissions are checked.
        credentials: A dictionary (``aws_access_key_id``, …), an object with such attributes, a botocore, boto3 or
            aiobotocore session or credentials, or a callback, sync or async, that gives one of these.
        bearer_token: A Bedrock API key; excludes ``credentials``. Else ``AWS_BEARER_TOKEN_BEDROCK``.
        profile: A profile of the shared AWS files; beats keys in the environment.
        default_model: For calls that name none.
        endpoint_url: A VPC endpoint, gateway or emulator. Else ``AWS_ENDPOINT_URL_BEDROCK_RUNTIME`` and its kin.
        api: ``"converse"`` or ``"invoke"`` (the model's native format; Claude only) forces the format; ``"auto"``
            takes Converse.
        families: For ARNs that hide their model: ``{"arn:…": "anthropic.claude-sonnet-4-6"}``.
        aliases: Your own short names for model ids; they come before ours.
        http_client: An ``httpx.AsyncClient`` or ``httpx2.AsyncClient`` to send with; stays yours to close.
        max_connections: The most connections at a time, on each event loop; more calls wait until one is free, or until
            their deadline. As many as there are calls if left out. A client of your own has a limit of its own.
        timeout: Seconds for a whole call, or a ``Timeout``.
        retry: A ``RetryPolicy``; ``None`` switches retries off. Else ``AWS_MAX_ATTEMPTS`` attempts, or three.
        limits: ``Limits``: retry quota, rates, concurrency, breaker. Shared by all that are given the same object.
        strict_streams: Whether content that arrives out of order, such as text for a block that had ended, is a
            ``ProtocolError``; otherwise it is taken as it comes.
        ssl_context: For private certificate authorities or client certificates.
        observers: Told of every attempt.
        trust_env: Whether ``HTTP_PROXY`` and its kin are honoured.
        allow_insecure: Whether ``http://`` may leave this machine.

    Raises:
        ConfigurationError: The arguments contradict each other, or the region or endpoint cannot be used.
    """

    name: ClassVar[str] = "bedrock"

    def __init__(
        self,
        api_key_manager: Any = None,
        aws_region: str | None = None,
        *,
        plugin: str | None = None,
        credentials: Any = None,
        bearer_token: str | Secret | None = None,
        profile: str | None = None,
        default_model: str | None = None,
        endpoint_url: str | None = None,
        api: Literal["auto", "converse", "invoke"] = "auto",
        families: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        aliases: Mapping[str, str] | None = None,
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
        environ = dict(os.environ)
        if isinstance(retry, NotGiven):
            retry = _retry_policy(environ)
        super().__init__(
            default_model=default_model, timeout=timeout, retry=retry, limits=limits, strict_streams=strict_streams
        )
        if credentials is not None and bearer_token is not None:
            raise ConfigurationError(
                "Both credentials= and bearer_token= were given.",
                phase="prepare",
                provider=self.name,
                hint="Give one: credentials sign with SigV4, a bearer token is a Bedrock API key.",
            )
        if api not in {"auto", "converse", "invoke"}:
            raise ConfigurationError(
                f"api={api!r} is not known.", provider=self.name, hint="Use 'auto', 'converse' or 'invoke'."
            )
        for argument, value in (("aws_region=", aws_region), ("profile=", profile), ("endpoint_url=", endpoint_url)):
            check_argument(argument, value, str, "text")
        check_argument("aliases=", aliases, Mapping, "a dictionary of names to model ids")
        check_argument("families=", families, (Mapping, Sequence), "a dictionary of ARNs to model ids")
        check_configured_region(aws_region, environ=environ)
        if endpoint_url is not None:
            parse_endpoint(endpoint_url, name="endpoint_url", allow_insecure=allow_insecure)
        check_plugin(plugin, manager=api_key_manager)
        self._manager = api_key_manager
        self._plugin = plugin
        self._region = aws_region
        self._credentials = credentials
        self._bearer_token = bearer_token
        self._profile = profile
        self._endpoint_url = endpoint_url
        self._api = api
        self._families = dict(families)
        self._aliases = dict(aliases or {})
        self._allow_insecure = allow_insecure
        self._backend = Backend(
            http_client=http_client,
            max_connections=max_connections,
            trust_env=trust_env,
            environ=environ,
            ssl_context=ssl_context,
            observers=observers,
            provider=self.name,
            stream_type=_EVENT_STREAM,
            failure=self._failure,
        )
        # Shared with copies made by with_options(), so that set-up happens once for all of them.
        self._memory: dict[str, _Ready] = {}
        self._unstreamed_tools: set[str] = set()

    async def aclose(self) -> None:
        """Close all connections. The provider can be used again afterwards; it connects anew."""
        self._memory.clear()
        await self._backend.aclose()

    # Set-up ----------------------------------------------------------------------------------

    async def _plane(self) -> Plane:
        return (await self._ready()).runtime

    def _plane_now(self) -> Plane | None:
        ready = self._memory.get("ready")
        return None if ready is None else ready.runtime

    async def _ready(self) -> _Ready:
        return self._memory.get("ready") or await self._set_up()

    @clears_frames
    async def _set_up(self) -> _Ready:
        environ = self._backend.environ
        kept: Mapping[str, Any] = {}
        manager_source = permit = None
        if self._manager is not None and self._credentials is None and self._bearer_token is None:
            from apex_llm.credentials.manager import credentials_from_manager
            from apex_llm.providers.permission import model_check

            manager_source = credentials_from_manager(self._manager, "aws_bedrock", plugin=self._plugin)
            permit = model_check(manager_source)
            kept = await manager_source.settings()
        told = self._region or kept.get("aws_region")
        if told is None and self._credentials is not None:
            told = await run_in_thread(region_of, self._credentials)
        region, found_in = await aws_region(told, environ=environ, profile=self._profile)
        if found_in == "default":
            _logger.warning("no AWS region was given or configured; using %s", region)
        bearer = None
        if self._credentials is None and self._profile is None:
            bearer = bedrock_bearer(self._bearer_token, environ=environ, manager=manager_source)
        endpoints = bedrock_endpoints(
            region,
            endpoint_url=self._endpoint_url,
            environ=environ,
            allow_insecure=self._allow_insecure,
            signed=bearer is None,
        )
        self._suggest_default_model(kept.get("default_model"))
        source: CredentialSource[Any]
        if bearer is not None:
            source = bearer
        else:
            source = aws_credentials(
                credentials=self._credentials,
                manager=manager_source,
                profile=self._profile,
                region=region,
                environ=environ,
                send=self._backend.fetch,
            )

        def plane(endpoint: Endpoint) -> Plane:
            authentication: Authentication
            if bearer is not None:
                authentication = BearerAuthentication(
                    bearer, origin=endpoint.origin, attempt_headers=aws_attempt_headers
                )
            else:
                authentication = SigV4Authentication(source, origin=endpoint.origin, region=region, service="bedrock")
            send = self._backend.stack(endpoint, authentication, *self.limits.layers())
            return Plane(endpoint, send, authentication.recover, permit)

        # Several calls may have got here at once; the first one's result is everybody's.
        return self._memory.setdefault(
            "ready",
            _Ready(
                region=region,
                runtime=plane(endpoints.runtime),
                control=plane(endpoints.control),
                credentials=source,
                resolved={},
            ),
        )

    @clears_frames
    async def _check_credentials(self, plane: Plane) -> None:
        await (await self._ready()).credentials.get()

    # Routing ---------------------------------------------------------------------------------

    def _resolve_now(self, request: ChatRequest) -> Resolved | None:
        ready = self._memory["ready"]
        if known := ready.resolved.get(request.model):
            return known
        name = request.model.removeprefix("bedrock:").removeprefix("bedrock/")
        if name.startswith(("azure:", "azure/")):
            raise UnknownModelError(
                f"{request.model!r} is a deployment on Azure.", phase="prepare", hint="Use AzureOpenAIProvider."
            )
        model = resolve_alias(name, region=ready.region, aliases=self._aliases) or name
        family = self._families.get(model)
        if family is None and is_opaque(model):
            return None if self._needs_family(request) else Resolved(model, model)
        resolved = Resolved(model, family or model)
        if len(ready.resolved) < _MOST_NAMES:
            ready.resolved[request.model] = resolved
        return resolved

    def _needs_family(self, request: ChatRequest) -> bool:
        return (
            self._api == "invoke"
            or request.top_k is not None
            or request.reasoning_effort is not None
            or (request.tool_choice is not None and request.tool_choice.mode == "none")
        )

    async def _resolve(self, request: ChatRequest) -> Resolved:
        model = request.model.removeprefix("bedrock:").removeprefix("bedrock/")
        ready = self._memory["ready"]
        model = resolve_alias(model, region=ready.region, aliases=self._aliases) or model
        family = None
        if ":application-inference-profile/" in model:
            from apex_llm.providers.bedrock.control_plane import model_behind

            family = await model_behind(model, ready.control, get=self._get, timeout=request.timeout)
        self._families[model] = family or model
        return Resolved(model, family or model)

    def _route(self, plane: Plane, resolved: Resolved, request: ChatRequest, *, stream: bool) -> Route:
        if replay := stream and bool(request.tools) and resolved.model in self._unstreamed_tools:
            stream = False
        codec, operation = self._format(resolved, stream=stream)
        framing: Callable[[], Framing] | None = None
        if replay:
            from apex_llm.codecs.replay import ReplayCodec, WholeBodyFraming

            codec, framing = ReplayCodec(codec), WholeBodyFraming
        elif stream:
            framing = _framing(operation, model=resolved.model, region=self._memory["ready"].region)
        if resolved.family != request.model:
            request = msgspec.structs.replace(request, model=resolved.family)
        body, warnings = codec.encode(request, stream=stream)
        target = f"{plane.endpoint.base_path}/model/{model_segment(resolved.model)}/{operation}"
        if request.extra_query:
            target += query_string(*request.extra_query.items())
        outgoing = HttpRequest(
            method="POST",
            origin=plane.endpoint.origin,
            target=target,
            headers=merge_headers(_STREAM_HEADERS if stream else _HEADERS, request.extra_headers),
            body=body,
            stream=stream,
            timeout=request.timeout,
            operation=operation,
            model=resolved.model,
        )
        return Route(outgoing, codec, framing, warnings)

    def _format(self, resolved: Resolved, *, stream: bool) -> tuple[ChatCodec, str]:
        if self._api != "invoke":
            return _CONVERSE, "converse-stream" if stream else "converse"
        if vendor(resolved.family) != "anthropic":
            raise InvalidRequestError(
                f"api='invoke' speaks Claude's native format; {resolved.model!r} is not known to be a Claude model.",
                phase="prepare",
                hint="Use api='auto'; for an ARN, say which model it is with families={arn: model id}.",
            )
        from apex_llm.codecs.chat.anthropic_messages import AnthropicMessagesCodec

        return AnthropicMessagesCodec(), "invoke-with-response-stream" if stream else "invoke"

    def _learn(self, resolved: Resolved, error: InvalidRequestError) -> bool:
        """Some models refuse tools when streaming; they are then asked for the whole answer."""
        if "tool use in streaming mode" not in error.message or resolved.model in self._unstreamed_tools:
            return False
        _logger.info("%s does not stream tool calls; its answers will be replayed", resolved.model)
        self._unstreamed_tools.add(resolved.model)
        return True

    # Listings --------------------------------------------------------------------------------

    async def _list_models(self) -> list[ModelInfo]:
        from apex_llm.providers.bedrock.control_plane import list_models

        return await list_models((await self._ready()).control, get=self._get)

    def _failure(self, status: int, headers: Headers, body: bytes, request: HttpRequest) -> ApexLlmError:
        ready = self._memory.get("ready")
        error = bedrock_failure(
            status, headers, body, model=request.model or None, region=ready.region if ready else None
        )
        if isinstance(error, ModelNotFoundError) and (alias := similar_alias(request.model)):
            error.hint = f"Did you mean {alias!r}? {error.hint or ''}".rstrip()
        return error


def _retry_policy(environ: Mapping[str, str]) -> RetryPolicy:
    """The default policy, with as many attempts as ``AWS_MAX_ATTEMPTS`` says."""
    text = environ.get("AWS_MAX_ATTEMPTS")
    if not text:
        return RetryPolicy()
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(
            f"AWS_MAX_ATTEMPTS={text[:40]!r} is not a number of attempts.",
            phase="prepare",
            provider="bedrock",
            hint="Set it to 1 or more (1 means no retries), or unset it.",
        )
    return RetryPolicy(max_attempts=int(text))


@functools.lru_cache(maxsize=512)  # pure, and it saves each stream an import
def _framing(operation: str, *, model: str, region: str) -> Callable[[], Framing]:
    from apex_llm.codecs.framing import ChunkFraming, EventStreamFraming

    framing = EventStreamFraming if operation == "converse-stream" else ChunkFraming
    names: dict[bytes, str] = {}
    return partial(framing, model=model, region=region, names=names)
