"""All figures of one run: children in a clean environment, and their JSON put together."""

from __future__ import annotations

__all__ = ["Figures", "Measured", "instructions_by_file", "measure"]

import json
import os
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.work.answers import whole

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("child.py")
WIRES = ("bedrock", "azure")

Figures = dict[str, float]


class Measured(NamedTuple):
    """What a run found."""

    figures: Figures
    modules: dict[str, list[str]]
    """The names behind each figure that counts modules."""


def measure(wires: Sequence[str] = WIRES, *, meddling: Sequence[str] = ()) -> Measured:
    """Count everything, each wire warm and cold in a process of its own.

    Args:
        wires: Which clouds.
        meddling: Modules that each child imports first.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        warm = [pool.submit(_child, "warm", wire, *meddling) for wire in wires]
        cold = [pool.submit(_cold, wire, meddling) for wire in wires]
        figures: Figures = {}
        for found in warm:
            figures.update(found.result())
        modules: dict[str, list[str]] = {}
        for found in cold:
            modules.update(found.result())
    figures.update({name: len(names) for name, names in modules.items()})
    return Measured(figures, modules)


def instructions_by_file(wire: str) -> dict[str, dict[str, float]]:
    """For a call and for pieces: which file of the package spends how many instructions."""
    return _child("files", wire)


def _cold(wire: str, meddling: Sequence[str]) -> dict[str, list[str]]:
    with _one_answer(wire) as port:
        return _child("cold", wire, str(port), *meddling)


def _child(*arguments: str) -> Any:
    # No site: what .pth files import would count as known. No variables: they change what a provider looks for.
    paths = dict.fromkeys((str(ROOT), *(sysconfig.get_path(name) for name in ("purelib", "platlib"))))
    environ = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0", "HOME": os.devnull}
    command = [sys.executable, "-S", "-s", "-P", "-B", str(CHILD), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


@contextmanager
def _one_answer(wire: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(whole(wire))
                connection.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
