"""One emulator for all judges of a module: other people's clients, as their users would set them up."""

from collections.abc import Iterator

import pytest

from apex_llm.emulator import Emulator

CLAUDE = "us.anthropic.claude-sonnet-4-6"


@pytest.fixture(scope="module")
def _running_emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(_running_emulator: Emulator) -> Emulator:
    _running_emulator.reset()
    return _running_emulator
