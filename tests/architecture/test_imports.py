"""Who may import what: other people's packages here, our own rooms in the import-linter contracts."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib

from source_tree import ROOT, modules

# Everything but the standard-library-only rooms: errors and protocol.
ABOVE_FRAMING = (
    *("types/*", "codecs/*", "transport/*", "credentials/*", "keys/*", "streaming/*", "providers/*"),
    *("tools.py", "structured.py", "batch/*", "sync/*", "emulator/*", "testing/*", "cli/*"),
)

# Where each third-party package may be imported; a package that is not here may be imported nowhere.
ALLOWED: dict[str, tuple[str, ...]] = {
    "msgspec": ABOVE_FRAMING,
    "anyio": (
        "tools.py",
        "transport/*",
        "credentials/*",
        "streaming/*",
        "providers/*",
        "keys/*",
        "batch/*",
        "cli/*",
        "testing/*",
    ),
    "pydantic": ("tools.py", "structured.py", "providers/*", "cli/*"),
    "pydantic_core": ("tools.py", "structured.py"),
    "httpx": ("transport/httpx_sender.py",),
    "httpx2": ("transport/httpx_sender.py",),
    "certifi": ("transport/tls.py",),
    "httptools": ("transport/http11_*.py",),
    "aiobotocore": ("credentials/aws_chain.py",),
    "botocore": ("credentials/aws_chain.py",),
    "boto3": ("credentials/aws_chain.py",),
    "azure": ("credentials/azure_chain.py",),
    "pyrage": ("keys/*",),
    "cryptography": ("keys/migration.py",),
    "keyring": ("keys/*",),
    "click": ("cli/*",),
    "rich": ("cli/*",),
    "prompt_toolkit": ("cli/*",),
    "starlette": ("emulator/*",),
    "uvicorn": ("emulator/*",),
    "pytest": ("testing/*",),
}
CORE = {"anyio", "httpx", "httptools", "msgspec", "pydantic"}
LAZY_EVEN_WHERE_ALLOWED = {
    "httpx",
    "httpx2",
    "aiobotocore",
    "botocore",
    "boto3",
    "azure",
    "pyrage",
    "keyring",
    "cryptography",
}
BUILT_ON_PUBLIC_NAMES = {"sync", "cli", "testing"}


def _is_ours_or_standard(name: str) -> bool:
    return name == "apex_llm" or name in sys.stdlib_module_names


def test_a_third_party_package_is_imported_only_where_it_belongs() -> None:
    misplaced = [
        f"{module.where(node)} imports {name}"
        for module in modules()
        for name, node in module.imports()
        if not _is_ours_or_standard(top := name.split(".")[0])
        and not any(fnmatch.fnmatchcase(module.relative, pattern) for pattern in ALLOWED.get(top, ()))
    ]

    assert not misplaced


def test_heavy_and_optional_packages_are_imported_inside_functions() -> None:
    """A module that is merely imported must not need an extra, nor pay for httpx."""
    eager = [
        f"{module.where(node)} imports {name}"
        for module in modules()
        for name, node in module.imports()
        if name.split(".")[0] in LAZY_EVEN_WHERE_ALLOWED and node in module.tree.body
    ]

    assert not eager


def test_the_table_knows_every_dependency_that_users_get() -> None:
    """A dependency that no module may import is one that nobody needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    declared = {re.split(r"[<>=\[ ;]", line)[0] for line in project["dependencies"]}

    assert declared == CORE
    assert set(ALLOWED) >= declared


def test_the_package_does_not_import_its_own_front_door() -> None:
    """``apex_llm/__init__.py`` names every room: importing it from inside would turn all arrows around."""
    rooms = {module.room for module in modules()} | {"_version"}

    through_the_front = [
        f"{module.where(node)} imports {name}"
        for module in modules()
        if module.room not in BUILT_ON_PUBLIC_NAMES and module.relative != "__init__.py"
        for name, node in module.imports()
        if name == "apex_llm" or (name.startswith("apex_llm.") and name.split(".")[1] not in rooms)
    ]

    assert not through_the_front


def _formats() -> dict[str, str]:
    """Each module of a codec, with the format that it belongs to.

    One format may be a module, a package, or modules that begin with its name (``openai_chat``,
    ``openai_chat_request``). What formats share lives in private modules, and in those of ``codecs`` itself.
    """
    names = {
        tuple(module.dotted.split(".")[2:4]): module
        for module in modules()
        if module.room == "codecs" and module.relative.count("/") > 1
    }
    stems = {key for key in names if len(key) == 2 and not key[1].startswith("_")}

    def format_of(key: tuple[str, ...]) -> str:
        family = [kind for kind in stems if kind[0] == key[0] and f"{key[1]}_".startswith(f"{kind[1]}_")]
        return ".".join(min(family, key=lambda kind: len(kind[1])))

    return {f"apex_llm.codecs.{'.'.join(key)}": format_of(key) for key in stems}


def test_a_codec_imports_no_other_codec() -> None:
    formats = _formats()

    def format_of(dotted: str) -> str | None:
        return next((kind for name, kind in formats.items() if f"{dotted}.".startswith(f"{name}.")), None)

    sideways = [
        f"{module.where(node)} imports {name}"
        for module in modules()
        if (own := format_of(module.dotted)) is not None
        for name, node in module.imports()
        if (other := format_of(name)) is not None and other != own
    ]

    assert not sideways


def test_the_layers_hold() -> None:
    """The contracts of pyproject.toml, so that a plain pytest run sees a broken arrow as well as the gate does."""
    linter = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"

    run = subprocess.run([sys.executable, "-c", linter], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
