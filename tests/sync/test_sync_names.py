"""One changed import line suffices: every public name is there, and what is shared is the very same object."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import apex_llm
import apex_llm.sync

BLOCKING = {
    "AzureOpenAIProvider",
    "BaseLlmProvider",
    "BedrockProvider",
    "EventStream",
    "TextStream",
    "get_provider",
    "provider_for",
}


def test_everything_public_is_offered() -> None:
    assert set(apex_llm.sync.__all__) == {*apex_llm.__all__, "SyncLlmProvider"}
    assert set(dir(apex_llm.sync)) == set(apex_llm.sync.__all__)


@pytest.mark.parametrize("name", sorted(set(apex_llm.__all__) - BLOCKING))
def test_a_shared_name_is_the_very_same(name: str) -> None:
    assert getattr(apex_llm.sync, name) is getattr(apex_llm, name)


@pytest.mark.parametrize("name", sorted(BLOCKING))
def test_a_blocking_name_is_its_own(name: str) -> None:
    value = getattr(apex_llm.sync, name)

    assert value is not getattr(apex_llm, name)
    assert value.__name__ == getattr(apex_llm, name).__name__
    assert value.__module__.startswith("apex_llm.sync.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'apex_llm\.sync' has no attribute 'NoSuchThing'"):
        _ = apex_llm.sync.NoSuchThing


def test_the_table_of_blocking_names_follows_the_generated_file() -> None:
    generated = importlib.import_module("apex_llm.sync._generated")
    streams = importlib.import_module("apex_llm.sync._streams")

    assert set(apex_llm.sync._HOME) == {*generated.__all__, *streams.__all__}


def test_errors_alone_load_no_provider_here_either() -> None:
    code = (
        "import sys\nfrom apex_llm.sync import ApexLlmError\n"
        "print([name for name in ('asyncio', 'msgspec', 'ssl', 'apex_llm.providers') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout == "[]\n"
