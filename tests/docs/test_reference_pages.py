"""Reference pages are complete: what the code offers is what they list."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import apex_llm
from apex_llm import AzureOpenAIProvider, BedrockProvider, ChatResponse, FinishReason, ModelInfo, Usage, errors
from apex_llm.cli.exit_codes import ExitCode
from apex_llm.types import events
from apex_llm.types.http import Timeout
from apex_llm.types.requests import ChatOptions

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _code_words(page: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", (DOCS / page).read_text("utf-8")))


def _parameters(provider: type) -> list[str]:
    return list(inspect.signature(provider).parameters)


def _attributes(value: type) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_")]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("reference/errors.md", errors.__all__),
        ("reference/options.md", sorted(ChatOptions.__annotations__)),
        ("reference/timeouts.md", Timeout.__struct_fields__),
        ("reference/providers.md", sorted({*_parameters(BedrockProvider), *_parameters(AzureOpenAIProvider)})),
        ("reference/responses.md", sorted({*_attributes(ChatResponse), *_attributes(Usage), *_attributes(ModelInfo)})),
        ("reference/responses.md", [str(reason) for reason in FinishReason]),
        ("reference/command-line.md", [str(int(code)) for code in ExitCode]),
        ("how-to/stream.md", [name for name in events.__all__ if name != "StreamEvent"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_reference_page_lists_everything(page: str, names: list[str]) -> None:
    missing = set(names) - _code_words(page)

    assert not missing


def test_the_defaults_on_the_timeouts_page_are_the_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", (DOCS / "reference/timeouts.md").read_text("utf-8"), re.MULTILINE)

    assert {name: float(value) for name, value in rows} == {
        name: getattr(Timeout(), name) for name in Timeout.__struct_fields__
    }


def test_the_changelog_names_the_state_of_the_code() -> None:
    """A release turns [Unreleased] into its version; between releases both stand."""
    text = (DOCS.parent / "CHANGELOG.md").read_text("utf-8")

    assert "## [Unreleased]" in text or f"## [{apex_llm.__version__}]" in text
