"""Keeping a store in order: rotation, verification, status, migration, export and import."""

from __future__ import annotations

__all__ = ["Upkeep"]

import contextlib
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from apex_llm.errors import ConfigurationError, KeyStoreError, NoUnlockerError
from apex_llm.keys.agefile import MAX_FILE_BYTES, new_identity, recipient_of
from apex_llm.keys.bech32 import identity_to_bytes
from apex_llm.keys.custodian import Custodian
from apex_llm.keys.document import (
    AuditHead,
    Document,
    Kind,
    Record,
    Value,
    Version,
    check_name,
    check_number,
    check_value,
)
from apex_llm.keys.files import Directory, NoDirectoryError
from apex_llm.keys.migration import DEFAULT_LEGACY_FILE, read_legacy, retire_legacy
from apex_llm.keys.reports import ImportReport, MigrationReport, RotationStatus, StoreStatus, Verification
from apex_llm.keys.transfer import Bundle, read_bundle, write_bundle
from apex_llm.keys.unlockers import (
    SEALED_IDENTITY,
    Keyring,
    MasterKey,
    Passphrase,
    PassphraseSource,
    Unlocker,
    read_master_key,
)
from apex_llm.keys.vault import BACKUPS, STORE_FILE, STORE_TWINS
from apex_llm.types.secrets import Secret

_DAY = 86_400.0
_WHICH = {
    "master_key": "master_key",
    "master": "master_key",
    "encryption_keys": "encryption_keys",
    "key_encryption_keys": "encryption_keys",
    "data_encryption_keys": "encryption_keys",
    "kek": "encryption_keys",
    "dek": "encryption_keys",
    "all": "encryption_keys",
    "api_keys": "api_keys",
    "api_key": "api_keys",
    "oauth_tokens": "oauth_tokens",
    "oauth_token": "oauth_tokens",
}
_DEFAULT_DAYS = {"master_key": 365.0, "encryption_keys": 90.0, "api_keys": 90.0}
_KINDS: dict[str, Kind] = {"api_keys": "api_key", "oauth_tokens": "oauth_token"}


def _which(name: str) -> str:
    known = _WHICH.get(name)
    if known is None:
        raise ConfigurationError(
            f"There is no kind of key named {name!r}.", hint="master_key, encryption_keys, api_keys or oauth_tokens."
        )
    return known


class Upkeep(Custodian):
    """The methods that an application's owner uses now and then."""

    # --- rotation

    def check_key_rotation_status(self) -> dict[str, RotationStatus]:
        """When each kind of key was last rotated, and what is due."""
        document = self._vault.snapshot()
        now = self._clock()
        found: dict[str, RotationStatus] = {}
        for which in ("master_key", "encryption_keys", "api_keys", "oauth_tokens"):
            days = _DEFAULT_DAYS.get(which)
            rotated: dict[str, float] = {}
            if document is not None:
                days = document.rotation.days.get(which, days)
                if which in _KINDS:
                    kind = _KINDS[which]
                    rotated = {
                        name: kinds[kind].rotated for name, kinds in document.credentials.items() if kind in kinds
                    }
                elif which in document.rotation.last:
                    rotated = {"": document.rotation.last[which]}
            last = min(rotated.values(), default=None)
            due = None if last is None or days is None else last + days * _DAY
            late = [] if days is None else sorted(name for name, at in rotated.items() if now >= at + days * _DAY)
            found[which] = RotationStatus(
                which=which,
                last_rotated=last,
                interval_days=days,
                due_at=due,
                is_due=due is not None and now >= due,
                services=tuple(name for name in late if name),
            )
        return found

    def set_key_rotation_interval(self, which: str, days: float) -> None:
        """After how many days a kind of key is due.

        Args:
            which: ``master_key``, ``encryption_keys``, ``api_keys`` or ``oauth_tokens``.
            days: More than 0.
        """
        name = _which(which)
        if not 0 < check_number(days, what="days") < 36_500:
            raise ConfigurationError(f"days is a positive number, not {days!r}.")

        def keep(document: Document) -> None:
            document.rotation.days[name] = float(days)

        self._change("set_key_rotation_interval", keep, service=name)

    def rotate_encryption_keys(self, which: str = "all") -> None:
        """Encrypt the store anew. age draws a fresh file key at every save; this one is dated and audited."""
        if _which(which) != "encryption_keys":
            raise ConfigurationError(
                f"{which!r} is not an encryption key.", hint="rotate_master_key() and rotate_credential() do the rest."
            )

        def date(document: Document) -> None:
            document.rotation.last["encryption_keys"] = self._clock()

        self._change("rotate_encryption_keys", date)

    def rotate_master_key(
        self,
        *,
        passphrase: PassphraseSource | None = None,
        master_key: str | Secret | None = None,
        keyring: bool = False,
    ) -> Secret | None:
        """Make a new master key and encrypt the store to it. Backups under the former key are removed.

        Args:
            passphrase: Protect the new key with this passphrase from now on.
            master_key: The new master key, which you have put where ``APEX_LLM_MASTER_KEY`` will find it.
            keyring: Keep the new key in the system's keyring from now on.

        Returns:
            ``None`` where the store's own unlocker holds the new key. Where only you can put it in place
            (``APEX_LLM_MASTER_KEY*``) and gave none: the new master key. The former one keeps opening the
            store until it is first saved by a process that was given the new one.

        Raises:
            NoUnlockerError: There is no keyring that works. The store is as it was.
            KeyStoreError: The store is as it was.
        """
        self.unlock()
        if (passphrase is not None) + (master_key is not None) + keyring > 1:
            raise ConfigurationError("Give one of passphrase=, master_key= and keyring=True.")
        document, current = self._vault.snapshot(), self._vault.opened_by
        if document is None or current is None:
            raise NoUnlockerError("The store is not open.")
        made: Secret | None = None
        target: Unlocker = current
        if master_key is not None:
            target = MasterKey(master_key, {})
        elif passphrase is not None:
            target = Passphrase(passphrase)
        elif keyring:
            target = next((each for each in self._vault.unlockers if isinstance(each, Keyring)), Keyring())
        elif self._vault.opens_with_recovery(document):
            raise ConfigurationError(
                "The store was opened with its recovery key.",
                hint="Give passphrase=, master_key= or keyring=True for the new key.",
            )
        identity = new_identity()
        if isinstance(target, MasterKey):
            if master_key is None:
                made = _as_master_key(identity)
            else:
                text = master_key.reveal() if isinstance(master_key, Secret) else master_key
                identity = read_master_key(text, source="master_key=")
        if recipient_of(identity) in document.recipients.all():
            raise ConfigurationError("The new master key is the one in use.")
        with self._noted("rotate_master_key") as head:
            self._vault.rotate(target, identity, keep_former=made is not None, head=head)
        return made

    def rotate_recovery_key(self) -> Secret:
        """Make a new recovery key; the former one opens nothing that is saved from now on. Show it once."""
        identity = new_identity()

        def replace(document: Document) -> None:
            document.recipients.recovery = recipient_of(identity)

        self._change("rotate_recovery_key", replace)
        return Secret(identity, name="recovery_key")

    # --- looking after it

    def status(self) -> StoreStatus:
        """Where the store is, how it could be opened, and, if it is open, what it is like. Opens nothing."""
        vault = self._vault
        problems: list[str] = []
        names: list[str] = []
        document: Document | None = None
        try:
            with Directory.opened(vault.path, self._layer) as directory:
                names = directory.names()
        except NoDirectoryError:
            pass
        except KeyStoreError as error:
            problems.append(error.message)
        try:
            document = vault.snapshot() if vault.opened else None
        except KeyStoreError as error:
            problems.append(error.message)
        if self._log.suspicious:
            problems.append("The audit log is not as it was left; verify() says more.")
        return StoreStatus(
            path=str(vault.path),
            exists=STORE_FILE in names,
            opened=document is not None,
            opened_by=None if document is None or vault.opened_by is None else vault.opened_by.name,
            generation=None if document is None else document.generation,
            services=None if document is None else len(document.credentials),
            plugins=None if document is None else len(document.permissions),
            access_control=None if document is None else document.access_control,
            recovery_key=None if document is None else document.recipients.recovery is not None,
            rotation_pending=None if document is None else bool(document.recipients.retiring),
            unlockers=tuple(unlocker.status(vault) for unlocker in vault.unlockers),
            backups=tuple(name for name in BACKUPS if name in names),
            isolation=self.isolation,
            audit=self._audit_mode,
            strict=self._strict,
            anchored=self._anchored,
            problems=tuple(problems),
        )

    def verify(self) -> Verification:
        """Check everything: the store, its files, its backups and the audit log. Raises nothing for what it finds.

        Raises:
            NoUnlockerError: Nothing that could open the store was given.
        """
        found = self._looked_over()
        if not found.ok:
            # Somebody may have been in the middle of a change; a disk that cannot be written has nobody on it.
            with contextlib.suppress(KeyStoreError), self._vault.still():
                return self._looked_over()
        return found

    def _looked_over(self) -> Verification:
        problems: list[str] = []
        document: Document | None = None
        lines = 0
        backups: dict[str, int] = {}
        try:
            document = self._vault.snapshot()
            if document is None:
                problems.append(f"There is no key store in {self.path}.")
            else:
                self._check_files(problems)
                for name in BACKUPS:
                    try:
                        backup = self._vault.read_backup(name)
                    except KeyStoreError as error:
                        problems.append(f"The backup {name} does not open: {error.message}")
                        continue
                    if backup is not None:
                        backups[name] = backup.generation
                lines, found = self._log.verify(document)
                problems += [f"Audit log: {each}" for each in found]
        except NoUnlockerError:
            raise
        except KeyStoreError as error:
            problems.append(error.message)
        return Verification(
            ok=not problems,
            problems=tuple(problems),
            generation=None if document is None else document.generation,
            audit_lines=lines,
            backups=backups,
        )

    def _check_files(self, problems: list[str]) -> None:
        with Directory.opened(self.path, self._layer) as directory:
            present = directory.names()
            for name in (STORE_FILE, SEALED_IDENTITY, "store.lock"):  # the log is looked at when it is verified
                if name not in present:
                    continue
                try:
                    directory.read(name, limit=MAX_FILE_BYTES, twins=STORE_TWINS if name == STORE_FILE else ())
                except KeyStoreError as error:
                    problems.append(error.message)

    def archive_audit_log(self, *, damaged: bool = False) -> Path:
        """Put the audit log away under a name of its own, and begin a new one that goes on from it.

        Whatever stops it, no line is lost, and doing it again finishes it.

        Args:
            damaged: Put it away although it is not as it was left, and trust the new one from here on.

        Raises:
            KeyStoreError: There is none, it is not as it was left (``verify`` first), or it could not be written.
        """
        self.unlock()
        noted: list[Document] = []
        names: list[str] = []
        refusals: list[KeyStoreError] = []

        def check(document: Document) -> None:
            lines, found = self._log.verify(document)
            if not lines and not found:
                raise KeyStoreError("The audit log was not put away: there is none.", hint="Run verify().")
            if found and not damaged:
                raise KeyStoreError(
                    f"The audit log was not put away, because it is not as it was left. {found[0]}",
                    hint="Look at what verify() says; then archive_audit_log(damaged=True).",
                )
            names.append("-damaged.jsonl" if found else ".jsonl")

        def begin_anew(document: Document) -> AuditHead:
            self._log.append(
                document,
                time=self._clock(),
                plugin=None,
                operation="archive_audit_log",
                service=None,
                decision="allowed",
            )
            noted.append(document)
            document.audit_start = self._log.before_last
            return self._log.last

        def cut(document: Document) -> None:
            names.append(f"audit-{document.audit_start.seq}{names.pop()}")
            try:
                self._log.cut(document.audit_start, names[0])
            except KeyStoreError as error:
                refusals.append(error)

        try:
            self._vault.change(check, head=begin_anew, then=cut)
            if refusals:
                raise refusals[0]
        except KeyStoreError as error:
            if noted:
                with contextlib.suppress(KeyStoreError):
                    self._note(noted[0], "archive_audit_log", decision=f"failed: {type(error).__name__}")
            raise
        return self.path / names[0]

    # --- moving in and out

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


def _as_master_key(identity: str) -> Secret:
    return Secret(b64encode(identity_to_bytes(identity)).decode(), name="master_key")


def _text(value: str | Secret | None) -> str | None:
    return value.reveal() if isinstance(value, Secret) else value
