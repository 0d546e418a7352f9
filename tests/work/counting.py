"""What a piece of work costs, in units that no machine and no neighbour can change.

Counted on the thread that asks, between ``with`` and its end, each in a run of its own, as they
would count each other:

- *instructions* of the interpreter that ran in ``apex_llm``, by file (``sys.settrace`` with opcode events);
- *functions* of Python that were entered or resumed, ours and the libraries', and *C functions* that were
  called (``sys.setprofile``). What this directory does itself is left out;
- *blocks* of memory that were taken between two of our instructions: a floor, as what a C function takes
  and gives back before it returns, and what an object's free list serves, is not seen.
"""

from __future__ import annotations

__all__ = ["BlocksTaken", "Functions", "Instructions"]

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Self

import apex_llm

PACKAGE = str(Path(apex_llm.__file__).parent) + "/"
HERE = str(Path(__file__).parent) + "/"


class Instructions:
    """``by_file`` counts instructions under the file's path inside the package."""

    def __init__(self) -> None:
        self.by_file: Counter[str] = Counter()
        self._by_code: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self.by_file.total()

    def __enter__(self) -> Self:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.settrace(None)
        for name, count in self._by_code.items():
            self.by_file[name.removeprefix(PACKAGE)] += count

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self._by_code[frame.f_code.co_filename] += 1
        return self._step


class Functions:
    """``ours``, ``libraries`` and ``in_c`` are numbers of calls."""

    def __init__(self) -> None:
        self.ours = self.libraries = self.in_c = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._tell)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)

    def _tell(self, frame: FrameType, event: str, argument: Any) -> None:
        file = frame.f_code.co_filename
        if file.startswith(HERE):
            return
        if event == "c_call":
            self.in_c += 1
        elif event == "call":
            if file.startswith(PACKAGE):
                self.ours += 1
            else:
                self.libraries += 1


class BlocksTaken:
    """``total`` is the number of blocks that the allocator handed out while our code ran."""

    def __init__(self) -> None:
        self.total = 0
        self._last = 0

    def __enter__(self) -> Self:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        # The frame object that tracing makes is not the work's own.
        self._last = sys.getallocatedblocks()
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        taken = sys.getallocatedblocks() - self._last
        if taken > 0:
            self.total += taken
        self._last = sys.getallocatedblocks()
        return self._step
