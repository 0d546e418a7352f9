"""``python -m tests.faults.repeat [repetitions] [first seed]``: every fault of the table, cut otherwise for each seed.

What is played and checked are the tests of the rows themselves, as pytest collects them, so that a failure is
one of theirs and is repeated by its name. Only what surrounds them is ours: several run at a time, each against an
emulator of its own. What a fault costs (``frugal``) is not measured, since several share the process.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import collections
import contextlib
import faulthandler
import functools
import io
import queue
import shlex
import ssl
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

_HERE = Path(__file__).resolve().parent
if str(_HERE) not in sys.path:
    sys.path.insert(0, str(_HERE))

from fault_cases import COLUMNS, play, reseed, served_with  # noqa: E402

from apex_llm.emulator import FAULTS, Answer, Emulator, Fault  # noqa: E402

_FILES = ["test_row_09_*.py", "test_row_19_*.py", "test_row_29_*.py", "test_row_40_*.py"]
_PLAYED = {"play", "emulator", "sealed"}
_SELDOM = (
    "test_row_14_",
    "test_row_34_",
    "test_row_35_a_refusal_whose_body_breaks_or_stalls_",
    "test_row_54_",
    "test_row_55_",
    "test_row_56_",
)
"""Tests that take seconds, of waiting or of work: for each seed in one column only, which changes from seed to seed."""
_AT_A_TIME = 8
_HUNG_SECONDS = 900


class _Unmeasured(Exception):
    """The rest of the test is about what the fault costs."""


class _Emulator(Emulator):
    """Counts what is played."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(fault_seed=0, **arguments)
        self.played: collections.Counter[str] = collections.Counter()

    def fault(self, fault: str | Fault, answer: Answer | str | None = None, *, times: int | None = 1) -> None:
        self.played[fault if isinstance(fault, str) else fault.name] += 1
        super().fault(fault, answer, times=times)


@dataclass
class _Stage:
    """What one test has for itself while it runs."""

    emulator: _Emulator
    sealed: _Emulator
    client_tls: ssl.SSLContext

    def run(self, item: pytest.Function, seed: int) -> str | None:
        """What went wrong, if anything did."""
        for emulator in (self.emulator, self.sealed):
            emulator.reset()
            reseed(emulator, seed=seed, name=item.name)
        parameters = item.callspec.params
        given = {
            **parameters,
            "emulator": self.emulator,
            "sealed": self.sealed,
            "client_tls": self.client_tls,
            "play": functools.partial(play, self.emulator, parameters["column"]),
            "frugal": _unmeasured,
        }
        try:
            item.obj(**{name: given[name] for name in _arguments(item)})
        except (_Unmeasured, pytest.skip.Exception):
            return None
        except BaseException:
            return traceback.format_exc()
        return None


def _unmeasured(*_: Any) -> Any:
    raise _Unmeasured


def _arguments(item: pytest.Function) -> Sequence[str]:
    return item._fixtureinfo.argnames


@dataclass(eq=False)  # pytest hashes its plugins
class _Run:
    """All repetitions, over tests that were collected."""

    seeds: Iterable[int]
    at_a_time: int
    items: list[pytest.Function] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    played: collections.Counter[str] = field(default_factory=collections.Counter)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = [item for item in session.items if _PLAYED & set(_arguments(item))]

    def due(self, seed: int) -> list[pytest.Function]:
        """The tests to run for this seed."""
        turn = COLUMNS[seed % len(COLUMNS)]
        return [
            item for item in self.items if not item.name.startswith(_SELDOM) or item.callspec.params["column"] == turn
        ]

    def repeat(self) -> None:
        stages: queue.SimpleQueue[_Stage] = queue.SimpleQueue()
        authority = trustme.CA()
        client_tls = ssl.create_default_context()
        authority.configure_trust(client_tls)
        seconds: dict[str, float] = {}
        emulators: list[_Emulator] = []
        for _ in range(self.at_a_time):
            server_tls = served_with(authority.issue_cert("localhost", "127.0.0.1"))
            stage = _Stage(_Emulator(), _Emulator(ssl_context=server_tls), client_tls)
            emulators += [stage.emulator.start(), stage.sealed.start()]
            stages.put(stage)

        def one(item: pytest.Function, seed: int) -> str | None:
            stage = stages.get()
            began = time.monotonic()
            try:
                return stage.run(item, seed)
            finally:
                seconds[item.originalname] = time.monotonic() - began
                stages.put(stage)

        with ThreadPoolExecutor(self.at_a_time) as threads:
            for seed in self.seeds:
                faulthandler.dump_traceback_later(_HUNG_SECONDS, exit=True)
                began, before = time.monotonic(), _total(emulators)
                # What took longest comes first, so that nothing is waited for alone at the end.
                items = sorted(self.due(seed), key=lambda item: -seconds.get(item.originalname, 0))
                outcomes = list(threads.map(one, items, [seed] * len(items)))
                failed = [(item, said) for item, said in zip(items, outcomes, strict=True) if said is not None]
                for item, said in failed:
                    again = f"APEX_LLM_FAULT_SEED={seed} pytest {shlex.quote(item.nodeid)}"
                    self.failures.append(again)
                    print(f"{said}repeat it with: {again}", flush=True)
                took, plays = time.monotonic() - began, _total(emulators) - before
                print(f"seed {seed:4}: {plays} plays, {len(failed)} failures, {took:.1f} s", flush=True)
        faulthandler.cancel_dump_traceback_later()
        for emulator in emulators:
            emulator.close()
            self.played += emulator.played


def _total(emulators: Iterable[_Emulator]) -> int:
    return sum(emulator.played.total() for emulator in emulators)


def _collect(run: _Run, keyword: str) -> str | None:
    """What pytest says, if it cannot."""
    files = [str(path) for pattern in _FILES for path in sorted(_HERE.glob(pattern))]
    quietly = ["-s", "-W", "ignore::pytest.PytestAssertRewriteWarning", "--collect-only", "-k", keyword]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main([*quietly, *files], plugins=[run])
    return None if code == 0 and run.items else said.getvalue()


def _complain(failures: list[str]) -> Callable[[Any], None]:
    """What only the interpreter would tell, of a thread or of an object that goes, is a failure as well."""

    def complain(told: Any) -> None:
        error = told.exc_value
        print("".join(traceback.format_exception(error)), end="", flush=True)
        failures.append(f"not of a single test: {error!r}")

    return complain


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.repeat", description=__doc__)
    parser.add_argument("repetitions", type=int, nargs="?", default=50)
    parser.add_argument("first_seed", type=int, nargs="?", default=1)
    parser.add_argument("--at-a-time", type=int, default=_AT_A_TIME, help="tests that run at a time")
    parser.add_argument("-k", dest="keyword", default="", help="only these tests, as with pytest")
    options = parser.parse_args(arguments)
    seeds = range(options.first_seed, options.first_seed + options.repetitions)
    run = _Run(seeds, options.at_a_time)
    if (said := _collect(run, options.keyword)) is not None:
        print(said, file=sys.stderr)
        return 1
    sys.unraisablehook = threading.excepthook = _complain(run.failures)
    warnings.simplefilter("error")
    began = time.monotonic()
    run.repeat()
    if not options.keyword and (never := FAULTS.keys() - run.played.keys()):
        run.failures.append(f"never played: {', '.join(sorted(never))}")
    fewest = min(run.played.values(), default=0)
    print(
        f"{options.repetitions} seeds, {run.played.total()} plays, each fault {fewest} times or more, "
        f"{len(run.failures)} failures, {time.monotonic() - began:.0f} s"
    )
    print("".join(f"FAILED {failure}\n" for failure in run.failures), end="")
    return 1 if run.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
