"""One emulator for all tests of the blocking surface, and child processes to interrupt, fork and exit in."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
from sync_helpers import Spawn

from apex_llm.emulator import Emulator


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def emulator(shared_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """As the fixture of that name for all tests, but started once."""
    shared_emulator.reset()
    for name, value in shared_emulator.environment.items():
        monkeypatch.setenv(name, value)
    return shared_emulator


@pytest.fixture
def spawn(emulator: Emulator) -> Iterator[Spawn]:
    """Starts a Python process that runs the given code against the emulator; ended with the test."""
    children: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()
