"""Providers by name, and a working provider for a plugin that never sees the key."""

from __future__ import annotations

__all__ = ["get_provider", "provider_for"]

from typing import TYPE_CHECKING, Any, Final, Literal, overload

from apex_llm.errors import ConfigurationError
from apex_llm.providers.base import BaseLlmProvider

# A provider is imported when it is asked for: who uses one cloud does not pay for the other.
if TYPE_CHECKING:
    from apex_llm.providers.azure_openai import AzureOpenAIProvider
    from apex_llm.providers.bedrock import BedrockProvider

_HINT: Final = "Pass the plugin's name or handle; for the application itself, make the provider with api_key_manager=."
_NAMES: Final = ("aws_bedrock", "azure", "azure_openai", "bedrock")


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
    separator = next((character for character in name if character in ":/"), ":")
    kind, _, model = name.partition(separator)
    match kind:
        case "bedrock" | "aws_bedrock":
            from apex_llm.providers.bedrock import BedrockProvider

            if model:
                config.setdefault("default_model", model)
            return BedrockProvider(**config)
        case "azure" | "azure_openai":
            from apex_llm.providers.azure_openai import AzureOpenAIProvider

            if model:
                config.setdefault("default_deployment", model)
            return AzureOpenAIProvider(**config)
        case _:
            raise ConfigurationError(
                f"There is no provider named {kind!r}.", phase="prepare", hint=f"Names are {', '.join(_NAMES)}."
            )


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
    from apex_llm.credentials.manager import manager_for

    if plugin is None or plugin == "":
        # Asked in nobody's name, a manager would check nothing.
        raise ConfigurationError(f"provider_for was given no plugin ({plugin!r}).", phase="prepare", hint=_HINT)
    return get_provider(service, api_key_manager=manager_for(manager, plugin=plugin), plugin=plugin, **config)
