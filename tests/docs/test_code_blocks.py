"""Documentation that runs: every Python block of README and docs is executed against the emulator.

A block is a program of its own. Above a block that cannot run here stands, with a blank line between,
an HTML comment that says why: ``<!-- not run: needs a real cloud -->``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL
)
_NOT_RUN = re.compile(r"<!-- not run: [^\n]+ -->\s*\Z")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block and where it stands."""

    page: Path
    line: int
    code: str
    runs: bool

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        if match["language"] in {"python", "py"}:
            before = text[: match.start()]
            code = "".join(line.removeprefix(match["indent"]) for line in match["code"].splitlines(keepends=True))
            yield Block(page, before.count("\n") + 2, code, runs=_NOT_RUN.search(before) is None)


BLOCKS = [block for page in PAGES for block in _blocks(page)]


def _case(block: Block) -> Any:
    prints_a_key = "age-secret-key-" in block.code
    marks = [pytest.mark.shows_secrets("prints an identity, as the page says")] if prints_a_key else []
    return pytest.param(block, id=block.place, marks=marks)


@pytest.mark.usefixtures("apex_llm_emulator", "capsys")
@pytest.mark.parametrize("block", [_case(block) for block in BLOCKS if block.runs])
def test_a_python_block_runs_against_the_emulator(
    block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The code that users copy first. Output is not compared: the emulator's words are nobody's promise."""
    monkeypatch.chdir(tmp_path)
    source = "\n" * (block.line - 1) + block.code

    exec(compile(source, str(block.page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("block", [b for b in BLOCKS if not b.runs], ids=lambda block: block.place)
def test_a_python_block_that_is_not_run_is_python_all_the_same(block: Block) -> None:
    compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")


def test_the_first_page_runs() -> None:
    """If a marker or the fence pattern went wrong, everything would pass by running nothing."""
    assert sum(block.runs for block in BLOCKS if block.page.name == "README.md") >= 5
