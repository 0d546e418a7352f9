"""What ``import apex_llm`` offers, and how little it costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys

import pytest
from source_tree import PACKAGE, Module, modules

import apex_llm

HEAVY = ("aiobotocore", "anyio", "asyncio", "azure", "boto3", "botocore", "email", "httptools", "httpx", "msgspec",
         "pydantic", "requests", "ssl")  # fmt: skip


def _imported_by(statement: str) -> set[str]:
    """Modules that a fresh interpreter loads for one statement, beyond those that it starts with."""

    def loaded(code: str) -> set[str]:
        run = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
        )
        return {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}

    return loaded(statement) - loaded("pass")


def test_importing_the_package_loads_nothing_heavy() -> None:
    """A command-line tool or a serverless function pays for an import at every start."""
    loaded = {name.split(".")[0] for name in _imported_by("import apex_llm")}

    assert loaded.isdisjoint(HEAVY), sorted(loaded.intersection(HEAVY))


def test_importing_the_package_loads_none_of_its_rooms() -> None:
    ours = {name for name in _imported_by("import apex_llm") if name.startswith("apex_llm")}

    assert ours == {"apex_llm", "apex_llm._version"}


def test_the_errors_can_be_imported_without_the_rest() -> None:
    """``except ApexLlmError`` must not cost more than its own module."""
    loaded = {name.split(".")[0] for name in _imported_by("from apex_llm import ApexLlmError")}

    assert loaded.isdisjoint(HEAVY), sorted(loaded.intersection(HEAVY))


def test_all_is_sorted_and_names_nothing_twice() -> None:
    """Constants, then classes, then functions, each in order: the order that ruff keeps."""

    def rank(name: str) -> tuple[int, str]:
        if name.isupper():
            return 0, name
        return (1 if name[0].isupper() else 2), name

    assert list(apex_llm.__all__) == sorted(apex_llm.__all__, key=rank)
    assert len(set(apex_llm.__all__)) == len(apex_llm.__all__)


@pytest.mark.parametrize("name", apex_llm.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    value = getattr(apex_llm, name)

    assert value is not None
    assert name in dir(apex_llm)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchThing"):
        _ = apex_llm.NoSuchThing


def test_type_checkers_see_the_names_that_run_time_gives() -> None:
    """The lazy table and the ``TYPE_CHECKING`` block say the same thing twice; they must not drift apart."""
    front = Module(PACKAGE / "__init__.py")
    seen = {
        alias.asname or alias.name
        for node in front.typing_only
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("apex_llm")
        for alias in node.names
    }

    assert seen | {"__version__"} == set(apex_llm.__all__)


@pytest.mark.parametrize("room", ["errors", "types.events", "types.messages"])
def test_a_vocabulary_room_is_offered_whole(room: str) -> None:
    """Errors, events and message parts: a new one must not be forgotten at the front door."""
    internal = {"Role"}

    assert set(importlib.import_module(f"apex_llm.{room}").__all__) - internal <= set(apex_llm.__all__)


def test_every_module_says_what_it_is_and_what_it_offers() -> None:
    """Docstring, ``from __future__ import annotations``, ``__all__``: in this order, before anything else."""
    faults: list[str] = []
    for module in modules():
        if module.path.name in {"_version.py", "__main__.py"}:
            continue
        body = module.tree.body
        if not ast.get_docstring(module.tree):
            faults.append(f"{module.relative} has no docstring")
        if len(body) <= 1:
            continue  # a package that only says what it is
        if not (isinstance(body[1], ast.ImportFrom) and body[1].module == "__future__"):
            faults.append(f"{module.where(body[1])}: from __future__ import annotations is missing")
        offered = [
            node
            for node in body
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and ast.unparse(node).startswith("__all__")
        ]
        if len(offered) != 1:
            faults.append(f"{module.relative} has {len(offered)} __all__")

    assert not faults


@pytest.mark.parametrize(
    "module", [m for m in modules() if m.room not in {"cli", "testing"}], ids=lambda module: module.relative
)
def test_every_name_in_all_exists(module: Module) -> None:
    loaded = importlib.import_module(module.dotted)

    missing = [name for name in getattr(loaded, "__all__", ()) if not hasattr(loaded, name)]

    assert not missing
