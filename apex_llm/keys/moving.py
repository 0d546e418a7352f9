"""Credentials on their way in and out: from ApexAgent's older file, and to another store and back.

What the files look like is in ``migration`` and ``transfer``.
"""

from __future__ import annotations

__all__ = ["Moving"]

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from apex_llm.errors import KeyStoreError, NoUnlockerError
from apex_llm.keys.custodian import Custodian
from apex_llm.keys.document import Document, Kind, Record, Value, Version, check_name, check_value
from apex_llm.keys.migration import DEFAULT_LEGACY_FILE, read_legacy, retire_legacy
from apex_llm.keys.reports import ImportReport, MigrationReport
from apex_llm.keys.transfer import Bundle, read_bundle, write_bundle
from apex_llm.types.secrets import Secret


class Moving(Custodian):
    """The manager's methods that take credentials over, or give them away, many at a time."""

    def migrate(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        master_key: str | Secret | None = None,
        overwrite: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> MigrationReport:
        """Move everything out of the file of ApexAgent's first key manager, verify it, and rename the file.

        Args:
            path: The file; ``~/.apex_agent_api_keys.enc`` when left out.
            master_key: Its Fernet key; ``APEX_AGENT_MASTER_KEY`` when left out.
            overwrite: Replace credentials that are in the store with another value.
            environ: Read instead of the process environment.

        Raises:
            TamperedError: The file is damaged, or the key is another one. It is left as it is.
            KeyStoreError: It could not be moved; the file is left as it is.
        """
        legacy = Path(DEFAULT_LEGACY_FILE if path is None else path).expanduser()
        given = master_key.reveal() if isinstance(master_key, Secret) else master_key
        given = given or (os.environ if environ is None else environ).get("APEX_AGENT_MASTER_KEY")
        if not given:
            raise NoUnlockerError(
                f"The key of {legacy} was not given.", hint="Set APEX_AGENT_MASTER_KEY, or give master_key=."
            )
        held = read_legacy(legacy, given)
        wanted: dict[str, dict[Kind, Value]] = {}
        by_kind: list[tuple[Kind, dict[str, Value]]] = [("api_key", held.api_keys), ("oauth_token", held.oauth_tokens)]
        for kind, values in by_kind:
            for service, value in values.items():
                wanted.setdefault(check_name(service, what="service"), {})[kind] = check_value(value)

        def take(document: Document) -> None:
            differing = set[str]() if overwrite else _compared(document, wanted)[1]
            if differing:
                raise KeyStoreError(
                    f"The store has other values for {', '.join(sorted(differing))}. Nothing was moved.",
                    hint="overwrite=True replaces them; delete_credential() removes those that you do not want.",
                )
            self._put(document, wanted)

        if wanted:
            self._change("migrate", take)
        document = self._vault.snapshot()
        for service, kinds in wanted.items():
            for kind, value in kinds.items():
                record = None if document is None else document.credentials.get(service, {}).get(kind)
                if record is None or record.current.value != value:
                    raise KeyStoreError(
                        f"The {kind} of {service!r} did not arrive in the store. {legacy} was left as it is."
                    )
        moved = retire_legacy(legacy)
        return MigrationReport(
            api_keys=tuple(sorted(held.api_keys)), oauth_tokens=tuple(sorted(held.oauth_tokens)), original=str(moved)
        )

    def export_store(
        self,
        path: str | os.PathLike[str],
        *,
        passphrase: str | Secret | None = None,
        recipients: Sequence[str] = (),
        services: Sequence[str] | None = None,
    ) -> tuple[str, ...]:
        """Write credentials and permissions to a new encrypted file, never to plain text.

        Args:
            path: The file; an existing one is not replaced.
            passphrase: Encrypt with a passphrase,
            recipients: or to age recipients (``age1…``).
            services: Only these.

        Returns:
            The services that were written.
        """
        self.unlock()
        document = self._vault.snapshot()
        if document is None:
            raise self._vault.no_store()
        bundle = Bundle.of(document, services)
        self._note(document, "export", service=" ".join(sorted(bundle.credentials)))
        write_bundle(
            Path(path).expanduser(), bundle, passphrase=_text(passphrase), recipients=recipients, layer=self._layer
        )
        return tuple(sorted(bundle.credentials))

    def import_store(
        self,
        path: str | os.PathLike[str],
        *,
        passphrase: str | Secret | None = None,
        identity: str | Secret | None = None,
        overwrite: bool = False,
        permissions: bool = False,
    ) -> ImportReport:
        """Read what ``export_store`` wrote into this store, in one step.

        Args:
            path: The file.
            passphrase: What it was encrypted with,
            identity: or the age identity that it was encrypted to.
            overwrite: Replace credentials that are here with another value; else they are skipped.
            permissions: Take over the plugins' permissions too, in place of those of the same plugins.
        """
        bundle = read_bundle(Path(path).expanduser(), passphrase=_text(passphrase), identity=_text(identity))
        for service, kinds in bundle.credentials.items():
            check_name(service, what="service")
            for value in kinds.values():
                check_value(value)
        for plugin, grants in bundle.permissions.items():
            check_name(plugin, what="plugin")
            for grant in grants:
                for name in (grant.service, *(grant.models or ())):
                    check_name(name, what="service or model")

        def sorted_out(document: Document | None) -> ImportReport:
            same, differing = _compared(document, bundle.credentials)
            skipped = set[str]() if overwrite else differing
            imported = set(bundle.credentials) - same - skipped
            return ImportReport(
                imported=tuple(sorted(imported)), unchanged=tuple(sorted(same)), skipped=tuple(sorted(skipped))
            )

        def take(document: Document) -> ImportReport:
            found = sorted_out(document)  # again: somebody may have written meanwhile
            self._put(document, {service: bundle.credentials[service] for service in found.imported})
            if permissions:
                document.permissions.update(bundle.permissions)
            return found

        expected = sorted_out(self._vault.snapshot())
        if not expected.imported and not (permissions and bundle.permissions):
            return expected
        return self._change("import", take, service=" ".join(expected.imported))

    def _put(self, document: Document, wanted: Mapping[str, Mapping[Kind, Value]]) -> None:
        now = self._clock()
        for service, kinds in wanted.items():
            records = document.credentials.setdefault(service, {})
            for kind, value in kinds.items():
                former = records.get(kind)
                if former is not None and former.current.value == value:
                    continue
                created = now if former is None else former.created
                records[kind] = Record(current=Version(value=value, since=now), created=created, rotated=now)


def _compared(document: Document | None, wanted: Mapping[str, Mapping[Kind, Value]]) -> tuple[set[str], set[str]]:
    """Services that are in the store with the same values, and those with another value."""
    held = {} if document is None else document.credentials
    same: set[str] = set()
    differing: set[str] = set()
    for service, kinds in wanted.items():
        records = held.get(service, {})
        if any(kind in records and records[kind].current.value != value for kind, value in kinds.items()):
            differing.add(service)
        elif all(kind in records for kind in kinds):
            same.add(service)
    return same, differing


def _text(value: str | Secret | None) -> str | None:
    return value.reveal() if isinstance(value, Secret) else value
