"""What a plugin holds instead of the manager: its own name, proven."""

from __future__ import annotations

__all__ = ["PluginHandle"]

from collections.abc import Callable
from typing import Any, NoReturn, Protocol

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
