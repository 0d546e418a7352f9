"""An emulator in a process of its own for these tests, and child processes to fork, interrupt and exit in."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest
from emulator_process import EmulatorProcess

Child = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def emulator_process() -> Iterator[EmulatorProcess]:
    with EmulatorProcess() as running:
        yield running


@pytest.fixture
def cloud(emulator_process: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment points at the emulator."""
    for name, value in emulator_process.environment.items():
        monkeypatch.setenv(name, value)
    return emulator_process.environment


@pytest.fixture
def child(cloud: dict[str, str]) -> Iterator[Child]:
    """Starts a Python process that runs the given code against the emulator; ended with the test."""
    children: list[subprocess.Popen[str]] = []

    def start(code: str, *flags: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *flags, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        children.append(process)
        return process

    yield start
    for process in children:
        process.kill()
        process.communicate()
