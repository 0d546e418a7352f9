"""The answers that a test has asked for and that no request has used yet."""

from __future__ import annotations

__all__ = ["Script", "Scripted"]

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from apex_llm.emulator.answers import Answer
from apex_llm.emulator.recorded import RecordedRequest

Scripted: TypeAlias = Answer | str | Callable[[RecordedRequest], Answer | str | None]
"""An answer, its text, or a function that makes one when the request is there (``None``: the default answer)."""


class Script:
    """The answers that wait, in order. Filled by one thread, emptied by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Scripted] = deque()
        self._by_operation: dict[str, deque[Scripted]] = {}
        self._standing: deque[Scripted] = deque()

    def add(self, answers: tuple[Scripted, ...], *, operation: str | None) -> None:
        """Queue ``answers``, for one operation or for whichever inference call comes next."""
        with self._lock:
            queue = self._waiting if operation is None else self._by_operation.setdefault(operation, deque())
            queue.extend(answers)

    def repeat(self, answers: Sequence[Scripted]) -> None:
        """From now on play ``answers``, in turn and without end, to whichever inference calls find nothing else."""
        with self._lock:
            self._standing = deque(answers)

    @property
    def standing(self) -> Sequence[Scripted]:
        """What ``repeat`` was given last."""
        with self._lock:
            return list(self._standing)

    def take(self, request: RecordedRequest, *, anything: bool) -> Answer | None:
        """The next answer for ``request``; ``None`` leaves it to the emulator.

        Args:
            request: What arrived.
            anything: Whether answers for no operation in particular may be used.
        """
        with self._lock:
            queue = self._by_operation.get(request.operation)
            if not queue:
                queue = self._waiting if anything else None
            if queue:
                scripted = queue.popleft()
            elif anything and self._standing:
                scripted = self._standing[0]
                self._standing.rotate(-1)
            else:
                scripted = None
        if callable(scripted):
            scripted = scripted(request)
        return Answer.text(scripted) if isinstance(scripted, str) else scripted

    def clear(self) -> None:
        """Forget what waits."""
        with self._lock:
            self._waiting.clear()
            self._by_operation.clear()
            self._standing.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting) + sum(map(len, self._by_operation.values()))
