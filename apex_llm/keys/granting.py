"""Who may have what: grants given, listed and taken back. ``permissions`` decides by them."""

from __future__ import annotations

__all__ = ["Granting"]

from collections.abc import Iterable, Sequence
from datetime import datetime

from apex_llm.errors import ConfigurationError
from apex_llm.keys.custodian import Custodian
from apex_llm.keys.document import Document, Grant, check_model, check_name, check_number
from apex_llm.keys.permissions import decide

_DAY = 86_400.0


class Granting(Custodian):
    """The manager's methods that say which plugin may have which service, for which models, until when."""

    def set_plugin_permissions(self, plugin: str, services: Iterable[str]) -> None:
        """Grant a plugin these services, whole and without end, and nothing else.

        Raises:
            ConfigurationError: A name cannot be used.
        """
        plugin = check_name(plugin, what="plugin")
        if isinstance(services, str):
            raise ConfigurationError("services is a list of names, not one string.", hint=f"Write [{services!r}].")
        names = dict.fromkeys(check_name(each, what="service") for each in services)
        grants = [Grant(service=name) for name in names]

        def replace(document: Document) -> None:
            if grants:
                document.permissions[plugin] = grants
            else:
                document.permissions.pop(plugin, None)

        self._change("set_plugin_permissions", replace, plugin=plugin, service=" ".join(names))

    def get_plugin_permissions(self, plugin: str | None = None) -> dict[str, list[Grant]]:
        """Grants by plugin, expired ones included; of one plugin only, if it is named."""
        document = self._vault.snapshot()
        permissions = {} if document is None else document.permissions
        if plugin is not None:
            return {plugin: list(permissions.get(plugin, ()))}
        return {name: list(grants) for name, grants in sorted(permissions.items())}

    def grant(
        self,
        plugin: str,
        service: str,
        *,
        models: Sequence[str] | None = None,
        expires: float | datetime | None = None,
        days: float | None = None,
        export: bool = True,
    ) -> Grant:
        """Let a plugin have one service; a former grant for that service is replaced.

        Args:
            plugin: Who.
            service: What.
            models: Names or patterns (``anthropic.*``); all, when left out. Providers state the model of each
                call, and refuse others before anything is sent.
            expires: Until when: seconds since the epoch, or a ``datetime`` with its zone.
            days: For how long, instead of ``expires``.
            export: False lets only providers use it for the plugin (``provider_access``).

        Raises:
            ConfigurationError: A name or a time cannot be used.
        """
        plugin = check_name(plugin, what="plugin")
        made = Grant(
            service=check_name(service, what="service"),
            models=None if models is None else _model_names(models),
            export=export,
            expires=self._expiry(expires, days),
        )

        def add(document: Document) -> None:
            others = [each for each in document.permissions.get(plugin, ()) if each.service != made.service]
            document.permissions[plugin] = [*others, made]

        self._change("grant", add, plugin=plugin, service=made.service)
        return made

    def revoke(self, plugin: str, service: str | None = None) -> bool:
        """Take one service, or everything, from a plugin, from its next call on.

        Returns:
            Whether there was something to take.
        """
        document = self._vault.snapshot()
        held = () if document is None else document.permissions.get(plugin, ())
        if not any(service in (None, each.service) for each in held):
            return False
        plugin, service = check_name(plugin, what="plugin"), service and check_name(service, what="service")

        def take(document: Document) -> bool:
            before = document.permissions.get(plugin, [])
            left = [each for each in before if service is not None and each.service != service]
            if left:
                document.permissions[plugin] = left
            else:
                document.permissions.pop(plugin, None)
            return len(left) < len(before)

        return self._change("revoke", take, plugin=plugin, service=service)

    def enable_access_control(self, enabled: bool = True) -> None:  # noqa: FBT001, FBT002 - the plan's signature
        """Check permissions (the default), or let every plugin have everything. Kept in the store, and audited."""

        def switch(document: Document) -> None:
            document.access_control = bool(enabled)

        self._change("enable_access_control" if enabled else "disable_access_control", switch)

    def check_permission(self, plugin: str, service: str, *, model: str | None = None) -> bool:
        """Whether a plugin would get a credential now. Hands out nothing, and writes no audit line."""
        document = self._vault.snapshot()
        if document is None:
            return False
        stated = None if model is None else check_model(model)
        return decide(document, plugin, service, model=stated, now=self._clock()).allowed

    def _expiry(self, expires: float | datetime | None, days: float | None) -> float | None:
        if expires is not None and days is not None:
            raise ConfigurationError("Give expires= or days=, not both.")
        if days is not None:
            return self._clock() + check_number(days, what="days") * _DAY
        if isinstance(expires, datetime):
            if expires.tzinfo is None:
                raise ConfigurationError("expires= needs a time zone.", hint="datetime.now(timezone.utc) + …")
            return expires.timestamp()
        return None if expires is None else check_number(expires, what="expires")


def _model_names(models: Sequence[str]) -> tuple[str, ...]:
    if isinstance(models, str):
        raise ConfigurationError("models is a list of names, not one string.", hint=f"Write [{models!r}].")
    return tuple(check_name(each, what="model") for each in models)
