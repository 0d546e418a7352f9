"""The programs of docs/examples/keys, and the shell commands of the pages about keys: they run as they stand."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest

from apex_llm.emulator import Emulator
from apex_llm.keys import ApiKeyManager

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "keys"
MASTER_KEY = base64.b64encode(bytes(range(1, 33))).decode()


def _blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "application_owner",
            [
                "reports      may have aws_bedrock",
                "opened by master key, isolation in-process",
                "verified: True",
                "recovered: aws_bedrock, github",
            ],
        ),
        (
            "plugin_host",
            [
                "reports: All went well.",
                "of 'aws_bedrock': granted for use through a provider only.",
                "reports: The plugin 'reports' may not have the api_key of 'github': not granted.",
                "crawler: got a key of 22 characters",
                "crawler: The plugin 'crawler' may not have the api_key of 'aws_bedrock': not granted.",
                "host: The plugin 'crawler' may not have the api_key of 'github': not granted.",
                "host: 4 refusals in the audit log, isolation in-process",
            ],
        ),
        ("server_unlocked_by_command", ["server: Here I am.", "server: opened by master key"]),
    ],
)
def test_an_example_runs_offline_and_shows_no_secret(name: str, says: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"], capture_output=True, text=True, check=False,
        cwd=tmp_path, timeout=100,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    for words in says:
        assert words in done.stdout
    said = done.stdout + done.stderr
    secrets = ("wJalrXUtnFEMI", "ghp_", "ya29", "AGE-SECRET-KEY", Emulator().secret_access_key)
    assert not [secret for secret in secrets if secret in said]
    assert not list(tmp_path.iterdir())


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "application_owner", "plugin_host", "server_unlocked_by_command",
    }  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    manager, recovery = ApiKeyManager.create(tmp_path / "store", master_key=MASTER_KEY)
    assert recovery is not None
    (tmp_path / "store" / "recovery-key").write_text(recovery.reveal())
    with manager:
        manager.set_api_key("github", "ghp_canary")
    return tmp_path / "store"


def test_the_store_opens_with_the_age_command_and_can_be_edited_as_the_page_says(store: Path) -> None:
    with_recovery, _, edit = _blocks("reference/key-store-format.md", "sh")
    editor = store / "editor"
    editor.write_text('#!/bin/sh\nsed -i \'s/ghp_canary/ghp_edited/; s/"generation":2/"generation":9/\' "$1"\n')
    editor.chmod(0o700)

    def shell(script: str, **variables: str) -> str:
        done = subprocess.run(
            ["sh", "-euc", script], cwd=store, capture_output=True, text=True, check=False,
            env={**os.environ, **variables},
        )  # fmt: skip
        if done.returncode == 127:
            pytest.skip("the command age is not installed")
        assert done.returncode == 0, done.stderr
        return done.stdout

    document = json.loads(shell(with_recovery))
    page = (ROOT / "docs/reference/key-store-format.md").read_text("utf-8")
    assert [name for name in document if f"| `{name}` |" not in page] == []
    assert document["credentials"]["github"]["api_key"]["current"]["value"] == "ghp_canary"

    recipients = document["recipients"]
    shell(edit, EDITOR=str(editor), PRIMARY=recipients["primary"], RECOVERY=recipients["recovery"])
    (store / "store.lock").touch()

    with ApiKeyManager(store, master_key=MASTER_KEY) as manager:
        assert manager.get_api_key("github") == "ghp_edited"
        assert manager.verify().ok


def test_the_page_spells_a_master_key_as_age_does(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = _blocks("reference/key-store-format.md", "python")

    exec(compile(block, "block", "exec"), {})

    identity = capsys.readouterr().out.strip()
    assert str(pyrage.x25519.Identity.from_str(identity)) == identity
    assert identity == str(pyrage.x25519.Identity.from_str(identity)).upper()


def test_the_page_spells_a_master_key_that_opens_its_store(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)
    (block,) = _blocks("reference/key-store-format.md", "python")
    exec(compile(block, "block", "exec"), {})
    identity = pyrage.x25519.Identity.from_str(capsys.readouterr().out.strip())

    assert b'"ghp_canary"' in pyrage.decrypt((store / "store.age").read_bytes(), [identity])


def test_a_store_is_made_on_a_server_as_the_page_says(tmp_path: Path) -> None:
    _, make, *_ = _blocks("how-to/keys-on-a-server.md", "sh")

    # The page's words, with this interpreter in place of the installed script.
    script = f'ours() {{ "{sys.executable}" -m apex_llm.cli "$@"; }}\n' + make.replace("apex-llm ", "ours ")
    done = subprocess.run(
        ["sh", "-euc", script],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "AZURE_OPENAI_API_KEY": "azure-canary", "APEX_LLM_HOME": str(tmp_path / "store")},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "* master key: APEX_LLM_MASTER_KEY_FILE is given" in done.stdout
    assert "All is well" in done.stdout
    assert "azure-canary" not in done.stdout + done.stderr


def test_commands_and_options_on_the_pages_exist() -> None:
    from apex_llm.cli.keys import keys

    pages = ("how-to/keys-on-a-server.md", "how-to/keys-and-plugins.md", "explanation/key-custody.md")
    lines = [
        line
        for page in (ROOT / "README.md", *(ROOT / "docs" / each for each in pages))
        for line in re.findall(r"apex-llm keys [^`\n|]+", page.read_text("utf-8"))
    ]
    known = {option for command in (keys, *keys.commands.values()) for each in command.params for option in each.opts}

    assert len(lines) > 20
    for line in lines:
        ours = line.partition(" -- ")[0].split()
        assert ours[2] in keys.commands or ours[2].startswith("--"), line
        assert {word for word in ours if word.startswith("--")} <= known, line
