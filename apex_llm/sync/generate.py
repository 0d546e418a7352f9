"""Writes ``_generated.py``: the blocking twin of each async provider, from its source.

    python -m apex_llm.sync.generate           # write it
    python -m apex_llm.sync.generate --check   # exit 1 and a diff when it is not what would be written

The source is read with ``ast`` and never imported, so that annotations, defaults and docstrings
come through as they were written. Only signatures are taken over; bodies are one line each. The
shapes of methods that it knows are those of ``_member``; at any other it stops with file and line.
"""

from __future__ import annotations

__all__ = ["SOURCES", "Source", "UnknownShapeError", "main", "render"]

import argparse
import ast
import difflib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from apex_llm.sync._source import (
    STREAMS,
    Function,
    Module,
    Source,
    UnknownShapeError,
    all_arguments,
    attribute_docstring,
    docstring_of,
    is_async,
    passed_on,
    type_of,
)

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_TARGET: Final = _PACKAGE / "sync" / "_generated.py"
_COMMAND: Final = "python -m apex_llm.sync.generate"

_PLANNED: Final = {"_get_deployment_model"}
"""Private names that ApexAgent's plan calls all the same."""
_PRIVATE: Final = "  # pyright: ignore[reportPrivateUsage]"
_RENAMED: Final = {"aclose": "close"}
_BY_HAND: Final = {"__init__", "__aenter__", "__aexit__", "__repr__"}

_HEADER: Final = '''\
# Generated from {folder} by {command}; do not edit.
"""The providers, without ``await``."""

from __future__ import annotations

__all__ = {offered}

'''


SOURCES: Final = (
    Source("providers/base.py", ("BaseLlmProvider",)),
    Source("providers/azure_openai/provider.py", ("AzureOpenAIProvider",)),
    Source("providers/bedrock/provider.py", ("BedrockProvider",)),
    Source("providers/registry.py", ("get_provider", "provider_for")),
)


class _Writer:
    """Collects the generated text and the imports that it needs."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules = modules
        self.twins = {node.name for module in modules for node in module.tree.body if isinstance(node, ast.ClassDef)}
        self.twins &= {name for module in modules for name in module.source.names}
        self.twins_of = {name: module for module in modules for name in module.source.names if name in self.twins}
        self.imports: set[str] = set()

    def render(self) -> str:
        names = sorted(name for module in self.modules for name in module.source.names)
        offered = ["SyncLlmProvider", *names]
        offered.sort(key=lambda name: (name[0].islower(), name))
        blocks = [self._item(module, name) for module in self.modules for name in module.source.names]
        blocks.insert(1, _GENERIC)
        blocks.append(self._twin())
        folder = self.modules[0].shown.rpartition("/")[0] + "/"
        header = _HEADER.format(command=_COMMAND, folder=folder, offered=offered)
        self.imports |= {
            "from apex_llm.sync._facade import A, AroundProvider, SyncFacade",
            "from apex_llm.sync._streams import EventStream, TextStream",
        }
        self.imports |= {
            "from typing import TYPE_CHECKING",
            self._import_of("BaseLlmProvider"),
            *(
                f"from {module.dotted} import {name} as async_{name}"
                for module in self.modules
                for name in module.source.names
                if name not in self.twins
            ),
        }
        # A provider is loaded when one is made: who uses one cloud does not pay for the other.
        # Names in quotes, as bases have them, are not seen by ruff.
        later = [f"    {self._import_of(name)}  # noqa: F401" for name in sorted(self.twins - {"BaseLlmProvider"})]
        imports = "\n".join([*sorted(self.imports), *(["", "if TYPE_CHECKING:", *later] if later else [])])
        return header + imports + "\n\n\n" + "\n\n".join(blocks)

    def _import_of(self, name: str) -> str:
        return f"from {self.twins_of[name].dotted} import {name} as Async{name}"

    def _twin(self) -> str:
        lines = ["def _twin(provider: AsyncBaseLlmProvider) -> BaseLlmProvider:"]
        for name in sorted(self.twins - {"BaseLlmProvider"}):
            lines += [
                f'    if type(provider).__module__ == "{self.twins_of[name].dotted}":',
                f"        {self._import_of(name)}",
                "",
                f"        if type(provider) is Async{name}:",
                f"            return {name}._around(provider){_PRIVATE}",
            ]
        return "\n".join([*lines, "    return SyncLlmProvider(provider)", ""])

    def _item(self, module: Module, name: str) -> str:
        found = [node for node in module.tree.body if getattr(node, "name", None) == name]
        if not found:
            module.stop(module.tree, f"there is no {name}")
        if isinstance(found[-1], ast.ClassDef):
            return self._class(module, found[-1])
        return "\n".join(self._factory(module, node) for node in found)

    # Classes -----------------------------------------------------------------------------------

    def _class(self, module: Module, node: ast.ClassDef) -> str:
        bases = {ast.unparse(base) for base in node.bases}
        if not bases <= {"ABC", "BaseLlmProvider", "CallAlgorithm"}:
            module.stop(node, f"{node.name} inherits methods from elsewhere: {', '.join(sorted(bases))}")
        base = "SyncFacade" if node.name == "BaseLlmProvider" else f'SyncLlmProvider["Async{node.name}"]'
        lines = [f"class {node.name}({base}):", *docstring_of(node)]
        members: list[str] = []
        for index, member in enumerate(node.body):
            match member:
                case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                    pass
                case ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("_"):
                    if not ast.unparse(member.annotation).startswith("ClassVar["):
                        module.stop(member, f"the attribute {name} is neither ClassVar nor set in __init__")
                    self._import(module, member.annotation)
                    lines += ["", "    " + ast.unparse(member), *attribute_docstring(node.body, index)]
                case ast.FunctionDef(name="__init__"):
                    if base != "SyncFacade":
                        members.append(self._constructor(module, node, member))
                    members += self._attributes(module, member)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    private = name.startswith("_") and not name.startswith("__") and name not in _PLANNED
                    if private or name in _BY_HAND:
                        continue
                    members.append(self._member(module, member))
                case ast.Assign(targets=[ast.Name(id=name)]) if name.startswith("_"):
                    pass
                case ast.AnnAssign(target=ast.Name()):
                    pass
                case _:
                    module.stop(member, f"no template for this in {node.name}: {type(member).__name__}")
        if base == "SyncFacade":
            lines += ["", "    @property", "    @abstractmethod"]
            lines += ["    def async_provider(self) -> AsyncBaseLlmProvider:"]
            lines += ['        """The provider that does the work, on the loop thread of this package."""']
            self.imports.add("from abc import abstractmethod")
        return "\n".join(lines) + "\n\n" + "\n".join(members)

    def _constructor(self, module: Module, owner: ast.ClassDef, node: ast.FunctionDef) -> str:
        body = f"{self._import_of(owner.name)}\n\n        super().__init__(Async{owner.name}({passed_on(node)}))"
        return self._define(module, node, body, name="__init__", docstring=False)

    def _attributes(self, module: Module, constructor: ast.FunctionDef) -> Iterator[str]:
        """Public attributes that ``__init__`` sets, as properties that can be set too."""
        arguments = {argument.arg: argument for argument in all_arguments(constructor)}
        for index, statement in enumerate(constructor.body):
            match statement:
                case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value):
                    annotation = type_of(value, arguments)
                case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=annotation):
                    pass
                case _:
                    continue
            if name.startswith("_"):
                continue
            if annotation is None:
                module.stop(statement, f"self.{name} is neither annotated nor an argument, nor one with a default")
            self._import(module, annotation)
            shown = ast.unparse(annotation)
            documented = attribute_docstring(constructor.body, index) or [f'"""``{name}`` of the constructor."""']
            yield "\n".join(
                [
                    "    @property",
                    f"    def {name}(self) -> {shown}:",
                    *(f"        {line.strip()}" if line.strip() else "" for line in documented),
                    f"        return self.async_provider.{name}",
                    "",
                    f"    @{name}.setter",
                    f"    def {name}(self, value: {shown}) -> None:",
                    f"        self.async_provider.{name} = value",
                    "",
                ]
            )

    def _member(self, module: Module, node: Function) -> str:
        """One method or property: the shapes that there are."""
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        decorators = [decorator for decorator in decorators if decorator != "abstractmethod"]
        returns = "" if node.returns is None else ast.unparse(node.returns)
        if node.name.startswith("__"):
            module.stop(node, f"no template for the special method {node.name}")
        inner = f"self.async_provider.{node.name}"
        if isinstance(node, ast.AsyncFunctionDef):
            if decorators or any(isinstance(part, (ast.Yield, ast.YieldFrom)) for part in ast.walk(node)):
                module.stop(node, f"no template for {node.name}: an async generator, or a decorated async method")
            run = "_run_close" if node.name == "aclose" else "_run"
            arguments = ", ".join(part for part in (inner, passed_on(node)) if part)
            give = "" if returns == "None" else "return "
            pragma = _PRIVATE if node.name.startswith("_") else ""
            return self._define(module, node, f"{give}self.{run}({arguments}){pragma}")
        if decorators == ["property"]:
            return self._define(module, node, f"return {inner}", above="@property")
        if decorators == [f"{node.name}.setter"]:
            return self._define(module, node, f"{inner} = {node.args.args[1].arg}", above=f"@{node.name}.setter")
        if decorators:
            module.stop(node, f"no template for {node.name}, decorated with {', '.join(decorators)}")
        called = f"{inner}({passed_on(node)})"
        if returns in STREAMS:
            return self._define(module, node, f"return {returns}({called}, thread=self._thread)")
        if returns == "Self":
            return self._define(module, node, f"return self._wrap({called})")
        if not returns or is_async(node.returns):
            module.stop(node, f"no template for {node.name}, which returns {returns or 'nobody says what'}")
        return self._define(module, node, called if returns == "None" else f"return {called}")

    # Functions ---------------------------------------------------------------------------------

    def _factory(self, module: Module, node: ast.AST) -> str:
        if not isinstance(node, ast.FunctionDef) or node.returns is None or ast.unparse(node.returns) not in self.twins:
            module.stop(node, "no template for a function that does not return a provider")
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if decorators == ["overload"]:
            self.imports.add("from typing import overload")
            return self._define(module, node, "...", above="@overload", indent="")
        if decorators:
            module.stop(node, f"no template for {node.name}, decorated with {', '.join(decorators)}")
        return self._define(module, node, f"return _twin(async_{node.name}({passed_on(node)}))", indent="")

    # Text --------------------------------------------------------------------------------------

    def _define(
        self,
        module: Module,
        node: Function,
        body: str,
        *,
        name: str | None = None,
        above: str | None = None,
        docstring: bool = True,
        indent: str = "    ",
    ) -> str:
        self._import(module, node.args)
        if node.returns is not None:
            self._import(module, node.returns)
        returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
        name = name or _RENAMED.get(node.name, node.name)
        lines = [f"{indent}{above}"] if above else []
        lines.append(f"{indent}def {name}({ast.unparse(node.args)}){returns}:")
        lines += docstring_of(node, indent=indent + "    ") if docstring else []
        return "\n".join([*lines, f"{indent}    {body}", ""])

    def _import(self, module: Module, part: ast.AST) -> None:
        self.imports.update(module.imports_for(part, self.twins))


_GENERIC: Final = '''\
class SyncLlmProvider(AroundProvider[A], BaseLlmProvider):
    """Any async provider, without ``await``: ``SyncLlmProvider(MyProvider(...))``.

    Args:
        provider: The async one, as ``async_provider`` gives it back.
    """
'''


def render(sources: Sequence[Source] = SOURCES, *, root: Path = _PACKAGE) -> str:
    """The whole text of the generated file.

    Args:
        sources: What to read. The first one holds the base class.
        root: The package's folder.

    Raises:
        UnknownShapeError: The source holds something that there is no template for.
    """
    text = _Writer([Module(root, source) for source in sources]).render()
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--select", "F401,I001", "--fix-only", "--quiet"], ["format"]):
        text = subprocess.run(  # noqa: S603 - our own command
            [*ruff, *command, "--stdin-filename", str(_TARGET), "-"],
            input=text.encode(),
            stdout=subprocess.PIPE,
            check=True,
            cwd=_PACKAGE.parent,
        ).stdout.decode()
    return text


def main(arguments: Sequence[str] | None = None, *, target: Path = _TARGET) -> int:
    """The command. 0, or 1 when ``--check`` found a difference or the source has an unknown shape."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description="Write the blocking twins of the async providers.")
    parser.add_argument("--check", action="store_true", help="compare with what is there, and write nothing")
    options = parser.parse_args(arguments)
    try:
        text = render()
    except UnknownShapeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    present = target.read_text("utf-8") if target.exists() else ""
    if not options.check:
        target.write_text(text, "utf-8", newline="\n")
        return 0
    if present == text:
        return 0
    difference = difflib.unified_diff(
        present.splitlines(keepends=True), text.splitlines(keepends=True), str(target.name), "as generated"
    )
    for line in difference:
        sys.stdout.write(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    sys.stdout.write(f"\nTo bring it up to date: {_COMMAND}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
