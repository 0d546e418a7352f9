"""One store on disk: opened, checked, cached, and replaced as a whole.

The write path: lock, read again, compare generations, write a new file and read it back, give the
current one the name of a backup, rename, unlock, make the directory durable. Whatever stops it, the
store is the old one or the new one. A store that does not open is never taken for an empty one, and never written.
"""

from __future__ import annotations

__all__ = ["Vault"]

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from apex_llm.errors import KeyStoreError, NoKeyStoreError, WrongPassphraseError
from apex_llm.keys.agefile import MAX_FILE_BYTES, decrypt, encrypt, recipient_of
from apex_llm.keys.document import AuditHead, Document, Recipients, new_document, read_document, write_document
from apex_llm.keys.files import SECOND_NAME, Directory, NoDirectoryError, Signature, signature_of
from apex_llm.keys.keychain import Keychain
from apex_llm.keys.layout import AUDIT_FILE, BACKUPS, LOCK_FILE, SEALED_IDENTITY, STORE_FILE, STORE_TWINS
from apex_llm.keys.lineage import Anchor, Lineage, traces_of_a_store
from apex_llm.keys.os_layer import OsLayer
from apex_llm.keys.unlockers import Unlocker

_MAX_IDENTITY_BYTES = 64 << 10
_READS = 3  # of a store that is replaced while its keys are asked for

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class _Loaded(msgspec.Struct):
    document: Document
    content: bytes
    signature: Signature


class Vault:
    """The store in one directory. Threads may share it; a forked child may go on using it."""

    def __init__(
        self,
        path: Path,
        *,
        unlockers: Sequence[Unlocker],
        layer: OsLayer,
        anchor: Anchor | None,
        minimum_generation: int,
        lock_timeout: float,
        clock: Callable[[], float],
        loaded: Callable[[Document], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = path
        self.keychain: Keychain = Keychain(unlockers, self)
        self._layer = layer
        self._lineage = Lineage(str(path / STORE_FILE), anchor, minimum_generation)
        self._lock_timeout = lock_timeout
        self._clock = clock
        self._tell_loaded = loaded
        self._sleep = sleep
        self._cached: tuple[Signature, Document] | None = None
        self._unsettled: Document | None = None
        self._store_path = str(path / STORE_FILE)
        self._process = os.getpid()
        self._mutex = threading.RLock()
        self._lock_descriptor: int | None = None

    def __repr__(self) -> str:
        return f"Vault({str(self.path)!r})"

    # --- reading

    def snapshot(self) -> Document | None:
        """The store as it is on disk now; do not change it. ``None`` if there has never been one.

        Costs one ``lstat`` while the file is unchanged.

        Raises:
            KeyStoreError: There is one that does not open, or traces of one that is gone.
        """
        cached = self._cached
        if cached is not None and self._is_on_disk(cached[0]):
            return cached[1]
        with self._guarded():
            loaded = self._load_now()
            return None if loaded is None else loaded.document

    def _is_on_disk(self, signature: Signature) -> bool:
        try:
            return signature_of(self._layer.look(self._store_path)) == signature
        except OSError:
            return False  # opening it will say what is wrong

    @property
    def opened(self) -> bool:
        """Whether the store has been opened by this process."""
        return self._cached is not None

    @property
    def latest(self) -> Document | None:
        """The store as this process last saw it, without a look at the disk."""
        return None if self._cached is None else self._cached[1]

    def is_there(self) -> bool:
        """Whether there is a file by the store's name; whether it opens is another matter."""
        try:
            self._layer.look(self._store_path)
        except OSError:
            return False
        return True

    def forget(self) -> None:
        """Drop keys and contents from memory, as far as Python allows; the next use unlocks again."""
        with self._guarded():
            self._cached = None
            self.keychain.forget()

    def _load_now(self) -> _Loaded | None:
        try:
            with Directory.opened(self.path, self._layer) as directory:
                return self._load(directory)
        except NoDirectoryError:
            self._lineage.check_absence([], self._lineage.anchor())
            return None

    def _load(self, directory: Directory, *, to_change: bool = False) -> _Loaded | None:
        """Read and check the store. With ``to_change`` the document is the caller's own, and not the cached one."""
        anchored = self._lineage.anchor()
        what = directory.full(STORE_FILE)
        looks = _READS
        while True:
            looks -= 1
            found = directory.read(STORE_FILE, limit=MAX_FILE_BYTES, twins=STORE_TWINS)
            if found is None:
                self._lineage.check_absence(traces_of_a_store(directory), anchored)
                return None
            content, signature = found
            try:
                plaintext = self.keychain.decrypted(content, what=what)
            except WrongPassphraseError:
                # If it was rotated meanwhile, the keys are newer than what was read.
                if not looks or self._is_on_disk(signature):
                    raise
            else:
                break
        document = read_document(plaintext, what=what)
        self._lineage.check(document, anchored)
        self._lineage.saw(document)
        if not to_change:
            self._remember(signature, document)
        return _Loaded(document, content, signature)

    def _remember(self, signature: Signature, document: Document) -> None:
        self._cached = (signature, document)
        self._tell_loaded(document)

    # --- what unlockers see

    @property
    def name(self) -> str:
        """The directory, resolved: the store's name in a keyring."""
        return str(self.path.resolve())

    def read_identity_file(self) -> bytes | None:
        """``identity.age``, checked; ``None`` without one."""
        try:
            with Directory.opened(self.path, self._layer) as directory:
                found = directory.read(SEALED_IDENTITY, limit=_MAX_IDENTITY_BYTES)
        except NoDirectoryError:
            return None
        return None if found is None else found[0]

    def write_identity_file(self, content: bytes | None) -> None:
        """Replace ``identity.age``, or remove it."""
        with Directory.opened(self.path, self._layer, create=True) as directory:
            if content is None:
                directory.discard(SEALED_IDENTITY)
            else:
                directory.replace_content(SEALED_IDENTITY, content)
            directory.sync()

    # --- writing

    def create(
        self,
        *,
        recovery: str | None,
        head: Callable[[Document], AuditHead],
        by: Unlocker | None = None,
        may_exist: bool = False,
    ) -> None:
        """Make an empty store, generation 1.

        Args:
            recovery: A second recipient.
            head: Begins the audit log, and says which line is the last one.
            by: The unlocker that shall open it; the first that can, when left out.
            may_exist: Leave an existing store as it is.

        Raises:
            KeyStoreError: There is one already.
            NoUnlockerError: Nothing could keep or give the key.
        """
        with self._guarded():
            unlocker, identities, commit = self.keychain.for_new_store(by)
            with self._transaction(create=True) as (directory, loaded):
                if loaded is not None:
                    if may_exist:
                        return
                    raise KeyStoreError(f"There is a key store in {self.path} already.", hint="Open it instead.")
                commit(self)
                self.keychain.identities, self.keychain.opened_by = identities, unlocker
                document = new_document(recipient_of(identities[0]), recovery, now=self._clock())
                try:
                    self._save(directory, document, None, head=head)
                except BaseException:
                    if not self.is_there():
                        directory.discard(AUDIT_FILE)
                    raise

    def change(
        self,
        apply: Callable[[Document], T],
        *,
        head: Callable[[Document], AuditHead],
        backup: bool = True,
        then: Callable[[Document], None] | None = None,
    ) -> T:
        """Apply a change to the newest state, and save it as the next generation.

        Args:
            apply: Changes the document it is given, which is its own; what it raises ends the change.
            head: Writes the change's line in the audit log, and says which line is the last one.
            backup: Keep the current state as a backup.
            then: What is left to do under the lock when the store was saved; raises nothing.

        Raises:
            KeyStoreError: Nothing was changed, unless the message says that it may have been.
        """
        with self._guarded(), self._transaction() as (directory, loaded):
            if loaded is None:
                raise self.no_store()
            result = apply(loaded.document)
            self._save(directory, loaded.document, loaded if backup else None, head=head)
            if then is not None:
                then(loaded.document)
            return result

    def no_store(self) -> NoKeyStoreError:
        """The error for a store that was never made."""
        return NoKeyStoreError(
            f"There is no key store in {self.path}.",
            hint="Make one with ApiKeyManager.create(), or on the command line with: apex-llm keys init",
        )

    @contextlib.contextmanager
    def _transaction(self, *, create: bool = False) -> Generator[tuple[Directory, _Loaded | None]]:
        former = self._cached  # taking a large document apart takes a while: not before others may write
        try:
            with Directory.opened(self.path, self._layer, create=create) as directory:
                with self._locked(directory):
                    yield directory, self._load(directory, to_change=True)
                    if self._lineage.anchored:
                        self._settle(directory)  # nobody else may move the anchor meanwhile
                # Others may write while this waits for the disk; what they build on becomes durable with theirs.
                self._settle(directory)
            del former
        except NoDirectoryError:
            self._lineage.check_absence([], self._lineage.anchor())
            raise self.no_store() from None

    @contextlib.contextmanager
    def still(self) -> Generator[None]:
        """While it lasts, nobody changes the store.

        Raises:
            KeyStoreError: There is none, or it cannot be locked.
        """
        try:
            with self._guarded(), Directory.opened(self.path, self._layer) as directory, self._locked(directory):
                yield
        except NoDirectoryError:
            raise self.no_store() from None

    def _locked(self, directory: Directory) -> contextlib.AbstractContextManager[None]:
        return directory.locked(LOCK_FILE, timeout=self._lock_timeout, taken=self._remember_lock, sleep=self._sleep)

    def _remember_lock(self, descriptor: int | None) -> None:
        self._lock_descriptor = descriptor

    def _save(
        self,
        directory: Directory,
        document: Document,
        former: _Loaded | None,
        *,
        head: Callable[[Document], AuditHead],
        before: Callable[[], None] | None = None,
    ) -> None:
        """The write path under the lock, up to the new name. ``former`` becomes the newest backup.

        ``before`` is done when all is written and only the name is left to give.
        """
        document.generation += 1
        document.audit_head = head(document)
        _retire(document, self._clock())
        recipients = document.recipients
        if recipients.retiring and recipients.primary == recipient_of(self.keychain.identities[0]):
            recipients.retiring = []
        plaintext = write_document(document)
        content = encrypt(plaintext, recipients.all())
        directory.discard_leftovers()
        temporary = directory.write_temporary(content)
        try:
            written = directory.read(temporary, limit=MAX_FILE_BYTES)
            if written is None or decrypt(written[0], self.keychain.identities, what="The new store") != plaintext:
                raise KeyStoreError(
                    "The new store could not be read back as it was written. The old one is in place.",
                    hint="Check the disk.",
                )
            if former is not None:
                self._keep(directory, former.content)
            if before is not None:
                before()
            directory.rename(temporary, STORE_FILE)
        except BaseException:
            directory.discard(temporary)
            raise
        self._lineage.saw(document)
        self._unsettled = document
        with contextlib.suppress(OSError):  # the next reader opens it, and says what is wrong
            self._remember(signature_of(self._layer.look(self._store_path)), document)

    def _settle(self, directory: Directory) -> None:
        """Make what was saved durable, and then move the anchor."""
        document, self._unsettled = self._unsettled, None
        if document is None:
            return
        try:
            directory.sync()
        except KeyStoreError as error:
            error.hint = "The change was made, but may be lost if the power fails now. Check the disk."
            raise
        self._lineage.move_anchor(document)

    def _keep(self, directory: Directory, content: bytes) -> None:
        """Make the store as it is, which is ``content``, the newest backup: linked where that can be, else copied."""
        if directory.is_same(STORE_FILE, BACKUPS[0]):
            return  # by a writer that got no further
        name = SECOND_NAME if directory.link(STORE_FILE) else directory.write_temporary(content)
        try:
            for newer, older in zip(reversed(BACKUPS[:-1]), reversed(BACKUPS[1:]), strict=True):
                directory.rename(newer, older, missing_ok=True)
            directory.rename(name, BACKUPS[0])
        except BaseException:
            directory.discard(name)
            raise

    # --- keys

    def rotate(self, target: Unlocker, new: str, *, keep_former: bool, head: Callable[[Document], AuditHead]) -> None:
        """Encrypt to a new identity, and let ``target`` hold it.

        ``target`` holds both identities while the store changes over, so that a crash locks nobody out.

        Args:
            target: Who opens the store from now on.
            new: The identity.
            keep_former: Encrypt to the former identity as well, until the store is saved by somebody
                who was given the new one: for keys that only an operator can put in place.
            head: As for ``change``.
        """
        keychain = self.keychain
        with self._guarded():
            if self.snapshot() is None:
                raise self.no_store()
            former, source = list(keychain.identities), keychain.opened_by
            put_both, put_new = target.prepare([[new, *former], [new]])
            with self._transaction() as (directory, loaded):
                if loaded is None or keychain.identities != former:
                    raise KeyStoreError("The master key was rotated by another process meanwhile.", hint="Try again.")
                document = loaded.document
                recipients = document.recipients
                recipients.retiring = self._retiring(recipients) if keep_former else []
                recipients.primary = recipient_of(new)
                document.rotation.last["master_key"] = self._clock()
                # The first one counts as given from outside: see _save.
                keychain.identities = [*former, new] if keep_former else [new, *former]
                sealed = self.read_identity_file()
                try:
                    self._save(directory, document, loaded, head=head, before=lambda: put_both(self))
                except BaseException:
                    self._take_back(directory, loaded.content, sealed, former)
                    raise
                self._settle(directory)
                _afterwards(lambda: put_new(self))
                if not keep_former:
                    keychain.identities = [new]
                    # Nobody can open them any more, except a thief of the former key.
                    for name in BACKUPS:
                        directory.discard(name)
            keychain.opened_by = target
            keychain.unlockers = [target if each.name == target.name else each for each in keychain.unlockers]
            if source is not None and source.name != target.name:
                _afterwards(lambda: source.forget(self))

    def _retiring(self, recipients: Recipients) -> list[str]:
        """Whom a rotation keeps: the primary, and who opened the store, if the primary was never put in place."""
        in_place = recipient_of(self.keychain.identities[0])
        return [recipients.primary, *(each for each in recipients.retiring if each == in_place)]

    def _take_back(self, directory: Directory, content: bytes, sealed: bytes | None, identities: list[str]) -> None:
        """After a rotation that failed: a later passphrase must not stand before the store as it was."""
        with contextlib.suppress(KeyStoreError):
            found = directory.read(STORE_FILE, limit=MAX_FILE_BYTES, twins=STORE_TWINS)
            if found is not None and found[0] == content:
                self.keychain.identities = identities
                if self.read_identity_file() != sealed:
                    self.write_identity_file(sealed)

    def read_backup(self, name: str) -> Document | None:
        """A backup, if it is there and opens with the key in use.

        Raises:
            KeyStoreError: It is there, but does not open.
        """
        with self._guarded(), Directory.opened(self.path, self._layer) as directory:
            twins = (STORE_FILE,) if name in STORE_TWINS else ()
            found = directory.read(name, limit=MAX_FILE_BYTES, twins=twins)
            if found is None:
                return None
            return read_document(decrypt(found[0], self.keychain.identities, what=name), what=name)

    # --- threads and processes

    @contextlib.contextmanager
    def _guarded(self) -> Generator[None]:
        """One thread of this process at a time. A forked child gets locks of its own."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._mutex = threading.RLock()
            if self._lock_descriptor is not None:
                # A copy of the parent's; while it is open, the lock outlives the parent.
                with contextlib.suppress(OSError):
                    self._layer.close(self._lock_descriptor)
                self._lock_descriptor = None
        with self._mutex:
            yield


def _afterwards(act: Callable[[], None]) -> None:
    """Do what is left when a rotation is made. It stays made without: a former key that remains opens nothing."""
    try:
        act()
    except KeyStoreError as error:
        _LOG.warning("The master key was rotated, but the former one could not be removed: %s", error.message)


def _retire(document: Document, now: float) -> None:
    for record in [
        record
        for kinds in document.credentials.values()
        for record in kinds.values()
        if record.retire_at is not None and now >= record.retire_at
    ]:
        record.previous = record.retire_at = None
