"""``python -m benchmarks``: run them, print one table, keep the results."""

from __future__ import annotations

import argparse
import signal
import sys

from benchmarks.harness import Plan
from benchmarks.page import rewrite
from benchmarks.report import sections
from benchmarks.runner import BENCHMARKS, run, write_results

_QUICK = Plan(
    seconds=0.05,
    most=2000,
    pieces=200,
    long_seconds=0.5,
    paced="paced-20x10",
    streams=50,
    trickle="paced-10x50",
    starts=1,
    slow=(1000,),
    slow_mode="paced-10x20",
    slow_seconds=10.0,
    lengths=(100, 1000, 10_000),
    widths=(5, 50, 500),
)
_QUICK_SKIPS = (
    *("aiohttp", "httpx", "httpx2", "anthropic", "langchain-aws", "pydantic-ai", "litellm"),
    *("heartbeat alone", "streams", "streams, at once", "streams, refresh"),
)


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if anything could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What apex_llm costs beside a floor and its peers, all in one run on loopback.",
        epilog="A run that is not quick keeps its figures in benchmarks/results and rewrites the tables and the plot "
        "of docs/explanation/performance.md.",
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to run: {', '.join(BENCHMARKS)} (all)")
    parser.add_argument("--quick", action="store_true", help="one small round in about two minutes; writes nothing")
    parser.add_argument("--rounds", type=int, help="how often each case is measured (3)")
    given = parser.parse_args(arguments)
    names = [name.removesuffix(".py").rpartition("/")[2].removeprefix("bench_") for name in given.names]
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    command = " ".join(["scripts/bench", *(["--quick"] if given.quick else []), *names])
    if given.rounds:
        command += f" --rounds {given.rounds}"
    # The server is a process of its own, which an end without clean-up would leave behind.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    results, problems = run(
        names or BENCHMARKS,
        plan=_QUICK if given.quick else Plan(),
        rounds=given.rounds or (1 if given.quick else 3),
        command=command,
        skip=_QUICK_SKIPS if given.quick else (),
    )
    sys.stdout.write("\n\n".join(table for table in sections(results).values() if table) + "\n")
    if not given.quick:
        write_results(results)
        rewrite()
    for problem in problems:
        sys.stderr.write(f"not measured: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
