"""One timer, moved by a number."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from apex_llm.transport.deadline import LazyTimer, TimedWait, TimedWaits


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


async def test_waits_end_each_at_its_own_time_on_one_timer() -> None:
    loop = asyncio.get_running_loop()
    waits = TimedWaits(loop)
    began = loop.time()

    async def one(seconds: float) -> float:
        wait = TimedWait(waits, began + seconds)
        with pytest.raises(TimeoutError), wait:
            await asyncio.sleep(60)
        assert wait.expired
        return loop.time() - began

    took = await asyncio.gather(one(0.2), one(0.05), one(0.1))

    assert took[1] < took[2] < took[0]
    assert took[0] >= 0.19


async def test_a_wait_that_is_over_in_time_leaves_no_timer() -> None:
    clock = Clock()
    waits = TimedWaits(clock)  # type: ignore[arg-type]

    with TimedWait(waits, 1.0) as first, TimedWait(waits, 2.0) as second:
        assert clock.calls == 1
    with TimedWait(waits, math.inf):
        pass

    assert clock.armed == []
    assert not first.expired
    assert not second.expired


async def test_a_wait_can_be_moved() -> None:
    loop = asyncio.get_running_loop()
    waits = TimedWaits(loop)

    with pytest.raises(TimeoutError), TimedWait(waits, loop.time() + 60) as wait:
        wait.move(loop.time() + 0.05)
        await asyncio.sleep(60)

    with TimedWait(waits, loop.time() + 0.05) as wait:
        wait.move(loop.time() + 60)
        await asyncio.sleep(0.2)
    assert not wait.expired


async def test_a_cancellation_of_somebody_else_is_not_taken_for_the_end_of_the_time() -> None:
    """Also when both come in the same moment: who cancels a task must see it cancelled."""
    loop = asyncio.get_running_loop()
    waits = TimedWaits(loop)
    wait = TimedWait(waits, math.inf)

    async def one() -> None:
        with wait:
            await asyncio.sleep(60)

    for time_is_up in (False, True):
        task = asyncio.create_task(one())
        await asyncio.sleep(0)
        if time_is_up:
            wait.expire()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_an_error_that_comes_as_the_time_is_up_stays_what_it_is() -> None:
    waits = TimedWaits(asyncio.get_running_loop())
    task = asyncio.current_task()
    assert task is not None

    with pytest.raises(ConnectionResetError), TimedWait(waits, math.inf) as wait:
        wait.expire()
        raise ConnectionResetError

    assert task.cancelling() == 0
    with pytest.raises(asyncio.CancelledError):  # what had been asked for before is still under way, as with asyncio's
        await asyncio.sleep(0)
