"""``python -m benchmarks.page``: tables and plot of docs/explanation/performance.md, from the results that are kept."""

from __future__ import annotations

__all__ = ["PAGE", "PLOT", "rewrite", "rewritten"]

import re
from collections.abc import Mapping
from typing import Any

from benchmarks.harness import ROOT
from benchmarks.plot import drawn
from benchmarks.report import sections
from benchmarks.runner import read_results

PAGE = ROOT / "docs" / "explanation" / "performance.md"
PLOT = PAGE.with_name("performance.svg")


def rewritten(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """``text`` with what stands between ``<!-- name -->`` and ``<!-- /name -->`` made anew."""
    for name, table in sections(results).items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, found = marked.subn(lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", text)
        if not found:
            raise ValueError(f"The page has no place marked {name!r}.")
    return text


def rewrite() -> None:
    """Rewrite the page in place, and the plot beside it."""
    results = read_results()
    if results and PAGE.is_file():
        PAGE.write_text(rewritten(PAGE.read_text("utf-8"), results), "utf-8")
        PLOT.write_text(drawn(results), "utf-8")


if __name__ == "__main__":
    rewrite()
