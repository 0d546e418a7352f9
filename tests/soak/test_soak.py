"""Fifteen seconds of ``scripts/check-soak``."""

from __future__ import annotations

import asyncio
import sys

import pytest
from emulator_process import EmulatorProcess
from soak import soak

SECONDS = 15.0


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory and sockets are counted by /proc")
def test_streams_with_random_faults_leak_nothing_and_never_surprise() -> None:
    with EmulatorProcess() as server:
        report = asyncio.run(soak(server.environment, seconds=SECONDS, round_seconds=3.0, streams=20))

    assert not report.untyped, report
    assert not report.late, report
    assert report.sockets_after == report.sockets_before, report
    assert report.growth < 8.0, report
    assert report.outcomes["finished"] > 100, report
    assert report.outcomes["StreamInterruptedError"] > 10, report
