"""What the operating system refused, and what we refuse of what it shows, as errors that say what to do next."""

from __future__ import annotations

__all__ = ["refused", "translated"]

import errno
import os

from apex_llm.errors import KeyStoreError, PermissionsTooOpenError

_HINTS = {
    errno.ENOSPC: "The disk is full. Free some space; the store is as it was.",
    errno.EDQUOT: "The disk quota is used up. Free some space; the store is as it was.",
    errno.EFBIG: "A limit on file sizes (ulimit -f) is too low for the store.",
    errno.EROFS: "The file system is read-only. Point APEX_LLM_HOME to a directory that can be written.",
    errno.EACCES: "This user may not write there. Point APEX_LLM_HOME to a directory of your own.",
    errno.EPERM: "This user may not do that there. Point APEX_LLM_HOME to a directory of your own.",
    errno.EIO: "The disk reports a fault. Check it, and keep a copy of the store and its backups.",
    errno.ENOENT: "It is not there. Check the path, or APEX_LLM_HOME.",
    errno.ENOTDIR: "A part of the path is not a directory. Check APEX_LLM_HOME.",
    errno.EMFILE: "The process has too many files open.",
}


def translated(error: OSError, what: str) -> KeyStoreError:
    """A failed system call as our error, with what to do next. ``what`` begins the sentence."""
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return refused(what, "is a symbolic link, or becomes one on the way")
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    name = errno.errorcode.get(error.errno or 0)
    return KeyStoreError(f"{what} failed: {reason}.", code=name, hint=_HINTS.get(error.errno or 0))


def refused(what: str, why: str, hint: str | None = None) -> PermissionsTooOpenError:
    """A file or directory that is not as it must be. ``what`` is its path."""
    return PermissionsTooOpenError(
        f"{what}: refused, because it {why}.",
        hint=hint or "Somebody may have put it there. Look at it, and remove it if it is not yours.",
    )
