"""The async source as the generator sees it: signatures, docstrings, and where names come from.

Read with ``ast`` and never imported. What is to be made of it is ``generate``'s business.
"""

from __future__ import annotations

__all__ = [
    "STREAMS",
    "Function",
    "Module",
    "Source",
    "UnknownShapeError",
    "all_arguments",
    "attribute_docstring",
    "docstring_of",
    "is_async",
    "passed_on",
    "type_of",
]

import ast
import builtins
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

STREAMS: Final = ("EventStream", "TextStream")
_ASYNC_RESULTS: Final = ("Async", "Awaitable", "Coroutine", "Future", "Task")


@dataclasses.dataclass(frozen=True)
class Source:
    """One file to read, and what in it gets a blocking twin."""

    path: str
    """Relative to the package."""
    names: tuple[str, ...]
    """Classes, and functions that make them."""


class UnknownShapeError(Exception):
    """The source has something that no template is for; the message begins with file and line."""


Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Module:
    """One source file: its classes and functions, and where the names in its annotations come from."""

    def __init__(self, root: Path, source: Source) -> None:
        self.path = root / source.path
        self.dotted = "apex_llm." + source.path.removesuffix(".py").replace("/", ".")
        self.shown = f"{root.name}/{source.path}"
        self.source = source
        self.tree = ast.parse(self.path.read_text("utf-8"), self.shown)
        self._origins = dict(self._find_origins())

    def stop(self, node: ast.AST, message: str) -> NoReturn:
        raise UnknownShapeError(f"{self.shown}:{getattr(node, 'lineno', 1)}: {message}")

    def _find_origins(self) -> Iterator[tuple[str, str]]:
        for node in self.tree.body:
            match node:
                case ast.ImportFrom(module=str(module), level=0):
                    for alias in node.names:
                        name = alias.asname or alias.name
                        renamed = "" if alias.asname in {None, alias.name} else f" as {alias.asname}"
                        yield name, f"from {module} import {alias.name}{renamed}"
                case ast.Import():
                    for alias in node.names:
                        name = alias.asname or alias.name.partition(".")[0]
                        yield name, f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                case ast.ClassDef(name=name):
                    yield name, f"from {self.dotted} import {name}"
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    yield name, f"from {self.dotted} import {name}"
                case _:
                    pass

    def imports_for(self, part: ast.AST, twins: Iterable[str]) -> Iterator[str]:
        """The import statements that the names in ``part`` need; ``twins`` are in the generated file itself."""
        for node in ast.walk(part):
            if not isinstance(node, ast.Name) or node.id in twins or node.id in STREAMS or hasattr(builtins, node.id):
                continue
            if node.id.startswith("_"):
                self.stop(node, f"a public signature uses the private name {node.id}")
            origin = self._origins.get(node.id)
            if origin is None:
                self.stop(node, f"where {node.id} comes from cannot be told")
            yield origin


def all_arguments(node: Function) -> Iterator[ast.arg]:
    yield from (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)


def passed_on(node: Function) -> str:
    """The call's arguments as the body passes them on: as they came."""
    positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    parts = positional[1:] if positional[:1] == ["self"] else positional
    if node.args.vararg:
        parts.append(f"*{node.args.vararg.arg}")
    parts += [f"{argument.arg}={argument.arg}" for argument in node.args.kwonlyargs]
    if node.args.kwarg:
        parts.append(f"**{node.args.kwarg.arg}")
    return ", ".join(parts)


def type_of(value: ast.expr, arguments: dict[str, ast.arg]) -> ast.expr | None:
    """The type of ``argument``, or of ``argument if argument is not None else ...``; ``None`` for all else."""
    match value:
        case ast.Name(id=name) if name in arguments:
            return arguments[name].annotation
        case ast.IfExp(
            test=ast.Compare(left=ast.Name(id=tested), ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]),
            body=ast.Name(id=name),
        ) if name == tested and name in arguments:
            match arguments[name].annotation:
                case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
                    return left
                case _:
                    return None
        case _:
            return None


def is_async(annotation: ast.expr | None) -> bool:
    """Whether a result would have to be awaited, or iterated with ``async for``."""
    if annotation is None:
        return False
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(annotation) if isinstance(node, ast.Attribute)}
    return any(name.startswith(_ASYNC_RESULTS) or name.endswith("Stream") for name in names)


def docstring_of(node: ast.ClassDef | Function, *, indent: str = "    ") -> list[str]:
    match node.body[0]:
        case ast.Expr(value=ast.Constant(value=str(text))):
            raw = "r" if "\\" in text else ""
            return [f'{indent}{raw}"""{text}"""']  # with its own indentation, which is the same here
        case _:
            return []


def attribute_docstring(body: Sequence[ast.stmt], index: int) -> list[str]:
    match body[index + 1 : index + 2]:
        case [ast.Expr(value=ast.Constant(value=str(text)))]:
            return [f'    """{text}"""']
        case _:
            return []
