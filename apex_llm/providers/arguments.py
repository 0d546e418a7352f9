"""What constructors of providers are given, checked for its kind before anything is made of it."""

from __future__ import annotations

__all__ = ["check_argument", "check_plugin", "check_transport", "checked_policy"]

import ssl
from typing import Any

from apex_llm.errors import ConfigurationError
from apex_llm.transport.retry import RetryStrategy


def check_argument(name: str, value: object, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Raise ``ConfigurationError`` for an argument of the wrong kind; ``None`` is none."""
    if value is not None and not isinstance(value, kinds):
        raise ConfigurationError(f"{name} is of type {type(value).__name__}.", hint=f"Pass {wanted}.")


def check_plugin(plugin: object, *, manager: object) -> None:
    """Refuse a plugin in whose name nobody can be asked: it would get the application's own credentials, unchecked.

    Raises:
        ConfigurationError: It has no name, or there is no key manager.
    """
    if plugin is not None and (manager is None or plugin == ""):
        what = "no key manager" if manager is None else "no name"
        raise ConfigurationError(
            f"A provider for a plugin was given {what} (plugin={plugin!r}).",
            phase="prepare",
            hint="Pass api_key_manager= too; without plugin=, the provider is one for the application.",
        )


def checked_policy(retry: RetryStrategy | None) -> RetryStrategy | None:
    """The policy, if it is one.

    Raises:
        ConfigurationError: It is a number, for instance.
    """
    if retry is not None and not callable(getattr(retry, "next_delay", None)):
        raise ConfigurationError(
            f"retry= is of type {type(retry).__name__}.",
            hint="Pass RetryPolicy(max_attempts=...), where the first attempt counts too, or None for no retries.",
        )
    return retry


def check_transport(*, http_client: Any, max_connections: Any, ssl_context: Any, observers: Any) -> None:
    """Refuse what requests cannot be sent with.

    Raises:
        ConfigurationError: An argument is of the wrong kind, or two exclude each other.
    """
    check_argument(
        "ssl_context=",
        ssl_context,
        ssl.SSLContext,
        "an ssl.SSLContext; for authorities of your own, ssl.create_default_context(cafile=...)",
    )
    if max_connections is not None and not (isinstance(max_connections, int) and max_connections > 0):
        raise ConfigurationError(
            f"max_connections must be None or at least 1, not {max_connections!r}.", hint="Leave it out for no limit."
        )
    if http_client is not None and not (hasattr(http_client, "build_request") and hasattr(http_client, "aclose")):
        # A blocking client would send the request whole, and then fail over the answer.
        raise ConfigurationError(
            f"http_client= is of type {type(http_client).__module__}.{type(http_client).__qualname__}.",
            hint="Pass an httpx.AsyncClient or httpx2.AsyncClient; to apex_llm.sync too.",
        )
    if max_connections is not None and http_client is not None:
        raise ConfigurationError(
            "Both max_connections= and http_client= were given.",
            hint="Set the limit of connections where the client is made: httpx.Limits(max_connections=...).",
        )
    if callable(observers) or not all(hasattr(observer, "attempt_started") for observer in observers):
        raise ConfigurationError(
            "observers= holds something that is no observer.", hint="Pass a list of objects of subclasses of Observer."
        )
