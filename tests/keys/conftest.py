"""Stores to test with; a master key instead of a passphrase wherever the passphrase is not the point (it is slow)."""

from __future__ import annotations

from pathlib import Path

import pytest
from keys_support import MASTER_KEY, VALUE, Clock

from apex_llm.keys import ApiKeyManager


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
