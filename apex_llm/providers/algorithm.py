"""The one algorithm that every call goes through, and the hooks by which a provider takes part in it.

A call is resolved (what does the caller's model name stand for?), routed (which request, in
which format?), and attempted: sent and understood, again where the failure allows it. The
hooks know nothing of retries, deadlines or streams.
"""

from __future__ import annotations

__all__ = ["Attempt", "CallAlgorithm", "Get", "Plane", "Resolved", "Route", "StreamOpening"]

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ClassVar, Protocol, TypeAlias, TypeVar

import msgspec

from apex_llm.codecs.base import ChatCodec
from apex_llm.errors import (
    ApexLlmError,
    ConfigurationError,
    InvalidRequestError,
    RequestTimeoutError,
    ResponseFormatError,
)
from apex_llm.providers.endpoints import Endpoint
from apex_llm.streaming import Exchange, open_exchange, place_in_body, request_id_in, request_id_of
from apex_llm.transport.authenticate import new_invocation_id
from apex_llm.transport.limits import Limits
from apex_llm.transport.network_errors import load_failed
from apex_llm.transport.retry import RetryStrategy, run_attempts
from apex_llm.types.http import Framing, HttpRequest, HttpResponse, Send, Timeout
from apex_llm.types.requests import ChatRequest
from apex_llm.types.responses import ChatResponse
from apex_llm.types.tracebacks import clear_frames

T = TypeVar("T")

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


class Get(Protocol):
    """``CallAlgorithm._get``, for the modules that ask a service about itself."""

    def __call__(
        self, plane: Plane, target: str, *, operation: str, timeout: Timeout | None = None
    ) -> Awaitable[bytes]:
        """The body of what ``plane`` answers to a GET of ``target``."""
        ...


Attempt: TypeAlias = Callable[[HttpRequest], Awaitable[T]]
"""Sends one request, and understands enough of the answer to know whether it is one."""


class CallAlgorithm(ABC):
    """How a call is made; what users see of it is ``BaseLlmProvider``."""

    name: ClassVar[str]
    default_model: str | None
    limits: Limits
    _charged_at_admission: ClassVar[bool] = False
    """Whether ``max_tokens`` counts against the token limit for good, written or not."""

    def __init__(self, *, timeout: Timeout, retry: RetryStrategy | None, strict_streams: bool) -> None:
        self._timeout = timeout
        self._retry = retry
        self._strict_streams = strict_streams
        self._found_defaults: dict[str, str] = {}  # shared with copies, as set-up happens once for all

    # Hooks -----------------------------------------------------------------------------------

    @abstractmethod
    async def _plane(self) -> Plane:
        """The plane that models are called on, set up at the first use and remembered."""

    def _plane_now(self) -> Plane | None:
        """The plane, if it has been set up; ``None`` sends the question to ``_plane``."""
        return None

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

    # The algorithm ---------------------------------------------------------------------------

    async def _call(
        self, request: ChatRequest, attempting: Callable[[Plane, Resolved, Route], Attempt[T]], *, stream: bool
    ) -> T:
        """Resolve, route, attempt; once more if the service's refusal taught something.

        Whoever else has the provider may close it while this waits, so the plane is asked for again after each wait.
        """
        try:
            deadline = self._deadline(request.timeout)
            plane = self._plane_now() or await self._in_time(self._plane(), deadline)
            if not request.model:
                request = self._named(request)
            resolved = self._resolve_now(request)
            if resolved is None:
                resolved = await self._resolve(request)
                plane = self._plane_now() or await self._in_time(self._plane(), deadline)
            if plane.permit is not None:
                await self._in_time(plane.permit(resolved, request), deadline)
                plane = self._plane_now() or await self._in_time(self._plane(), deadline)
            learned = False
            while True:
                route = self._route(plane, resolved, request, stream=stream)
                try:
                    return await self._attempts(plane, route.request, deadline, attempting(plane, resolved, route))
                except ApexLlmError as error:
                    self._explain(error, route.request)
                    if learned or not isinstance(error, InvalidRequestError) or not self._learn(resolved, error):
                        raise
                learned = True
                plane = self._plane_now() or await self._in_time(self._plane(), deadline)
        except ApexLlmError as error:
            error.provider = error.provider or self.name
            raise
        except (ImportError, OSError) as error:
            self._raise_if_not_loaded(error, request.model)
            raise

    def _answering(self, plane: Plane, resolved: Resolved, route: Route) -> Attempt[ChatResponse]:
        """An attempt at a whole answer."""

        async def attempt(outgoing: HttpRequest) -> ChatResponse:
            response = await plane.send(outgoing)
            body = b""
            try:
                body = await _read_body(response)
                answer = route.codec.decode(body)
            except ApexLlmError as error:
                told = self._told_instead(error, response, body)
                place_in_body(told or error, response)
                if told is None:
                    raise
                raise told from error
            self._learn_from_answer(resolved, answer)
            return msgspec.structs.replace(
                answer,
                model=answer.model or resolved.model,
                request_id=request_id_of(response),
                attempts=outgoing.attempt,
                warnings=route.warnings + answer.warnings,
            )

        return attempt

    def _told_instead(self, error: ApexLlmError, response: HttpResponse, body: bytes) -> ApexLlmError | None:
        """What a body that is no answer says, if it is the service's or a gateway's word why there is none."""
        if not isinstance(error, ResponseFormatError):
            return None
        from apex_llm.codecs.failures import failure_in_body

        told = failure_in_body(response.headers, body, provider=self.name, status=response.status)
        if told is not None:
            told.phase = None  # not the head, as of a refusal
        return told

    def _streaming(self, plane: Plane, route: Route) -> Attempt[Exchange]:
        """An attempt at a stream: sent, and its first event understood."""
        return partial(self._open_exchange, plane, route)

    def _open_exchange(self, plane: Plane, route: Route, outgoing: HttpRequest) -> Awaitable[Exchange]:
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

    async def _get(
        self,
        plane: Plane,
        target: str,
        *,
        operation: str,
        timeout: Timeout | None = None,  # noqa: ASYNC109 - also part of the request, for the sender
    ) -> bytes:
        """What the service says of itself at ``target``, by the same attempts as a call."""
        timeout = timeout or self._timeout
        request = HttpRequest(
            method="GET",
            origin=plane.endpoint.origin,
            target=target,
            headers=(("accept", "application/json"),),
            timeout=timeout,
            operation=operation,
        )

        async def attempt(outgoing: HttpRequest) -> bytes:
            return await _read_body(await plane.send(outgoing))

        try:
            return await self._attempts(plane, request, self._deadline(timeout), attempt)
        except ApexLlmError as error:
            self._explain(error, request)
            raise

    def _attempts(
        self, plane: Plane, request: HttpRequest, deadline: float | None, understand: Attempt[T]
    ) -> Awaitable[T]:
        """Attempts at ``request`` until one is understood or the policy gives up; ``_explain`` the last one's error."""
        policy = self._retry
        request = msgspec.structs.replace(
            request,
            max_attempts=1 if policy is None else policy.max_attempts,
            deadline=deadline,
            invocation_id=new_invocation_id(),
        )
        return run_attempts(
            partial(self._attempt, request, understand),
            policy=policy,
            quota=self.limits,
            key=(request.origin.authority, request.model),
            deadline=deadline,
            recover=plane.recover,
            operation=request.operation,
        )

    def _attempt(self, request: HttpRequest, understand: Attempt[T], number: int) -> Awaitable[T]:
        outgoing = request if number == 1 else msgspec.structs.replace(request, attempt=number)
        if not self.limits.active:
            return understand(outgoing)
        from apex_llm.providers.metering import metered

        return metered(self.limits, outgoing, understand, at_admission=self._charged_at_admission)

    def _explain(self, error: ApexLlmError, request: HttpRequest) -> None:
        """Say of an error what it was about, and let it take nothing along that must stay here."""
        error.provider = error.provider or self.name
        error.model = error.model or request.model
        error.request_id = error.request_id or request_id_in(error.headers)
        clear_frames(error)

    async def _in_time(self, waiting: Awaitable[T], deadline: float | None) -> T:
        """What set-up waits for, such as a key manager, counts for the call that began it."""
        scope = asyncio.timeout_at(deadline)
        try:
            async with scope:
                return await waiting
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise RequestTimeoutError(
                "The call's deadline passed while its credentials and settings were being looked for.",
                phase="credentials",
                attempts=0,
            ) from error

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

    def _suggest_default_model(self, *candidates: str | None) -> None:
        """Take the first candidate as the default, for calls of a provider that was given none."""
        if found := next(filter(None, candidates), None):
            self._found_defaults["model"] = found

    def _deadline(self, timeout: Timeout) -> float | None:
        """When ``timeout`` ends, by the clock of the loop; refuses to go on without one."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise ConfigurationError(
                "There is no running asyncio event loop.",
                phase="prepare",
                provider=self.name,
                hint="Await it under asyncio.run() or uvloop (trio is not supported), or use apex_llm.sync.",
            ) from error
        return None if timeout.total is None else loop.time() + timeout.total

    def _raise_if_not_loaded(self, error: ImportError | OSError, model: str = "") -> None:
        """What only some calls need is loaded by the first of them, which may be when no file can be opened."""
        failure = load_failed(error)
        if failure is not None:
            failure.provider, failure.model = self.name, model or None
            raise failure from error


class StreamOpening:
    """How one stream is opened, once; keeps the warnings that routing it gave.

    Keeps the algorithm, and so its connections, for as long as the stream is there. What was asked is not kept while
    the answer is read: it may be large, and streams are many.
    """

    __slots__ = ("_algorithm", "_request", "_warnings")

    def __init__(self, algorithm: CallAlgorithm, request: ChatRequest) -> None:
        self._algorithm = algorithm
        self._request: ChatRequest | None = request
        self._warnings: tuple[str, ...] = ()

    def __call__(self) -> Awaitable[Exchange]:
        """Make the call; the exchange has understood its first event."""
        request, self._request = self._request, None
        assert request is not None
        return self._algorithm._call(request, self._attempt, stream=True)  # pyright: ignore[reportPrivateUsage]

    def warnings(self) -> tuple[str, ...]:
        """What routing left out or changed; ``()`` before the call got so far."""
        return self._warnings

    def _attempt(self, plane: Plane, resolved: Resolved, route: Route) -> Attempt[Exchange]:
        self._warnings = route.warnings
        return self._algorithm._streaming(plane, route)  # pyright: ignore[reportPrivateUsage]


async def _read_body(response: HttpResponse) -> bytes:
    """The whole body of an answer that is not streamed; the connection goes back to its pool."""
    try:
        return await response.read_all(limit=_MAX_BODY)
    finally:
        response.close()
