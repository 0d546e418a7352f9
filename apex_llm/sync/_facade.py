"""What every generated class stands on: an async provider inside, and calls that wait for it."""

from __future__ import annotations

__all__ = ["AroundProvider", "SyncFacade"]

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, Self, TypeVar

from apex_llm.providers.base import BaseLlmProvider
from apex_llm.sync._loop_thread import SHARED, LoopThread

A = TypeVar("A", bound=BaseLlmProvider)
P = ParamSpec("P")
T = TypeVar("T")


class SyncFacade(ABC):
    """A provider without ``await``. The methods are generated; this is what their one-line bodies call."""

    _thread: LoopThread = SHARED

    @property
    @abstractmethod
    def async_provider(self) -> BaseLlmProvider:
        """The provider that does the work, on the loop thread of this package."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close all connections. The provider can be used again afterwards; it connects anew."""

    def __repr__(self) -> str:
        return repr(self.async_provider)

    @abstractmethod
    def _wrap(self, provider: Any) -> Self:
        """The same facade, subclass and attributes included, around another async provider."""

    def _run(self, method: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.run(method, *args, **kwargs)

    def _run_close(self, method: Callable[[], Coroutine[Any, Any, None]], /) -> None:
        # At exit everything was closed already, and no thread may be started any more.
        if not self._thread.ended:
            self._thread.run(method)


class AroundProvider(SyncFacade, Generic[A]):
    """Any async provider, without ``await``.

    Args:
        provider: The async one. It may go on being used as such.
    """

    def __init__(self, provider: A) -> None:
        self._provider = provider
        vars(self)["name"] = provider.name  # the class attribute of a provider that has no generated class

    @property
    def async_provider(self) -> A:
        """The provider that does the work, on the loop thread of this package."""
        return self._provider

    @classmethod
    def _around(cls, provider: A) -> Self:
        facade = cls.__new__(cls)
        facade._provider = provider
        return facade

    def _wrap(self, provider: A) -> Self:
        import copy

        other = copy.copy(self)
        other._provider = provider
        return other
