"""``apex-llm keys``, run as the command line runs it: what it prints, what it keeps, and how it ends."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import click
import pyrage
import pytest
from age_by_hand import run_with_little_work
from click.testing import CliRunner
from cryptography.fernet import Fernet

import apex_llm.keys
from apex_llm.cli.application import application, run
from apex_llm.cli.exit_codes import ExitCode
from apex_llm.cli.keys import keys
from apex_llm.cli.keys.child import environment_of
from apex_llm.cli.keys.session import _HINTS, Session
from apex_llm.keys import ApiKeyManager

MASTER_KEY = base64.b64encode(bytes(range(1, 33))).decode()
SECRET = "sk-canary-1f7e2b"
AWS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": SECRET, "aws_region": "eu-central-1"}


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Shell:
    """``apex-llm keys`` in this process, on a store of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: object, stdin: str = "") -> Ended:
        with CliRunner().isolation(input=stdin) as (out, err, _):
            code = run(["keys", *map(str, arguments)])
            return Ended(int(code), out.getvalue().decode(), err.getvalue().decode())

    def good(self, *arguments: object, stdin: str = "") -> str:
        ended = self(*arguments, stdin=stdin)
        assert ended.code == ExitCode.DONE, ended
        return ended.out

    def json(self, *arguments: object, stdin: str = "") -> object:
        return json.loads(self.good(*arguments, "--json", stdin=stdin))

    @property
    def manager(self) -> ApiKeyManager:
        return ApiKeyManager(self.home)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """No store, no key, and nobody to ask."""
    monkeypatch.setenv("APEX_LLM_HOME", str(tmp_path / "store"))
    monkeypatch.setattr(Session, "has_terminal", staticmethod(lambda: False))
    return Shell(tmp_path / "store")


@pytest.fixture
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases without the seconds of scrypt, which pyrage chooses itself."""
    monkeypatch.setattr("apex_llm.keys.passphrase._run", run_with_little_work)


@pytest.fixture
def shell(empty: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)
    empty.good("init", "--no-recovery-key")
    return empty


# --- making a store


def test_every_command_of_the_plan_is_there_and_explains_itself() -> None:
    planned = {
        "init", "set", "list", "show", "remove", "grant", "revoke", "permissions", "rotate", "verify", "audit",
        "status", "export", "import", "migrate", "exec",
    }  # fmt: skip

    assert set(keys.commands) == planned
    for name in planned:
        assert CliRunner().invoke(application, ["keys", name, "--help"]).exit_code == 0


def test_no_help_shows_marks_of_its_own_formatting_and_examples_have_a_line_each(empty: Shell) -> None:
    for name in keys.commands:
        assert "\\b" not in empty.good(name, "--help")
    assert "  apex-llm keys exec reports aws_bedrock -- python report.py\n" in empty.good("exec", "--help")


def test_no_option_takes_a_secret_as_its_value() -> None:
    """Arguments are seen by every user of the machine, and kept in the shell's history."""
    takes_a_file = {"--new-passphrase-from", "--file-passphrase-from", "--passphrase-from", "--new-master-key-file"}
    suspicious = [
        option
        for command in (keys, *keys.commands.values())
        for parameter in command.params
        for option in parameter.opts
        if any(word in option for word in ("secret", "passphrase", "key", "value", "token", "password"))
        if not getattr(parameter, "is_flag", False) and option not in takes_a_file
    ]

    assert not suspicious


def test_without_a_keyring_a_terminal_or_a_key_there_is_a_sentence_that_says_what_to_do(empty: Shell) -> None:
    ended = empty("init")

    assert ended.code == ExitCode.AUTHENTICATION
    assert "no master key is set" in ended.err
    assert "keyring" in ended.err
    assert "init --new-master-key-file FILE" in ended.err
    assert not empty.home.exists()


def test_a_recovery_key_is_not_printed_into_a_pipe_unless_forced(empty: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)

    refused = empty("init")
    assert refused.code == ExitCode.USAGE
    assert "--recovery-file" in refused.err
    assert not empty.home.exists()

    recovery = empty.good("init", "--force-pipe").strip()
    assert recovery.startswith("AGE-SECRET-KEY-1")
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", recovery)
    assert empty.good("verify")


def test_a_server_gets_its_keys_in_files_that_only_it_can_read(
    empty: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, recovery = tmp_path / "master", tmp_path / "recovery"

    ended = empty("init", "--new-master-key-file", master, "--recovery-file", recovery)

    assert (ended.code, ended.out) == (0, "")
    assert f"APEX_LLM_MASTER_KEY_FILE={master}" in ended.err
    for file in (master, recovery):
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_text().strip() not in ended.err
        monkeypatch.setenv("APEX_LLM_MASTER_KEY_FILE", str(file))
        assert empty.good("list") == ""


def test_key_files_are_never_written_over_and_not_left_behind_by_a_failure(empty: Shell, tmp_path: Path) -> None:
    master, taken = tmp_path / "master", tmp_path / "taken"
    taken.write_text("precious")

    assert empty("init", "--new-master-key-file", taken, "--no-recovery-key").code == ExitCode.USAGE
    assert empty("init", "--new-master-key-file", master, "--recovery-file", taken).code == ExitCode.USAGE

    assert taken.read_text() == "precious"
    assert not master.exists()
    assert not empty.home.exists()


def test_a_second_store_in_the_same_place_is_refused(shell: Shell) -> None:
    ended = shell("init", "--no-recovery-key")

    assert ended.code == ExitCode.ERROR
    assert "There is a key store" in ended.err


def test_no_command_makes_a_store_by_the_way(empty: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that came to be by a typing error in APEX_LLM_HOME would have no recovery key."""
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)

    for command in (["list"], ["set", "a", "--stdin"], ["grant", "p", "s"], ["verify"], ["status"], ["audit"]):
        ended = empty(*command, stdin="x")
        if command != ["audit"]:
            assert ended.code == ExitCode.ERROR
            assert "no key store in" in ended.err + ended.out or "keys init" in ended.err
    assert not empty.home.exists()


# --- credentials


def test_a_text_comes_from_standard_input_and_loses_only_the_last_line_end(shell: Shell) -> None:
    shell.good("set", "pem", "--stdin", stdin="-----BEGIN\n  two\n-----END\n\n")

    assert shell.manager.get_api_key("pem") == "-----BEGIN\n  two\n-----END\n"


def test_a_dictionary_comes_from_standard_input_as_json(shell: Shell) -> None:
    shell.good("set", "aws_bedrock", "--stdin-json", stdin=json.dumps(AWS))

    assert shell.manager.get_api_key("aws_bedrock") == AWS


def test_members_come_from_the_environment_and_settings_from_arguments(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("THE_SECRET", SECRET)

    shell.good(
        "set", "aws_bedrock", "--from-environment", "aws_access_key_id=THE_ID", "--from-environment",
        "aws_secret_access_key=THE_SECRET", "--setting", "aws_region=eu-central-1",
    )  # fmt: skip

    assert shell.manager.get_api_key("aws_bedrock") == AWS


@pytest.mark.parametrize(
    ("options", "stdin"),
    [
        (["--setting", f"api_key={SECRET}"], ""),
        (["--setting", f"aws_secret_access_key={SECRET}"], ""),
        (["--setting", "aws_region=eu-central-1"], ""),
        (["--stdin-json"], f'"{SECRET}'),
        (["--stdin-json"], f'["{SECRET}"]'),
        (["--stdin"], ""),
        (["--stdin", "--stdin-json"], SECRET),
        (["--stdin", "--setting", "region=x"], SECRET),
        (["--from-environment", "NOT_SET"], ""),
        (["--update", "--setting", "region=x"], ""),
        ([], ""),
    ],
)
def test_a_value_that_is_not_clear_is_a_usage_error_that_stores_and_quotes_nothing(
    shell: Shell, options: list[str], stdin: str
) -> None:
    ended = shell("set", "aws_bedrock", *options, stdin=stdin)

    assert ended.code == ExitCode.USAGE
    assert SECRET not in ended.err
    assert shell.manager.get_api_key("aws_bedrock") is None


def test_an_update_keeps_the_other_members(shell: Shell) -> None:
    shell.manager.set_api_key("aws_bedrock", AWS)

    shell.good("set", "aws_bedrock", "--update", "--setting", "aws_region=us-east-1")

    assert shell.manager.get_api_key("aws_bedrock") == {**AWS, "aws_region": "us-east-1"}


def test_listing_and_showing_name_members_and_fingerprints_but_no_value(shell: Shell) -> None:
    shell.manager.set_api_key("aws_bedrock", AWS)
    shell.manager.set_oauth_token("github", {"access_token": SECRET})
    shell.manager.grant("reports", "aws_bedrock")

    for arguments in (["list"], ["list", "--json"], ["show", "aws_bedrock"], ["show", "aws_bedrock", "--json"]):
        said = shell.good(*arguments)
        assert "aws_secret_access_key" in said
        assert SECRET not in said
    assert "reports" in shell.good("show", "aws_bedrock")
    listed = shell.json("list")
    assert [(each["service"], each["kind"]) for each in listed] == [
        ("aws_bedrock", "api_key"),
        ("github", "oauth_token"),
    ]


def test_a_value_is_printed_only_by_name_and_not_into_a_pipe_and_leaves_a_line(shell: Shell) -> None:
    shell.manager.set_api_key("aws_bedrock", AWS)

    refused = shell("show", "aws_bedrock", "--reveal")
    assert refused.code == ExitCode.USAGE
    assert SECRET not in refused.out + refused.err
    assert shell("show", "aws_bedrock", "--reveal", "--json").code == ExitCode.USAGE

    assert json.loads(shell.good("show", "aws_bedrock", "--reveal", "--force-pipe")) == AWS
    forced = shell.good("show", "aws_bedrock", "--reveal", "--force-pipe", "--member", "aws_secret_access_key")
    assert forced == SECRET + "\n"
    assert [entry.operation for entry in shell.manager.audit_entries()].count("get_api_key") == 2


def test_what_is_not_there_cannot_be_shown_or_removed(shell: Shell) -> None:
    for arguments in (["show", "nothing"], ["remove", "nothing"], ["rotate", "nothing", "--stdin"]):
        ended = shell(*arguments, stdin="x")
        assert ended.code == ExitCode.ERROR
        assert "nothing" in ended.err


def test_removing_takes_one_kind_or_everything(shell: Shell) -> None:
    for _ in range(2):
        shell.manager.set_api_key("github", SECRET)
        shell.manager.set_oauth_token("github", {"access_token": SECRET})
        shell.good("remove", "github", "--kind", "oauth_token")
        assert shell.manager.list_configured_services() == {"api_keys": ["github"], "oauth_tokens": []}
        shell.good("remove", "github")
        assert shell.manager.list_configured_services() == {"api_keys": [], "oauth_tokens": []}


def test_a_name_that_cannot_be_one_is_a_usage_error(shell: Shell) -> None:
    for name in ("", "a\nb", "\x1b[31m", "x" * 300):
        assert shell("set", name, "--stdin", stdin="x").code == ExitCode.USAGE


# --- permissions


def test_grants_are_listed_with_their_limits_and_taken_again(shell: Shell) -> None:
    shell.good("grant", "reports", "aws_bedrock", "--model", "anthropic.*", "--until", "2999-01-01", "--provider-only")
    shell.good("grant", "crawler", "github", "azure_openai")

    found = shell.json("permissions")
    assert found["access_control"] is True
    assert found["permissions"]["reports"] == [
        {"service": "aws_bedrock", "models": ["anthropic.*"], "export": False, "expires": 32472144000.0}
    ]
    assert "its provider only" in shell.good("permissions", "reports")

    shell.good("revoke", "crawler", "github")
    assert [grant.service for grant in shell.manager.get_plugin_permissions("crawler")["crawler"]] == ["azure_openai"]
    assert shell("revoke", "crawler").code == ExitCode.USAGE
    shell.good("revoke", "crawler", "--all")
    assert shell("revoke", "crawler", "--all").code == ExitCode.ERROR


def test_access_control_that_is_off_is_said_at_every_look(shell: Shell) -> None:
    assert "Access control is off" in shell("permissions", "--access-control", "off").err
    assert "Access control is off" in shell("grant", "p", "s").err
    assert "off: every plugin" in shell.good("status")
    assert "Access control is off" not in shell("permissions", "--access-control", "on").err


# --- looking after it


def test_status_says_what_could_open_the_store_what_did_and_how_plugins_are_held(shell: Shell) -> None:
    said = shell.good("status")
    found = shell.json("status")

    assert "* master key: APEX_LLM_MASTER_KEY is given" in said
    assert "- passphrase: the store has no identity.age" in said
    assert "in-process: permissions and an audit log, but no wall" in said
    assert found["opened_by"] == "master key"
    assert found["isolation"] == "in-process"
    assert [way["name"] for way in found["unlockers"]] == ["master key", "passphrase", "keyring"]
    assert shell.json("status", "--no-open")["opened_by"] is None


def test_status_is_shown_even_when_nothing_opens_the_store(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APEX_LLM_MASTER_KEY")

    ended = shell("status")

    assert ended.code == ExitCode.AUTHENTICATION
    assert "- keyring: " in ended.out
    assert "APEX_LLM_MASTER_KEY_FILE" in ended.err


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (base64.b64encode(bytes(range(2, 34))).decode(), "another key"),
        ("not a key", "does not hold a master key"),
    ],
)
def test_a_wrong_master_key_ends_with_3_and_changes_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, key: str, says: str
) -> None:
    before = (shell.home / "store.age").read_bytes()
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", key)

    for arguments in (["list"], ["set", "a", "--stdin"], ["verify"], ["rotate", "--encryption-keys"]):
        ended = shell(*arguments, stdin=SECRET)
        assert ended.code == ExitCode.AUTHENTICATION
        assert says in ended.err
        assert "hint:" in ended.err
    assert (shell.home / "store.age").read_bytes() == before


def test_verify_finds_damage_and_ends_with_1(shell: Shell) -> None:
    shell.manager.set_api_key("a", SECRET)
    assert "All is well" in shell.good("verify")
    log = shell.home / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"set_api_key", b"get_api_key"))

    ended = shell("verify")
    assert ended.code == ExitCode.ERROR
    assert "was changed" in ended.out
    assert json.loads(shell("verify", "--json").out)["ok"] is False

    content = bytearray((shell.home / "store.age").read_bytes())
    content[-1] ^= 1
    (shell.home / "store.age").write_bytes(content)
    assert "damaged or was changed" in shell("verify").out
    assert shell("list").code == ExitCode.ERROR


def test_files_that_others_can_read_are_refused_with_what_to_do(shell: Shell) -> None:
    (shell.home / "store.age").chmod(0o644)

    ended = shell("list")

    assert ended.code == ExitCode.ERROR
    assert "mode 0644" in ended.err
    assert "chmod 600" in ended.err
    assert "mode 0644" in shell("verify").out


def test_a_store_that_another_process_keeps_locked_says_so(shell: Shell) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (shell.home / "store.lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        ended = shell("--lock-timeout", "0.05", "set", "a", "--stdin", stdin="x")

    assert ended.code == ExitCode.ERROR
    assert "was held by another process" in ended.err
    assert "Try again" in ended.err


def test_the_audit_log_is_filtered_and_needs_no_key(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.manager.set_api_key("github", SECRET)
    assert shell("exec", "crawler", "github", "--", "true").code == ExitCode.AUTHENTICATION
    monkeypatch.delenv("APEX_LLM_MASTER_KEY")

    assert "denied: not granted" in shell.good("audit")
    (denied,) = shell.json("audit", "--denied")
    assert (denied["plugin"], denied["service"]) == ("crawler", "github")
    assert len(shell.json("audit", "--last", "2")) == 2
    assert shell.json("audit", "--plugin", "nobody") == []


def test_a_log_that_a_stranger_wrote_cannot_steer_the_terminal(shell: Shell) -> None:
    entry = {"seq": 1, "time": 1e300, "plugin": "\x1b]0;owned\x07", "operation": "\x9b2J", "service": "\u202egnp",
             "decision": "allowed", "fingerprint": None, "prev": ""}  # fmt: skip
    log = shell.home / "audit.jsonl"
    log.write_text(json.dumps(entry) + "\n")

    said = shell.good("audit")

    assert "\\x1b]0;owned\\x07" in said
    assert not any(character in said for character in "\x1b\x07\x9b\u202e")


def test_a_new_store_is_one_generation(shell: Shell) -> None:
    assert shell.json("status")["generation"] == 1


def test_a_damaged_log_is_put_away_when_that_is_asked_for(shell: Shell) -> None:
    log = shell.home / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"create"', b'"nothing"'))
    assert "audit --archive --damaged" in shell("verify").err
    assert shell("audit", "--damaged").code == ExitCode.USAGE

    refused = shell("audit", "--archive")
    assert refused.code == ExitCode.ERROR
    assert "hint: Look at what apex-llm keys verify says; then add --damaged." in refused.err

    archived = Path(shell.good("audit", "--archive", "--damaged").strip())
    assert b'"nothing"' in archived.read_bytes()
    assert "All is well" in shell.good("verify")


def test_the_log_is_put_away_and_goes_on(shell: Shell) -> None:
    shell.manager.set_api_key("a", SECRET)

    archived = Path(shell.good("audit", "--archive").strip())

    assert archived.is_file()
    assert archived.parent == shell.home
    assert "All is well" in shell.good("verify")


# --- rotation


def test_a_rotated_credential_keeps_the_former_one_for_a_while(shell: Shell) -> None:
    shell.manager.set_api_key("github", "former-one")

    shell.good("rotate", "github", "--stdin", "--overlap-days", "2", stdin=SECRET)

    assert shell.good("show", "github", "--reveal", "--force-pipe", "--previous") == "former-one\n"
    assert shell.manager.get_api_key("github") == SECRET


def test_the_rotation_table_says_what_is_due(shell: Shell) -> None:
    shell.manager.set_api_key("github", SECRET)
    shell.good("rotate", "--every", "30")
    shell.good("rotate", "--every", "40", "--master-key")

    found = shell.json("rotate")

    assert (found["api_keys"]["interval_days"], found["master_key"]["interval_days"]) == (30, 40)
    assert "no" in shell.good("rotate")


def test_a_new_master_key_goes_to_a_file_and_the_former_one_works_until_it_is_used(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.manager.set_api_key("github", SECRET)
    assert shell("rotate", "--master-key").code == ExitCode.USAGE
    new = tmp_path / "new"

    shell.good("rotate", "--master-key", "--new-master-key-file", new)

    assert "github" in shell.good("list")
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", new.read_text())
    shell.good("rotate", "--encryption-keys")
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)
    assert shell("list").code == ExitCode.AUTHENTICATION


def test_the_recovery_key_can_put_a_new_master_key_in_place(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery, new = tmp_path / "recovery", tmp_path / "new"
    shell.good("rotate", "--recovery-key", "--recovery-file", recovery)
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", recovery.read_text())

    shell.good("rotate", "--master-key", "--new-master-key-file", new)

    monkeypatch.setenv("APEX_LLM_MASTER_KEY", new.read_text())
    assert shell.good("verify")
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)
    assert shell("list").code == ExitCode.AUTHENTICATION


@pytest.mark.usefixtures("little_work")
def test_a_passphrase_takes_over_from_a_master_key_and_comes_from_a_file(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passphrase, wrong = tmp_path / "passphrase", tmp_path / "wrong"
    passphrase.write_text("correct horse\n")
    wrong.write_text("wrong horse\n")

    shell.good("rotate", "--master-key", "--new-passphrase-from", passphrase)
    monkeypatch.delenv("APEX_LLM_MASTER_KEY")

    assert "* passphrase" in shell.good("--passphrase-from", passphrase, "status")
    ended = shell("--passphrase-from", wrong, "list")
    assert ended.code == ExitCode.AUTHENTICATION
    assert "does not open identity.age" in ended.err
    unasked = shell("list")
    assert unasked.code == ExitCode.AUTHENTICATION
    assert "no passphrase was given" in unasked.err


@pytest.mark.parametrize(
    "options",
    [
        ["a", "--master-key"],
        ["--master-key", "--recovery-key"],
        ["--new-passphrase"],
        ["--master-key", "--new-passphrase", "--new-master-key-file", "x"],
        ["--recovery-key"],
        ["--recovery-file", "x"],
        ["a", "--every", "3"],
    ],
)
def test_rotation_of_nothing_or_of_too_much_is_a_usage_error(shell: Shell, options: list[str]) -> None:
    assert shell("rotate", *options).code == ExitCode.USAGE


# --- moving


def test_an_export_for_an_age_key_is_read_into_another_store(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.manager.set_api_key("aws_bedrock", AWS)
    shell.manager.set_api_key("github", SECRET)
    shell.manager.grant("reports", "aws_bedrock")
    identity = pyrage.x25519.Identity.generate()
    file, key = tmp_path / "moved.age", tmp_path / "key.txt"
    key.write_text(f"# created: now\n# public key: {identity.to_public()}\n{identity}\n")

    shell.good("export", file, "--recipient", identity.to_public(), "--service", "aws_bedrock")

    assert SECRET.encode() not in file.read_bytes()
    monkeypatch.setenv("APEX_LLM_HOME", str(tmp_path / "other"))
    other = Shell(tmp_path / "other")
    other.good("init", "--no-recovery-key")
    assert other.json("import", file, "--identity-file", key, "--permissions") == {
        "imported": ["aws_bedrock"], "unchanged": [], "skipped": [],
    }  # fmt: skip
    assert other.manager.get_api_key("aws_bedrock") == AWS
    assert other.manager.check_permission("reports", "aws_bedrock")

    other.manager.set_api_key("aws_bedrock", "another")
    skipped = other("import", file, "--identity-file", key)
    assert skipped.code == ExitCode.ERROR
    assert "--overwrite" in skipped.err
    assert other("export", file, "--recipient", identity.to_public()).code == ExitCode.ERROR


def test_an_export_needs_somebody_who_can_read_it(shell: Shell, tmp_path: Path) -> None:
    assert shell("export", tmp_path / "x").code == ExitCode.USAGE
    assert shell("export", tmp_path / "x", "--recipient", "age1nobody").code == ExitCode.ERROR
    assert not (tmp_path / "x").exists()


def test_the_older_file_is_moved_and_kept_under_another_name(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Fernet.generate_key()
    file = tmp_path / "old.enc"
    file.write_bytes(Fernet(key).encrypt(json.dumps({"api_keys": {"openai": SECRET}, "oauth_tokens": {}}).encode()))
    content = file.read_bytes()

    assert shell("migrate", file).code == ExitCode.USAGE
    monkeypatch.setenv("APEX_AGENT_MASTER_KEY", Fernet.generate_key().decode())
    assert shell("migrate", file).code == ExitCode.ERROR
    assert file.read_bytes() == content

    monkeypatch.setenv("APEX_AGENT_MASTER_KEY", key.decode())
    shell.manager.set_api_key("openai", "another")
    assert "--overwrite" in shell("migrate", file).err
    assert shell.json("migrate", file, "--overwrite")["api_keys"] == ["openai"]
    assert shell.manager.get_api_key("openai") == SECRET
    assert (tmp_path / "old.enc.migrated").read_bytes() == content


# --- what a child gets


@pytest.mark.parametrize(
    ("service", "value", "variables"),
    [
        ("aws_bedrock", AWS, {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET,
                              "AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1"}),
        ("aws_bedrock", SECRET, {"AWS_BEARER_TOKEN_BEDROCK": SECRET}),
        ("azure_openai", {"api_key": SECRET, "api_base": "https://x", "api_version": None, "note": "mine"},
         {"AZURE_OPENAI_API_KEY": SECRET, "AZURE_OPENAI_ENDPOINT": "https://x"}),
        ("azure_openai", SECRET, {"AZURE_OPENAI_API_KEY": SECRET}),
        ("my-crm.v2", SECRET, {"MY_CRM_V2_API_KEY": SECRET}),
        ("crm", {"user": "me", "tries": 3}, {"CRM_USER": "me", "CRM_TRIES": "3"}),
        ("9lives", SECRET, {"_9LIVES_API_KEY": SECRET}),
    ],
)  # fmt: skip
def test_a_credential_becomes_the_variables_that_its_tools_read(
    service: str, value: object, variables: dict[str, str]
) -> None:
    assert environment_of(service, value) == variables


@pytest.mark.parametrize(
    ("value", "names"),
    [("text", {"member": "X"}), ({"a": "b"}, {"": "X"}), ({"a": "b"}, {"c": "X"}), ("nul\0", {}), ({"odd": "x"}, {})],
)
def test_a_credential_that_does_not_fit_its_variables_is_refused(value: object, names: dict[str, str]) -> None:
    with pytest.raises(click.ClickException):
        environment_of("aws_bedrock", value, names=names)


def test_exec_takes_nothing_out_for_a_program_that_is_not_there(shell: Shell) -> None:
    shell.manager.set_api_key("github", SECRET)
    shell.manager.grant("crawler", "github")

    assert shell("exec", "crawler", "github", "--", "no-such-program-here").code == ExitCode.ERROR
    assert shell("exec", "crawler", "github", "--").code == ExitCode.USAGE
    assert shell("exec", "--as", "not a name", "crawler", "github", "--", "true").code == ExitCode.USAGE

    assert "get_api_key" not in [entry.operation for entry in shell.manager.audit_entries()]


def test_exec_refuses_what_only_a_provider_may_use(shell: Shell) -> None:
    shell.manager.set_api_key("github", SECRET)
    shell.manager.grant("crawler", "github", export=False)

    ended = shell("exec", "crawler", "github", "--", "true")

    assert ended.code == ExitCode.AUTHENTICATION
    assert "through a provider only" in ended.err


def test_the_debian_package_opens_what_the_command_made(shell: Shell, tmp_path: Path) -> None:
    """What docs/reference/key-store-format.md tells people to do when nothing of ours is at hand."""
    recovery = tmp_path / "recovery"
    shell.good("rotate", "--recovery-key", "--recovery-file", recovery)
    shell.manager.set_api_key("github", SECRET)
    try:
        done = subprocess.run(
            ["age", "--decrypt", "--identity", recovery, shell.home / "store.age"], capture_output=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("the command age is not installed")

    assert json.loads(done.stdout)["credentials"]["github"]["api_key"]["current"]["value"] == SECRET


def test_moving_the_master_key_to_a_keyring_that_is_not_there_says_what_else_can_be_done(shell: Shell) -> None:
    ended = shell("rotate", "--master-key", "--to-keyring")
    assert ended.code == ExitCode.AUTHENTICATION, ended
    assert "keyring cannot be used" in ended.err
    assert "--new-passphrase" in ended.err
    shell.good("list")  # it still opens


def test_advice_is_given_in_the_words_of_the_command_line() -> None:
    """Each piece of the library's advice that is replaced is one that the library gives."""
    library = " ".join(path.read_text() for path in Path(apex_llm.keys.__file__).parent.glob("*.py"))
    for spoken in _HINTS:
        assert f'"{spoken}"' in library, spoken
