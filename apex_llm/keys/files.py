"""The directory of a key store: checked at every open, written only by replacing.

Directory 0700, files 0600, all owned by this user, none of them a link or anything but a regular
file with one name: else ``PermissionsTooOpenError``, before a byte is read. (A file that is becoming a
backup has two names for a moment, both in the directory; who reads it says which.) Every ``OSError``
ends here.
"""

from __future__ import annotations

__all__ = ["SECOND_NAME", "Directory", "NoDirectoryError", "Signature", "signature_of"]

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TypeAlias

from apex_llm.errors import LockedError, UnsupportedFormatError
from apex_llm.keys.locking import wait_for_lock
from apex_llm.keys.os_errors import refused, translated
from apex_llm.keys.os_layer import OsLayer

Signature: TypeAlias = tuple[int, int, int, int, int]
"""Device, inode, size, times of change: a file that was replaced or touched has another one."""

_CHUNK = 1 << 20
_TEMPORARY_PREFIX, _TEMPORARY_SUFFIX = ".new-", ".tmp"
SECOND_NAME = f"{_TEMPORARY_PREFIX}backup{_TEMPORARY_SUFFIX}"
"""What ``Directory.link`` calls a file before it is renamed; swept up with the other leftovers."""
_OTHERS = 0o077
_LOOKS = 3  # for the second name of a file that has two
_REPLACED = 5  # times that a file is opened anew; some file systems give it another number each time


class NoDirectoryError(FileNotFoundError):
    """There is no such directory. Other missing files, such as those that a caller's callback looked for, are none."""


def signature_of(found: os.stat_result) -> Signature:
    """What tells one state of a file from the next."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _check(found: os.stat_result, what: str, *, directory: bool, names: int = 1) -> None:
    kind = stat.S_ISDIR if directory else stat.S_ISREG
    if not kind(found.st_mode):
        raise refused(what, f"is not a {'directory' if directory else 'regular file'}")
    if sys.platform == "win32":
        return
    if found.st_uid != os.geteuid():
        raise refused(what, f"belongs to the user with id {found.st_uid}, not to {os.geteuid()}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & _OTHERS:
        wanted = "700" if directory else "600"
        raise refused(what, f"has mode {mode:04o}, so that others can use it", f"If nobody did: chmod {wanted} it.")
    if not directory and found.st_nlink > names:
        raise refused(what, f"has {found.st_nlink} names (hard links)")


class Directory:
    """One store's directory, open and checked. A context manager; not shared between threads."""

    def __init__(self, path: Path, layer: OsLayer, descriptor: int) -> None:
        self._layer = layer
        self._path = str(path)
        self._descriptor = descriptor

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, layer: OsLayer, *, create: bool = False) -> Generator[Directory]:
        """The directory at ``path``.

        Raises:
            NoDirectoryError: There is none, and ``create`` is false. The only foreign error that leaves.
            KeyStoreError: It cannot be opened or made.
            PermissionsTooOpenError: Others could use it.
        """
        descriptor = -1
        try:
            if create:
                cls._make(path, layer)
            _check(layer.look(str(path)), str(path), directory=True)
            descriptor = layer.open_directory(str(path))
        except FileNotFoundError as error:
            raise NoDirectoryError(error.errno, error.strerror, str(path)) from None
        except OSError as error:
            raise translated(error, f"Opening {path}") from error
        directory = cls(path, layer, descriptor)
        try:
            if descriptor >= 0:
                directory._check_itself()
            yield directory
        finally:
            if descriptor >= 0:
                directory._let_go(descriptor)

    def _let_go(self, descriptor: int) -> None:
        """Close what was not written to: a failure changes nothing."""
        with contextlib.suppress(OSError):
            self._layer.close(descriptor)

    def _check_itself(self) -> None:
        """Again, on what was opened: the name may have changed hands since."""
        try:
            _check(self._layer.status(self._descriptor), self._path, directory=True)
        except OSError as error:
            raise translated(error, f"Opening {self._path}") from error

    @staticmethod
    def _make(path: Path, layer: OsLayer) -> None:
        missing = [path]
        while not missing[-1].parent.exists():
            missing.append(missing[-1].parent)
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):
                layer.make_directory(str(each))

    @property
    def path(self) -> str:
        """Where it is."""
        return self._path

    def full(self, name: str) -> str:
        """The path of a name in it, for messages."""
        return f"{self._path}{os.sep}{name}"

    def read(self, name: str, *, limit: int, twins: Sequence[str] = ()) -> tuple[bytes, Signature] | None:
        """A file's bytes and signature, or ``None`` where there is no such file.

        Args:
            name: Of the file.
            limit: Most bytes.
            twins: Names that may be the same file for a moment, in the order in which it has them.

        Raises:
            PermissionsTooOpenError: It is not a regular file of mode 0600 and one name, owned by this user.
            UnsupportedFormatError: It is longer than ``limit`` bytes.
        """
        what = f"Reading {self.full(name)}"
        try:
            descriptor = self._layer.open_to_read(self._path, name, self._descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise translated(error, what) from error
        try:
            found, names = self._settled(descriptor, twins)
            _check(found, self.full(name), directory=False, names=names)
            if found.st_size > limit:
                raise UnsupportedFormatError(
                    f"{self.full(name)} has {found.st_size} bytes; a key store has at most {limit}."
                )
            pieces: list[bytes] = []
            left = limit + 1
            while left > 0 and (piece := self._layer.read(descriptor, min(left, _CHUNK))):
                pieces.append(piece)
                left -= len(piece)
            if left <= 0:
                raise UnsupportedFormatError(f"{self.full(name)} has more than {limit} bytes.")
            return b"".join(pieces), signature_of(found)
        except OSError as error:
            raise translated(error, what) from error
        finally:
            self._let_go(descriptor)

    def _settled(self, descriptor: int, twins: Sequence[str]) -> tuple[os.stat_result, int]:
        """An open file's status, and how many names it may have: two while ``twins`` tell of the second one."""
        found = self._layer.status(descriptor)
        for _ in range(_LOOKS):
            if found.st_nlink != 2 or not twins:
                break
            # Linux counts a new name before it can be found. Listing the directory waits for who is changing it.
            self._layer.names(self._path, self._descriptor)
            if any(self._is(twin, found) for twin in twins):
                return found, 2
            found = self._layer.status(descriptor)  # the second name may be gone by now
        return found, 1

    def _is(self, name: str, found: os.stat_result) -> bool:
        """Whether ``name`` is the file that was found."""
        try:
            other = self._layer.look(self.full(name))
        except OSError:
            return False
        return (other.st_dev, other.st_ino) == (found.st_dev, found.st_ino)

    def is_same(self, name: str, other: str) -> bool:
        """Whether two names are one file."""
        try:
            found = self._layer.look(self.full(name))
        except OSError:
            return False
        return self._is(other, found)

    def write_temporary(self, content: bytes) -> str:
        """The name of a new file that holds ``content`` and is on the disk; none is left behind on failure."""
        name = f"{_TEMPORARY_PREFIX}{self._layer.token()}{_TEMPORARY_SUFFIX}"
        what = f"Writing a new file in {self._path}"
        try:
            descriptor = self._layer.open_new(self._path, name, self._descriptor)
        except OSError as error:
            raise translated(error, what) from error
        try:
            try:
                self._layer.restrict(descriptor)
                left = memoryview(content)
                while left:
                    left = left[self._layer.write(descriptor, bytes(left[:_CHUNK])) :]
                self._layer.sync(descriptor)
            finally:
                self._layer.close(descriptor)
        except BaseException as error:
            self.discard(name)
            if isinstance(error, OSError):
                raise translated(error, what) from error
            raise
        return name

    def discard(self, name: str) -> None:
        """Remove a file of ours if it is still there; a failure to do so is not worth an error."""
        with contextlib.suppress(OSError):
            self._layer.remove(self._path, name, self._descriptor)

    def discard_leftovers(self) -> None:
        """Remove what a writer that was killed left behind. Only for who holds the lock."""
        for name in self.names():
            if name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX):
                self.discard(name)

    def rename(self, source: str, target: str, *, missing_ok: bool = False) -> None:
        """Give ``source`` the name ``target``, in one step."""
        try:
            self._layer.replace(self._path, source, target, self._descriptor)
        except OSError as error:
            if missing_ok and isinstance(error, FileNotFoundError):
                return
            raise translated(error, f"Renaming {source} to {target} in {self._path}") from error

    def link(self, source: str) -> bool:
        """Give ``source`` the second name ``SECOND_NAME``. False where the file system refuses: then copy it."""
        try:
            self._layer.link(self._path, source, SECOND_NAME, self._descriptor)
        except OSError:
            return False
        return True

    def sync(self) -> None:
        """Return when the disk knows the names."""
        try:
            self._layer.sync(self._descriptor)
        except OSError as error:
            raise translated(error, f"Saving the directory {self._path}") from error

    def replace_content(self, name: str, content: bytes) -> None:
        """Let ``name`` hold ``content``: all of it or, on failure, what it held before."""
        temporary = self.write_temporary(content)
        try:
            self.rename(temporary, name)
        except BaseException:
            self.discard(temporary)
            raise

    def names(self) -> list[str]:
        """The names in it, sorted."""
        try:
            return sorted(self._layer.names(self._path, self._descriptor))
        except OSError as error:
            raise translated(error, f"Listing {self._path}") from error

    @contextlib.contextmanager
    def locked(
        self, name: str, *, timeout: float, taken: Callable[[int | None], None], sleep: Callable[[float], None]
    ) -> Generator[None]:
        """Hold the lock ``name``, which processes and threads share.

        Args:
            name: Of the lock file; it is never replaced or removed.
            timeout: Seconds to wait for it.
            taken: Told the descriptor while it is held, so that a forked child can close its copy.
            sleep: Waits some seconds.

        Raises:
            LockedError: Somebody held it for longer.
        """
        what = f"Locking {self.full(name)}"
        try:
            descriptor = self._layer.open_to_lock(self._path, name, self._descriptor)
        except OSError as error:
            raise translated(error, what) from error
        try:
            try:
                _check(self._layer.status(descriptor), self.full(name), directory=False)
                if not wait_for_lock(self._layer, descriptor, seconds=timeout, sleep=sleep):
                    raise LockedError(
                        f"{self.full(name)} was held by another process for {timeout:g} seconds.",
                        hint="Try again. If nothing else uses the store, look for a process that hangs.",
                    )
            except OSError as error:
                raise translated(error, what) from error
            taken(descriptor)
            try:
                yield
            finally:
                taken(None)
                self._unlock(descriptor)
        finally:
            self._let_go(descriptor)

    @contextlib.contextmanager
    def reading(self, name: str) -> Generator[tuple[int, int]]:
        """A descriptor of ``name`` and its size while nobody was appending: on a read-only file system too.

        What comes later, or in its place, is not seen. ``OSError`` passes through.
        """
        descriptor = self._layer.open_to_read(self._path, name, self._descriptor)
        try:
            self._lock(descriptor, name)
            size = self._layer.status(descriptor).st_size
            self._unlock(descriptor)
            yield descriptor, size
        finally:
            self._let_go(descriptor)

    @contextlib.contextmanager
    def appending(self, name: str) -> Generator[int]:
        """A descriptor of ``name``, locked, for appending and reading. ``OSError`` passes through."""
        for again in reversed(range(_REPLACED)):
            descriptor = self._layer.open_to_append(self._path, name, self._descriptor)
            try:
                self._lock(descriptor, name)
                # It may have been replaced while this waited for the lock.
                if not again or self._is(name, self._layer.status(descriptor)):
                    yield descriptor
                    return
            finally:
                self._unlock(descriptor)
                self._let_go(descriptor)

    def _lock(self, descriptor: int, name: str) -> None:
        _check(self._layer.status(descriptor), self.full(name), directory=False)
        self._layer.lock_waiting(descriptor)

    def _unlock(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            self._layer.unlock(descriptor)
