"""K8, K9: a store that others could read or replace is not opened; what is made, nobody else can."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from keys_support import MASTER_KEY, VALUE, OpenBook, figure

from apex_llm.errors import KeyStoreError, PermissionsTooOpenError
from apex_llm.keys import ApiKeyManager
from apex_llm.keys.files import SECOND_NAME
from apex_llm.keys.os_layer import OsLayer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")
_REFUSED_WITHIN = figure(20, 2) * 0.05  # seconds: a tenth of one, and the gate runs beside other things
FILES = ("store.age", "store.lock", "identity.age", "audit.jsonl")


def make_store(home: Path) -> None:
    ApiKeyManager(home, unlockers=[OpenBook()]).set_api_key("aws_bedrock", VALUE)


def use(home: Path) -> None:
    """Open, read and write."""
    manager = ApiKeyManager(home, unlockers=[OpenBook()], audit="required")
    manager.get_api_key("aws_bedrock")
    manager.set_api_key("other", "value")


def plant(home: Path, name: str, kind: str, canary: Path) -> None:
    path = home / name
    path.unlink(missing_ok=True)
    if kind == "symbolic link":
        path.symlink_to(canary)
    elif kind == "hard link":
        os.link(canary, path)
    elif kind == "FIFO":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir(mode=0o700)
    elif kind == "device":
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except OSError:
            pytest.skip("making a device needs privileges")
    elif kind == "somebody else's":
        path.touch(mode=0o600)
        try:
            os.chown(path, 12345, 12345)
        except OSError:
            pytest.skip("giving a file away needs privileges")


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "FIFO", "directory", "device", "somebody else's"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_not_a_plain_file_of_ours_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    """K8."""
    home = tmp_path / "store"
    make_store(home)
    canary = tmp_path / "canary"
    canary.touch(mode=0o600)
    canary.write_bytes(b"untouched")
    plant(home, name, kind, canary)
    began = time.monotonic()

    with pytest.raises(KeyStoreError) as caught:
        use(home)

    took = time.monotonic() - began
    assert isinstance(caught.value, PermissionsTooOpenError) or kind == "directory"
    assert took < _REFUSED_WITHIN
    assert canary.read_bytes() == b"untouched"


@pytest.mark.parametrize("name", ["elsewhere", "store/stolen", "store/store.age.bak.2"])
def test_a_second_name_of_the_store_is_refused(tmp_path: Path, name: str) -> None:
    """K8: only the newest backup may be the same file, and only because we make it so."""
    home = tmp_path / "store"
    make_store(home)
    os.link(home / "store.age", tmp_path / name)

    with pytest.raises(PermissionsTooOpenError, match="2 names"):
        use(home)


@pytest.mark.parametrize("then", ["the name", "nothing more"])
def test_a_second_name_that_is_counted_before_it_can_be_found_is_waited_for(tmp_path: Path, then: str) -> None:
    """K6: ext4 counts a new name first and puts it into the directory then; who lists the directory waits for that."""
    home = tmp_path / "store"
    make_store(home)
    store, becoming = home / "store.age", home / SECOND_NAME

    class BeingLinked(OsLayer):
        counted = True

        def status(self, descriptor: int) -> os.stat_result:
            found = super().status(descriptor)
            if self.counted and found.st_ino == store.stat().st_ino:
                fields = list(found)
                fields[stat.ST_NLINK] = 2
                return os.stat_result(fields, {"st_mtime_ns": found.st_mtime_ns, "st_ctime_ns": found.st_ctime_ns})
            return found

        def names(self, path: str, directory: int) -> list[str]:
            if self.counted:
                self.counted = False
                if then == "the name":
                    os.link(store, becoming)
            return super().names(path, directory)

    layer = BeingLinked()
    assert ApiKeyManager(home, unlockers=[OpenBook()], os_layer=layer).get_api_key("aws_bedrock") == VALUE
    assert not layer.counted


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "FIFO", "directory", "device", "somebody else's"])
def test_a_planted_temporary_name_is_not_followed(tmp_path: Path, kind: str) -> None:
    """K8: even a name that was guessed."""

    class Guessed(OsLayer):
        def token(self) -> str:
            return "guessed"

    home = tmp_path / "store"
    make_store(home)
    canary = tmp_path / "canary"
    canary.write_bytes(b"untouched")
    canary.chmod(0o600)

    class PlantedLate(Guessed):
        """After leftovers were removed: the attacker is quick."""

        def open_new(self, path: str, name: str, directory: int) -> int:
            plant(home, name, kind, canary)
            return super().open_new(path, name, directory)

    manager = ApiKeyManager(home, unlockers=[OpenBook()], os_layer=PlantedLate())
    began = time.monotonic()
    with pytest.raises(KeyStoreError):
        manager.set_api_key("other", "value")
    assert time.monotonic() - began < _REFUSED_WITHIN
    assert canary.read_bytes() == b"untouched"
    assert manager.get_api_key("aws_bedrock") == VALUE


@pytest.mark.parametrize("kind", ["symbolic link", "file", "FIFO", "device", "somebody else's"])
def test_a_directory_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    """K8."""
    real = tmp_path / "real"
    make_store(real)
    home = tmp_path / "store"
    if kind == "symbolic link":
        home.symlink_to(real)
    elif kind == "file":
        home.touch(mode=0o600)
    elif kind == "somebody else's":
        make_store(home)
        try:
            os.chown(home, 12345, 12345)
        except OSError:
            pytest.skip("giving a directory away needs privileges")
    elif kind == "device":
        plant(tmp_path, "store", kind, real)
    else:
        os.mkfifo(home, 0o600)
    began = time.monotonic()

    with pytest.raises(PermissionsTooOpenError):
        use(home)
    assert time.monotonic() - began < _REFUSED_WITHIN


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o640, 0o604])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    """K9."""
    home = tmp_path / "store"
    make_store(home)
    (home / name).chmod(mode)

    with pytest.raises(PermissionsTooOpenError, match=f"mode 0{mode:o}") as caught:
        use(home)
    assert "chmod 600" in str(caught.value.hint)


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o750, 0o701])
def test_a_directory_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    """K9."""
    home = tmp_path / "store"
    make_store(home)
    home.chmod(mode)

    with pytest.raises(PermissionsTooOpenError, match=f"mode 0{mode:o}"):
        use(home)


@pytest.mark.parametrize("umask", ["0o000", "0o077", "0o277"])
def test_what_is_made_is_for_the_owner_only_whatever_the_umask(tmp_path: Path, umask: str) -> None:
    """K9, in a child, because the umask belongs to the whole process."""
    home = tmp_path / "deep" / "er" / "store"
    code = (
        "import os, sys\n"
        f"os.umask({umask} & 0o077)\n"
        "from apex_llm.keys import ApiKeyManager\n"
        "manager = ApiKeyManager(sys.argv[1], master_key=sys.argv[2])\n"
        f"os.umask({umask}) if os.path.exists(sys.argv[1]) else None\n"
        "for n in range(5): manager.set_api_key('a', 'b' * 9)\n"
        "manager.export_store(sys.argv[1] + '.export', recipients=[manager._vault.snapshot().recipients.primary])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(home), MASTER_KEY], check=True, timeout=60)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"store.age.bak.1", "store.age.bak.2", "store.age.bak.3"} < set(modes)
    assert stat.S_IMODE((home.parent / "store.export").stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in (home, home.parent)} == {0o700}


def test_a_mode_that_changes_while_the_store_is_open_is_noticed(tmp_path: Path) -> None:
    home = tmp_path / "store"
    make_store(home)
    manager = ApiKeyManager(home, unlockers=[OpenBook()])
    manager.get_api_key("aws_bedrock")
    (home / "store.age").chmod(0o644)

    with pytest.raises(PermissionsTooOpenError):
        manager.get_api_key("aws_bedrock")
