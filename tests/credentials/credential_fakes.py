"""What the tests of credentials share besides fixtures: what a fake endpoint saw, times, and a clock that stands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Fake:
    """A server whose answers are a function: ``seen -> (status, body)``, a string, a dictionary, or a number."""

    answer: Callable[[Seen], Any]
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    @property
    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.seen]


def iso(seconds_from_now: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds_from_now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
