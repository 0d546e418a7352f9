"""Who may import what: other people's packages here, our own rooms in the import-linter contracts."""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
import sys
import tomllib

import pytest
from source_tree import ROOT, Module, modules

# Everything but the standard-library-only rooms: errors and protocol.
ABOVE_FRAMING = (
    *("types/*", "codecs/*", "transport/*", "credentials/*", "keys/*", "streaming/*", "providers/*"),
    *("tools.py", "structured.py", "batch/*", "sync/*", "emulator/*", "testing/*", "cli/*"),
)

# Where each third-party package may be imported; a package that is not here may be imported nowhere.
ALLOWED: dict[str, tuple[str, ...]] = {
    "msgspec": ABOVE_FRAMING,
    "anyio": ("transport/*", "credentials/*", "streaming/*", "providers/*", "keys/*", "batch/*", "cli/*", "testing/*"),
    "pydantic": ("tools.py", "structured.py", "providers/*", "cli/*"),
    "httpx": ("transport/httpx_sender.py",),
    "httpx2": ("transport/httpx_sender.py",),
    "httptools": ("transport/http11_*.py",),
    "aiobotocore": ("credentials/aws_chain.py",),
    "botocore": ("credentials/aws_chain.py",),
    "boto3": ("credentials/aws_chain.py",),
    "azure": ("credentials/azure_chain.py",),
    "pyrage": ("keys/*",),
    "keyring": ("keys/*",),
    "click": ("cli/*",),
    "rich": ("cli/*",),
    "prompt_toolkit": ("cli/*",),
    "starlette": ("emulator/*",),
    "uvicorn": ("emulator/*",),
    "pytest": ("testing/*",),
}
CORE = {"anyio", "httpx", "httptools", "msgspec", "pydantic"}
LAZY_EVEN_WHERE_ALLOWED = {"httpx", "httpx2", "aiobotocore", "botocore", "boto3", "azure", "pyrage", "keyring"}
BUILT_ON_PUBLIC_NAMES = {"sync", "cli", "testing"}


def _is_ours_or_standard(name: str) -> bool:
    return name == "apex_llm" or name in sys.stdlib_module_names


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.relative)
def test_a_third_party_package_is_imported_only_where_it_belongs(module: Module) -> None:
    misplaced = [
        f"{module.where(node)} imports {name}"
        for name, node in module.imports()
        if not _is_ours_or_standard(top := name.split(".")[0])
        and not any(fnmatch.fnmatchcase(module.relative, pattern) for pattern in ALLOWED.get(top, ()))
    ]

    assert not misplaced


@pytest.mark.parametrize(
    "module",
    # The sender over httpx is itself imported only when httpx was asked for.
    [m for m in modules() if m.relative != "transport/httpx_sender.py"],
    ids=lambda module: module.relative,
)
def test_heavy_and_optional_packages_are_imported_inside_functions(module: Module) -> None:
    """A module that is merely imported must not need an extra, nor pay for httpx."""
    top_level = {node for node in ast.walk(module.tree) if node in module.tree.body}

    eager = [
        f"{module.where(node)} imports {name}"
        for name, node in module.imports()
        if name.split(".")[0] in LAZY_EVEN_WHERE_ALLOWED and node in top_level and node not in module.typing_only
    ]

    assert not eager


def test_the_table_knows_every_dependency_that_users_get() -> None:
    """A dependency that no module may import is one that nobody needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    declared = {re.split(r"[<>=\[ ;]", line)[0] for line in project["dependencies"]}

    assert declared == CORE
    assert set(ALLOWED) >= declared


@pytest.mark.parametrize(
    "module", [m for m in modules() if m.room not in BUILT_ON_PUBLIC_NAMES], ids=lambda module: module.relative
)
def test_the_package_does_not_import_its_own_front_door(module: Module) -> None:
    """``apex_llm/__init__.py`` names every room: importing it from inside would turn all arrows around."""
    through_the_front = [
        f"{module.where(node)} imports {name}"
        for name, node in module.imports()
        if name == "apex_llm" or (isinstance(node, ast.ImportFrom) and node.module == "apex_llm")
        if not (module.relative == "__init__.py" or name.split(".")[1:2] in (["_version"], ["__version__"]))
        if not any((ROOT / "apex_llm" / name.split(".")[1]).with_suffix(suffix).exists() for suffix in ("", ".py"))
    ]

    assert not through_the_front


def _formats() -> list[Module]:
    """Codecs proper; what formats share lives in private modules, and in those of ``codecs`` itself."""
    return [
        m for m in modules() if m.room == "codecs" and m.relative.count("/") > 1 and not m.path.stem.startswith("_")
    ]


@pytest.mark.parametrize("module", _formats(), ids=lambda module: module.relative)
def test_a_codec_imports_no_other_codec(module: Module) -> None:
    others = [m.dotted for m in _formats() if m != module]

    sideways = [
        f"{module.where(node)} imports {name}"
        for name, node in module.imports()
        if any(f"{name}.".startswith(f"{other}.") for other in others)
    ]

    assert not sideways


def test_the_layers_hold() -> None:
    """The contracts of pyproject.toml, so that a plain pytest run sees a broken arrow as well as the gate does."""
    linter = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"

    run = subprocess.run([sys.executable, "-c", linter], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
