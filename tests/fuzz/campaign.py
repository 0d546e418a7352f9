"""Runs the targets over many inputs: ``python tests/fuzz/campaign.py --inputs 260000`` (``scripts/check-fuzz``).

Every input is made from its target's name, its number and the seed, so that any finding can be made again:
``--target "chat stream" --only 1234``.
"""

from __future__ import annotations

__all__ = ["ALONE", "Finding", "fuzz", "shares"]

import argparse
import base64
import contextlib
import signal
import sys
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "recordings")]

from fuzz_targets import TARGETS, Target
from socket_targets import socket_targets
from stored_targets import STORED_TARGETS

from apex_llm.errors import ApexLlmError

ALONE = (*TARGETS, *STORED_TARGETS)
"""The targets that need no connection."""

_CPU_SECONDS = 2.0
_MEASURED = 50
"""One input in so many has its memory traced, which is slow."""
_MEMORY_PER_BYTE = 100
"""The emptiest JSON lists take some sixty bytes of Python a character, and are read twice."""


class _Hang(BaseException):
    """Past every ``except Exception`` on its way."""


@dataclass
class Finding:
    """Something that must not happen, and how to make it happen again."""

    target: str
    number: int
    data: bytes = field(repr=False)
    error: BaseException

    def __str__(self) -> str:
        shown = "".join(traceback.format_exception(self.error))[-1_500:]
        return f"{self.target} #{self.number}: {base64.b64encode(self.data)[:400].decode()}\n{shown}"


def shares(targets: Sequence[Target], inputs: int) -> dict[str, int]:
    """How many inputs each target gets."""
    weights = sum(target.weight for target in targets)
    return {target.name: -(-inputs * target.weight // weights) for target in targets}


def fuzz(target: Target, numbers: range, *, seed: int, outcomes: Counter[str] | None = None) -> Iterator[Finding]:
    """Each finding among the inputs of these numbers."""
    for number in numbers:
        dice = Random(f"{seed}:{target.name}:{number}")
        data = target.make(dice)
        try:
            with _watched(target.memory + _MEMORY_PER_BYTE * len(data), trace=number % _MEASURED == 0):
                result = target.run(data, dice)
            name = result if isinstance(result, str) and result else "read"
        except ApexLlmError as error:
            name = type(error).__name__
        except (_Hang, Exception) as error:
            name = "FOUND"
            yield Finding(target.name, number, data, error)
        if outcomes is not None:
            outcomes[name] += 1


@contextlib.contextmanager
def _watched(most: int, *, trace: bool) -> Iterator[None]:
    # CPU time of this process, so that a busy machine is no hang, and the alarm stays pytest's.
    before = signal.signal(signal.SIGVTALRM, _too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, _CPU_SECONDS)
    if trace:
        tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] if trace else 0
    finally:
        if trace:
            tracemalloc.stop()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    if peak > most:
        raise MemoryError(f"{peak} bytes at the peak, and not {most} at most")


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise _Hang(f"over {_CPU_SECONDS:g} s of CPU for one input")


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description="Fuzz every reader of foreign bytes.")
    parser.add_argument("--inputs", type=int, default=260_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--only", type=int, help="only the input of this number")
    options = parser.parse_args()
    found = total = 0
    with socket_targets() as over_sockets:
        targets = [target for target in (*ALONE, *over_sockets) if options.target in {None, target.name}]
        for target in targets:
            count = shares(targets, options.inputs)[target.name]
            numbers = range(count) if options.only is None else range(options.only, options.only + 1)
            outcomes: Counter[str] = Counter()
            began = time.monotonic()
            for finding in fuzz(target, numbers, seed=options.seed, outcomes=outcomes):
                found += 1
                if found <= 20:
                    print(finding, flush=True)
            total += len(numbers)
            counts = ", ".join(f"{name} {times}" for name, times in outcomes.most_common())
            print(f"{target.name:22} {len(numbers):7} in {time.monotonic() - began:5.1f} s: {counts}", flush=True)
    print(f"{total} inputs, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
