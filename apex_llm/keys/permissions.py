"""Who may have what: deny by default, decided on a value, without I/O."""

from __future__ import annotations

__all__ = ["Decision", "decide", "granted_services"]

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from apex_llm.keys.document import Document, Grant


class Decision(msgspec.Struct, frozen=True):
    """Whether, and why."""

    allowed: bool
    reason: str


def decide(
    document: Document,
    plugin: str,
    service: str,
    *,
    model: str | None,
    now: float,
    aliases: Sequence[str] = (),
    for_provider: bool = False,
) -> Decision:
    """Whether ``plugin`` may have the credential of ``service`` now.

    A grant for some models gives the credential only to a request that names one of them: whoever
    has the key itself could use it for every model. A provider gets it without: it asks again, with the
    model, before each call.

    Args:
        document: The store.
        plugin: Who asks.
        service: For what.
        model: For which model it will be used; ``None`` if that is not said.
        now: Seconds since the epoch.
        aliases: Other names of that model; one that is granted is enough.
        for_provider: The credential goes to a provider and not to the plugin, so ``export`` is not needed.
    """
    if not document.access_control:
        return Decision(allowed=True, reason="access control is off")
    reason = "not granted"
    for grant in document.permissions.get(plugin, ()):
        if grant.service != service:
            continue
        if refusal := _refusal(grant, () if model is None else (model, *aliases), now, for_provider=for_provider):
            reason = refusal
            continue
        return Decision(allowed=True, reason="granted")
    return Decision(allowed=False, reason=reason)


def _refusal(grant: Grant, names: Sequence[str], now: float, *, for_provider: bool) -> str | None:
    if grant.expires is not None and now >= grant.expires:
        return "the grant has expired"
    if grant.models is not None:
        if not names and not for_provider:
            return "granted for some models only, and none was named"
        if names and not any(fnmatchcase(name, pattern) for pattern in grant.models for name in names):
            return "not granted for this model"
    if not grant.export and not for_provider:
        return "granted for use through a provider only"
    return None


def granted_services(grants: Sequence[Grant], *, now: float) -> list[str]:
    """The services of grants that have not expired, sorted."""
    return sorted({grant.service for grant in grants if grant.expires is None or now < grant.expires})
