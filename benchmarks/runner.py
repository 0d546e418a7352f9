"""Runs benchmarks in rounds, and writes what was found."""

from __future__ import annotations

__all__ = ["BENCHMARKS", "read_results", "run", "write_results"]

import datetime as dt
import importlib
import json
import os
import platform
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import environments
from benchmarks.bars import BARS
from benchmarks.harness import Benchmark, Case, Host, Plan, cores, running

BENCHMARKS = (
    "server",
    "import",
    "cold_start",
    "call",
    "chunk",
    "paced",
    "first_chunk",
    "slow_streams",
    "growth",
    "sync",
    "large_json",
    "tls",
    "components",
    "event_loop",
)
RESULTS = Path(__file__).resolve().parent / "results"
_MOST_BUSY = 0.95
_IN_BARS = frozenset(name for bar in BARS for name in (bar.variant, bar.against))


def run(
    names: Sequence[str], *, plan: Plan, rounds: int, command: str, skip: Sequence[str] = ()
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The results of the named benchmarks, and what went wrong.

    Args:
        names: Of ``BENCHMARKS``.
        plan: How much is measured.
        rounds: How many times each case is measured, each time in a process of its own; but once only what lives in
            an environment of its own and is named by no bar, or takes more than ``plan.patience`` seconds.
        command: What is being run, for the record.
        skip: Variants to leave out.
    """
    benchmarks = [_load(name) for name in names]
    machine, versions = _machine(), environments.versions()
    results = {
        benchmark.name: {
            "benchmark": benchmark.name,
            "question": benchmark.question,
            "unit": benchmark.unit,
            "metrics": dict(benchmark.metrics),
            "date": dt.date.today().isoformat(),
            "command": command,
            "rounds": rounds,
            "machine": machine,
            "versions": versions,
            "figures": {},
        }
        for benchmark in benchmarks
    }
    problems: list[str] = []
    missing: set[tuple[str, Case]] = set()
    once: set[tuple[str, Case]] = set()
    began = time.monotonic()
    with running() as host:
        for number in range(rounds):
            for benchmark in benchmarks:
                cases = [case for case in benchmark.cases if _is_possible(case) and case.variant not in skip]
                random.shuffle(cases)
                for case in cases:
                    if (benchmark.name, case) not in missing | once:
                        _tell(f"round {number + 1} of {rounds}: {benchmark.name} {case.wire} {case.variant}")
                        case_began = time.monotonic()
                        problem = _take(benchmark, case, plan, host, results[benchmark.name]["figures"])
                        patient = time.monotonic() - case_began <= plan.patience and case.variant in _IN_BARS
                        if case.environment and not patient:
                            once.add((benchmark.name, case))
                        if problem is not None:
                            # Left out from here on: ratios need the same rounds on both sides.
                            missing.add((benchmark.name, case))
                            problems.append(problem)
        if "import" in results:
            results["import"]["heavy"] = importlib.import_module("benchmarks.bench_import").heavy_modules(host)
    _tell("")
    for benchmark in benchmarks:
        for name, case in missing:
            if name == benchmark.name:
                _forget(results[name]["figures"], case)
        results[benchmark.name]["figures"] = _ordered(benchmark, results[benchmark.name]["figures"])
        results[benchmark.name]["minutes"] = round((time.monotonic() - began) / 60, 1)
    return results, problems


def _take(benchmark: Benchmark, case: Case, plan: Plan, host: Host, figures: dict[str, Any]) -> str | None:
    try:
        measured = benchmark.measure(case, plan, host)
    except RuntimeError as error:
        return f"{benchmark.name}, {case.wire} {case.variant}: {str(error).strip().splitlines()[-1]}"
    for metric, entry in measured.items():
        if entry.get("server_busy", 0) > _MOST_BUSY:
            return f"{benchmark.name}, {case.wire} {case.variant}: the server was the bottleneck ({metric})"
        figures.setdefault(metric, {}).setdefault(case.variant, []).append(entry)
    return None


def _forget(figures: dict[str, Any], case: Case) -> None:
    for metric, row in figures.items():
        if metric.startswith(case.wire):
            row.pop(case.variant, None)


def _ordered(benchmark: Benchmark, figures: dict[str, Any]) -> dict[str, Any]:
    order = [case.variant for case in benchmark.cases]
    return {
        metric: dict(sorted(figures[metric].items(), key=lambda row: order.index(row[0])))
        for metric in benchmark.metrics
        if metric in figures
    }


def write_results(results: Mapping[str, Mapping[str, Any]], folder: Path = RESULTS) -> None:
    """One file for each benchmark."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(f"{_compact(text)}\n", "utf-8")


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """What the last full runs found."""
    return {
        name: json.loads((folder / f"{name}.json").read_text("utf-8"))
        for name in BENCHMARKS
        if (folder / f"{name}.json").is_file()
    }


def _compact(text: str) -> str:
    """The innermost objects on a line each: a round is one line."""
    lines: list[str] = []
    held: list[str] | None = None
    for line in text.splitlines():
        if line.endswith("{"):
            if held is not None:
                lines += held
            held = [line]
        elif held is not None:
            held.append(line)
            if line.strip() in {"}", "},"}:
                lines.append(held[0] + " ".join(part.strip() for part in held[1:]))
                held = None
            elif line.endswith("["):
                lines += held
                held = None
        else:
            lines.append(line)
    return "\n".join(lines + (held or []))


def _load(name: str) -> Benchmark:
    benchmark: Benchmark = importlib.import_module(f"benchmarks.bench_{name}").BENCHMARK
    return benchmark


def _is_possible(case: Case) -> bool:
    return environments.is_possible(case.needs, case.environment)


def _tell(progress: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{progress}")
        sys.stderr.flush()


def _machine() -> dict[str, Any]:
    """What a reader needs to judge the figures; nothing that names the machine."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "pinned": cores() is not None,
        "load_before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
