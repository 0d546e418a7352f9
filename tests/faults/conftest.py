"""A fault-playing emulator, the ways of calling, and one fixture that plays a fault and judges what was seen."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from apex_llm.emulator import FAULTS, Emulator

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)

from fault_cases import COLUMNS, FULL_TEXT, Column, Observation, Seen, expected, observe  # noqa: E402

SEED = int(os.environ.get("APEX_LLM_FAULT_SEED", "1"))
Play = Callable[..., list[Observation]]


@pytest.fixture(scope="module")
def _fault_emulator() -> Iterator[Emulator]:
    with Emulator(fault_seed=SEED) as emulator:
        yield emulator


@pytest.fixture
def emulator(_fault_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    _fault_emulator.reset()
    for name, value in _fault_emulator.environment.items():
        monkeypatch.setenv(name, value)
    return _fault_emulator


@pytest.fixture(params=COLUMNS, ids=str)
def column(request: pytest.FixtureRequest) -> Column:
    return request.param


@pytest.fixture
def play(emulator: Emulator, column: Column) -> Play:
    """``play("name")`` plays a fault to each kind of call that it strikes, and holds what is seen to the table.

    Where every attempt fails and all are made, the fault is also played to the first attempt only: the
    second must succeed. Gives what was seen, the first call's first.
    """

    def play(name: str, *, once: bool = True, **arguments: Any) -> list[Observation]:
        observations = []
        for call in sorted(FAULTS[name].calls):
            observation = observe(emulator, column, name, call, **arguments)
            wanted = expected(name, call, column)
            assert observation.seen == wanted, f"{name}, {call}: {observation.error!r}"
            observations.append(observation)
            if wanted.sends == 3 and once:
                again = observe(emulator, column, name, call, times=1, **arguments)
                assert (again.seen, again.text) == (Seen(sends=2), FULL_TEXT), f"{name}, {call}: {again.error!r}"
                assert again.response.attempts == 2
        return observations

    return play


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
