"""An emulator in a process of its own, so that what a test counts (memory, sockets, tasks) is the client's alone.

The prompt says how it is answered: ``text 30 0.01`` (words, seconds between them), ``cut 3``, ``reset 3``, ``stall 3``,
``truncated``, ``throttle``, ``error internal``, ``inside 2 throttled``; any other prompt is echoed.
"""

from __future__ import annotations

__all__ = ["EmulatorProcess", "open_sockets"]

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from apex_llm.emulator import Answer, Emulator, RecordedRequest


class EmulatorProcess:
    """Runs while the context lasts; ``environment`` points clients at it."""

    environment: dict[str, str]

    def __enter__(self) -> Self:
        here = Path(__file__).resolve()
        self._process = subprocess.Popen(
            [sys.executable, str(here)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.environment = json.loads(self._process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # It ends with its standard input, and so also when this process dies.
        self._process.communicate(timeout=10)


def open_sockets() -> int:
    """Sockets that this process has open. Linux and other systems with ``/proc`` or ``/dev/fd`` only."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    count = 0
    for name in os.listdir(folder):
        try:
            count += os.readlink(f"{folder}/{name}").startswith("socket:")
        except OSError:
            continue
    return count


def wait_until(condition: Callable[[], object], *, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _prompt(request: RecordedRequest) -> str:
    content: Any = request.json["messages"][-1]["content"]
    return content if isinstance(content, str) else content[0]["text"]


def _words(count: int) -> tuple[str, ...]:
    return tuple(f"word{number} " for number in range(count))


def answer_for(prompt: str) -> Answer | None:
    match prompt.split():
        case ["text", count, delay]:
            return Answer.text(chunks=_words(int(count)), delay=float(delay))
        case [("cut" | "reset") as how, after, delay]:
            return Answer.cut(
                Answer.text(chunks=_words(30), delay=float(delay)), after_events=int(after), reset=how == "reset"
            )
        case ["stall", after]:
            return Answer.stall(Answer.text(chunks=_words(30)), after_events=int(after))
        case ["truncated", delay]:
            return Answer.truncated(Answer.text(chunks=_words(30), delay=float(delay)))
        case ["throttle"]:
            return Answer.throttle(retry_after_ms=20)
        case ["error", kind]:
            return Answer.error(kind)
        case ["inside", after, kind]:
            return Answer.error(kind, inside_stream_after=int(after))
        case _:
            return None


def _serve() -> None:
    with Emulator() as emulator:

        def play(request: RecordedRequest) -> Answer | None:
            emulator.script(play)
            del emulator.requests[:-100]
            return answer_for(_prompt(request))

        emulator.script(play)
        print(json.dumps(emulator.environment), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve()
