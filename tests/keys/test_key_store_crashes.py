"""K1 to K3: whatever stops a writer, the store is the old one or the new one."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from keys_support import FULL, MASTER_KEY, VALUE, FaultyLayer, Killed, OpenBook, figure, worker

from apex_llm.errors import ApexLlmError, KeyStoreError
from apex_llm.keys import ApiKeyManager
from apex_llm.keys.os_layer import OsLayer

MODES = ("fail before", "fail after", "kill before", "kill after")


def opened(home: Path, **options) -> ApiKeyManager:
    return ApiKeyManager(home, unlockers=[OpenBook()], **options)


def prepare_nothing(home: Path) -> None:
    """The directory does not exist."""


def prepare_existing(home: Path) -> None:
    opened(home).set_api_key("service", "old")


def prepare_rotated(home: Path) -> None:
    manager = opened(home)
    manager.set_api_key("service", "older")
    manager.rotate_master_key()
    manager.set_api_key("service", "old")


def write(manager: ApiKeyManager) -> None:
    manager.set_api_key("service", "new")


def rotate(manager: ApiKeyManager) -> None:
    manager.rotate_master_key()


CASES = {
    "new": (prepare_nothing, write, {None, "new"}, "new"),
    "existing": (prepare_existing, write, {"old", "new"}, "new"),
    "after rotation": (prepare_rotated, write, {"old", "new"}, "new"),
    "rotating": (prepare_existing, rotate, {"old"}, "old"),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_a_store_is_old_or_new_whichever_system_call_fails_or_is_the_last(tmp_path: Path, case: str, mode: str) -> None:
    """K2. A failed call is a typed error and the manager goes on; a killed process leaves a store that opens."""
    prepare, act, allowed, wanted = CASES[case]
    rehearsal = FaultyLayer()
    prepare(tmp_path / "rehearsal")
    act(opened(tmp_path / "rehearsal", os_layer=rehearsal))
    assert rehearsal.count > 20

    # In the gate each mode takes every third point, and they take turns; in the full form each takes all.
    for at in range(1 + MODES.index(mode) % figure(3, 1), rehearsal.count + 1, figure(3, 1)):
        home = tmp_path / f"{at}"
        prepare(home)
        layer = FaultyLayer(at, mode)
        manager = opened(home, os_layer=layer)
        acknowledged = False
        try:
            act(manager)
            acknowledged = True
        except Killed:
            layer.bury()
        except KeyStoreError:
            assert mode.startswith("fail")
        point = f"{mode} {at}: {rehearsal.calls[at - 1]}"

        fresh = opened(home)
        found = fresh.get_api_key("service")
        assert found in allowed, point
        assert not acknowledged or found == wanted, point
        if mode.startswith("fail"):
            assert manager.get_api_key("service") == found, point
        fresh.set_api_key("after", "works")
        leftovers = [name for name in os.listdir(home) if name.endswith(".tmp")]
        assert not leftovers, point
        assert opened(home).list_configured_services()["api_keys"][0] == "after", point


@pytest.mark.parametrize("links", [True, False])
def test_backups_are_the_three_states_before_linked_or_copied(tmp_path: Path, links: bool) -> None:
    home = tmp_path / "store"

    class NoLinks(OsLayer):
        def link(self, path: str, source: str, target: str, directory: int) -> None:
            raise PermissionError(errno.EPERM, "links are refused, as on FAT")

    manager = opened(home, os_layer=OsLayer() if links else NoLinks())
    for number in range(5):
        manager.set_api_key("service", f"value-{number}")
        assert {os.stat(home / name).st_nlink for name in os.listdir(home)} == {1}
    held = [manager._vault.read_backup(f"store.age.bak.{number}") for number in (1, 2, 3)]
    assert [each and each.credentials["service"]["api_key"].current.value for each in held] == [
        "value-3",
        "value-2",
        "value-1",
    ]


@pytest.mark.parametrize("renames", [1, 2, 3, 4])
def test_a_writer_killed_between_its_names_leaves_a_store_that_opens(tmp_path: Path, renames: int) -> None:
    """The store then has two names, and both of them are ours; the next change leaves each file with one."""
    home = tmp_path / "store"
    manager = opened(home)
    for number in range(5):
        manager.set_api_key("service", f"value-{number}")
    layer = FaultyLayer(renames, "kill before", only="replace")
    with pytest.raises(Killed):
        opened(home, os_layer=layer).set_api_key("service", "never")
    layer.bury()
    assert os.stat(home / "store.age").st_nlink == 2

    fresh = opened(home)
    assert fresh.get_api_key("service") == "value-4"
    assert fresh.verify().ok, fresh.verify()
    fresh.set_api_key("service", "value-5")
    assert {os.stat(home / name).st_nlink for name in os.listdir(home)} == {1}
    newest = fresh._vault.read_backup("store.age.bak.1")
    assert newest is not None
    assert newest.credentials["service"]["api_key"].current.value == "value-4"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "open_new", "sync", "restrict"])
def test_a_disk_that_refuses_leaves_the_store_byte_for_byte(tmp_path: Path, call: str, code: int) -> None:
    """K3, by injection: each write of the file, until one goes through."""
    home = tmp_path / "store"
    prepare_existing(home)
    before = (home / "store.age").read_bytes()
    for at in range(1, 4):
        layer = FaultyLayer(at, "fail before", code, only=call)
        manager = opened(home, os_layer=layer, audit="off")
        refusal: KeyStoreError | None = None
        try:
            manager.set_api_key("service", "new")
        except KeyStoreError as error:
            refusal = error
        if refusal is None:
            break
        if (home / "store.age").read_bytes() != before:
            # Only making the directory durable comes after the store was replaced.
            assert call == "sync"
            assert "may be lost" in str(refusal.hint)
            break
        assert refusal.code == errno.errorcode[code]
        assert refusal.hint
        assert opened(home).get_api_key("service") == "old"
        assert sorted(os.listdir(home)) == ["audit.jsonl", "identity.age", "store.age", "store.age.bak.1", "store.lock"]
    else:
        pytest.fail("no write went through")


def test_a_limit_on_file_sizes_is_an_error_and_not_a_torn_store(tmp_path: Path) -> None:
    """K3 with a real limit, in a child whose limit it is."""
    home = tmp_path / "store"
    prepare_master(home)
    before = (home / "store.age").read_bytes()
    code = (
        "import resource, signal, sys\n"
        "from apex_llm.keys import ApiKeyManager\n"
        "from apex_llm.errors import KeyStoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "manager = ApiKeyManager(sys.argv[1], master_key=sys.argv[2], audit='off')\n"
        "manager.unlock()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "try: manager.set_api_key('service', 'x' * 5000)\n"
        "except KeyStoreError as error: print(error.code, error.hint)\n"
        "print(manager.get_api_key('aws_bedrock') is not None)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(home), MASTER_KEY], capture_output=True, text=True, check=True, timeout=60
    )

    assert run.stdout.startswith("EFBIG")
    assert run.stdout.endswith("True\n")
    assert (home / "store.age").read_bytes() == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200


def prepare_master(home: Path) -> None:
    ApiKeyManager(home, master_key=MASTER_KEY).set_api_key("aws_bedrock", VALUE)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.timeout(3600 if FULL else 120)
def test_a_writer_that_is_killed_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """K1: a real process, a real SIGKILL, at a random moment within 5 ms of an acknowledgement."""
    home = tmp_path / "store"
    prepare_master(home)
    random.seed(5)
    acknowledged = unheard = 0
    kills = figure(10, 2000)
    for _ in range(kills):
        process = subprocess.Popen(
            worker("count", home, MASTER_KEY, acknowledged),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what readline() reads ahead, communicate() would not see
        )
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        assert first, process.stderr.read()
        time.sleep(random.uniform(0, 0.005))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        acknowledged = int((first + rest).split(b"\n")[-2])  # the last whole line

        manager = ApiKeyManager(home, master_key=MASTER_KEY)
        found = int(str(manager.get_api_key("counter")))
        assert found in (acknowledged, acknowledged + 1)
        assert manager.get_api_key("aws_bedrock") == VALUE
        for name in os.listdir(home):
            assert stat.S_IMODE(os.stat(home / name).st_mode) == 0o600
            if name.endswith(".tmp"):
                assert b"counter" not in (home / name).read_bytes()
        unheard += found - acknowledged
        acknowledged = found
    print(f"K1: {kills} kills, {acknowledged} writes, {unheard} of them there though not acknowledged, none lost")
    manager = ApiKeyManager(home, master_key=MASTER_KEY)
    manager.set_api_key("last", "one")
    assert not [name for name in os.listdir(home) if name.endswith(".tmp")]
    assert manager.verify().ok, manager.verify()


def test_a_read_only_home_still_opens_and_says_why_it_cannot_be_written(tmp_path: Path) -> None:
    home = tmp_path / "store"
    prepare_existing(home)
    layer = FaultyLayer(1, "fail before", errno.EROFS, only="open_to_lock")
    manager = opened(home, os_layer=layer)

    assert manager.get_api_key("service") == "old"
    with pytest.raises(ApexLlmError, match="Read-only") as caught:
        manager.set_api_key("service", "new")
    assert "APEX_LLM_HOME" in str(caught.value.hint)
