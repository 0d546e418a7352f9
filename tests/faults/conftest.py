"""A fault-playing emulator, the ways of calling, and one fixture that plays a fault and judges what was seen."""

from __future__ import annotations

import functools
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from apex_llm.emulator import Emulator, Fault, FaultCall, FaultConnection

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)

import fault_cases  # noqa: E402
from fault_cases import BLOCKED_SECONDS, BOUNDS, COLUMNS, Column, Observation, reseed, served_with  # noqa: E402
from measured import Cost, measure  # noqa: E402

SEED = int(os.environ.get("APEX_LLM_FAULT_SEED", "1"))
Play = Callable[..., list[Observation]]


@pytest.fixture(scope="module")
def _fault_emulator() -> Iterator[Emulator]:
    with Emulator(fault_seed=SEED) as emulator:
        yield emulator


@pytest.fixture
def emulator(_fault_emulator: Emulator, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    _fault_emulator.reset()
    reseed(_fault_emulator, seed=SEED, name=request.node.name)
    for name, value in _fault_emulator.environment.items():
        monkeypatch.setenv(name, value)
    return _fault_emulator


@pytest.fixture(params=COLUMNS, ids=str)
def column(request: pytest.FixtureRequest) -> Column:
    return request.param


@pytest.fixture
def play(emulator: Emulator, column: Column) -> Play:
    """``play("name")`` plays a fault in this column, and holds what is seen to the table."""
    return functools.partial(fault_cases.play, emulator, column)


async def _fewer_chunks(connection: FaultConnection, call: FaultCall) -> None:
    body = b" " * (20_000 - len(call.body)) + call.body
    await connection.write(call.head(framing="chunked", last=True))
    await connection.write(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")


@pytest.fixture(scope="session")
def _costs() -> dict[Column, dict[tuple[str, str], Cost]]:
    return {}


@pytest.fixture
def frugal(
    emulator: Emulator, column: Column, _costs: dict[Column, dict[tuple[str, str], Cost]]
) -> Callable[..., Cost]:
    """``frugal("name", "whole")`` holds what a fault costs the client to ``BOUNDS``; measured once a column."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of memory can be set back on Linux only")
    if column not in _costs:
        plays: list[tuple[Any, str]] = list(BOUNDS)
        if column.sender == "httpx":
            # Its cost for each chunk is its own, and 400,000 take it eight seconds.
            fewer = Fault("one-byte-chunks", 22, "", _fewer_chunks)
            plays = [(fewer if name == fewer.name else name, call) for name, call in plays]
        _costs[column] = dict(zip(BOUNDS, measure(emulator, column, plays), strict=True))

    def frugal(name: str, call: str) -> Cost:
        cost, bound = _costs[column][name, call], BOUNDS[name, call]
        assert cost.peak < bound.mebibytes * 2**20, f"{name}: {cost.peak / 2**20:.1f} MiB"
        assert cost.cpu_seconds < bound.seconds, name
        assert cost.blocked_seconds < BLOCKED_SECONDS, name
        return cost

    return frugal


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def _sealed(authority: trustme.CA) -> Iterator[Emulator]:
    context = served_with(authority.issue_cert("localhost", "127.0.0.1"))
    with Emulator(ssl_context=context, fault_seed=SEED) as running:
        yield running


@pytest.fixture
def sealed(_sealed: Emulator, request: pytest.FixtureRequest) -> Emulator:
    """An emulator that serves TLS."""
    reseed(_sealed, seed=SEED, name=request.node.name)
    return _sealed
