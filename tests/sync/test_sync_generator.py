"""The tool that writes the blocking classes: what it knows, and that it never guesses."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from apex_llm.sync import generate
from apex_llm.sync.generate import Source, UnknownShapeError, main, render

GENERATED = Path(generate.__file__).with_name("_generated.py")
HEAD = '''\
"""A provider."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable
from typing import ClassVar, Self

from somewhere import EventStream, Limits, TextStream

'''


def generated(tmp_path: Path, body: str) -> str:
    """What is generated for a base class with ``body``."""
    package = tmp_path / "package"
    package.mkdir(exist_ok=True)
    (package / "base.py").write_text(
        HEAD + "class BaseLlmProvider(ABC):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    )
    return render([Source("base.py", ("BaseLlmProvider",))], root=package)


def line_of(body: str, text: str) -> int:
    lines = (HEAD + "class BaseLlmProvider(ABC):\n" + textwrap.dedent(body)).splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_the_generated_file_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def test_it_says_in_its_first_line_where_it_comes_from() -> None:
    first = GENERATED.read_text("utf-8").splitlines()[0]

    assert first == "# Generated from apex_llm/providers/ by python -m apex_llm.sync.generate; do not edit."


def test_generating_imports_no_provider() -> None:
    """So that it runs where no extra is installed, and before the code that it reads can run."""
    code = (
        "import sys\nfrom apex_llm.sync import generate\ngenerate.render()\n"
        "print([name for name in sys.modules if name.startswith('apex_llm.p') or name == 'msgspec'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout == "[]\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("max_tokens: int | None = None", "max_tokens: int = 1", 1),
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n",
        lambda text: text + "# one more line\n",
        lambda text: "",
    ],
    ids=["changed inside", "no newline at the end", "an empty line more", "a line more", "empty"],
)
def test_check_compares_whole_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: object) -> None:
    assert callable(change)
    target = tmp_path / "_generated.py"
    target.write_text(change(GENERATED.read_text("utf-8")), "utf-8")
    before = target.read_bytes()

    assert main(["--check"], target=target) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("--- _generated.py\n+++ as generated\n@@")
    assert printed.endswith("To bring it up to date: python -m apex_llm.sync.generate\n")
    assert target.read_bytes() == before


def test_a_missing_file_is_a_difference_and_is_written(tmp_path: Path) -> None:
    target = tmp_path / "_generated.py"

    assert main(["--check"], target=target) == 1
    assert main([], target=target) == 0
    assert main(["--check"], target=target) == 0
    assert target.read_bytes() == GENERATED.read_bytes()


def test_the_five_shapes(tmp_path: Path) -> None:
    text = generated(
        tmp_path,
        '''
        """Words\n    of the class."""

        name: ClassVar[str] = "x"
        """Whose it is."""
        _private: int = 3

        def __init__(self, *, model: str | None = None, limits: Limits | None = None) -> None:
            self.default_model = model
            self.limits = limits if limits is not None else Limits()
            """What is shared."""
            self.count: int = 7
            self._hidden = object()

        async def ask(self, prompt: str, /, times: int = 2, *more: str, loud: bool = False, **rest: str) -> list[str]:
            """Asks."""
            return []

        async def aclose(self) -> None:
            """Closes."""

        def text(self, prompt: str) -> TextStream: ...

        @abstractmethod
        def events(self, prompt: str) -> EventStream: ...

        def other(self, *, model: str) -> Self: ...

        @property
        def colour(self) -> str:
            """It has one."""
            return ""

        @colour.setter
        def colour(self, value: str) -> None: ...

        def plain(self, a: int = 1) -> int: ...

        def _not_this(self): ...
        ''',
    )

    for expected in (
        'name: ClassVar[str] = "x"\n    """Whose it is."""',
        "def default_model(self, value: str | None) -> None:\n        self.async_provider.default_model = value",
        'def limits(self) -> Limits:\n        """What is shared."""\n        return self.async_provider.limits',
        "def count(self, value: int) -> None:",
        "def ask(self, prompt: str, /, times: int = 2, *more: str, loud: bool = False, **rest: str) -> list[str]:",
        '"""Asks."""\n        return self._run(self.async_provider.ask, prompt, times, *more, loud=loud, **rest)',
        'def close(self) -> None:\n        """Closes."""\n        self._run_close(self.async_provider.aclose)',
        "return TextStream(self.async_provider.text(prompt), thread=self._thread)",
        "return EventStream(self.async_provider.events(prompt), thread=self._thread)",
        "return self._wrap(self.async_provider.other(model=model))",
        '@property\n    def colour(self) -> str:\n        """It has one."""\n        return self.async_provider.colour',
        "@colour.setter\n    def colour(self, value: str) -> None:\n        self.async_provider.colour = value",
        "def plain(self, a: int = 1) -> int:\n        return self.async_provider.plain(a)",
        "from somewhere import Limits\n",
    ):
        assert expected in text
    assert "_not_this" not in text
    assert "_hidden" not in text
    assert "_private" not in text


@pytest.mark.parametrize(
    "body",
    [
        "async def items(self) -> AsyncIterator[str]:\n    yield ''",
        "def items(self) -> AsyncIterator[str]: ...",
        "def items(self) -> Awaitable[str]: ...",
        "def items(self) -> list[Awaitable[str]]: ...",
        "def items(self) -> NativeStream: ...",
        "def items(self): ...",
        "@staticmethod\ndef items() -> int: ...",
        "@classmethod\nasync def items(cls) -> int: ...",
        "def items(self, how: Unheard) -> int: ...",
        "def items(self, how: _Private) -> int: ...",
        "def __getitem__(self, items: int) -> int: ...",
        "items: int = 3",
        "items = 3",
        "class Items: ...",
        "def __init__(self) -> None:\n    self.items = compute()",
    ],
)
def test_any_other_shape_stops_it_with_file_and_line(tmp_path: Path, body: str) -> None:
    whole = "async def fine(self) -> None: ...\n\n" + body
    with pytest.raises(UnknownShapeError) as caught:
        generated(tmp_path, whole)

    place, _, why = str(caught.value).partition(": ")
    assert place.startswith("package/base.py:")
    assert abs(int(place.rpartition(":")[2]) - line_of(whole, "tems")) <= 1
    assert why


def test_methods_from_an_unknown_base_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text(HEAD + "class BaseLlmProvider(Mixin):\n    x: ClassVar[int] = 1\n")

    with pytest.raises(UnknownShapeError, match=r"base\.py:11: BaseLlmProvider inherits methods from elsewhere: Mixin"):
        render([Source("base.py", ("BaseLlmProvider",))], root=tmp_path)


def test_an_unknown_shape_is_a_message_and_not_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> str:
        raise UnknownShapeError("apex_llm/providers/base.py:7: no template for this")

    monkeypatch.setattr(generate, "render", stop)

    assert main(["--check"]) == 1
    assert capsys.readouterr().err == "apex_llm/providers/base.py:7: no template for this\n"
