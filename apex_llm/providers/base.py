"""What every provider is, and the one algorithm that every call goes through.

A call is resolved (what does the caller's model name stand for?), routed (which request, in
which format?), and attempted: sent and understood, again where the failure allows it. A
provider supplies the hooks ``_ready``, ``_resolve``, ``_route`` and ``_list_models``; it knows
nothing of retries, deadlines or streams.
"""

from __future__ import annotations

__all__ = ["BaseLlmProvider", "Plane", "Resolved", "Route"]

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Self, TypeVar, Unpack, cast

import msgspec

from apex_llm.codecs.base import ChatCodec
from apex_llm.errors import ApexLlmError, ConfigurationError, ContentFilteredError, InvalidRequestError
from apex_llm.providers.endpoints import Endpoint
from apex_llm.streaming import (
    EventStream,
    Exchange,
    TextStream,
    open_exchange,
    place_in_body,
    request_id_in,
    request_id_of,
)
from apex_llm.transport.authenticate import new_invocation_id
from apex_llm.transport.limits import Limits
from apex_llm.transport.network_errors import load_failed
from apex_llm.transport.retry import RetryPolicy, RetryStrategy, run_attempts
from apex_llm.types.coerce import (
    as_messages,
    as_stop,
    as_timeout,
    as_tool_choice,
    as_tools,
    reject_unknown_options,
)
from apex_llm.types.http import Framing, HttpRequest, HttpResponse, Send, Timeout
from apex_llm.types.messages import Message
from apex_llm.types.models import ModelInfo
from apex_llm.types.requests import ChatOptions, ChatRequest, TextOptions
from apex_llm.types.responses import ChatResponse
from apex_llm.types.sentinels import NOT_GIVEN, NotGiven
from apex_llm.types.tracebacks import clear_frames

T = TypeVar("T")

_REASONING_SECONDS = 300.0
_MAX_BODY = 256 * 1024 * 1024


class Resolved(msgspec.Struct, frozen=True):
    """What a caller's model name stands for."""

    model: str
    """The id, ARN or deployment that goes on the wire."""
    family: str
    """The id by which the model's abilities are known; the same as ``model`` where nothing better is known."""


class Plane(msgspec.Struct, frozen=True):
    """One address of a service with everything between us and it: layers, credentials, sender."""

    endpoint: Endpoint
    send: Send
    recover: Callable[[ApexLlmError], Awaitable[bool]]
    """Whether something was renewed (credentials, clock) that makes one more attempt worth it."""
    permit: Callable[[Resolved, ChatRequest], Awaitable[None]] | None = None
    """Raises unless the call may be made; ``None`` where no key manager wants to know its model."""


class Route(msgspec.Struct, frozen=True):
    """All that a provider knows of one call, as a value that a test can compare."""

    request: HttpRequest
    codec: ChatCodec
    framing: Callable[[], Framing] | None = None
    """``None`` where the answer is not a stream."""
    warnings: tuple[str, ...] = ()


class BaseLlmProvider(ABC):
    """One cloud's models behind the methods that all clouds share.

    Use it as ``async with provider: ...``, or call ``aclose()`` when done. An instance may be
    used by any number of tasks at once, and by one event loop after another.
    """

    name: ClassVar[str]
    """``"bedrock"`` or ``"azure_openai"``."""
    _charged_at_admission: ClassVar[bool] = False
    """Whether ``max_tokens`` counts against the token limit for good, written or not."""

    def __init__(
        self,
        *,
        default_model: str | None = None,
        timeout: float | Timeout | NotGiven | None = NOT_GIVEN,
        retry: RetryStrategy | NotGiven | None = NOT_GIVEN,
        limits: Limits | None = None,
        strict_streams: bool = False,
    ) -> None:
        self.default_model: str | None = default_model
        """For calls that name no model; on Azure a deployment."""
        self._found_defaults: dict[str, str] = {}  # shared with copies, as set-up happens once for all
        self._timeout = as_timeout(timeout, Timeout())
        self._timeout_chosen = isinstance(timeout, Timeout) or timeout is None
        self._retry = RetryPolicy() if isinstance(retry, NotGiven) else retry
        self._strict_streams = strict_streams
        self.limits: Limits = limits if limits is not None else Limits()
        """What is shared between calls, such as the retry quota. Give several providers the same one to share it."""

    # Life ------------------------------------------------------------------------------------

    async def initialize(self) -> None:
        """Find region, endpoint and credentials now rather than at the first call.

        Raises:
            ConfigurationError: Something is missing or contradictory; the message names each source tried.
        """
        self._running_loop()
        try:
            plane = await self._plane()
            await self._check_credentials(plane)
        except (ImportError, OSError) as error:
            self._raise_if_not_loaded(error)
            raise

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections. The provider can be used again afterwards; it connects anew."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def with_options(
        self,
        *,
        timeout: float | Timeout | NotGiven | None = NOT_GIVEN,
        retry: RetryStrategy | NotGiven | None = NOT_GIVEN,
    ) -> Self:
        """The same provider with other defaults; connections, credentials and limits are shared.

        Args:
            timeout: Seconds in all, or a ``Timeout``; ``None`` waits for ever.
            retry: A policy; ``None`` switches retries off.
        """
        import copy

        other = copy.copy(self)
        if not isinstance(timeout, NotGiven):
            other._timeout = as_timeout(timeout, self._timeout)
            other._timeout_chosen = isinstance(timeout, Timeout) or timeout is None
        if not isinstance(retry, NotGiven):
            other._retry = retry
        return other

    def _suggest_default_model(self, *candidates: str | None) -> None:
        """Take the first candidate as the default, for calls of a provider that was given none."""
        if found := next(filter(None, candidates), None):
            self._found_defaults["model"] = found

    def __repr__(self) -> str:
        return f"{type(self).__name__}(default_model={self.default_model!r})"

    # Calls -----------------------------------------------------------------------------------

    async def get_available_models(self) -> list[ModelInfo]:
        """Everything that can be called now: models, profiles, deployments. ``source`` says who listed it."""
        self._running_loop()
        try:
            return await self._list_models()
        except (ImportError, OSError) as error:
            self._raise_if_not_loaded(error)
            raise

    async def generate_text(
        self,
        prompt: str,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        **options: Unpack[TextOptions],
    ) -> str:
        """The model's answer to one prompt, as text.

        Args:
            prompt: What to answer.
            model: Model id, alias or (on Azure) deployment; ``default_model`` when left out.
            max_tokens: The most tokens to write. An answer that is cut there is returned as it is.
            temperature: 0 for the likeliest words, higher for more variety.
            **options: See ``TextOptions``.

        Raises:
            ContentFilteredError: The prompt or the answer was blocked.
            ApexLlmError: Anything else; see ``apex_llm.errors``.
        """
        request = self._request("generate_text", prompt, model, options, max_tokens, temperature)
        response = await self._chat(request)
        if response.blocked:
            raise self._blocked(response)
        return response.text

    def generate_text_stream(
        self,
        prompt: str,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        **options: Unpack[TextOptions],
    ) -> TextStream:
        """The model's answer to one prompt, piece by piece as it is written.

        Arguments as ``generate_text``. Nothing is sent before ``async with`` or the first ``async for``.
        """
        request = self._request("generate_text_stream", prompt, model, options, max_tokens, temperature)
        opening = _Opening(self, request)
        return TextStream(
            opening.open,
            provider=self.name,
            model=request.model,
            request_warnings=opening.warnings,
            blocked=self._blocked,
        )

    async def chat(
        self,
        messages: str | Message | Mapping[str, Any] | Iterable[Message | Mapping[str, Any]],
        *,
        model: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse:
        """The model's turn in a conversation.

        Args:
            messages: ``Message`` values or OpenAI-style dictionaries, oldest first; a string is one user message.
            model: Model id, alias or (on Azure) deployment; ``default_model`` when left out.
            **options: See ``ChatOptions``.
        """
        return await self._chat(self._request("chat", messages, model, options))

    def chat_stream(
        self,
        messages: str | Message | Mapping[str, Any] | Iterable[Message | Mapping[str, Any]],
        *,
        model: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> EventStream:
        """The model's turn in a conversation, event by event as it is written.

        Arguments as ``chat``. Nothing is sent before ``async with`` or the first ``async for``.
        """
        request = self._request("chat_stream", messages, model, options)
        opening = _Opening(self, request)
        return EventStream(opening.open, provider=self.name, model=request.model, request_warnings=opening.warnings)

    # Hooks -----------------------------------------------------------------------------------

    @abstractmethod
    async def _plane(self) -> Plane:
        """The plane that models are called on, set up at the first use and remembered."""

    @abstractmethod
    async def _check_credentials(self, plane: Plane) -> None:
        """Get the credentials once, so that missing ones are an error of the set-up."""

    def _resolve_now(self, request: ChatRequest) -> Resolved | None:
        """What is known without I/O; ``None`` sends the question to ``_resolve``."""
        return Resolved(request.model, request.model)

    async def _resolve(self, request: ChatRequest) -> Resolved:
        """What the caller's model name stands for, asked of the service where need be, and remembered."""
        return Resolved(request.model, request.model)

    @abstractmethod
    def _route(self, plane: Plane, resolved: Resolved, request: ChatRequest, *, stream: bool) -> Route:
        """The request and the format for one call. Pure."""

    def _learn(self, resolved: Resolved, error: InvalidRequestError) -> bool:
        """Whether a refusal taught something, so that routing again gives another request; tried once."""
        return False

    def _learn_from_answer(self, resolved: Resolved, answer: ChatResponse) -> None:  # noqa: B027
        """Remember what an answer tells about the model behind a name."""

    @abstractmethod
    async def _list_models(self) -> list[ModelInfo]:
        """What ``get_available_models`` gives."""

    # The one algorithm -----------------------------------------------------------------------

    def _request(
        self,
        method: str,
        messages: str | Message | Mapping[str, Any] | Iterable[Message | Mapping[str, Any]],
        model: str | None,
        options: TextOptions | ChatOptions,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> ChatRequest:
        given = cast("Mapping[str, Any]", options)
        if not given and (max_tokens is None or max_tokens > 0):
            # Most calls; what follows finds out nothing more for them, at four times the price.
            return ChatRequest(
                model=model or self.default_model or "",
                messages=as_messages(messages),
                max_tokens=max_tokens,
                temperature=temperature,
                timeout=self._timeout,
            )
        reject_unknown_options(given, method=method)
        max_tokens = given.get("max_tokens", max_tokens)
        if max_tokens is not None and max_tokens < 1:
            raise InvalidRequestError(
                f"max_tokens={max_tokens} leaves no room for an answer.", phase="prepare", hint="Use 1 or more."
            )
        timeout = as_timeout(given.get("timeout", NOT_GIVEN), self._timeout)
        effort = given.get("reasoning_effort")
        if effort not in {None, "none"} and not self._timeout_chosen and not isinstance(given.get("timeout"), Timeout):
            timeout = msgspec.structs.replace(timeout, first_byte=_REASONING_SECONDS, idle=_REASONING_SECONDS)
        tools = as_tools(given.get("tools"))
        return ChatRequest(
            model=self._model_name(model, given.get("deployment_id")),
            messages=as_messages(messages, system=given.get("system")),
            max_tokens=max_tokens,
            temperature=given.get("temperature", temperature),
            top_p=given.get("top_p"),
            top_k=given.get("top_k"),
            stop=as_stop(given.get("stop")),
            seed=given.get("seed"),
            tools=tools,
            tool_choice=as_tool_choice(given.get("tool_choice"), tools),
            parallel_tool_calls=given.get("parallel_tool_calls"),
            response_format=given.get("response_format"),
            reasoning_effort=effort,
            metadata=given.get("metadata"),
            extra_body=given.get("extra_body"),
            extra_headers=given.get("extra_headers"),
            extra_query=given.get("extra_query"),
            timeout=timeout,
        )

    def _model_name(self, model: str | None, deployment_id: str | None) -> str:
        """What the caller named, or ``""``: a default may come from what set-up finds (``_named``)."""
        if model is not None and deployment_id is not None and model != deployment_id:
            raise InvalidRequestError(
                f"model={model!r} and deployment_id={deployment_id!r} mean the same and differ.",
                phase="prepare",
                hint="Give one of them.",
            )
        return model or deployment_id or self.default_model or ""

    def _named(self, request: ChatRequest) -> ChatRequest:
        """The request with a model; called after set-up, which may have found a default."""
        name = self.default_model or self._found_defaults.get("model")
        if name is None:
            raise ConfigurationError(
                f"{type(self).__name__} was not told which model to use.",
                phase="prepare",
                provider=self.name,
                hint="Pass model=..., or give the provider a default when it is made.",
            )
        return msgspec.structs.replace(request, model=name)

    async def _chat(self, request: ChatRequest) -> ChatResponse:
        try:
            deadline = self._deadline(request.timeout)
            plane = await self._plane()
            if not request.model:
                request = self._named(request)
            resolved = self._resolve_now(request) or await self._resolve(request)
            if plane.permit is not None:
                await plane.permit(resolved, request)
            route = self._route(plane, resolved, request, stream=False)

            async def understand(outgoing: HttpRequest) -> ChatResponse:
                response = await plane.send(outgoing)
                try:
                    answer = route.codec.decode(await read_body(response))
                except ApexLlmError as error:
                    place_in_body(error, response)
                    raise
                self._learn_from_answer(resolved, answer)
                return msgspec.structs.replace(
                    answer,
                    model=answer.model or resolved.model,
                    request_id=request_id_of(response),
                    attempts=outgoing.attempt,
                    warnings=route.warnings + answer.warnings,
                )

            try:
                return await self._attempts(plane, route.request, deadline, understand)
            except InvalidRequestError as error:
                if not self._learn(resolved, error):
                    raise
            route = self._route(plane, resolved, request, stream=False)
            return await self._attempts(plane, route.request, deadline, understand)
        except (ImportError, OSError) as error:
            self._raise_if_not_loaded(error, request.model)
            raise

    async def _attempts(
        self,
        plane: Plane,
        request: HttpRequest,
        deadline: float | None,
        understand: Callable[[HttpRequest], Awaitable[T]],
    ) -> T:
        """Make attempts at ``request`` until one is understood or the policy gives up."""
        policy = self._retry
        most = 1 if policy is None else policy.max_attempts
        invocation_id = new_invocation_id()

        def attempt(number: int) -> Awaitable[T]:
            outgoing = msgspec.structs.replace(
                request, attempt=number, max_attempts=most, deadline=deadline, invocation_id=invocation_id
            )
            if not self.limits.active:
                return understand(outgoing)
            from apex_llm.providers.metering import metered

            return metered(self.limits, outgoing, understand, at_admission=self._charged_at_admission)

        try:
            return await run_attempts(
                attempt,
                policy=policy,
                quota=self.limits,
                key=(request.origin.authority, request.model),
                deadline=deadline,
                recover=plane.recover,
                operation=request.operation,
            )
        except ApexLlmError as error:
            error.provider = error.provider or self.name
            error.model = error.model or request.model
            error.request_id = error.request_id or request_id_in(error.headers)
            clear_frames(error)
            raise

    async def _open(self, request: ChatRequest, on_route: Callable[[Route], None]) -> Exchange:
        try:
            deadline = self._deadline(request.timeout)
            plane = await self._plane()
            if not request.model:
                request = self._named(request)
            resolved = self._resolve_now(request) or await self._resolve(request)
            if plane.permit is not None:
                await plane.permit(resolved, request)
            route = self._route(plane, resolved, request, stream=True)
            on_route(route)

            def understand(outgoing: HttpRequest) -> Awaitable[Exchange]:
                assert route.framing is not None
                decoder = route.codec.stream_decoder
                if self._strict_streams:
                    from apex_llm.codecs.strict import strict_decoder

                    decoder = strict_decoder(decoder)
                if outgoing.estimated_tokens:
                    from apex_llm.providers.metering import metered_decoder

                    settle = partial(self.limits.settle, outgoing, at_admission=self._charged_at_admission)
                    decoder = metered_decoder(decoder, settle)
                return open_exchange(plane.send, outgoing, framing=route.framing, decoder=decoder)

            try:
                return await self._attempts(plane, route.request, deadline, understand)
            except InvalidRequestError as error:
                if not self._learn(resolved, error):
                    raise
            route = self._route(plane, resolved, request, stream=True)
            on_route(route)
            return await self._attempts(plane, route.request, deadline, understand)
        except (ImportError, OSError) as error:
            self._raise_if_not_loaded(error, request.model)
            raise

    def _deadline(self, timeout: Timeout) -> float | None:
        loop = self._running_loop()
        return None if timeout.total is None else loop.time() + timeout.total

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        try:
            return asyncio.get_running_loop()
        except RuntimeError as error:
            raise ConfigurationError(
                "There is no running asyncio event loop.",
                phase="prepare",
                provider=self.name,
                hint="Await it under asyncio.run() or uvloop (trio is not supported), or use apex_llm.sync.",
            ) from error

    def _raise_if_not_loaded(self, error: ImportError | OSError, model: str = "") -> None:
        """What only some calls need is loaded by the first of them, which may be when no file can be opened."""
        failure = load_failed(error)
        if failure is not None:
            failure.provider, failure.model = self.name, model or None
            raise failure from error

    def _blocked(self, response: ChatResponse) -> ContentFilteredError:
        found = response.extra.get("content_filtered") or ()
        categories = sorted({category for item in found for category in item["categories"]})
        return ContentFilteredError(
            f"The answer was blocked by the provider ({response.raw_finish_reason}).",
            categories=categories,
            where="completion",
            provider=self.name,
            model=response.model,
            request_id=response.request_id,
            attempts=response.attempts,
            partial=response,
            hint="What had been written is in .partial. Rephrase, or change the filter or guardrail.",
        )


class _Opening:
    """How one stream will be opened; keeps the warnings that routing it gave."""

    __slots__ = ("_provider", "_request", "_route")

    def __init__(self, provider: BaseLlmProvider, request: ChatRequest) -> None:
        self._provider = provider
        self._request = request
        self._route: Route | None = None

    async def open(self) -> Exchange:
        return await self._provider._open(self._request, self._keep)  # pyright: ignore[reportPrivateUsage]

    def _keep(self, route: Route) -> None:
        self._route = route

    def warnings(self) -> tuple[str, ...]:
        return self._route.warnings if self._route else ()


async def read_body(response: HttpResponse) -> bytes:
    """The whole body of an answer that is not streamed; the connection goes back to its pool."""
    try:
        return await response.read_all(limit=_MAX_BODY)
    finally:
        response.close()
