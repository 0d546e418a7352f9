"""Repeating the rows finds what a row finds, and says how to see it again."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def repeat(code: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it sets warnings and hooks for the whole of it."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        check=False,
    )


def test_rows_are_repeated_for_each_seed_and_what_fails_is_named_with_its_seed() -> None:
    """The table is made wrong for one way of calling; the other five must go on."""
    done = repeat(
        """
        import sys
        from tests.faults import repeat
        from fault_cases import EXPECTED, Seen
        keyword = ["-k", "row_40_a_clean_end or row_42_half"]
        assert repeat.main(["2", "7", *keyword]) == 0
        EXPECTED["half-event", "stream", "httpx", "azure"] = Seen("OverloadedError")
        sys.exit(repeat.main(["1", "9", *keyword]))
        """
    )

    assert done.returncode == 1, done.stderr
    name = "tests/faults/test_row_40_to_58_streams.py::test_row_42_half_an_event_is_truncated[async-httpx-azure]"
    again = f"APEX_LLM_FAULT_SEED=9 pytest '{name}'"
    lines = done.stdout.splitlines()
    told = [line.partition(" failures")[0] for line in lines if line.startswith("seed")]
    assert told == ["seed    7: 12 plays, 0", "seed    8: 12 plays, 0", "seed    9: 12 plays, 1"]
    assert f"repeat it with: {again}" in lines
    assert lines[-1] == f"FAILED {again}"
    assert "StreamTruncatedError" in done.stdout


def test_every_fault_is_due_often_enough_and_slow_rows_take_turns() -> None:
    done = repeat(
        """
        import collections
        from tests.faults import repeat
        run = repeat._Run(range(1, 51), 1)
        assert repeat._collect(run, "") is None
        seldom = collections.Counter()
        for seed in run.seeds:
            due = run.due(seed)
            for item in due:
                if item.name.startswith(repeat._SELDOM):
                    seldom[item.originalname] += 1
        assert len(seldom) >= len(repeat._SELDOM), "a test was given another name"
        assert all(any(name.startswith(prefix) for name in seldom) for prefix in repeat._SELDOM)
        assert min(seldom.values()) >= 50, seldom
        assert {item.callspec.params["column"] for seed in run.seeds for item in run.due(seed)} == set(repeat.COLUMNS)
        """
    )

    assert done.returncode == 0, done.stderr
