"""``ApiKeyManager``: credentials by service, handed to those who may have them.

The interface that ApexAgent's plan names, over an encrypted file. All methods are synchronous and
may be called from any thread; from a coroutine, call them through ``asyncio.to_thread``.

Here are the credentials themselves; the other methods are in ``granting``, ``rotating``, ``inspecting`` and
``moving``, and what all of them stand on in ``custodian``.
"""

from __future__ import annotations

__all__ = ["ApiKeyManager", "CreatedStore"]

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from apex_llm.errors import ConfigurationError, KeyAccessDeniedError
from apex_llm.keys.agefile import new_identity, recipient_of
from apex_llm.keys.audit import fingerprint
from apex_llm.keys.document import (
    Document,
    Kind,
    Record,
    Value,
    Version,
    check_model,
    check_name,
    check_number,
    check_value,
    copied,
)
from apex_llm.keys.granting import Granting
from apex_llm.keys.handles import PluginHandle, ProviderAccess
from apex_llm.keys.inspecting import Inspecting
from apex_llm.keys.moving import Moving
from apex_llm.keys.permissions import Decision, decide, granted_services
from apex_llm.keys.reports import CredentialInfo
from apex_llm.keys.rotating import Rotating
from apex_llm.keys.tracebacks import clears_tracebacks
from apex_llm.keys.unlockers import generate_master_key
from apex_llm.types.secrets import Secret

_DAY = 86_400.0
_KINDS: dict[str, tuple[Kind, ...]] = {
    "all": ("api_key", "oauth_token"),
    "api_key": ("api_key",),
    "api_keys": ("api_key",),
    "oauth_token": ("oauth_token",),
    "oauth_tokens": ("oauth_token",),
}


class CreatedStore(NamedTuple):
    """A new store, and the key that opens it when all else is lost."""

    manager: ApiKeyManager
    recovery_key: Secret | None
    """``AGE-SECRET-KEY-1…``: show it once, to be kept on paper. It is stored nowhere."""


@clears_tracebacks
class ApiKeyManager(Granting, Rotating, Inspecting, Moving):
    """An encrypted store of API keys and OAuth tokens, with permissions for plugins and an audit log.

    Nothing is opened, imported or asked for until the first use.

    Args:
        path: The store's directory; ``APEX_LLM_HOME``, or ``~/.local/share/apex-llm``, when left out.
        passphrase: The passphrase, or a function that asks for it (``prompt_passphrase`` asks on the terminal).
        master_key: Base64 of 32 bytes; ``APEX_LLM_MASTER_KEY``, ``APEX_LLM_MASTER_KEY_FILE`` (a path) or
            ``APEX_LLM_MASTER_KEY_COMMAND`` (prints it; no shell) when left out.
        unlockers: Who knows the key, instead of passphrase, master key and system keyring, in this order.
        strict: ``get_api_key_secure`` takes only handles from ``plugin_handle()``, no plain names.
        audit: ``"required"`` hands out nothing that could not be written to the log; ``"on"`` warns; ``"off"``.
        anchor: Keeps the generation outside, ``"keyring"`` or your own: an older store put in place is refused.
        minimum_generation: Refuse a store that is older than this.
        create: Make a store at the first write, if there has never been one.
        lock_timeout: Seconds to wait for other processes that are writing.
        environ: Read instead of the process environment.
        clock: Seconds since the epoch.
        os_layer: System calls, for tests.
    """

    @classmethod
    def create(
        cls, path: str | os.PathLike[str] | None = None, *, recovery: bool = True, **options: Any
    ) -> CreatedStore:
        """Make an empty store. The first unlocker that can hold or give a key opens it from now on.

        Args:
            path: As for the constructor.
            recovery: Make a recovery key too.
            **options: The constructor's other arguments.

        Raises:
            KeyStoreError: There is a store already, or it cannot be written.
            NoUnlockerError: Nothing was given that could open it later.
        """
        manager = cls(path, **options)
        key = new_identity() if recovery else None
        manager._create(recovery=None if key is None else recipient_of(key))
        return CreatedStore(manager, None if key is None else Secret(key, name="recovery_key"))

    @staticmethod
    def generate_master_key() -> Secret:
        """A new master key for ``APEX_LLM_MASTER_KEY``: base64 of 32 random bytes."""
        return generate_master_key()

    # --- credentials, for the application itself

    def set_api_key(self, service: str, value: str | Secret | Mapping[str, Any]) -> None:
        """Store the credential of a service: a string, or a dictionary such as ``{"aws_access_key_id": …}``.

        Raises:
            ConfigurationError: The name or the value cannot be stored.
            KeyStoreError: The store cannot be opened or written; it is as it was.
        """
        self._set("set_api_key", service, "api_key", value)

    def get_api_key(self, service: str) -> str | dict[str, Any] | None:
        """The credential of a service as it was stored, or ``None``. Yours to change.

        Raises:
            KeyStoreError: The store does not open.
        """
        return self._get("get_api_key", service, "api_key")

    def set_oauth_token(self, service: str, token: Mapping[str, Any] | str | Secret) -> None:
        """Store an OAuth token: ``{"access_token": …, "refresh_token": …, "expires_at": …}``.

        Raises:
            ConfigurationError: The name or the value cannot be stored.
            KeyStoreError: The store cannot be opened or written; it is as it was.
        """
        self._set("set_oauth_token", service, "oauth_token", token)

    def get_oauth_token(self, service: str) -> str | dict[str, Any] | None:
        """The OAuth token of a service as it was stored, expired or not; or ``None``.

        Raises:
            KeyStoreError: The store does not open.
        """
        return self._get("get_oauth_token", service, "oauth_token")

    def rotate_credential(
        self,
        service: str,
        value: str | Secret | Mapping[str, Any],
        *,
        kind: Kind = "api_key",
        overlap_days: float = 1.0,
    ) -> None:
        """Store a new credential, and keep the former one for an overlap (``get_previous``).

        Raises:
            ConfigurationError: There is none to replace, or the value or the overlap cannot be stored.
            KeyStoreError: The store cannot be opened or written; it is as it was.
        """
        overlap = check_number(overlap_days, what="overlap_days") * _DAY
        self._set("rotate_credential", service, kind, value, overlap=overlap)

    def get_previous(self, service: str, *, kind: Kind = "api_key") -> str | dict[str, Any] | None:
        """The credential that was in force before the last rotation, while its overlap lasts."""
        record = self._record(self._vault.snapshot(), check_name(service, what="service"), kind)
        if record is None or record.previous is None:
            return None
        if record.retire_at is not None and self._clock() >= record.retire_at:
            return None
        return copied(record.previous.value)

    def delete_credential(self, service: str, kind: str = "all") -> bool:
        """Remove what is stored for a service: its ``"api_key"``, ``"oauth_token"`` or ``"all"``.

        Backups beside the store hold it until three more changes were saved.

        Returns:
            Whether there was something to remove.
        """
        service = check_name(service, what="service")
        kinds = _KINDS.get(kind)
        if kinds is None:
            raise ConfigurationError(f"kind is 'api_key', 'oauth_token' or 'all', not {kind!r}.")
        document = self._vault.snapshot()
        if document is None or not any(each in document.credentials.get(service, {}) for each in kinds):
            return False

        def remove(document: Document) -> bool:
            held = document.credentials.get(service, {})
            removed = [held.pop(each, None) for each in kinds]
            if not held:
                document.credentials.pop(service, None)
            return any(removed)

        return self._change("delete_credential", remove, service=service)

    def list_configured_services(self) -> dict[str, list[str]]:
        """The services that have credentials: ``{"api_keys": […], "oauth_tokens": […]}``, sorted."""
        document = self._vault.snapshot()
        credentials = {} if document is None else document.credentials
        return {
            "api_keys": sorted(name for name, kinds in credentials.items() if "api_key" in kinds),
            "oauth_tokens": sorted(name for name, kinds in credentials.items() if "oauth_token" in kinds),
        }

    def describe_credentials(self) -> list[CredentialInfo]:
        """What is stored, without the values."""
        document = self._vault.snapshot()
        if document is None:
            return []
        key = document.audit_key_bytes()
        return [
            CredentialInfo(
                service=service,
                kind=kind,
                members=() if isinstance(record.current.value, str) else tuple(record.current.value),
                created=record.created,
                rotated=record.rotated,
                fingerprint=fingerprint(key, record.current.value),
                has_previous=record.previous is not None,
                retire_at=record.retire_at,
            )
            for service, kinds in sorted(document.credentials.items())
            for kind, record in sorted(kinds.items())
        ]

    # --- credentials, for plugins

    def get_api_key_secure(
        self, plugin: str | PluginHandle, service: str, *, model: str | None = None
    ) -> str | dict[str, Any] | None:
        """As ``get_api_key``, if ``plugin`` may have it. Every call is a line in the audit log.

        Args:
            plugin: Its name, or the handle that ``plugin_handle()`` made for it.
            service: Whose credential.
            model: What it will be used for; needed where the grant names models.

        Raises:
            KeyAccessDeniedError: It was not granted, or no longer is.
            KeyStoreError: The store does not open, or an audit line was required and could not be written.
        """
        return self._get_secure("get_api_key", plugin, service, model)

    def get_oauth_token_secure(
        self, plugin: str | PluginHandle, service: str, *, model: str | None = None
    ) -> str | dict[str, Any] | None:
        """As ``get_oauth_token``, if ``plugin`` may have it. See ``get_api_key_secure``."""
        return self._get_secure("get_oauth_token", plugin, service, model)

    def plugin_handle(self, plugin: str) -> PluginHandle:
        """A handle for a plugin that was just loaded: give it the handle, and keep the manager."""
        handle = PluginHandle(check_name(plugin, what="plugin"), self._retrieve_for_handle, self._services_of_handle)
        self._handles.add(handle)
        return handle

    def retire_handle(self, handle: PluginHandle) -> None:
        """Refuse a handle from now on: its plugin was unloaded."""
        self._handles.discard(handle)

    @property
    def provider_access(self) -> ProviderAccess:
        """This manager as providers may see it: ``provider_for(manager.provider_access, plugin, service)``.

        It hands out grants made with ``export=False`` too, because the plugin does not see the secret.
        """
        return ProviderAccess(self.get_api_key, self._get_secure, self._permit_model)

    def _retrieve_for_handle(self, handle: PluginHandle, operation: str, service: str, model: str | None) -> Any:
        return self._get_secure(operation, handle, service, model)

    def _services_of_handle(self, handle: PluginHandle) -> list[str]:
        document = self._vault.snapshot()
        if document is None or handle not in self._handles:
            return []
        return granted_services(document.permissions.get(handle.name, ()), now=self._clock())

    # --- inside

    def _set(self, operation: str, service: str, kind: Kind, value: object, *, overlap: float | None = None) -> None:
        service = check_name(service, what="service")
        kept = check_value(value)

        def store(document: Document) -> None:
            now = self._clock()
            kinds = document.credentials.setdefault(service, {})
            former = kinds.get(kind)
            if former is None and overlap is not None:
                raise ConfigurationError(
                    f"There is no {kind} of {service!r} to rotate.", hint="set_api_key() stores a first one."
                )
            version = Version(value=kept, since=now)
            record = Record(current=version, created=now if former is None else former.created, rotated=now)
            if former is not None and overlap is not None:
                record.previous, record.retire_at = former.current, now + overlap
            kinds[kind] = record

        self._change(operation, store, service=service, value=kept)

    @staticmethod
    def _record(document: Document | None, service: str, kind: Kind) -> Record | None:
        if document is None:
            return None
        kinds = document.credentials.get(service)
        return None if kinds is None else kinds.get(kind)

    def _get(self, operation: str, service: str, kind: Kind) -> Value | None:
        document = self._vault.snapshot()
        service = check_name(service, what="service")
        record = self._record(document, service, kind)
        value = None if record is None else record.current.value
        if self._audit_mode == "required":
            self._note(document, operation, service=service, value=value)
        return None if value is None else copied(value)

    def _get_secure(
        self,
        operation: str,
        plugin: str | PluginHandle,
        service: str,
        model: str | None,
        *,
        for_provider: bool = False,
    ) -> Value | None:
        document = self._vault.snapshot()
        service, model = check_name(service, what="service"), None if model is None else check_model(model)
        decision = self._decide(document, plugin, service, model, for_provider=for_provider)
        kind: Kind = "api_key" if operation == "get_api_key" else "oauth_token"
        record = self._record(document, service, kind) if decision.allowed else None
        value = None if record is None else record.current.value
        self._audit_decision(document, operation, plugin, service, decision, value=value, model=model)
        if not decision.allowed:
            raise _denied(plugin, service, f"have the {kind} of", decision)
        return None if value is None else copied(value)

    def _permit_model(self, plugin: str | PluginHandle, service: str, models: Sequence[str]) -> None:
        document = self._vault.snapshot()
        service = check_name(service, what="service")
        model, *aliases = map(check_model, models or [""])
        decision = self._decide(document, plugin, service, model, aliases=aliases, for_provider=True)
        self._audit_decision(document, "use_model", plugin, service, decision, model=model)
        if not decision.allowed:
            raise _denied(plugin, service, f"use the model {model!r} of", decision)

    def _audit_decision(
        self,
        document: Document | None,
        operation: str,
        plugin: str | PluginHandle,
        service: str,
        decision: Decision,
        *,
        value: Value | None = None,
        model: str | None,
    ) -> None:
        outcome = "allowed" if decision.allowed else f"denied: {decision.reason}"
        self._note(
            document,
            operation,
            service=service,
            plugin=_plugin_name(plugin),
            decision=outcome,
            value=value,
            model=model,
        )

    def _decide(
        self,
        document: Document | None,
        plugin: str | PluginHandle,
        service: str,
        model: str | None,
        *,
        aliases: Sequence[str] = (),
        for_provider: bool,
    ) -> Decision:
        name = _plugin_name(plugin)
        if isinstance(plugin, PluginHandle):
            if plugin not in self._handles:
                return Decision(allowed=False, reason="the handle is not one of this manager, or was retired")
        elif self._strict:
            return Decision(allowed=False, reason="only handles are accepted (strict)")
        if document is None:
            return Decision(allowed=False, reason="there is no key store yet")
        return decide(
            document, name, service, model=model, now=self._clock(), aliases=aliases, for_provider=for_provider
        )


def _plugin_name(plugin: str | PluginHandle) -> str:
    return plugin.name if isinstance(plugin, PluginHandle) else check_name(plugin, what="plugin")


def _denied(plugin: str | PluginHandle, service: str, what: str, decision: Decision) -> KeyAccessDeniedError:
    name = _plugin_name(plugin)
    return KeyAccessDeniedError(
        f"The plugin {name!r} may not {what} {service!r}: {decision.reason}.",
        phase="credentials",
        hint=f"The application's owner can allow it: apex-llm keys grant {name} {service}",
    )
