"""Waiting for a file lock that others hold, for a while."""

from __future__ import annotations

__all__ = ["wait_for_lock"]

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable

from apex_llm.keys.os_layer import OsLayer


def wait_for_lock(layer: OsLayer, descriptor: int, *, seconds: float, sleep: Callable[[float], None]) -> bool:
    """Take the lock on an open file. ``OSError`` passes through.

    Args:
        layer: System calls.
        descriptor: Of the file.
        seconds: How long to wait.
        sleep: Waits some seconds, where the kernel cannot be waited for.

    Returns:
        Whether it was had in time.
    """
    if layer.lock(descriptor):
        return True
    waiter = None if sys.platform == "win32" else _LockWaiter.started(layer, descriptor)
    if waiter is not None:
        return waiter.wait(seconds)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sleep(random.uniform(0.0005, 0.003))
        if layer.lock(descriptor):
            return True
    return False


class _LockWaiter:
    """Waits for a file lock in the kernel's queue, which is fair, and gives up after a while, which the kernel cannot.

    A thread waits on a copy of the descriptor: the lock belongs to the open file and so to both.
    """

    def __init__(self, layer: OsLayer, descriptor: int) -> None:
        self._layer = layer
        self._copy = layer.duplicate(descriptor)
        self._settled = threading.Event()
        self._mutex = threading.Lock()
        self._given_up = False
        self._error: OSError | None = None

    @classmethod
    def started(cls, layer: OsLayer, descriptor: int) -> _LockWaiter | None:
        """One that waits; ``None`` where no thread can be had: too many, or the interpreter is about to end."""
        waiter = cls(layer, descriptor)
        try:
            threading.Thread(target=waiter._work, name="apex_llm-keys-lock", daemon=True).start()
        except BaseException as error:
            with contextlib.suppress(OSError):
                layer.close(waiter._copy)
            if isinstance(error, RuntimeError):
                return None
            raise
        return waiter

    def wait(self, seconds: float) -> bool:
        """Whether the lock was had in time. Raises what the system call raised."""
        try:
            self._settled.wait(seconds)
        finally:
            with self._mutex:
                self._given_up = not self._settled.is_set()
        if self._error is not None:
            raise self._error
        return not self._given_up

    def _work(self) -> None:
        try:
            self._layer.lock_waiting(self._copy)
        except OSError as error:
            self._error = error
        with self._mutex:
            if self._given_up and self._error is None:
                with contextlib.suppress(OSError):
                    self._layer.unlock(self._copy)
            self._settled.set()
        with contextlib.suppress(OSError):
            self._layer.close(self._copy)
