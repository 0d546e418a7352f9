"""Opening, changing and auditing one store: what every method of the manager stands on."""

from __future__ import annotations

__all__ = ["AuditMode", "Custodian", "default_home"]

import contextlib
import functools
import logging
import os
import time
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias, TypeVar

from apex_llm.errors import ConfigurationError, KeyStoreError
from apex_llm.keys.audit import CREATION, AuditEntry, AuditLog, fingerprint
from apex_llm.keys.document import AuditHead, Document, Value
from apex_llm.keys.handles import PluginHandle
from apex_llm.keys.keyrings import KeyringAnchor
from apex_llm.keys.lineage import Anchor
from apex_llm.keys.os_layer import OsLayer
from apex_llm.keys.redaction import RedactingFilter, Redactor, secret_parts
from apex_llm.keys.unlockers import Keyring, MasterKey, Passphrase, PassphraseSource, Unlocker
from apex_llm.keys.vault import Vault
from apex_llm.types.secrets import Secret

AuditMode: TypeAlias = Literal["on", "required", "off"]
T = TypeVar("T")
_LOG = logging.getLogger(__name__)


def default_home(environ: Mapping[str, str]) -> Path:
    """``APEX_LLM_HOME``, else ``apex-llm`` in ``XDG_DATA_HOME``, else ``~/.local/share/apex-llm``.

    Raises:
        ConfigurationError: The user has no home directory.
    """
    if home := environ.get("APEX_LLM_HOME"):
        return _expanded(home)
    shared = environ.get("XDG_DATA_HOME", "")
    # A relative one must be ignored, says the XDG specification.
    return Path(shared, "apex-llm") if shared.startswith("/") else _expanded("~/.local/share/apex-llm")


def _expanded(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow links
    except (RuntimeError, ValueError, OSError):
        raise ConfigurationError(
            f"The path of the key store, {os.fspath(path)!r}, cannot be used.",
            hint="Set APEX_LLM_HOME to a directory of your own.",
        ) from None


class Custodian:
    """One key store, opened when it is first needed. Threads may share it."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        passphrase: PassphraseSource | None = None,
        master_key: str | Secret | None = None,
        unlockers: Sequence[Unlocker] | None = None,
        strict: bool = False,
        audit: AuditMode = "on",
        anchor: Anchor | Literal["keyring"] | None = None,
        minimum_generation: int = 0,
        create: bool = True,
        lock_timeout: float = 10.0,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        os_layer: OsLayer | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        home = default_home(environ) if path is None else _expanded(path)
        layer = os_layer or OsLayer()
        if unlockers is None:
            unlockers = (Passphrase(passphrase), MasterKey(master_key, environ), Keyring())
        elif passphrase is not None or master_key is not None:
            raise ConfigurationError("Give either unlockers= or passphrase= and master_key=, not both.")
        if audit not in ("on", "required", "off"):
            raise ConfigurationError(f"audit is 'on', 'required' or 'off', not {audit!r}.")
        self._strict = strict
        self._handles: weakref.WeakSet[PluginHandle] = weakref.WeakSet()
        self._clock = clock
        self._layer = layer
        self._audit_mode: AuditMode = audit
        self._may_create = create
        self._anchored = anchor is not None or minimum_generation > 0
        self._redactor: Redactor | None = None
        self._log = AuditLog(home, layer)
        self._vault = Vault(
            home,
            unlockers=unlockers,
            layer=layer,
            anchor=KeyringAnchor(home) if anchor == "keyring" else anchor,
            minimum_generation=minimum_generation,
            lock_timeout=lock_timeout,
            clock=clock,
            loaded=self._learn,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._vault.path)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The directory of the store."""
        return self._vault.path

    @property
    def generation(self) -> int:
        """How many times the store has been saved; 0 if there is none.

        Keep it somewhere else and give it as ``minimum_generation=`` next time, and an older store put
        in place of this one is refused.

        Raises:
            KeyStoreError: The store does not open.
        """
        document = self._vault.snapshot()
        return 0 if document is None else document.generation

    @property
    def isolation(self) -> Literal["in-process", "broker"]:
        """What stands between a plugin and the secrets.

        ``in-process``: guard rails and an audit log, but no wall. Code that runs in this process can
        read its memory. Do not run plugins that you do not trust in it.
        """
        return "in-process"

    def unlock(self) -> None:
        """Open the store now, and not when it is first used.

        Raises:
            NoKeyStoreError: There is none.
            KeyStoreError: It does not open.
        """
        if self._vault.snapshot() is None:
            raise self._vault.no_store()

    def close(self) -> None:
        """Save the head of the audit log, and forget keys and secrets.

        A store that cannot be written (a read-only home) is no error here: the log then stays unvouched.
        """
        try:
            document = self._vault.snapshot() if self._vault.opened else None
            if document is not None and self._log.last.seq > document.audit_head.seq:
                self._vault.change(lambda _: None, head=self._log.head, backup=False)
        except KeyStoreError as error:
            _LOG.warning("The head of the audit log was not saved on close: %s", error.message)
        finally:
            self._vault.forget()

    # --- logs

    def log_filter(self) -> logging.Filter:
        """A filter for log handlers that redacts what this store holds, now and later: ``handler.addFilter(…)``.

        Secrets are known from the moment the store is open.
        """
        if self._redactor is None:
            self._redactor = Redactor()
            if self._vault.opened and (document := self._vault.snapshot()) is not None:
                self._learn(document)
        return RedactingFilter(self._redactor)

    def redact(self, text: str) -> str:
        """``text`` without the secrets of this store, in the spellings that the log filter knows."""
        self.log_filter()
        if self._redactor is None:
            return text
        document = self._vault.snapshot()
        if document is not None:
            self._learn(document)
        return self._redactor.redact(text)

    def audit_entries(self) -> list[AuditEntry]:
        """The audit log, oldest first. ``verify()`` says whether it is genuine.

        Raises:
            KeyStoreError: It cannot be read.
        """
        return list(self._log.entries())

    def _learn(self, document: Document) -> None:
        if self._redactor is not None:
            self._redactor.add(
                *(
                    part
                    for kinds in document.credentials.values()
                    for record in kinds.values()
                    for version in (record.current, record.previous)
                    if version is not None
                    for part in secret_parts(version.value)
                )
            )

    # --- for the methods above this class

    def _create(self, *, recovery: str | None, may_exist: bool = False) -> None:
        """Make an empty store, whose first generation vouches for the first line of the audit log."""

        def head(document: Document) -> AuditHead:
            self._log.begin()
            noted = self._note(document, CREATION, refused="no line, no store")
            return self._log.last if noted else document.audit_head

        self._vault.create(recovery=recovery, head=head, may_exist=may_exist)

    def _change(
        self,
        operation: str,
        apply: Callable[[Document], T],
        *,
        service: str | None = None,
        plugin: str | None = None,
        value: Value | None = None,
    ) -> T:
        """Apply a change and save it, with its line in the audit log."""
        # Looking is enough: reading it here would be done again under the lock.
        if self._may_create and not self._vault.is_there() and self._vault.snapshot() is None:
            self._create(recovery=None, may_exist=True)
        with self._noted(operation, service=service, plugin=plugin, value=value) as head:
            return self._vault.change(apply, head=head)

    @contextlib.contextmanager
    def _noted(
        self,
        operation: str,
        *,
        service: str | None = None,
        plugin: str | None = None,
        value: Value | None = None,
    ) -> Generator[Callable[[Document], AuditHead]]:
        """What writes a change's line just before the store is replaced, which then vouches for it.

        A change that is stopped after its line was written gets a second one, which says that it failed;
        only a process that dies just then leaves a line for a change that was not made.
        """
        noted: list[Document] = []
        note = functools.partial(self._note, operation=operation, service=service, plugin=plugin, value=value)

        def head(document: Document) -> AuditHead:
            if not note(document, refused="no line, no change"):
                return self._log.head(document)
            noted.append(document)
            return self._log.last

        try:
            yield head
        except KeyStoreError as error:
            if noted:
                with contextlib.suppress(KeyStoreError):
                    note(noted[0], decision=f"failed: {type(error).__name__}")
            raise

    def _note(
        self,
        document: Document | None,
        operation: str,
        *,
        service: str | None = None,
        plugin: str | None = None,
        decision: str = "allowed",
        value: Value | None = None,
        model: str | None = None,
        refused: str = "no line, no secret",
    ) -> bool:
        """One line in the audit log, if it could be written; a failure is an error where a line is required."""
        if self._audit_mode == "off" or document is None:
            return False
        required = self._audit_mode == "required"
        try:
            self._log.append(
                document,
                time=self._clock(),
                plugin=plugin,
                operation=operation,
                service=service,
                decision=decision,
                fingerprint=None if value is None else fingerprint(document.audit_key_bytes(), value),
                model=model,
                strict=required,
            )
        except KeyStoreError as error:
            if not required:
                _LOG.warning("A line of the audit log could not be written: %s", error.message)
                return False
            raise type(error)(
                f"{operation} was refused: {refused}. {error.message}", code=error.code, hint=error.hint
            ) from error
        return True
