"""Every relative link of the documentation leads to a file, and to a heading that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
_CODE = re.compile(r"^ *```.*?^ *```\s*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]\n]*\]\(\s*<?([^)\s>]+)>?[^)\n]*\)")


def _prose(page: Path) -> str:
    return _CODE.sub("", page.read_text("utf-8"))


def _anchors(page: Path) -> set[str]:
    """Heading anchors as code hosts make them: lower case, spaces to hyphens, punctuation dropped."""
    fenceless = re.sub(r"^ *```.*?^ *```\s*$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#{1,6} +(.+?) *#*$", fenceless, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _links(page: Path) -> list[str]:
    """Links of one page that stay within the repository."""
    return [link for link in _LINK.findall(_prose(page)) if not re.match(r"[a-z][a-z0-9+.-]*:", link)]


@pytest.mark.parametrize(
    ("page", "link"),
    [(page, link) for page in PAGES for link in _links(page)],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_relative_link_leads_somewhere(page: Path, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page

    assert target.exists(), f"{page.relative_to(ROOT)} links to {link}, which is not there"
    if anchor:
        assert anchor in _anchors(target), f"{page.relative_to(ROOT)} links to {link}; headings: {_anchors(target)}"


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    reached: set[Path] = set()
    waiting = [index]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.is_file():
            continue
        reached.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in _links(page)]

    assert {page for page in PAGES if "docs" in page.parts} <= reached
