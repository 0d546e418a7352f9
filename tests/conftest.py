"""What every test may rely on: no cloud variables from outside, an emulator when asked for, and no secret shown."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from canaries import CanaryWatch

from apex_llm.emulator import Emulator

_FOREIGN = ("AWS_", "AZURE_", "OPENAI_", "IDENTITY_", "MSI_", "APEX_LLM_")
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}


def pytest_configure(config: pytest.Config) -> None:
    """Every test is watched for secrets that come out of it."""
    config.pluginmanager.register(CanaryWatch(), "canaries")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A developer's own credentials, profiles and proxies must neither help nor hurt a test."""
    if os.environ.get("APEX_LLM_LIVE") == "1":
        return
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name.upper() in _PROXIES:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def running_emulator() -> Iterator[Emulator]:
    """One emulator for the whole run; take ``emulator`` instead, which is clean for each test."""
    with Emulator() as running:
        yield running


@pytest.fixture
def emulator(running_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Both clouds on loopback, with the environment pointing at them; nothing scripted, nothing recorded."""
    running_emulator.reset()
    for name, value in running_emulator.environment.items():
        monkeypatch.setenv(name, value)
    return running_emulator
