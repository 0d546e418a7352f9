"""What calls, pieces and start-up cost, in units that no machine can change; and that the guard itself can say no."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.work import guard
from tests.work.guard import EXPECTED, VERSION, Expected, compare, history, supported, unexplained, write
from tests.work.measure import Measured, measure

_WHAT_TO_DO = """
If it is more: make it cheaper (`python -m tests.work --files` shows where instructions go), or, where it is worth it,
    python -m tests.work --accept --because "what the work is for"
and commit expected.json and CHANGELOG.md together. If it is less:
    python -m tests.work --accept"""

needs_counts = pytest.mark.skipif(supported() is not None, reason=str(supported()))


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure()


@needs_counts
def test_calls_pieces_and_start_up_cost_no_more_work_than_is_known(measured: Measured) -> None:
    expected = Expected.parse(EXPECTED.read_text("utf-8"))
    assert expected is not None
    found = compare(measured, expected)
    assert not found, "\n".join(["", *found, _WHAT_TO_DO])


def test_figures_that_were_raised_are_explained_in_the_changelog() -> None:
    past = history()
    if past is None:
        pytest.skip("no git history to compare with")
    before = Expected.parse(past[0])
    now = Expected.parse(EXPECTED.read_text("utf-8"))
    assert now is not None
    if before is None or before.version != now.version:
        pytest.skip("these are the first figures for this version of Python")
    changelog = guard.CHANGELOG.read_text("utf-8")
    found = unexplained(now.figures, before.figures, changelog=changelog, changelog_before=past[1])
    assert not found, "\n".join(["", *found, f"Add an entry that names it under {guard.HEADING} in CHANGELOG.md."])


@needs_counts
def test_more_work_is_noticed_wherever_it_is_done(measured: Measured) -> None:
    """One more layer, one more copy a piece, a cache without a bound, a few imports: each is seen for what it is."""
    clean = Expected(measured.figures, measured.modules, VERSION)
    meddled = measure(["bedrock"], meddling=["tests.work.meddling"])
    noticed = {sentence.split()[0]: sentence for sentence in compare(meddled, clean)}

    for name in (
        "bedrock.call.instructions",
        "bedrock.call.functions",
        "bedrock.call.objects_left",
        "bedrock.call.blocks_left",
        "bedrock.call_observed.instructions",
        "bedrock.piece_in_burst.instructions",
        "bedrock.piece_in_burst.instructions_for_what_is_unused",
        "bedrock.piece_in_burst.functions",
        "bedrock.piece_in_burst.library_functions",
        "bedrock.piece_in_burst.blocks",
        "bedrock.piece_paced.instructions",
        "bedrock.modules.by_import",
        "bedrock.modules.by_first_answer",
    ):
        assert name in noticed, name
    assert "xml.dom.minidom" in noticed["bedrock.modules.by_first_answer"]
    # What was not meddled with is as it was.
    assert not any(name.startswith("bedrock.event_in_burst") for name in noticed)


@needs_counts
def test_the_same_work_is_counted_the_same(measured: Measured) -> None:
    """Otherwise a tenth would mean nothing; a little is left for the size of dictionaries."""
    again = measure(["azure"]).figures

    assert again == {name: pytest.approx(measured.figures[name], rel=0.02) for name in again}


# The rules, on figures of their own ----------------------------------------------------------------


def _measured(**figures: float) -> Measured:
    return Measured(figures, {})


def _expected(version: str = VERSION, **figures: float) -> Expected:
    return Expected(figures, {}, version)


def test_a_tenth_more_is_borne_and_more_than_that_is_not() -> None:
    assert compare(_measured(a=110), _expected(a=100)) == []
    assert compare(_measured(a=111), _expected(a=100)) == ["a is 111, expected 100 (+11 %)."]
    assert compare(_measured(a=1), _expected(a=0)) == ["a is 1, expected 0 (from nothing)."]


def test_a_gain_of_more_than_a_quarter_must_be_written_down() -> None:
    assert compare(_measured(a=75), _expected(a=100)) == []
    assert compare(_measured(a=74), _expected(a=100)) == ["a is only 74, expected 100 (-26 %): well done, accept it."]


def test_what_a_call_leaves_behind_cannot_be_accepted() -> None:
    found = compare(_measured(**{"call.objects_left": 1}), _expected(**{"call.objects_left": 1}))

    assert found == ["call.objects_left is 1 and must be 0."]


def test_figures_that_came_or_went_are_told() -> None:
    assert compare(_measured(a=1), _expected(b=1)) == [
        "a is 1 and nothing is known of it: accept it.",
        "b is expected and was not measured: accept that.",
    ]


def test_modules_that_came_are_named() -> None:
    measured = Measured({"by_import": 2}, {"by_import": ["new", "old"]})

    (found,) = compare(measured, Expected({"by_import": 1}, {"by_import": ["old"]}, VERSION))

    assert found.endswith("New: new.")


def test_another_version_of_python_is_held_to_functions_and_a_wider_band() -> None:
    expected = _expected("3.8", **{"a.functions": 100, "a.instructions": 100})

    assert compare(_measured(**{"a.functions": 125, "a.instructions": 900}), expected) == []
    assert compare(_measured(**{"a.functions": 50}), expected) == []
    assert len(compare(_measured(**{"a.functions": 126}), expected)) == 1


def test_a_version_without_figures_takes_the_newest_that_has_some() -> None:
    content = json.dumps({version: {"figures": {}, "modules": {}} for version in ("3.9", "3.11", "3.10")})

    for version, taken in (("3.10", "3.10"), ("3.99", "3.11")):
        found = Expected.parse(content, version=version)
        assert found is not None
        assert found.version == taken
    assert Expected.parse("{}") is None


_OLD_LOG = (
    "# Changelog\n\n## [Unreleased]\n\n### Work per call\n\n- Older reasons: `x.call.a`.\n\n## [0.1.0]\n\n- All.\n"
)


@pytest.mark.parametrize(
    ("entry", "explained"),
    [
        ("- A trace header on each request: `x.call.a`.\n", True),
        ("- A trace header on each request, so that\n  all of `x.call.*` grew.\n", True),
        ("- A trace header on each request: `x.call.b`.\n", False),
        ("- x.call.a grew.\n", False),
        ("", False),
    ],
)
def test_only_a_new_entry_that_names_the_figure_explains_its_growth(entry: str, explained: bool) -> None:
    log = _OLD_LOG.replace("- Older", f"{entry}- Older")

    found = unexplained({"x.call.a": 120}, {"x.call.a": 100}, changelog=log, changelog_before=_OLD_LOG)

    assert found == ([] if explained else ["x.call.a was raised from 100 to 120 (+20 %)."])


def test_an_entry_elsewhere_in_the_changelog_explains_nothing() -> None:
    log = _OLD_LOG.replace("- All.", "- All of `x.call.a`.")

    assert unexplained({"x.call.a": 120}, {"x.call.a": 100}, changelog=log, changelog_before=_OLD_LOG)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    expected, changelog = tmp_path / "expected.json", tmp_path / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## [Unreleased]\n\n### Added\n\n- One.\n\n## [0.1.0]\n\n- All.\n", "utf-8")
    monkeypatch.setattr(guard, "EXPECTED", expected)
    monkeypatch.setattr(guard, "CHANGELOG", changelog)
    write(_measured(a=100, b=100), because=None)
    return expected, changelog


def _figures(expected: Path) -> dict[str, float]:
    return json.loads(expected.read_text("utf-8"))[VERSION]["figures"]


def test_gains_are_accepted_at_once_and_small_growth_adds_up(files: tuple[Path, Path]) -> None:
    write(_measured(a=80, b=109), because=None)

    assert _figures(files[0]) == {"a": 80, "b": 100}


def test_growth_is_accepted_with_a_reason_only_which_goes_into_the_changelog(files: tuple[Path, Path]) -> None:
    expected, changelog = files
    before = changelog.read_text("utf-8")
    with pytest.raises(ValueError, match="b 100 -> 120"):
        write(_measured(a=100, b=120), because=None)
    assert _figures(expected) == {"a": 100, "b": 100}

    write(_measured(a=100, b=120), because="Every answer is checked")

    log = changelog.read_text("utf-8")
    assert _figures(expected) == {"a": 100, "b": 120}
    assert log == before.replace("- One.\n", "- One.\n\n### Work per call\n\n- Every answer is checked: `b`.\n")
    assert not unexplained({"b": 120}, {"b": 100}, changelog=log, changelog_before=before)

    write(_measured(a=150, b=120), because="Twice")

    assert "### Work per call\n\n- Twice: `a`.\n- Every answer" in changelog.read_text("utf-8")


def test_the_past_is_what_was_committed_before_the_figures_last_changed(tmp_path: Path) -> None:
    def commit(number: int) -> None:
        figures.write_text(f"{number}", "utf-8")
        log.write_text(f"log {number}", "utf-8")
        git("add", ".")
        git("commit", "-q", "-m", "figures")

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    try:
        git("init", "-q")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git is not here")
    figures, log = tmp_path / "tests/work/expected.json", tmp_path / "CHANGELOG.md"
    figures.parent.mkdir(parents=True)
    commit(1)
    assert history(tmp_path) is None
    commit(2)
    assert history(tmp_path) == ("1", "log 1")
    figures.write_text("3", "utf-8")
    assert history(tmp_path) == ("2", "log 2")
