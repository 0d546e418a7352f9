# Generated from apex_llm/providers/ by python -m apex_llm.sync.generate; do not edit.
"""The providers, without ``await``."""

from __future__ import annotations

__all__ = [
    "AzureOpenAIProvider",
    "BaseLlmProvider",
    "BedrockProvider",
    "SyncLlmProvider",
    "get_provider",
    "provider_for",
]

import ssl
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Unpack, overload

from apex_llm.providers.base import BaseLlmProvider as AsyncBaseLlmProvider
from apex_llm.providers.registry import get_provider as async_get_provider
from apex_llm.providers.registry import provider_for as async_provider_for
from apex_llm.sync._facade import A, AroundProvider, SyncFacade
from apex_llm.sync._streams import EventStream, TextStream
from apex_llm.transport.limits import Limits
from apex_llm.transport.observe import Observer
from apex_llm.transport.retry import RetryStrategy
from apex_llm.types.http import Timeout
from apex_llm.types.messages import Message
from apex_llm.types.models import ModelInfo
from apex_llm.types.requests import ChatOptions, TextOptions
from apex_llm.types.responses import ChatResponse
from apex_llm.types.secrets import Secret
from apex_llm.types.sentinels import NOT_GIVEN, NotGiven

if TYPE_CHECKING:
    from apex_llm.providers.azure_openai.provider import AzureOpenAIProvider as AsyncAzureOpenAIProvider  # noqa: F401
    from apex_llm.providers.bedrock.provider import BedrockProvider as AsyncBedrockProvider  # noqa: F401


class BaseLlmProvider(SyncFacade):
    """One cloud's models behind the methods that all clouds share.

    Use it as ``async with provider: ...``, or call ``aclose()`` when done. An instance may be
    used by any number of tasks at once, and by one event loop after another.
    """

    name: ClassVar[str]
    """``"bedrock"`` or ``"azure_openai"``."""

    @property
    @abstractmethod
    def async_provider(self) -> AsyncBaseLlmProvider:
        """The provider that does the work, on the loop thread of this package."""

    @property
    def default_model(self) -> str | None:
        """For calls that name no model; on Azure a deployment."""
        return self.async_provider.default_model

    @default_model.setter
    def default_model(self, value: str | None) -> None:
        self.async_provider.default_model = value

    @property
    def limits(self) -> Limits:
        """What is shared between calls, such as the retry quota. Give several providers the same one to share it."""
        return self.async_provider.limits

    @limits.setter
    def limits(self, value: Limits) -> None:
        self.async_provider.limits = value

    def initialize(self) -> None:
        """Find region, endpoint and credentials now rather than at the first call.

        Raises:
            ConfigurationError: Something is missing or contradictory; the message names each source tried.
        """
        self._run(self.async_provider.initialize)

    def close(self) -> None:
        """Close all connections. The provider can be used again afterwards; it connects anew."""
        self._run_close(self.async_provider.aclose)

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
        return self._wrap(self.async_provider.with_options(timeout=timeout, retry=retry))

    def get_available_models(self) -> list[ModelInfo]:
        """Everything that can be called now: models, profiles, deployments. ``source`` says who listed it."""
        return self._run(self.async_provider.get_available_models)

    def generate_text(
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
        return self._run(self.async_provider.generate_text, prompt, model, max_tokens, temperature, **options)

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
        return TextStream(
            self.async_provider.generate_text_stream(prompt, model, max_tokens, temperature, **options),
            thread=self._thread,
        )

    def chat(
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
        return self._run(self.async_provider.chat, messages, model=model, **options)

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
        return EventStream(self.async_provider.chat_stream(messages, model=model, **options), thread=self._thread)


class SyncLlmProvider(AroundProvider[A], BaseLlmProvider):
    """Any async provider, without ``await``: ``SyncLlmProvider(MyProvider(...))``.

    Args:
        provider: The async one, as ``async_provider`` gives it back.
    """


class AzureOpenAIProvider(SyncLlmProvider["AsyncAzureOpenAIProvider"]):
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
        from apex_llm.providers.azure_openai.provider import AzureOpenAIProvider as AsyncAzureOpenAIProvider

        super().__init__(
            AsyncAzureOpenAIProvider(
                api_key_manager,
                api_base,
                api_version,
                plugin=plugin,
                api_key=api_key,
                azure_ad_token=azure_ad_token,
                azure_ad_token_provider=azure_ad_token_provider,
                credential=credential,
                default_deployment=default_deployment,
                api=api,
                resource_id=resource_id,
                deployments=deployments,
                http_client=http_client,
                max_connections=max_connections,
                timeout=timeout,
                retry=retry,
                limits=limits,
                strict_streams=strict_streams,
                ssl_context=ssl_context,
                observers=observers,
                trust_env=trust_env,
                allow_insecure=allow_insecure,
            )
        )

    @property
    def default_deployment(self) -> str | None:
        """The deployment of calls that name none."""
        return self.async_provider.default_deployment

    def close(self) -> None:
        """Close all connections. The provider can be used again afterwards; it connects anew."""
        self._run_close(self.async_provider.aclose)

    def _get_deployment_model(self, deployment_id: str) -> str | None:
        """The model behind a deployment, or ``None`` where neither a listing nor an answer has told it."""
        return self._run(self.async_provider._get_deployment_model, deployment_id)  # pyright: ignore[reportPrivateUsage]


class BedrockProvider(SyncLlmProvider["AsyncBedrockProvider"]):
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
        from apex_llm.providers.bedrock.provider import BedrockProvider as AsyncBedrockProvider

        super().__init__(
            AsyncBedrockProvider(
                api_key_manager,
                aws_region,
                plugin=plugin,
                credentials=credentials,
                bearer_token=bearer_token,
                profile=profile,
                default_model=default_model,
                endpoint_url=endpoint_url,
                api=api,
                families=families,
                aliases=aliases,
                http_client=http_client,
                max_connections=max_connections,
                timeout=timeout,
                retry=retry,
                limits=limits,
                strict_streams=strict_streams,
                ssl_context=ssl_context,
                observers=observers,
                trust_env=trust_env,
                allow_insecure=allow_insecure,
            )
        )

    def close(self) -> None:
        """Close all connections. The provider can be used again afterwards; it connects anew."""
        self._run_close(self.async_provider.aclose)


@overload
def get_provider(name: Literal["bedrock", "aws_bedrock"], **config: Any) -> BedrockProvider: ...


@overload
def get_provider(name: Literal["azure", "azure_openai"], **config: Any) -> AzureOpenAIProvider: ...


@overload
def get_provider(name: str, **config: Any) -> BaseLlmProvider: ...


def get_provider(name: str, **config: Any) -> BaseLlmProvider:
    """A provider by its name, such as ``"bedrock"`` or ``"azure"``.

    A model may follow: ``"bedrock:claude"``, or ``"azure/my-deployment"``, is the provider with that default.

    Args:
        name: Provider, and perhaps model.
        **config: Arguments of the provider's constructor.

    Raises:
        ConfigurationError: No provider has that name.
    """
    return _twin(async_get_provider(name, **config))


def provider_for(manager: Any, plugin: Any, service: str, **config: Any) -> BaseLlmProvider:
    """A provider whose credentials are taken from ``manager`` in a plugin's name.

    The plugin gets something that works, without the secret. Each retrieval is checked against the
    plugin's permissions, and a revoked one fails at the next call that needs it.

    Args:
        manager: An ``ApiKeyManager``, or anything with ``get_api_key_secure(plugin, service)``. Grants that may not
            be exported are honoured too, since the plugin does not see the secret.
        plugin: The plugin's name, or the ``PluginHandle`` that the host made for it.
        service: ``"aws_bedrock"`` or ``"azure_openai"``.
        **config: Further arguments of the provider's constructor.

    Raises:
        ConfigurationError: ``manager`` is no key manager, ``plugin`` is nobody, or no provider has that name.
    """
    return _twin(async_provider_for(manager, plugin, service, **config))


def _twin(provider: AsyncBaseLlmProvider) -> BaseLlmProvider:
    if type(provider).__module__ == "apex_llm.providers.azure_openai.provider":
        from apex_llm.providers.azure_openai.provider import AzureOpenAIProvider as AsyncAzureOpenAIProvider

        if type(provider) is AsyncAzureOpenAIProvider:
            return AzureOpenAIProvider._around(provider)  # pyright: ignore[reportPrivateUsage]
    if type(provider).__module__ == "apex_llm.providers.bedrock.provider":
        from apex_llm.providers.bedrock.provider import BedrockProvider as AsyncBedrockProvider

        if type(provider) is AsyncBedrockProvider:
            return BedrockProvider._around(provider)  # pyright: ignore[reportPrivateUsage]
    return SyncLlmProvider(provider)
