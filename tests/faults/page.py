"""Writes ``docs/reference/faults.md`` from the table and the names of the tests: ``python -m tests.faults.page``."""

from __future__ import annotations

__all__ = ["ELSEWHERE", "PAGE", "render"]

import re
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from fault_cases import (  # noqa: E402
    BLOCKED_SECONDS,
    BOUNDS,
    COLUMNS,
    FULL_TEXT,
    HALF_TEXT,
    IMPOSSIBLE,
    NOT_APPLICABLE,
    UNTOLD,
    Column,
    Seen,
    expected,
)

from apex_llm.emulator import FAULTS, PORT_FAULTS, Fault  # noqa: E402

PAGE = HERE.parents[1] / "docs" / "reference" / "faults.md"
_TEST = re.compile(r"^(?:async )?def test_rows?_([\d_]+?)_([a-z]\w+)\(", re.MULTILINE)

ELSEWHERE = [
    (39, "tests/transport/test_retry.py", "test_two_hundred_clients_told_the_same_second_do_not_return_together"),
    (45, "tests/recordings/test_recorded_cuts.py", "test_a_cut_at_any_byte_is_typed_and_loses_and_doubles_nothing"),
    (61, "tests/credentials/test_cached_credentials.py", "test_the_old_value_serves_while_its_source_is_down"),
    (63, "tests/lifecycle/test_cancellation.py", "test_cancelled_at_any_await_it_leaves_nothing_open"),
    (66, "tests/lifecycle/test_loops_and_threads.py", "test_a_provider_outlives_the_loops_it_is_used_on"),
    (67, "tests/sync/test_blocking_calls.py", "test_a_call_from_the_loop_thread_itself_is_refused_and_not_a_deadlock"),
    (68, "tests/lifecycle/test_processes.py", "test_a_thousand_calls_of_four_forked_children_do_not_mix"),
    (69, "tests/sync/test_process_life.py", "test_ctrl_c_in_the_middle_of_a_stream_keeps_what_arrived"),
    (69, "tests/lifecycle/test_processes.py", "test_an_interrupt_ends_a_stream_and_its_connection"),
    (70, "tests/sync/test_process_life.py", "test_exit_with_open_streams_is_quick_and_quiet"),
    (70, "tests/lifecycle/test_processes.py", "test_leaving_with_open_streams_is_quick_and_quiet"),
    (72, "tests/keys/test_key_store_crashes.py", "test_a_disk_that_refuses_leaves_the_store_byte_for_byte"),
]
"""Rows that other rooms hold, or hold too: row, file and test."""

_HEAD = """\
# Faults, and what you see of them

<!-- Written by python -m tests.faults.page from tests/faults; do not edit. -->

Every line is a test that plays the fault on a real socket, through each way of calling: async over the
package's own connections, async over httpx, and the blocking twin; on Bedrock (Converse) and on Azure (chat).
Where the ways differ, the line says how. Play them to your own program with the emulator:
[how to test failures](../how-to/test-failures.md).

- **retried**: with the default policy the call is made again, up to three times; here every attempt meets the
  fault. When only the first one does, the second attempt's answer is all that you see.
- **retryable** is the error's attribute of that name: whether a new call may succeed.
- **kept** is `error.partial`: exactly the text that had been handed over.

## Faults of an answer

| row | fault | the server | call | you see | retryable | sends | kept |
|---|---|---|---|---|---|---|---|
"""

_COSTS = f"""\
Held by each column, in a client process of its own: resident memory beyond what it had before the call, and the
process's CPU time. None of them keeps the event loop from other tasks for more than {BLOCKED_SECONDS * 1000:g} ms."""


def render() -> str:
    """The whole page."""
    lines = [_HEAD.rstrip("\n")]
    for fault in sorted(FAULTS.values(), key=lambda fault: fault.row):
        lines.extend(_rows(fault))
    lines += ["", "## Where the client underneath decides", "", "| fault | sender | why |", "|---|---|---|"]
    lines += [f"| `{fault}` | {sender} | {why} |" for (fault, sender), why in sorted(IMPOSSIBLE.items())]
    lines += ["", "## Rows without all columns", "", "| row | why |", "|---|---|"]
    lines += [f"| {rows} | {why} |" for rows, why in NOT_APPLICABLE.items()]
    lines += [
        "",
        "## What they may cost the client",
        "",
        _COSTS,
        "",
        "| fault | call | memory, at most | CPU, at most |",
    ]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| `{name}` | {call} | {bound.mebibytes:g} MiB | {bound.seconds:g} s |"
        for (name, call), bound in BOUNDS.items()
    ]
    lines += ["", "## Ports that fail before a request is made", "", "| fault | the port |", "|---|---|"]
    lines += [f"| `{name}` | {summary} |" for name, summary in PORT_FAULTS.items()]
    lines += ["", "## All rows, in the words of their tests", "", "| row | what holds |", "|---|---|"]
    lines += [f"| {number} | {said} |" for number, said in _tests()]
    return "\n".join([*lines, ""])


def _rows(fault: Fault) -> Iterator[str]:
    for call in sorted(fault.calls, reverse=True):
        groups: dict[Seen, list[Column]] = {}
        struck = [column for column in COLUMNS if column.wire in fault.wires]
        for column in struck:
            if fault.name not in UNTOLD:
                groups.setdefault(expected(fault.name, call, column), []).append(column)
        for seen, columns in groups.items():
            where = "" if len(columns) == len(struck) else f" ({_named(columns, struck)})"
            yield f"| {fault.row} | `{fault.name}` | {fault.summary} | {call}{where} | {_cells(seen)} |"
        if not groups:
            yield (
                f"| {fault.row} | `{fault.name}` | {fault.summary} | {call} | `StreamInterruptedError`, "
                "or before the first event the answer of the next attempt | yes | 1 or 2 | what was delivered |"
            )


def _named(columns: list[Column], struck: list[Column]) -> str:
    """What tells these columns from the others."""
    for name in ("sender", "wire"):
        values = {getattr(column, name) for column in columns}
        if columns == [column for column in struck if getattr(column, name) in values]:
            return ", ".join(sorted(values))
    return ", ".join(map(str, columns))


def _cells(seen: Seen) -> str:
    if not seen.error:
        return f"the answer | - | {seen.sends} | -"
    what = f"`{seen.error}`" + (f" ({seen.detail})" if seen.detail else "")
    kept = {None: "-", "": "no text yet", HALF_TEXT: "the first half", FULL_TEXT: "all of the text"}[seen.partial]
    sends = "3: retried" if seen.sends == 3 else str(seen.sends)
    return f"{what} | {'yes' if seen.retryable else 'no'} | {sends} | {kept}"


def _tests() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in sorted(HERE.glob("test_row_*.py")):
        for numbers, name in _TEST.findall(path.read_text("utf-8")):
            rows = ", ".join(str(int(number)) for number in numbers.split("_"))
            found.append((rows, name.replace("_", " ")))
    found += [(str(row), name.removeprefix("test_").replace("_", " ")) for row, _, name in ELSEWHERE]
    return sorted(found, key=lambda pair: [int(number) for number in pair[0].split(", ")])


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
