"""What others hold instead of the manager: a plugin its own name, proven; a provider what it needs, and no more."""

from __future__ import annotations

__all__ = ["PluginHandle", "ProviderAccess"]

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from apex_llm.keys.document import Value
from apex_llm.keys.tracebacks import clears_tracebacks


class _Retrieve(Protocol):
    def __call__(self, handle: PluginHandle, operation: str, service: str, model: str | None) -> Any: ...


@clears_tracebacks
class PluginHandle:
    """One plugin's access to the key manager, minted by the host with ``ApiKeyManager.plugin_handle(name)``.

    A plugin that is given its handle, and not the manager, can ask in no other name by mistake. It is
    no wall: code that wants to can reach everything in its own process.
    """

    __slots__ = ("__weakref__", "_name", "_retrieve", "_services")

    def __init__(self, name: str, retrieve: _Retrieve, services: Callable[[PluginHandle], list[str]]) -> None:
        self._name = name
        self._retrieve = retrieve
        self._services = services

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self._name

    def get_api_key(self, service: str, *, model: str | None = None) -> str | dict[str, Any] | None:
        """As ``ApiKeyManager.get_api_key_secure``, in this plugin's name."""
        return self._retrieve(self, "get_api_key", service, model)

    def get_oauth_token(self, service: str, *, model: str | None = None) -> dict[str, Any] | str | None:
        """As ``ApiKeyManager.get_oauth_token_secure``, in this plugin's name."""
        return self._retrieve(self, "get_oauth_token", service, model)

    def services(self) -> list[str]:
        """The services that were granted to it and have not expired."""
        return self._services(self)

    def __repr__(self) -> str:
        return f"PluginHandle({self._name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A PluginHandle cannot be pickled or copied: it is valid for the manager that made it.")

    def __copy__(self) -> NoReturn:
        self.__reduce__()

    def __deepcopy__(self, memo: Any) -> NoReturn:
        self.__reduce__()


@clears_tracebacks
class ProviderAccess:
    """What a provider needs of a manager, and no more. Made by ``ApiKeyManager.provider_access``."""

    def __init__(
        self,
        get_api_key: Callable[[str], Value | None],
        get_secure: Callable[..., Value | None],
        permit_model: Callable[[str | PluginHandle, str, Sequence[str]], None],
    ) -> None:
        self._get_api_key = get_api_key
        self._get_secure = get_secure
        self._permit_model = permit_model

    def __repr__(self) -> str:
        return "ProviderAccess()"

    def get_api_key(self, service: str) -> str | dict[str, Any] | None:
        """As the manager's."""
        return self._get_api_key(service)

    def get_api_key_secure(
        self, plugin: str | PluginHandle, service: str, *, model: str | None = None
    ) -> str | dict[str, Any] | None:
        """As the manager's, for use on the plugin's behalf. Before each call, ``permit_model`` must be asked."""
        return self._get_secure("get_api_key", plugin, service, model, for_provider=True)

    def permit_model(self, plugin: str | PluginHandle, service: str, models: Sequence[str]) -> None:
        """Return if the plugin may use a model; every call is a line in the audit log.

        Args:
            plugin: Its name or handle.
            service: Whose model.
            models: What it is called on the wire, and then its other names; a grant for one of them is enough.

        Raises:
            KeyAccessDeniedError: It was not granted, or no longer is.
        """
        self._permit_model(plugin, service, models)
