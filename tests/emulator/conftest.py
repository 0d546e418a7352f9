"""One emulator for all tests of a module."""

from collections.abc import Iterator

import pytest
from plain_wire import Wire

from apex_llm.emulator import Emulator


@pytest.fixture(scope="module")
def _emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def wire(_emulator: Emulator) -> Wire:
    _emulator.reset()
    return Wire(_emulator)
