"""Words that must not appear, and the few places where the process environment may be read."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from typing import TypeVar

import pytest
from source_tree import ROOT, Module, modules

_Node = TypeVar("_Node", bound=ast.AST)

# Spelt in pieces, so that this file does not find itself.
FORBIDDEN_EVERYWHERE = {
    "a package registry, or an option that names one": re.compile(
        "|".join(
            ["py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"js\.(com|org)", "(?<!no-emit-)index" + "-url"]
        )
    ),
    "a path of one machine": re.compile(
        r"(?<![\w.:/])(" + "|".join([r"/home/\w", r"/Users/\w", "/ro" + "ot/", "/wo" + "rk/", r"C:\\" + "Users"]) + ")"
    ),
}

FORBIDDEN_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "compile": "makes code of text",
    "os.system": "starts a shell",
    "pickle.load": "runs what the bytes say",
    "pickle.loads": "runs what the bytes say",
    "marshal.loads": "runs what the bytes say",
    "yaml.load": "runs what the text says",
    "ssl._create_unverified_context": "trusts anybody",
    "tempfile.mktemp": "names a file that somebody else may make first",
}
FORBIDDEN_ARGUMENTS = {("shell", True), ("verify", False), ("check_hostname", False)}

# Reading the process environment is a default of few public doors: constructors of providers and credential
# sources, the proxy settings, the command line and the test plugin. All else is handed what it needs.
MAY_READ_ENVIRONMENT = re.compile(r"(providers|credentials|keys|cli|testing)/.*|transport/select\.py")


def _tracked_text_files() -> list[str]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listing.stdout.split("\0") if listing.returncode == 0 else []
    if not any(names):  # an unpacked source distribution
        names = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()]
    skipped = (".venv/", "tests/recordings/data/", "tests/vectors/", ".git/", "dist/")
    return [name for name in names if name and not name.startswith(skipped) and (ROOT / name).is_file()]


def _text_of(name: str) -> str:
    return (ROOT / name).read_bytes().decode("utf-8", "replace")


def _nodes(kind: type[_Node]) -> Iterator[tuple[Module, _Node]]:
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, kind):
                yield module, node


@pytest.mark.parametrize("what", FORBIDDEN_EVERYWHERE)
def test_no_file_names(what: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in _tracked_text_files()
        for number, line in enumerate(_text_of(name).splitlines(), 1)
        if FORBIDDEN_EVERYWHERE[what].search(line)
    ]

    assert not found


def test_no_module_calls_what_runs_data_or_trusts_anybody() -> None:
    found: list[str] = []
    for module, node in _nodes(ast.Call):
        name = ast.unparse(node.func)
        if name in FORBIDDEN_CALLS:
            found.append(f"{module.where(node)} {name}() {FORBIDDEN_CALLS[name]}")
        found += [
            f"{module.where(node)} passes {keyword.arg}={keyword.value.value!r}"
            for keyword in node.keywords
            if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in FORBIDDEN_ARGUMENTS
        ]

    assert not found


def test_certificates_are_always_verified() -> None:
    found = [
        module.relative
        for module in modules()
        if "CERT_NONE" in module.text or re.search(r"check_hostname\s*=\s*False", module.text)
    ]

    assert not found


def test_the_environment_is_read_only_where_it_is_documented() -> None:
    """docs/reference/environment.md lists every variable; these places are where to look for them."""
    reads = [
        f"{module.where(node)} reads {ast.unparse(node)}"
        for module, node in _nodes(ast.Attribute)
        if ast.unparse(node) in {"os.environ", "os.environb", "os.getenv"}
        if not MAY_READ_ENVIRONMENT.fullmatch(module.relative)
    ]

    assert not reads


def test_no_module_keeps_a_client_a_loop_or_a_lock_at_module_level() -> None:
    """What is made by an import is shared by strangers.

    Two exceptions say so: the sync loop thread, and the lock around what msgspec keeps on classes, which is the
    process's own.
    """
    makers = re.compile(r"(AsyncClient|Client|ClientSession|Lock|Semaphore|new_event_loop|ThreadPoolExecutor)$")
    kept = [
        f"{module.where(node)} keeps {ast.unparse(node.value)}"
        for module in modules()
        if module.room != "sync" and module.relative != "types/decoders.py"
        for node in module.tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Call)
        if makers.search(ast.unparse(node.value.func))
    ]

    assert not kept


def test_the_environment_page_lists_every_variable_that_the_code_reads() -> None:
    """A variable that is not documented is a surprise that somebody debugs for a day."""
    page = _text_of("docs/reference/environment.md")
    ours = re.compile(r"^(AWS|AZURE|OPENAI|APEX_LLM|IDENTITY|MSI|SSL)_[A-Z0-9_]+$")
    named = {
        node.value
        for module in modules()
        if module.room in {"providers", "credentials", "keys", "transport"}
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ours.match(node.value)
    }

    assert not {name for name in named if not re.search(rf"`{name}`", page)}
