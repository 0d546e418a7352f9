"""Whether the package does more work than it did: figures against ``expected.json``, growth against the changelog.

Figures are kept for each minor version of Python, as each has other instructions. A version that has none is held to
the newest that has some, in functions of ours only and with a wider band.
"""

from __future__ import annotations

__all__ = ["Expected", "compare", "history", "supported", "unexplained", "write"]

import fnmatch
import json
import platform
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.work.measure import ROOT, Figures, Measured

EXPECTED = Path(__file__).with_name("expected.json")
CHANGELOG = ROOT / "CHANGELOG.md"
HEADING = "### Work per call"

GROWTH = 1.10
GROWTH_ELSEWHERE = 1.25
"""On a version of Python that has no figures of its own."""
FALL = 0.75
"""Gains are written down, or the next growth would hide in them."""

_AT_MOST_ZERO = re.compile(r"_left$|(piece|event).*\.instructions_for_what_is_unused$")
_BULLET = re.compile(r"^- ", re.MULTILINE)
_QUOTED = re.compile(r"`([^`\s]+)`")

VERSION = ".".join(platform.python_version_tuple()[:2])


class Expected(NamedTuple):
    """What ``expected.json`` says for one version of Python."""

    figures: Figures
    modules: dict[str, list[str]]
    version: str

    @classmethod
    def parse(cls, text: str, *, version: str = VERSION) -> Expected | None:
        """The part for ``version``, or for the newest there is; ``None`` where there is none at all."""
        content = json.loads(text)
        if not content:
            return None
        if version not in content:
            version = max(content, key=lambda name: [int(part) for part in name.split(".")])
        return cls(content[version]["figures"], content[version]["modules"], version)


def compare(measured: Measured, expected: Expected, *, version: str = VERSION) -> list[str]:
    """What is wrong, a sentence each."""
    growth, names = GROWTH, sorted(measured.figures)
    alike = expected.version == version
    if not alike:
        growth, names = GROWTH_ELSEWHERE, [name for name in names if name.endswith(".functions")]
    found: list[str] = []
    for name in names:
        number, known = measured.figures[name], expected.figures.get(name)
        if _AT_MOST_ZERO.search(name):
            if number > 0:
                found.append(f"{name} is {number:g} and must be 0.")
        elif known is None:
            found.append(f"{name} is {number:g} and nothing is known of it: accept it.")
        elif number > known * growth:
            found.append(
                f"{name} is {number:g}, expected {known:g} ({_percent(known, number)}).{_new(name, measured, expected)}"
            )
        elif alike and number < known * FALL:
            found.append(
                f"{name} is only {number:g}, expected {known:g} ({_percent(known, number)}): well done, accept it."
            )
    if alike:
        found.extend(
            f"{name} is expected and was not measured: accept that." for name in sorted(expected.figures.keys() - names)
        )
    return found


def unexplained(figures: Figures, before: Figures, *, changelog: str, changelog_before: str) -> list[str]:
    """Figures that were raised by more than a tenth since ``before``, and that no new note names.

    A note is an entry under ``### Work per call`` with the figure's name, or a pattern like ``*.call.*``, between
    backticks. One that stood there before explains nothing any more.
    """
    old = set(_notes(changelog_before))
    named = [name for note in _notes(changelog) if note not in old for name in _QUOTED.findall(note)]
    return [
        f"{name} was raised from {before[name]:g} to {number:g} ({_percent(before[name], number)})."
        for name, number in sorted(figures.items())
        if _grown(name, number, before) and not any(fnmatch.fnmatchcase(name, pattern) for pattern in named)
    ]


def history(root: Path = ROOT) -> tuple[str, str] | None:
    """``expected.json`` and the changelog as they were before the figures were last changed; ``None`` without git.

    That is the last commit where the file differs from it, and otherwise the one before the commit that made it.
    """
    name, changelog = EXPECTED.relative_to(ROOT).as_posix(), CHANGELOG.relative_to(ROOT).as_posix()
    try:
        if _git(root, "status", "--porcelain", "--", name):
            commit = "HEAD"
        else:
            commit = _git(root, "log", "-1", "--format=%H", "--", name).strip() + "^"
        return _git(root, "show", f"{commit}:{name}"), _git(root, "show", f"{commit}:{changelog}")
    except (OSError, subprocess.CalledProcessError):
        # Not a checkout, a shallow one, or the file's first version.
        return None


def write(measured: Measured, *, because: str | None) -> str:
    """Make the figures the expected ones, and say what was done.

    Growth by more than a tenth needs a reason, which goes into the changelog. Smaller growth is written
    only where there is a reason: otherwise many small ones would never add up.

    Raises:
        ValueError: Something grew and no reason was given; nothing was written.
    """
    content = json.loads(EXPECTED.read_text("utf-8")) if EXPECTED.exists() else {}
    before: Figures = content.get(VERSION, {}).get("figures", {})
    grown = [name for name, number in sorted(measured.figures.items()) if _grown(name, number, before)]
    if grown and because is None:
        listed = "\n".join(f"  {name} {before[name]:g} -> {measured.figures[name]:g}" for name in grown)
        raise ValueError(f'These grew by more than a tenth; say why with --because "...":\n{listed}')
    figures = dict(measured.figures)
    if because is None:
        figures = {name: min(number, before.get(name, number)) for name, number in figures.items()}
    content[VERSION] = {"figures": figures, "modules": measured.modules}
    EXPECTED.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
    done = f"{len(figures)} figures written for Python {VERSION}"
    if not grown:
        return f"{done}."
    note = f"- {because}: {', '.join(f'`{name}`' for name in grown)}."
    note = textwrap.fill(note, 116, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    CHANGELOG.write_text(_with_note(CHANGELOG.read_text("utf-8"), note), "utf-8")
    return f"{done}, and a note to {CHANGELOG.name}."


def supported() -> str | None:
    """Why nothing can be counted here; ``None`` where it can."""
    if sys.implementation.name != "cpython":
        return "counts are those of CPython"
    if sys.platform == "win32":
        return "the event loop of Windows takes other steps"
    return None


def _grown(name: str, number: float, before: Mapping[str, float]) -> bool:
    return name in before and number > before[name] * GROWTH


def _with_note(changelog: str, note: str) -> str:
    head, unreleased, rest = changelog.partition("## [Unreleased]\n")
    if not unreleased:
        raise ValueError("CHANGELOG.md has no section [Unreleased].")
    section, following, older = rest.partition("\n## [")
    before, heading, notes = section.partition(f"{HEADING}\n")
    if heading:
        section = f"{before}{heading}\n{note}{notes}"
    else:
        section = f"{section.rstrip()}\n\n{HEADING}\n\n{note}\n"
    return head + unreleased + section + following + older


def _notes(changelog: str) -> list[str]:
    """The entries of every such section, of releases too: what was explained there stays so when it is released."""
    sections = re.split(r"^#{2,3} ", changelog, flags=re.MULTILINE)
    title = HEADING.removeprefix("### ")
    return [
        " ".join(note.split())
        for section in sections
        if section.startswith(f"{title}\n")
        for note in _BULLET.split(section)[1:]
    ]


def _new(name: str, measured: Measured, expected: Expected) -> str:
    new = sorted(set(measured.modules.get(name, ())) - set(expected.modules.get(name, ())))
    return f" New: {', '.join(new)}." if new else ""


def _percent(before: float, now: float) -> str:
    return f"{(now / before - 1) * 100:+.0f} %" if before else "from nothing"


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout
