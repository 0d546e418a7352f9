"""The system calls that the key store makes, each a method, so that a test can fail or stop any of them.

Nothing is decided here. ``OSError`` leaves these methods; ``files`` translates it.
"""

from __future__ import annotations

__all__ = ["OsLayer"]

import os
import secrets
import sys

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_COMMON = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO must not hang
_HAS_DIRECTORY_FDS = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd


class OsLayer:
    """System calls on the names inside one directory, which is held open where the system allows it."""

    def open_directory(self, path: str) -> int:
        """A descriptor of the directory itself, never of one that a link points to; -1 on Windows."""
        if not _HAS_DIRECTORY_FDS:
            return -1
        return os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_FOLLOW | _COMMON)

    def open_to_read(self, path: str, name: str, directory: int) -> int:
        """Follows no link and waits for no writer."""
        return self._open(path, name, directory, os.O_RDONLY | _NO_WAIT)

    def open_new(self, path: str, name: str, directory: int) -> int:
        """Fails if the name exists, as a link or otherwise."""
        return self._open(path, name, directory, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def open_to_lock(self, path: str, name: str, directory: int) -> int:
        """Made if it is missing; its contents never matter."""
        return self._open(path, name, directory, os.O_RDWR | os.O_CREAT | _NO_WAIT)

    def open_to_append(self, path: str, name: str, directory: int) -> int:
        """Made if it is missing; readable too."""
        return self._open(path, name, directory, os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_WAIT)

    def _open(self, path: str, name: str, directory: int, flags: int) -> int:
        flags |= _NO_FOLLOW | _COMMON
        if directory < 0:
            full = os.path.join(path, name)  # noqa: PTH118 - this is the place where paths are strings
            if not _NO_FOLLOW and os.path.islink(full):  # noqa: PTH114
                raise OSError(40, "Too many levels of symbolic links", full)
            return os.open(full, flags, 0o600)
        return os.open(name, flags, 0o600, dir_fd=directory)

    def restrict(self, descriptor: int) -> None:
        """Mode 0600, whatever the umask was."""
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, 0o600)

    def read(self, descriptor: int, size: int) -> bytes:
        """At most ``size`` bytes."""
        return os.read(descriptor, size)

    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``."""
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)

    def write(self, descriptor: int, content: bytes) -> int:
        """How many bytes were taken."""
        return os.write(descriptor, content)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file at ``size``."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Return when the disk has it."""
        if sys.platform == "win32" and descriptor < 0:
            return
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Give the descriptor back."""
        os.close(descriptor)

    def status(self, descriptor: int) -> os.stat_result:
        """What the descriptor is open on."""
        return os.fstat(descriptor)

    def look(self, path: str) -> os.stat_result:
        """What the path names, without following a link."""
        return os.lstat(path)

    def replace(self, path: str, source: str, target: str, directory: int) -> None:
        """Rename within the directory, in one step."""
        if directory < 0:
            os.replace(os.path.join(path, source), os.path.join(path, target))  # noqa: PTH105, PTH118
        else:
            os.replace(source, target, src_dir_fd=directory, dst_dir_fd=directory)

    def link(self, path: str, source: str, target: str, directory: int) -> None:
        """A second name for a file of the directory; fails if the name exists."""
        if directory < 0:
            os.link(os.path.join(path, source), os.path.join(path, target))  # noqa: PTH118
        else:
            os.link(source, target, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)

    def remove(self, path: str, name: str, directory: int) -> None:
        """Take the name away."""
        if directory < 0:
            os.unlink(os.path.join(path, name))  # noqa: PTH108, PTH118
        else:
            os.unlink(name, dir_fd=directory)

    def names(self, path: str, directory: int) -> list[str]:
        """The names in the directory."""
        return os.listdir(path if directory < 0 else directory)  # noqa: PTH208

    def make_directory(self, path: str) -> None:
        """One directory, for the owner only, whatever the umask is (it can only take away)."""
        os.mkdir(path, 0o700)  # noqa: PTH102

    def lock(self, descriptor: int) -> bool:
        """Take the lock if it is free; never waits."""
        if sys.platform == "win32":
            import msvcrt

            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError:
                return False
            return True
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock_waiting(self, descriptor: int) -> None:
        """Take the lock, however long it takes: for those held for microseconds."""
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)

    def duplicate(self, descriptor: int) -> int:
        """Another descriptor of the same open file, which shares its lock."""
        return os.dup(descriptor)

    def unlock(self, descriptor: int) -> None:
        """Give the lock back. Said aloud, because a forked child may hold a copy of the descriptor."""
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def token(self) -> str:
        """A name that nobody can have guessed."""
        return secrets.token_hex(8)
