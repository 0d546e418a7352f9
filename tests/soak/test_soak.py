"""A minute of ``scripts/check-soak``, and some seconds of it with threads."""

from __future__ import annotations

import asyncio
import sys

import pytest
from emulator_process import EmulatorProcess
from soak import Report, soak
from thread_soak import soak_threads

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory and sockets are counted by /proc"),
]


def assert_healthy(report: Report, *, calls: int) -> None:
    assert not report.untyped, report
    assert not report.late, report
    assert report.sockets_after == report.sockets_before, report
    assert report.growth < 8.0, report
    assert report.outcomes["finished"] > calls, report
    assert report.outcomes["StreamInterruptedError"] > calls / 10, report


def test_a_minute_of_streams_with_random_faults_leaks_nothing_and_never_surprises() -> None:
    with EmulatorProcess() as server:
        report = asyncio.run(soak(server.environment, seconds=60.0, round_seconds=6.0, streams=50))

    assert_healthy(report, calls=500)


def test_threads_with_random_faults_leak_nothing_and_are_never_surprised() -> None:
    with EmulatorProcess() as server:
        report = soak_threads(server.environment, seconds=4.0, round_seconds=2.0, threads=16)

    assert_healthy(report, calls=50)
