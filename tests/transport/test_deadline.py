"""One timer, moved by a number."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from apex_llm.transport.deadline import LazyTimer


class Clock:
    """As much of an event loop as a timer needs, with a clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.armed: list[tuple[float, Callable[[], None]]] = []
        self.calls = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        self.calls += 1
        entry = (when, callback)
        self.armed.append(entry)
        clock = self

        class Handle:
            def cancel(self) -> None:
                if entry in clock.armed:
                    clock.armed.remove(entry)

        return Handle()

    def advance(self, to: float) -> None:
        while due := [entry for entry in self.armed if entry[0] <= to]:
            first = min(due, key=lambda entry: entry[0])
            self.armed.remove(first)
            self.now = first[0]
            first[1]()
        self.now = to


def test_a_later_deadline_costs_nothing_until_the_timer_fires() -> None:
    clock = Clock()
    deadline = 10.0
    fired: list[float] = []

    def due(now: float) -> float:
        if deadline > now:
            return deadline
        fired.append(clock.now)
        return math.inf

    timer = LazyTimer(clock, due)  # type: ignore[arg-type]
    for step in range(1000):
        deadline = 10.0 + step
        timer.arm(deadline)
    assert clock.calls == 1

    clock.advance(2000.0)

    assert fired == [1009.0]
    assert clock.calls == 2
    assert timer.when == math.inf


def test_an_earlier_deadline_moves_the_timer() -> None:
    clock = Clock()
    fired: list[float] = []

    def due(now: float) -> float:
        fired.append(clock.now)
        return math.inf

    timer = LazyTimer(clock, due)  # type: ignore[arg-type]
    timer.arm(10.0)
    timer.arm(3.0)
    clock.advance(20.0)

    assert fired == [3.0]
    assert clock.armed == []


def test_a_disarmed_timer_does_not_fire_and_can_be_armed_again() -> None:
    clock = Clock()
    fired: list[float] = []

    def due(now: float) -> float:
        fired.append(clock.now)
        return math.inf

    timer = LazyTimer(clock, due)  # type: ignore[arg-type]
    timer.arm(5.0)
    timer.disarm()
    clock.advance(6.0)
    timer.arm(7.0)
    clock.advance(8.0)

    assert fired == [7.0]


async def test_the_loops_resolution_does_not_make_it_spin() -> None:
    loop = asyncio.get_running_loop()
    calls = 0
    deadline = loop.time() + 0.05

    def due(now: float) -> float:
        nonlocal calls
        calls += 1
        return deadline if deadline > now else math.inf

    timer = LazyTimer(loop, due)
    timer.arm(deadline)
    await asyncio.sleep(0.1)

    assert calls == 1
