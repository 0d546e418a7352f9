"""What all benchmarks share: cases, child processes on cores of their own, and figures taken in rounds.

A *case* is one client on one wire. Cases are measured in rounds, each case once a round in a process of
its own and in a new order each time, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

__all__ = ["ROOT", "Benchmark", "Case", "Figures", "Host", "Plan", "in_child", "spawn"]

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parents[1]
_CHILD_SECONDS = 300.0
_FOREIGN = ("AWS_", "AZURE_", "OPENAI_", "IDENTITY_", "MSI_", "APEX_LLM_", "PYTHON")
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}

Figures: TypeAlias = dict[str, dict[str, float]]
"""Metric to figures; ``value`` is the one that is compared."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    seconds: float = 0.25
    """CPU time that one figure should be taken over."""
    most: int = 20_000
    """Never more calls or streams than this for one figure."""
    pieces: int = 1000
    """Pieces of text in a stream."""
    paced: str = "paced-100x10"
    streams: int = 200
    """Streams beside the heartbeat."""
    trickle: str = "paced-50x50"
    """How each of them is sent."""
    starts: int = 3
    """Processes started for one figure of a start, of which the best counts."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured: ``variant`` names a client or, for start-up benchmarks, a statement."""

    wire: str
    variant: str
    needs: str | None = None
    """A package without which the case is left out."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One question.

    ``measure`` is called once a round for each case: with the case, the plan and the host.
    """

    name: str
    question: str
    unit: str
    metrics: Mapping[str, str]
    """Key to words, in the order of the table."""
    cases: Sequence[Case]
    measure: Callable[[Case, Plan, Host], Figures]


@dataclass(frozen=True, slots=True)
class Host:
    """Where to measure: the server's port, and the environment in which clients run."""

    port: int
    environ: Mapping[str, str]


def cores() -> tuple[int, int] | None:
    """A core for the client and another for the server; ``None`` where processes cannot be pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else None


def pin(core: int) -> None:
    """Keep this process, and those that it starts, on one core."""
    os.sched_setaffinity(0, {core})


@contextlib.contextmanager
def running() -> Iterator[Host]:
    """The wire server on a core of its own; this process and its other children go to another one."""
    pair = cores()
    allowed = os.sched_getaffinity(0) if pair else None
    with tempfile.TemporaryDirectory() as home:
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_FOREIGN) and name.upper() not in _PROXIES
        }
        # A developer's own profiles and proxies must neither help nor hurt; the clients get what they need in code.
        environ |= {"HOME": home, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONDONTWRITEBYTECODE": ""}
        if pair:
            pin(pair[1])
        server = spawn(["-m", "benchmarks.wire_server"], environ=environ)
        try:
            if pair:
                pin(pair[0])
            assert server.stdout is not None
            yield Host(int(server.stdout.readline()), environ)
        finally:
            if allowed:
                os.sched_setaffinity(0, allowed)
            server.terminate()
            server.communicate()


def spawn(arguments: Sequence[str], *, environ: Mapping[str, str]) -> subprocess.Popen[str]:
    """This Python with other arguments, in the root of the checkout; its standard output is a pipe."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=dict(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_child(module: str, case: Case, plan: Plan, host: Host) -> Figures:
    """What ``measure_here(case, plan, port)`` of a module gives in a fresh process."""
    work = json.dumps({"case": asdict(case), "plan": asdict(plan), "port": host.port})
    child = spawn(["-m", "benchmarks.harness", module, work], environ=host.environ)
    try:
        output, errors = child.communicate(timeout=_CHILD_SECONDS)
    except BaseException:
        child.kill()
        child.communicate()
        raise
    if child.returncode != 0:
        raise RuntimeError(f"{module}, {case.wire}, {case.variant} failed:\n{errors}")
    figures: Figures = json.loads(output.splitlines()[-1])
    return figures


def _main(module: str, work: str) -> None:
    import importlib

    given: dict[str, Any] = json.loads(work)
    measure = importlib.import_module(module).measure_here
    figures = measure(Case(**given["case"]), Plan(**given["plan"]), given["port"])
    sys.stdout.write(f"\n{json.dumps(figures)}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
