"""What state a store is in: what can be said without opening it, what a check finds, and its log put away."""

from __future__ import annotations

__all__ = ["Inspecting"]

import contextlib
from pathlib import Path

from apex_llm.errors import KeyStoreError, NoUnlockerError
from apex_llm.keys.agefile import MAX_FILE_BYTES
from apex_llm.keys.custodian import Custodian
from apex_llm.keys.document import AuditHead, Document
from apex_llm.keys.files import Directory, NoDirectoryError
from apex_llm.keys.layout import BACKUPS, LOCK_FILE, SEALED_IDENTITY, STORE_FILE, STORE_TWINS
from apex_llm.keys.reports import StoreStatus, Verification


class Inspecting(Custodian):
    """The manager's methods that look after the store and its audit log."""

    def status(self) -> StoreStatus:
        """Where the store is, how it could be opened, and, if it is open, what it is like. Opens nothing."""
        vault, keychain = self._vault, self._vault.keychain
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
            opened_by=None if document is None or keychain.opened_by is None else keychain.opened_by.name,
            generation=None if document is None else document.generation,
            services=None if document is None else len(document.credentials),
            plugins=None if document is None else len(document.permissions),
            access_control=None if document is None else document.access_control,
            recovery_key=None if document is None else document.recipients.recovery is not None,
            rotation_pending=None if document is None else bool(document.recipients.retiring),
            unlockers=tuple(unlocker.status(vault) for unlocker in keychain.unlockers),
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
            for name in (STORE_FILE, SEALED_IDENTITY, LOCK_FILE):  # the log is looked at when it is verified
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
