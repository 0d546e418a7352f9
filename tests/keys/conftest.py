"""Stores to test with; a master key instead of a passphrase wherever the passphrase is not the point (it is slow)."""

from __future__ import annotations

from pathlib import Path

import keyring
import pytest
from keyring.backends import fail
from keys_support import MASTER_KEY, VALUE, Clock

from apex_llm.keys import ApiKeyManager


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
