"""Figures of the short and the full form, a clock, and system calls that fail or die where they are told to."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from canaries import MASTER_KEY as MASTER_KEY
from canaries import STORED_SECRET

from apex_llm.keys import UnlockerStatus
from apex_llm.keys.os_layer import OsLayer

FULL = os.environ.get("APEX_LLM_FULL") == "1"  # read before a fixture cleans the environment; see scripts/check-keys
VALUE = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": STORED_SECRET}
WORKER = Path(__file__).with_name("key_worker.py")


def figure(short: int, full: int) -> int:
    return full if FULL else short


def worker(*arguments: object) -> list[str]:
    return [sys.executable, str(WORKER), *map(str, arguments)]


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Killed(BaseException):
    """Stands for SIGKILL: nothing that runs afterwards has any effect."""


_CALLS = [
    name
    for name in vars(OsLayer)
    if not name.startswith("_") and name not in {"token", "look", "status", "names", "read", "read_at", "lock_waiting"}
]
_OPENS = {name for name in _CALLS if name.startswith("open_")}


class FaultyLayer(OsLayer):
    """Makes the ``at``-th changing system call fail, or the process die, before or after it took effect."""

    def __init__(self, at: int = 0, mode: str = "fail before", code: int = errno.EIO, only: str = "") -> None:
        self.at = at
        self.mode = mode
        self.code = code
        self.only = only
        self.count = 0
        self.dead = False
        self.calls: list[str] = []
        self.open: set[int] = set()

    def __getattribute__(self, name: str):
        found = super().__getattribute__(name)
        if name not in _CALLS:
            return found
        layer = self

        def call(*arguments):
            if layer.dead:
                raise Killed
            if not layer.only or name == layer.only:
                layer.count += 1
                layer.calls.append(name)
            here = layer.at and layer.count == layer.at and (not layer.only or name == layer.only)
            if here and layer.mode == "fail before":
                raise OSError(layer.code, os.strerror(layer.code))
            if here and layer.mode == "kill before":
                layer.dead = True
                raise Killed
            result = found(*arguments)
            if name in _OPENS and isinstance(result, int):
                layer.open.add(result)
            if name == "close":
                layer.open.discard(arguments[0])
            if here:
                if name == "write" and layer.mode == "fail after":
                    raise OSError(layer.code, os.strerror(layer.code))
                if layer.mode == "kill after":
                    layer.dead = True
                    raise Killed
            return result

        return call

    def bury(self) -> None:
        """The kernel closes what a dead process had open, and so releases its locks."""
        for descriptor in self.open:
            os.close(descriptor)
        self.open.clear()


class OpenBook:
    """An unlocker that keeps its identities in ``identity.age`` in the clear: rotation without the cost of scrypt."""

    name = "open book"
    can_store = True

    def status(self, place):
        return UnlockerStatus(name=self.name, available=True, detail="for tests")

    def identities(self, place):
        content = place.read_identity_file()
        return "nothing written" if content is None else content.decode().split()

    def prepare(self, bundles):
        def put(bundle):
            return lambda place: place.write_identity_file("\n".join(bundle).encode())

        return [put(bundle) for bundle in bundles]

    def forget(self, place):
        place.write_identity_file(None)


class MemoryKeyring:
    """A keyring that works."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service, username):
        return self.entries.get((service, username))

    def set_password(self, service, username, password):
        self.entries[service, username] = password

    def delete_password(self, service, username):
        del self.entries[service, username]
