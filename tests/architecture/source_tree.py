"""The package's source as values that the architecture tests ask questions of."""

from __future__ import annotations

__all__ = ["PACKAGE", "ROOT", "Module", "modules"]

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "apex_llm"


@dataclasses.dataclass(frozen=True)
class Module:
    """One Python file of the package."""

    path: Path

    @property
    def relative(self) -> str:
        """``transport/retry.py``: how a table names it."""
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def room(self) -> str:
        """The first part of the path: ``transport``, ``errors`` or, for the package's own files, ``""``."""
        first = self.relative.split("/", 1)[0].removesuffix(".py")
        return "" if first.startswith("__init__") else first

    @property
    def dotted(self) -> str:
        """``apex_llm.transport.retry``."""
        return ".".join(("apex_llm", *self.path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")

    @functools.cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.relative)

    @functools.cached_property
    def typing_only(self) -> frozenset[ast.AST]:
        """Every node below an ``if TYPE_CHECKING:``."""
        return frozenset(
            inner
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for statement in node.body
            for inner in ast.walk(statement)
        )

    def imports(self) -> Iterator[tuple[str, ast.stmt]]:
        """Each imported module by its full dotted name, with the statement; ``from a import b`` gives ``a.b``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, node
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    package = self.dotted if self.path.name == "__init__.py" else self.dotted.rpartition(".")[0]
                    above = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*above, *([base] if base else [])])
                for alias in node.names:
                    yield f"{base}.{alias.name}", node

    def where(self, node: ast.AST) -> str:
        """``apex_llm/errors.py:12``, as an editor likes it."""
        return f"apex_llm/{self.relative}:{getattr(node, 'lineno', 1)}"


@functools.cache
def modules() -> tuple[Module, ...]:
    """All modules of the package, in the order of their paths."""
    return tuple(Module(path) for path in sorted(PACKAGE.rglob("*.py")) if "__pycache__" not in path.parts)
