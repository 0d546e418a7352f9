"""K16: the log shows who asked for what, and whether somebody edited it."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from keys_support import MASTER_KEY, VALUE, Clock, FaultyLayer, Killed, figure

from apex_llm.errors import KeyAccessDeniedError, KeyStoreError, TamperedError
from apex_llm.keys import ApiKeyManager
from apex_llm.keys.os_layer import OsLayer


def fresh(home: Path, **options) -> ApiKeyManager:
    return ApiKeyManager(home, master_key=MASTER_KEY, **options)


def log_of(home: Path) -> Path:
    return home / "audit.jsonl"


def lines_of(home: Path) -> list[dict]:
    return [json.loads(line) for line in log_of(home).read_text().splitlines()]


def test_every_retrieval_in_a_plugins_name_is_one_line(manager: ApiKeyManager, home: Path, clock: Clock) -> None:
    manager.set_plugin_permissions("reader", ["aws_bedrock"])
    before = len(lines_of(home))
    manager.get_api_key_secure("reader", "aws_bedrock")
    manager.get_oauth_token_secure("reader", "aws_bedrock")
    with pytest.raises(KeyAccessDeniedError):
        manager.get_api_key_secure("stranger", "aws_bedrock")
    manager.get_api_key("aws_bedrock")  # the application's own

    allowed, empty, denied = lines_of(home)[before:]
    assert list(allowed) == ["seq", "time", "plugin", "operation", "service", "decision", "fingerprint", "prev", "mac"]
    assert (allowed["plugin"], allowed["operation"], allowed["service"]) == ("reader", "get_api_key", "aws_bedrock")
    assert (allowed["decision"], allowed["time"]) == ("allowed", clock.now)
    assert (empty["operation"], empty["fingerprint"]) == ("get_oauth_token", None)
    assert (denied["plugin"], denied["decision"], denied["fingerprint"]) == ("stranger", "denied: not granted", None)
    assert [entry.seq for entry in manager.audit_entries()] == [line["seq"] for line in lines_of(home)]


def test_a_fingerprint_is_no_part_and_no_plain_hash_of_the_secret(home: Path, tmp_path: Path) -> None:
    secret = "sk-canary-0123456789"
    found = set()
    for place in (home, tmp_path / "other"):
        manager = fresh(place)
        manager.set_api_key("service", secret)
        (line,) = (line for line in lines_of(place) if line["operation"] == "set_api_key")
        found.add(line["fingerprint"])
        assert secret not in log_of(place).read_text()
    hashes = {hashlib.new(name, secret.encode()).hexdigest()[:12] for name in ("sha256", "sha1", "md5", "blake2b")}
    assert len(found) == 2  # keyed by the store
    assert not found & hashes


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A store whose head vouches for the whole log."""
    home = tmp_path_factory.mktemp("audited") / "store"
    manager = fresh(home)
    manager.set_api_key("aws_bedrock", VALUE)
    manager.set_plugin_permissions("reader", ["aws_bedrock"])
    for _ in range(figure(150, 1000)):
        manager.get_api_key_secure("reader", "aws_bedrock")
    manager.close()
    assert fresh(home).verify().ok
    return home, log_of(home).read_bytes()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("attack", ["edit", "delete", "insert", "swap", "truncate", "tear", "replace all"])
def test_any_change_behind_the_head_is_found(long_log: tuple[Path, bytes], attack: str) -> None:
    home, content = long_log
    lines = content.splitlines(keepends=True)
    chance = random.Random(16)
    manager = fresh(home)
    manager.unlock()
    positions = range(len(lines)) if figure(0, 1) else chance.sample(range(len(lines)), 25)
    for at in positions:
        changed = list(lines)
        if attack == "edit":
            changed[at] = changed[at].replace(b'"decision":"allowed"', b'"decision":"alloved"')
        elif attack == "delete":
            del changed[at]
        elif attack == "insert":
            changed.insert(at, lines[chance.randrange(len(lines))])
        elif attack == "swap":
            other = (at + 1) % len(lines)
            changed[at], changed[other] = changed[other], changed[at]
        elif attack == "truncate":
            changed = changed[:at]
        elif attack == "tear":
            changed = [*changed[:at], changed[at][: chance.randrange(1, len(changed[at]) - 1)]]
        else:
            changed = [b'{"seq":1,"mac":"' + b"0" * 64 + b'"}\n'] * (at + 1)
        log_of(home).write_bytes(b"".join(changed))
        found = manager.verify()
        assert not found.ok, (attack, at)
        assert any("Audit log" in problem for problem in found.problems)
    log_of(home).write_bytes(content)
    assert manager.verify().ok


def test_a_removed_log_is_found(long_log: tuple[Path, bytes]) -> None:
    home, content = long_log
    log_of(home).unlink()
    assert not fresh(home).verify().ok
    log_of(home).touch(mode=0o600)
    log_of(home).write_bytes(content)
    assert fresh(home).verify().ok


def test_another_stores_log_is_found(long_log: tuple[Path, bytes], tmp_path: Path) -> None:
    home, content = long_log
    other = fresh(tmp_path / "other")
    other.set_api_key("service", "value")
    log_of(home).write_bytes(log_of(tmp_path / "other").read_bytes())
    assert not fresh(home).verify().ok
    log_of(home).write_bytes(content)


def test_a_line_that_a_killed_writer_left_half_is_no_damage(manager: ApiKeyManager, home: Path) -> None:
    with log_of(home).open("ab") as log:
        log.write(b'{"seq":99,"time":1')
    again = fresh(home, audit="required")
    again.set_plugin_permissions("reader", ["aws_bedrock"])
    again.get_api_key_secure("reader", "aws_bedrock")
    assert again.verify().ok, again.verify()


@pytest.mark.parametrize("call", ["open_to_append", "write"])
def test_no_line_no_secret(manager: ApiKeyManager, home: Path, call: str) -> None:
    """A full disk, and a log that is required."""
    manager.set_plugin_permissions("reader", ["aws_bedrock"])
    strict = fresh(home, audit="required", os_layer=FaultyLayer(1, "fail before", errno.ENOSPC, only=call))
    with pytest.raises(KeyStoreError, match="no line, no secret") as caught:
        strict.get_api_key_secure("reader", "aws_bedrock")
    assert "disk is full" in str(caught.value.hint)
    assert strict.get_api_key_secure("reader", "aws_bedrock") == VALUE  # there is room again

    strict = fresh(home, audit="required", os_layer=FaultyLayer(1, "fail before", errno.ENOSPC, only=call))
    with pytest.raises(KeyStoreError, match="no line, no secret"):
        strict.get_api_key("aws_bedrock")
    with pytest.raises(KeyAccessDeniedError):
        strict.get_api_key_secure("stranger", "aws_bedrock")
    assert strict.verify().ok


def test_a_log_that_is_not_required_warns(manager: ApiKeyManager, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager.set_plugin_permissions("reader", ["aws_bedrock"])
    lenient = fresh(home, os_layer=FaultyLayer(1, "fail before", errno.ENOSPC, only="write"))
    with caplog.at_level(logging.WARNING):
        assert lenient.get_api_key_secure("reader", "aws_bedrock") == VALUE
    assert "audit log could not be written" in caplog.text
    assert manager.verify().ok  # half a line is taken back


def test_a_required_log_that_was_cut_refuses_to_go_on(manager: ApiKeyManager, home: Path) -> None:
    manager.set_plugin_permissions("reader", ["aws_bedrock"])
    required = fresh(home, audit="required")
    required.get_api_key_secure("reader", "aws_bedrock")
    log_of(home).write_bytes(log_of(home).read_bytes().splitlines(keepends=True)[0])

    with pytest.raises(TamperedError, match="not as it was left"):
        required.get_api_key_secure("reader", "aws_bedrock")
    assert required.status().problems


def test_processes_share_one_chain(manager: ApiKeyManager, home: Path) -> None:
    manager.set_plugin_permissions("reader", ["aws_bedrock"])
    other = fresh(home)
    for _ in range(20):
        manager.get_api_key_secure("reader", "aws_bedrock")
        other.get_api_key_secure("reader", "aws_bedrock")
    assert [line["seq"] for line in lines_of(home)] == list(range(1, len(lines_of(home)) + 1))
    assert manager.verify().ok


def test_a_log_that_is_put_away_goes_on_in_a_new_one(manager: ApiKeyManager, home: Path) -> None:
    manager.set_plugin_permissions("reader", ["aws_bedrock"])
    kept = log_of(home).read_bytes()
    archived = manager.archive_audit_log()
    assert archived.read_bytes() == kept
    manager.get_api_key_secure("reader", "aws_bedrock")
    assert lines_of(home)[0]["seq"] == kept.count(b"\n") + 1
    assert manager.verify().ok, manager.verify()
    os.truncate(log_of(home), 0)
    manager.close()
    assert not fresh(home).verify().ok


def test_closing_vouches_for_the_log(manager: ApiKeyManager, home: Path) -> None:
    manager.set_plugin_permissions("reader", ["aws_bedrock"])
    with fresh(home) as using:
        for _ in range(5):
            using.get_api_key_secure("reader", "aws_bedrock")
    log_of(home).write_bytes(b"".join(log_of(home).read_bytes().splitlines(keepends=True)[:-1]))
    assert not fresh(home).verify().ok


def test_no_log_at_all(home: Path) -> None:
    silent = fresh(home, audit="off")
    silent.set_api_key("service", "value")
    silent.set_api_key("service", "value2")
    assert silent.verify().ok
    assert not log_of(home).exists() or not log_of(home).read_bytes()


def test_a_change_and_its_line_are_one_generation(manager: ApiKeyManager, home: Path) -> None:
    """The store that is saved vouches for the line, so closing has nothing left to save."""
    before = manager.generation
    with fresh(home) as using:
        using.set_api_key("service", "value")
    assert fresh(home).generation == before + 1
    log_of(home).write_bytes(b"".join(log_of(home).read_bytes().splitlines(keepends=True)[:-1]))
    assert not fresh(home).verify().ok


@pytest.mark.parametrize("call", ["open_to_append", "write"])
def test_no_line_no_change(manager: ApiKeyManager, home: Path, call: str) -> None:
    """With a log that is required, what cannot be audited is not done either."""
    before = (home / "store.age").read_bytes()
    strict = fresh(home, audit="required", os_layer=FaultyLayer(1, "fail before", errno.ENOSPC, only=call))
    with pytest.raises(KeyStoreError, match="no line, no change"):
        strict.set_api_key("service", "value")
    assert (home / "store.age").read_bytes() == before
    strict.set_api_key("service", "value")
    assert strict.verify().ok


def test_a_change_that_fails_after_its_line_says_so_in_the_next(manager: ApiKeyManager, home: Path) -> None:
    failing = fresh(home, os_layer=FaultyLayer(1, "fail before", errno.ENOSPC, only="open_new"))
    with pytest.raises(KeyStoreError, match="No space"):
        failing.set_api_key("service", "value")
    tried, failed = lines_of(home)[-2:]
    assert (tried["operation"], tried["decision"]) == ("set_api_key", "allowed")
    assert (failed["operation"], failed["decision"]) == ("set_api_key", "failed: KeyStoreError")
    assert fresh(home).get_api_key("service") is None
    assert fresh(home).verify().ok


def test_putting_the_log_away_is_no_suspicion_even_where_it_is_required(manager: ApiKeyManager, home: Path) -> None:
    required = fresh(home, audit="required")
    required.archive_audit_log()
    assert not required.status().problems
    assert required.get_api_key("aws_bedrock") == VALUE
    assert fresh(home).verify().ok


def used(home: Path) -> ApiKeyManager:
    manager = fresh(home)
    manager.set_api_key("aws_bedrock", VALUE)
    manager.set_plugin_permissions("reader", ["aws_bedrock"])
    for _ in range(3):
        manager.get_api_key_secure("reader", "aws_bedrock")
    return manager


def all_lines(home: Path) -> set[bytes]:
    return {line for path in home.glob("audit*.jsonl") for line in path.read_bytes().splitlines()}


MODES = ("fail before", "fail after", "kill before", "kill after")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES)
def test_putting_the_log_away_may_stop_anywhere(tmp_path: Path, mode: str) -> None:
    """K2 for the archive: no line is lost, verify() has nothing to say, and doing it again finishes it."""
    used(tmp_path / "rehearsal")
    rehearsal = FaultyLayer()
    fresh(tmp_path / "rehearsal", os_layer=rehearsal).archive_audit_log()
    assert rehearsal.count > 30

    for at in range(1 + MODES.index(mode) % figure(2, 1), rehearsal.count + 1, figure(2, 1)):
        home = tmp_path / f"{at}"
        used(home)
        before = all_lines(home)
        layer = FaultyLayer(at, mode)
        try:
            fresh(home, os_layer=layer).archive_audit_log()
        except Killed:
            layer.bury()
        except KeyStoreError:
            assert mode.startswith("fail")
        point = f"{mode} {at}: {rehearsal.calls[at - 1]}"

        again = fresh(home, audit="required")
        assert again.verify().ok, (point, again.verify())
        assert again.get_api_key_secure("reader", "aws_bedrock") == VALUE, point
        assert before <= all_lines(home), point

        archived = again.archive_audit_log()
        assert fresh(home).verify().ok, (point, fresh(home).verify())
        assert lines_of(home)[0]["operation"] == "archive_audit_log", point
        assert lines_of(home)[0]["prev"] == json.loads(archived.read_bytes().splitlines()[-1])["mac"], point
        assert before <= all_lines(home), point
        assert not [name for name in os.listdir(home) if name.endswith(".tmp")], point


def test_a_full_disk_stops_the_log_from_being_put_away_and_nothing_else(manager: ApiKeyManager, home: Path) -> None:
    before = log_of(home).read_bytes()
    full = fresh(home, os_layer=FaultyLayer(1, "fail before", errno.ENOSPC, only="open_new"))
    with pytest.raises(KeyStoreError, match="No space left") as caught:
        full.archive_audit_log()
    assert caught.value.hint
    assert log_of(home).read_bytes().startswith(before)
    assert lines_of(home)[-1]["decision"] == "failed: KeyStoreError"
    assert fresh(home).verify().ok
    assert fresh(home, audit="required").get_api_key("aws_bedrock") == VALUE


def test_a_line_for_many_services_is_no_damage(manager: ApiKeyManager, home: Path) -> None:
    """Longer than what is usually read of the end of the log; torn or whole."""
    required = fresh(home, audit="required")
    names = [f"service-{number}-{'é' * 180}" for number in range(400)]
    required.set_plugin_permissions("plugin", names)
    assert required.get_api_key("aws_bedrock") == VALUE
    required.set_plugin_permissions("plugin", names[:100])
    with log_of(home).open("ab") as file:
        file.write(b'{"seq":' + b" " * 40_000)
    assert required.get_api_key("aws_bedrock") == VALUE
    assert not required.status().problems
    assert required.verify().ok


class Interrupting(OsLayer):
    """Lets something happen just before the nth call of one kind."""

    def __init__(self, call: str, act: Callable[[], object], *, nth: int = 1) -> None:
        self.waiting = {call: (act, nth)}

    def __getattribute__(self, name: str):
        found = super().__getattribute__(name)
        if name != "waiting" and name in self.waiting:
            act, nth = self.waiting.pop(name)
            if nth > 1:
                self.waiting[name] = (act, nth - 1)
            else:
                act()
        return found


@pytest.mark.parametrize("call", ["names", "read_at", "read", "open_to_read"])
def test_a_log_that_is_put_away_while_it_is_verified_is_no_damage(home: Path, call: str) -> None:
    writing = fresh(home)
    names = [f"service-{number}-{'x' * 180}" for number in range(500)]
    for number in range(14):  # more than is read at once
        writing.set_plugin_permissions("plugin", names[number:])
    assert log_of(home).stat().st_size > 1 << 20
    for nth in range(1, 5):
        layer = Interrupting(call, writing.archive_audit_log, nth=nth)
        found = fresh(home, os_layer=layer).verify()
        assert found.ok, (nth, found.problems)
        writing.set_plugin_permissions("plugin", names[nth:])


def test_lines_that_are_written_meanwhile_are_in_the_one_log_or_in_the_other(home: Path) -> None:
    used(home)

    def ask(_: int) -> None:
        asking = fresh(home, audit="required")
        for _ in range(figure(15, 100)):
            asking.get_api_key_secure("reader", "aws_bedrock")
        assert not asking.status().problems

    archiving = fresh(home)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, number) for number in range(4)]
        for _ in range(figure(5, 40)):
            archiving.archive_audit_log()
        for each in asked:
            each.result()

    numbers = sorted(json.loads(line)["seq"] for line in all_lines(home))
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(list(home.glob("audit-*.jsonl"))) == figure(5, 40)
    assert fresh(home).verify().ok, fresh(home).verify()


@pytest.mark.parametrize("attack", ["edited", "cut", "missing", "junk"])
def test_a_damaged_log_can_be_put_away_when_it_was_looked_at(home: Path, attack: str) -> None:
    """Else verify() would complain for ever, and a log that is required would hand out nothing any more."""
    with used(home):
        pass
    content = log_of(home).read_bytes()
    kept = {
        "edited": content.replace(b'"plugin":"reader"', b'"plugin":"nobody"', 1),
        "cut": b"".join(content.splitlines(keepends=True)[:2]),
        "missing": b"",
        "junk": b"junk\n" * 50,
    }[attack]
    log_of(home).write_bytes(kept)
    if attack == "missing":
        log_of(home).unlink()
    assert not fresh(home).verify().ok
    with pytest.raises(KeyStoreError, match="not as it was left") as caught:
        fresh(home).archive_audit_log()
    assert "damaged=True" in str(caught.value.hint)

    archived = fresh(home, audit="required").archive_audit_log(damaged=True)

    assert archived.name.endswith("-damaged.jsonl")
    assert archived.read_bytes() == kept
    assert [line["operation"] for line in lines_of(home)] == ["archive_audit_log"]
    again = fresh(home, audit="required")
    assert again.get_api_key_secure("reader", "aws_bedrock") == VALUE
    assert not again.status().problems
    assert again.verify().ok, again.verify()
    os.truncate(log_of(home), 0)
    assert not fresh(home).verify().ok


def test_what_stands_before_the_beginning_of_a_log_must_lead_up_to_it(home: Path) -> None:
    """A log that was not cut yet begins earlier than the store says; that lets nobody write in front of it."""
    used(home)
    archived = fresh(home).archive_audit_log()
    before, now = archived.read_bytes(), log_of(home).read_bytes()
    lines = before.splitlines(keepends=True)
    for genuine in (before + now, b"".join(lines[2:]) + now):
        log_of(home).write_bytes(genuine)
        assert fresh(home).verify().ok, fresh(home).verify()
    for forged in (
        b"".join(lines[:-1]) + now,
        b"".join([*lines[:1], *lines[2:]]) + now,
        lines[-1] + lines[-1] + now,
        b"junk\n" + now,
        before,
        b"",
    ):
        log_of(home).write_bytes(forged)
        assert not fresh(home).verify().ok, forged


def test_a_store_without_its_first_line_is_not_made_where_the_line_is_required(home: Path) -> None:
    strict = fresh(home, audit="required", os_layer=FaultyLayer(1, "fail before", errno.ENOSPC, only="open_to_append"))
    with pytest.raises(KeyStoreError, match="no line, no store"):
        strict.set_api_key("service", "value")
    assert not (home / "store.age").exists()
    strict.set_api_key("service", "value")
    assert strict.verify().ok
