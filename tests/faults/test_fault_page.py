"""The page about faults is what the tests say."""

from __future__ import annotations

import re

import page
import pytest
from fault_cases import COLUMNS, EXPECTED, UNTOLD, expected

from apex_llm.cli.application import run
from apex_llm.emulator import FAULTS, PORT_FAULTS


def test_the_page_is_what_the_table_and_the_tests_say() -> None:
    assert page.PAGE.read_text("utf-8") == page.render(), "run python -m tests.faults.page"


def test_every_fault_has_a_line_and_a_test() -> None:
    """A fault without a row would be a promise that nobody keeps."""
    assert {key[0] for key in EXPECTED} | UNTOLD == set(FAULTS)
    played = "".join(path.read_text("utf-8") for path in page.HERE.glob("test_row_*.py"))
    for name in [*FAULTS, *PORT_FAULTS]:
        spelled = {f'"{name}"', re.sub(r"retry-after-\w+", 'f"retry-after-{kind}"', name)}
        spelled.add(re.sub(r"status-\d+", 'f"status-{status}"', name))
        assert any(form in played for form in spelled), name


def test_each_fault_says_something_for_each_way_of_calling() -> None:
    for name, fault in FAULTS.items():
        for call in fault.calls:
            for column in COLUMNS:
                assert name in UNTOLD or expected(name, call, column)


def test_every_row_of_the_matrix_has_a_test() -> None:
    rows = {int(number) for numbers, _ in page._tests() for number in numbers.split(", ")}

    assert set(range(1, 75)) - rows == set()
    for _, path, name in page.ELSEWHERE:
        assert f"def {name}(" in (page.HERE.parents[1] / path).read_text("utf-8")


def test_the_command_lists_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["emulate", "--list-faults"]) == 0
    printed = capsys.readouterr().out
    for name in [*FAULTS, *PORT_FAULTS]:
        assert f"\n{name} " in f"\n{printed}"
    assert run(["emulate", "--fault", "no-such-fault"]) == 1
    assert run(["emulate", "--fault", "refused", "--fault", "stall"]) == 2
