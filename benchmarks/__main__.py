"""``python -m benchmarks``: run them, print one table, keep the results."""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import Plan
from benchmarks.page import rewrite
from benchmarks.report import bars_table, conditions, figures_table, lists_table
from benchmarks.runner import BENCHMARKS, run, write_results

_QUICK = Plan(seconds=0.05, most=2000, pieces=200, paced="paced-20x10", starts=1)
_QUICK_SKIPS = ("httpx, signed", "openai", "heartbeat alone", "streams", "streams, at once", "streams, refresh")


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if anything could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What apex_llm costs beside a floor and its peers, all in one run on loopback.",
        epilog="A full run takes about ten minutes, keeps its figures in benchmarks/results and "
        "rewrites the tables of docs/explanation/performance.md.",
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to run: {', '.join(BENCHMARKS)} (all)")
    parser.add_argument("--quick", action="store_true", help="one small round in under a minute; writes nothing")
    parser.add_argument("--rounds", type=int, help="how often each case is measured (7)")
    given = parser.parse_args(arguments)
    names = [name.removesuffix(".py").rpartition("/")[2].removeprefix("bench_") for name in given.names]
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    command = " ".join(["scripts/bench", *(["--quick"] if given.quick else []), *names])
    if given.rounds:
        command += f" --rounds {given.rounds}"
    results, problems = run(
        names or BENCHMARKS,
        plan=_QUICK if given.quick else Plan(),
        rounds=given.rounds or (1 if given.quick else 7),
        command=command,
        skip=_QUICK_SKIPS if given.quick else (),
    )
    tables = [conditions(results), figures_table(results), lists_table(results), bars_table(results)]
    sys.stdout.write("\n\n".join(table for table in tables if table) + "\n")
    if not given.quick:
        write_results(results)
        rewrite()
    for problem in problems:
        sys.stderr.write(f"not measured: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
