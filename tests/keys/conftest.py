"""Stores to test with; a master key instead of a passphrase wherever the passphrase is not the point (it is slow)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import keyring
import pytest
from age_by_hand import run_with_little_work
from keyring.backends import fail
from keys_support import MASTER_KEY, VALUE, Clock

from apex_llm.keys import ApiKeyManager

_NUMBER = re.compile(r"\bK\d+\b")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For ``scripts/check-keys K6``: the tests whose docstring names it, or whose module is about nothing else."""
    wanted = set(os.environ.get("APEX_LLM_KEY_TESTS", "").split())
    if not wanted:
        return
    chosen: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        numbers = set(_NUMBER.findall(getattr(getattr(item, "function", None), "__doc__", None) or ""))
        whole = set(_NUMBER.findall(getattr(getattr(item, "module", None), "__doc__", None) or ""))
        if not numbers and len(whole) == 1:
            numbers = whole
        (chosen if numbers & wanted else left_out).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases without the seconds of scrypt, which pyrage chooses itself."""
    monkeypatch.setattr("apex_llm.keys.passphrase._run", run_with_little_work)


@pytest.fixture(autouse=True)
def no_system_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a desktop, no test may touch the developer's own keyring: every machine is a headless one here."""
    monkeypatch.setattr(keyring, "get_keyring", fail.Keyring)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manager(home: Path, clock: Clock) -> ApiKeyManager:
    made = ApiKeyManager(home, master_key=MASTER_KEY, clock=clock)
    made.set_api_key("aws_bedrock", VALUE)
    return made
