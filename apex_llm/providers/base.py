"""What every provider is to its users: the methods that all clouds share, and how they are set up and closed.

How a call is made is ``algorithm``'s business. A provider fills in the hooks there, and the two here.
"""

from __future__ import annotations

__all__ = ["BaseLlmProvider", "Plane", "Resolved", "Route"]

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, Unpack, cast

import msgspec

from apex_llm.errors import ApexLlmError, InvalidRequestError
from apex_llm.providers.algorithm import CallAlgorithm, Plane, Resolved, Route, StreamOpening
from apex_llm.providers.arguments import check_argument, checked_policy
from apex_llm.streaming import EventStream, TextStream, content_filtered
from apex_llm.transport.limits import Limits
from apex_llm.transport.retry import RetryPolicy, RetryStrategy
from apex_llm.types.coerce import (
    as_messages,
    as_stop,
    as_timeout,
    as_tool_choice,
    as_tools,
    check_options,
)
from apex_llm.types.http import Timeout
from apex_llm.types.messages import Message
from apex_llm.types.models import ModelInfo
from apex_llm.types.requests import ChatOptions, ChatRequest, TextOptions
from apex_llm.types.responses import ChatResponse
from apex_llm.types.sentinels import NOT_GIVEN, NotGiven

_REASONING_SECONDS = 300.0
_NUMBERS = frozenset({int, float})
_INFINITY = float("inf")


class BaseLlmProvider(CallAlgorithm):
    """One cloud's models behind the methods that all clouds share.

    Use it as ``async with provider: ...``, or call ``aclose()`` when done. An instance may be
    used by any number of tasks at once, and by one event loop after another.
    """

    name: ClassVar[str]
    """``"bedrock"`` or ``"azure_openai"``."""

    def __init__(
        self,
        *,
        default_model: str | None = None,
        timeout: float | Timeout | NotGiven | None = NOT_GIVEN,
        retry: RetryStrategy | NotGiven | None = NOT_GIVEN,
        limits: Limits | None = None,
        strict_streams: bool = False,
    ) -> None:
        check_argument("The default model or deployment", default_model, str, "its name, as text")
        check_argument("limits=", limits, Limits, "a Limits(...)")
        retry = RetryPolicy() if isinstance(retry, NotGiven) else checked_policy(retry)
        super().__init__(timeout=as_timeout(timeout, Timeout()), retry=retry, strict_streams=strict_streams)
        self.default_model: str | None = default_model
        """For calls that name no model; on Azure a deployment."""
        self.limits: Limits = limits if limits is not None else Limits()
        """What is shared between calls, such as the retry quota. Give several providers the same one to share it."""
        self._timeout_chosen = isinstance(timeout, Timeout) or timeout is None

    # Life ------------------------------------------------------------------------------------

    async def initialize(self) -> None:
        """Find region, endpoint and credentials now rather than at the first call.

        Raises:
            ConfigurationError: Something is missing or contradictory; the message names each source tried.
        """
        self._deadline(self._timeout)
        try:
            plane = await self._plane()
            await self._check_credentials(plane)
        except ApexLlmError as error:
            error.provider = error.provider or self.name
            raise
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
            other._retry = checked_policy(retry)
        return other

    def __repr__(self) -> str:
        return f"{type(self).__name__}(default_model={self.default_model!r})"

    # Calls -----------------------------------------------------------------------------------

    async def get_available_models(self) -> list[ModelInfo]:
        """Everything that can be called now: models, profiles, deployments. ``source`` says who listed it."""
        self._deadline(self._timeout)
        try:
            return await self._list_models()
        except ApexLlmError as error:
            error.provider = error.provider or self.name
            raise
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
        response = await self._call(request, self._answering, stream=False)
        if response.blocked:
            raise content_filtered(response, provider=self.name)
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
        opening = StreamOpening(self, request)
        return TextStream(opening, provider=self.name, model=request.model, request_warnings=opening.warnings)

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
        request = self._request("chat", messages, model, options)
        return await self._call(request, self._answering, stream=False)

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
        opening = StreamOpening(self, request)
        return EventStream(opening, provider=self.name, model=request.model, request_warnings=opening.warnings)

    # Hooks, besides those of the algorithm ------------------------------------------------------

    @abstractmethod
    async def _check_credentials(self, plane: Plane) -> None:
        """Get the credentials once, so that missing ones are an error of the set-up."""

    @abstractmethod
    async def _list_models(self) -> list[ModelInfo]:
        """What ``get_available_models`` gives."""

    # From arguments to a request ----------------------------------------------------------------

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
        if (
            not given
            and (model is None or model.__class__ is str)
            and (max_tokens is None or (max_tokens.__class__ is int and max_tokens > 0))
            and (temperature is None or (temperature.__class__ in _NUMBERS and 0 <= temperature < _INFINITY))
        ):
            # Most calls; what follows finds out nothing more for them, at four times the price.
            return ChatRequest(
                model=model or self.default_model or "",
                messages=as_messages(messages),
                max_tokens=max_tokens,
                temperature=temperature,
                timeout=self._timeout,
            )
        check_options({"model": model, "max_tokens": max_tokens, "temperature": temperature, **given}, method=method)
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
