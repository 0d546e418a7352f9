"""Credentials held by a key manager, followed while the provider runs.

A manager is whatever has ``get_api_key(service)``, or ``get_api_key_secure(plugin, service)``
when a plugin's permissions are to be checked. It is asked in a thread, at most every few
seconds, so a rotated key reaches running providers and a revoked one leaves them.
"""

from __future__ import annotations

__all__ = ["ManagerCredentials", "credentials_from_manager", "manager_for"]

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, TypeVar, cast

import msgspec

from apex_llm.credentials.aws_explicit import from_mapping
from apex_llm.credentials.azure_tokens import AzureToken, HeaderKind, azure_api_key, azure_bearer
from apex_llm.credentials.cached import CachedCredentials, Fetched
from apex_llm.credentials.threads import call
from apex_llm.errors import (
    ApexLlmError,
    ConfigurationError,
    KeyAccessDeniedError,
    MissingCredentialsError,
)
from apex_llm.types.secrets import AccessToken, AwsCredentials, CredentialSource, Secret

_INTERVAL = 2.0
_MOST_PERMITTED = 256
_HINT = "Pass an ApiKeyManager, or an object with the same methods."
_BEARER = ("bearer_token", "aws_bearer_token_bedrock", "api_key")
_API_KEY = ("api_key", "azure_api_key", "azure_openai_api_key", "key")
_AD_TOKEN = ("azure_ad_token", "ad_token", "bearer_token")

_ALIASES = {
    "aws_region": ("region", "region_name"),
    "api_base": ("endpoint", "azure_endpoint", "base_url"),
    "default_deployment": ("deployment", "deployment_id", "deployment_name"),
}

T = TypeVar("T", AwsCredentials, AccessToken, AzureToken)


class _Entry(msgspec.Struct, frozen=True):
    """What the manager holds for the service just now."""

    values: Mapping[str, Any] | None
    expires_at: float | None = None

    def __repr__(self) -> str:
        return "_Entry()"


def credentials_from_manager(
    manager: Any,
    service: str,
    *,
    plugin: str | None = None,
    interval: float = _INTERVAL,
    clock: Callable[[], float] = time.monotonic,
) -> ManagerCredentials:
    """What ``manager`` holds for ``service``, as credential sources.

    Args:
        manager: Has ``get_api_key(service)`` or, for ``plugin``, ``get_api_key_secure(plugin, service)``; and perhaps
            ``provider_access``, which has the same and ``permit_model(plugin, service, models)``.
        service: Such as ``aws_bedrock``.
        plugin: In whose name to ask.
        interval: Seconds between two looks.
        clock: Seconds that only grow: a clock that was set back would let a key that was taken away stay.

    Raises:
        ConfigurationError: It is no such manager.
    """
    manager = manager_for(manager, plugin=plugin)
    return ManagerCredentials(manager, service, plugin=plugin, interval=interval, clock=clock)


def manager_for(manager: Any, *, plugin: Any = None) -> Any:
    """Whom to ask: ``manager`` itself, or what it has for providers that ask in a plugin's name.

    Objects that answer to every name, such as mocks and remote proxies, are asked themselves: what they would give
    for ``provider_access`` is nobody's.

    Raises:
        ConfigurationError: It is no such manager.
    """
    if isinstance(manager, type):
        raise ConfigurationError(f"The key manager is the class {manager.__name__}, not an object of it.", hint=_HINT)
    wanted = {"get_api_key": True}
    if plugin is not None:
        method = "get_api_key_secure"
        wanted = {method: True, "permit_model": False}
        access = getattr(manager, "provider_access", None)
        if access is not None and _really_has(access, method):
            manager = access
        elif access is not None and _has_static(manager, "provider_access"):
            raise ConfigurationError(
                f"The key manager's provider_access (of a {type(manager).__name__}) is a {type(access).__name__} "
                f"without {method}().",
                hint="It is a property whose value has get_api_key_secure() and permit_model(), or is not there.",
            )
    for name, needed in wanted.items():
        found = getattr(manager, name, None)
        if not callable(found) and (needed or found is not None):
            what = "no method" if found is None else f"a {type(found).__name__} for the method"
            raise ConfigurationError(f"The key manager (a {type(manager).__name__}) has {what} {name}().", hint=_HINT)
    return manager


def _has_static(thing: Any, name: str) -> bool:
    """Whether the name is there, rather than made up when it is asked for."""
    return inspect.getattr_static(thing, name, None) is not None


def _really_has(thing: Any, method: str) -> bool:
    return _has_static(thing, method) and callable(getattr(thing, method, None))


class ManagerCredentials:
    """One service's entry of a key manager. Made by ``credentials_from_manager``."""

    def __init__(
        self, manager: Any, service: str, *, plugin: str | None, interval: float, clock: Callable[[], float]
    ) -> None:
        self._manager = manager
        self._service = service
        self._plugin = plugin
        self._interval = interval
        self._clock = clock
        self._last: _Entry | None = None
        self._permit_model = None if plugin is None else getattr(manager, "permit_model", None)
        self._permitted: dict[tuple[str, ...], float] = {}
        self.cache: CachedCredentials[_Entry] = CachedCredentials(
            self._fetch, name=f"The key manager's entry {service!r}", retry_after=interval, clock=clock
        )

    def __repr__(self) -> str:
        return f"ManagerCredentials({self._service!r}, plugin={self._plugin!r})"

    @property
    def service(self) -> str:
        """The service's name."""
        return self._service

    @property
    def kind(self) -> Literal["keys", "bearer"] | None:
        """What was held at the last look: a key pair of AWS, a single key or token, or nothing."""
        values = None if self._last is None else self._last.values
        if values is None:
            return None
        return "bearer" if _one(values, _BEARER) and not _one(values, ("aws_access_key_id",)) else "keys"

    @property
    def header(self) -> HeaderKind | None:
        """The header that an entry of Azure goes into, as of the last look."""
        values = None if self._last is None else self._last.values
        if values is None:
            return None
        return "bearer" if _one(values, _AD_TOKEN) else "api-key"

    @property
    def checks_models(self) -> bool:
        """Whether the manager wants to know the model of each call."""
        return self._permit_model is not None

    async def permit(self, models: tuple[str, ...]) -> None:
        """Return if the manager lets the plugin use a model; a yes holds as long as a look at its entry does.

        Args:
            models: What it is called on the wire, and then its other names.

        Raises:
            KeyAccessDeniedError: The plugin may not use it.
        """
        now = self._clock()
        if self._permit_model is None or self._permitted.get(models, 0.0) > now:
            return
        await call(self._permit_model, self._plugin, self._service, models)
        if len(self._permitted) >= _MOST_PERMITTED:
            self._permitted.clear()
        self._permitted[models] = now + self._interval

    async def settings(self) -> Mapping[str, Any]:
        """What the entry holds besides secrets, such as ``aws_region``, ``api_base``, ``default_deployment``.

        Other usual names (``region``, ``endpoint``, ``deployment``) are there under these too. ``{}`` without an entry.

        Raises:
            KeyAccessDeniedError: The plugin may not have it.
            KeyStoreError: The manager could not open its store.
        """
        values = (await self.cache.get()).values or {}
        secret = ("key", "secret", "token", "password")
        kept = {name: value for name, value in values.items() if not any(word in name.lower() for word in secret)}
        for name, others in _ALIASES.items():
            if name not in kept and (other := next((other for other in others if other in kept), None)):
                kept[name] = kept[other]
        return kept

    def aws(self, *, fallback: CredentialSource[AwsCredentials] | None = None) -> CredentialSource[AwsCredentials]:
        """The entry as a key pair; ``fallback`` is asked while the manager holds nothing."""

        def convert(values: Mapping[str, Any]) -> AwsCredentials | None:
            return from_mapping(values, source=f"key manager ({self._service})")

        return _Held(self, convert, fallback)

    def bearer(self, *, fallback: CredentialSource[AccessToken] | None = None) -> CredentialSource[AccessToken]:
        """The entry as one key or token."""

        def convert(values: Mapping[str, Any]) -> AccessToken | None:
            key = _one(values, _BEARER)
            if not key:
                return None
            return AccessToken(value=Secret(key, name=self._service), source=f"key manager ({self._service})")

        return _Held(self, convert, fallback)

    def azure(self, *, fallback: CredentialSource[AzureToken] | None = None) -> CredentialSource[AzureToken]:
        """The entry as an API key or an Entra token of Azure."""

        def convert(values: Mapping[str, Any]) -> AzureToken | None:
            source = f"key manager ({self._service})"
            if token := _one(values, _AD_TOKEN):
                return azure_bearer(token, source=source)
            key = _one(values, _API_KEY)
            return azure_api_key(key, source=source) if key else None

        return _Held(self, convert, fallback)

    def missing(self) -> MissingCredentialsError:
        """The error for an entry that is not there."""
        return MissingCredentialsError(
            f"The key manager holds no credentials for {self._service!r}.",
            hint=f"set_api_key({self._service!r}, ...)",
        )

    def unusable(self) -> MissingCredentialsError:
        """The error for an entry that is something else."""
        return MissingCredentialsError(
            f"The key manager's entry {self._service!r} holds no credentials of the kind that is needed.",
            hint="It is empty, or of another kind; make a new provider after changing from one kind to another.",
        )

    async def _fetch(self) -> Fetched[_Entry]:
        try:
            if self._plugin is None:
                given = await call(self._manager.get_api_key, self._service)
            else:
                given = await call(self._manager.get_api_key_secure, self._plugin, self._service)
        except ApexLlmError:
            raise
        except PermissionError as error:
            raise KeyAccessDeniedError(
                f"The key manager refused {self._service!r} to {self._plugin or 'this program'}."
            ) from error
        values = self._values(given)
        if self._last is None or self._last.values != values:
            self._last = _Entry(values)
        return Fetched(self._last, block_at=self._clock() + self._interval)

    def _values(self, given: Any) -> Mapping[str, Any] | None:
        if isinstance(given, Secret):
            given = given.reveal()
        if isinstance(given, str) and given.lstrip().startswith("{"):
            try:
                given = msgspec.json.decode(given)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                raise self.unusable() from None
        if given is None or given == "" or given == {}:
            return None
        if isinstance(given, str):
            return {"api_key": given}
        if isinstance(given, Mapping):
            return {str(name): value for name, value in cast("Mapping[Any, Any]", given).items()}
        raise ConfigurationError(
            f"The key manager's entry {self._service!r} is of type {type(given).__name__}.",
            hint="Store a string or a dictionary.",
        )


class _Held(Generic[T]):
    """A ``CredentialSource`` over the entry, converted once for each new content."""

    def __init__(
        self,
        manager: ManagerCredentials,
        convert: Callable[[Mapping[str, Any]], T | None],
        fallback: CredentialSource[T] | None,
    ) -> None:
        self._manager = manager
        self._cache = manager.cache
        self._convert = convert
        self._fallback = fallback
        self._made: tuple[_Entry, T] | None = None

    def __repr__(self) -> str:
        return f"{self._manager!r}"

    def current(self) -> T | None:
        """The credentials, if the manager was asked within the last seconds."""
        entry = self._cache.current()
        if entry is None:
            return None
        made = self._made
        if made is not None and made[0] is entry:
            return made[1]
        if entry.values is None and self._fallback is not None:
            return self._fallback.current()
        return None

    async def get(self) -> T:
        """The credentials as the manager holds them now.

        Raises:
            MissingCredentialsError: It holds none, and nobody else does.
            KeyAccessDeniedError: The plugin may not have them.
        """
        entry = await self._cache.get()
        made = self._made
        if made is not None and made[0] is entry:
            return made[1]
        if entry.values is None:
            if self._fallback is None:
                raise self._manager.missing()
            return await self._fallback.get()
        value = self._convert(entry.values)
        if value is None:
            raise self._manager.unusable()
        self._made = (entry, value)
        return value

    def invalidate(self) -> None:
        """Ask again before the next call."""
        if self._fallback is not None and self._manager.kind is None:
            self._fallback.invalidate()
        self._cache.invalidate()


def _one(values: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = values.get(name)
        if isinstance(value, Secret):
            value = value.reveal()
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""
