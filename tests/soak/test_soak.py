"""A minute of ``scripts/check-soak``, and some seconds of it with threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory and sockets are counted by /proc"),
]


def test_a_minute_with_random_faults_leaks_nothing_and_never_surprises() -> None:
    """In a process of its own: what the suite keeps of logs and errors would be counted as leaks."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("soak.py")),
        *("1", "--round-seconds", "6", "--cancellations", "200", "--thread-minutes", "0.1"),
        *("--most-growth", "8", "--least-finished", "500"),
    ]

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
