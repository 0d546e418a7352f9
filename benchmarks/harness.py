"""What all benchmarks share: cases, child processes on cores of their own, and figures taken in rounds.

A *case* is one client on one wire. Cases are measured in rounds, each case once a round in a process of
its own and in a new order each time, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

__all__ = ["ROOT", "Benchmark", "Case", "Figures", "Host", "Plan", "finish", "in_child", "running", "spawn"]

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from benchmarks.environments import interpreter

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
    long_seconds: float = 4.0
    """CPU time over which a figure should not be taken: slow clients read shorter streams, and fewer sizes."""
    paced: str = "paced-100x10"
    streams: int = 200
    """Streams beside the heartbeat."""
    trickle: str = "paced-50x50"
    """How each of them is sent."""
    starts: int = 3
    """Processes started for one figure of a start, of which the best counts."""
    slow: Sequence[int] = (1000, 5000)
    """How many slow streams are open at a time."""
    slow_mode: str = "paced-50x20"
    slow_seconds: float = 60.0
    """When those are given up."""
    lengths: Sequence[int] = (1000, 10_000, 100_000)
    widths: Sequence[int] = (10, 100, 1000)
    """Lengths of a stream, and numbers of open ones, over which growth is shown."""
    tidy: bool = True
    """Collect garbage before each figure."""
    patience: float = 8.0
    """Seconds; a peer that takes longer is not measured again in later rounds."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured: ``variant`` names a client or, for start-up benchmarks, a statement."""

    wire: str
    variant: str
    needs: str | None = None
    """A module without which the case is left out."""
    environment: str = ""
    """Where it lives; see ``benchmarks.environments``."""


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
    """Where to measure: the server's ports, and the environment in which clients run."""

    port: int
    environ: Mapping[str, str]
    tls_port: int = 0
    authority: str = ""
    """The file of the authority that the server's certificate is from."""

    def tls_environ(self) -> dict[str, str]:
        """``environ`` in which every client trusts that authority."""
        names = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
        return {**self.environ, **dict.fromkeys(names, self.authority)}


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
        # litellm would fetch its table of prices from the network.
        environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        if pair:
            pin(pair[1])
        authority, certificate = _certificates(Path(home))
        server = spawn(["-m", "benchmarks.wire_server", *certificate], environ=environ)
        try:
            if pair:
                pin(pair[0])
            assert server.stdout is not None
            port = int(server.stdout.readline())
            tls_port = int(server.stdout.readline()) if certificate else 0
            yield Host(port, environ, tls_port, authority)
        finally:
            if allowed:
                os.sched_setaffinity(0, allowed)
            server.terminate()
            server.communicate()


def _certificates(folder: Path) -> tuple[str, list[str]]:
    """The file of a new authority, and the arguments by which the server gets its certificate of it."""
    try:
        import trustme
    except ImportError:
        return "", []
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return str(folder / "authority.pem"), ["--certificate", str(folder / "server.pem")]


def spawn(arguments: Sequence[str], *, environ: Mapping[str, str], environment: str = "") -> subprocess.Popen[str]:
    """The Python of ``environment`` with arguments, in the root of the checkout; its standard output is a pipe."""
    return subprocess.Popen(
        [interpreter(environment), *arguments],
        cwd=ROOT,
        env=dict(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_child(module: str, case: Case, plan: Plan, host: Host, *, tls: bool = False) -> Figures:
    """What ``measure_here(case, plan, host)`` of a module gives in a fresh process of the case's environment."""
    ports = {"port": host.port, "tls_port": host.tls_port}
    work = json.dumps({"case": asdict(case), "plan": asdict(plan), "ports": ports})
    environ = host.tls_environ() if tls else host.environ
    child = spawn(["-m", "benchmarks.harness", module, work], environ=environ, environment=case.environment)
    try:
        output, errors = child.communicate(timeout=_CHILD_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise RuntimeError(f"{module}, {case.wire}, {case.variant} took more than {_CHILD_SECONDS:g} s") from None
    except BaseException:
        child.kill()
        child.communicate()
        raise
    if child.returncode != 0:
        raise RuntimeError(f"{module}, {case.wire}, {case.variant} failed:\n{errors}")
    figures: Figures = json.loads(output.splitlines()[-1])
    return figures


def finish(figures: Figures) -> NoReturn:
    """Hand the figures over and end this process at once, whatever its threads still wait for."""
    sys.stdout.write(f"\n{json.dumps(figures)}\n")
    sys.stdout.flush()
    os._exit(0)


def _main(module: str, work: str) -> None:
    import importlib

    _many_files()
    given: dict[str, Any] = json.loads(work)
    measure = importlib.import_module(module).measure_here
    figures = measure(Case(**given["case"]), Plan(**given["plan"]), Host(environ=os.environ, **given["ports"]))
    finish(figures)


def _many_files() -> None:
    """5,000 streams are as many files."""
    with contextlib.suppress(ImportError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    _main(*sys.argv[1:])
