"""Figures of the short and the full form, a clock, and system calls that fail or die where they are told to."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from age_by_hand import passphrase_file
from canaries import MASTER_KEY as MASTER_KEY
from canaries import STORED_SECRET

from apex_llm.keys import ApiKeyManager, UnlockerStatus
from apex_llm.keys.os_layer import OsLayer
from apex_llm.keys.unlockers import read_master_key

FULL = os.environ.get("APEX_LLM_FULL") == "1"  # read before a fixture cleans the environment; see scripts/check-keys
VALUE = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": STORED_SECRET}
WORKER = Path(__file__).with_name("key_worker.py")


def figure(short: int, full: int) -> int:
    return full if FULL else short


def worker(*arguments: object) -> list[str]:
    return [sys.executable, str(WORKER), *map(str, arguments)]


def store_behind(passphrase: str, home: Path, *, work_factor: int = 4) -> None:
    """A store that opens with ``passphrase``, and with ``MASTER_KEY``, made without the seconds that pyrage takes."""
    with ApiKeyManager(home, master_key=MASTER_KEY) as manager:
        manager.set_api_key("aws_bedrock", VALUE)
    identity = f"{read_master_key(MASTER_KEY, source='a test')}\n".encode()
    sealed = home / "identity.age"
    sealed.touch(mode=0o600)
    sealed.write_bytes(passphrase_file(identity, passphrase, work_factor=work_factor))


def typed(command: Sequence[object], *answers: tuple[str, str]) -> int:
    """Run a command on a terminal of its own, type each answer after its prompt, and return the exit code."""
    import fcntl
    import termios

    ours, theirs = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [str(word) for word in command], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(theirs)
    try:
        for prompt, answer in answers:
            shown = b""
            while prompt.encode() not in shown:
                shown += os.read(ours, 1024)
            os.write(ours, answer.encode() + b"\n")
        with contextlib.suppress(OSError):  # Linux says so when the process has closed it
            while os.read(ours, 1024):
                pass
        return process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)


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
