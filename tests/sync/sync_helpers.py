"""What several tests of the blocking surface use."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

Spawn = Callable[[str], "subprocess.Popen[str]"]
"""Starts a Python process that runs the given code."""


def wait_until(condition: Callable[[], object], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)
