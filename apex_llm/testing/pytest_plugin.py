"""A pytest plugin, found by its entry point: the fixture ``apex_llm_emulator``.

pytest imports this module in every run of every project that has the package installed, so
it imports nothing but pytest until the fixture is asked for.
"""

from __future__ import annotations

__all__ = ["apex_llm_emulator"]

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from apex_llm.emulator import Emulator


@pytest.fixture
def apex_llm_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A running ``Emulator`` that the environment points every Bedrock and Azure client at.

    Variables that clients would prefer to it, such as ``AWS_PROFILE``, are unset for the test. Works in
    synchronous and asynchronous tests alike, and needs the ``[emulator]`` extra.
    """
    from apex_llm.emulator import Emulator

    with Emulator() as emulator:
        for name in emulator.conflicting_variables:
            monkeypatch.delenv(name, raising=False)
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        yield emulator
