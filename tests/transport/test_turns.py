"""So many at a time, first come first served."""

from __future__ import annotations

import asyncio

from apex_llm.transport.http11_pool import Turns


async def turns_of(most: int) -> Turns:
    return Turns(asyncio.get_running_loop(), most=most)


async def test_turns_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    turns = await turns_of(2)
    assert turns.take()
    assert turns.take()
    assert not turns.take()
    order: list[int] = []

    async def one(number: int) -> None:
        await turns.wait()
        order.append(number)
        turns.release()

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(one(number))
        await asyncio.sleep(0)
        assert order == []
        turns.release()
        turns.release()

    assert order == [0, 1, 2, 3, 4]
    assert turns.take()
    assert turns.take()
    assert not turns.take()


async def test_who_is_cancelled_in_line_takes_no_turn() -> None:
    turns = await turns_of(1)
    assert turns.take()
    waiting = asyncio.create_task(turns.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])

    turns.release()

    assert turns.take()


async def test_a_turn_that_comes_in_the_moment_of_a_cancellation_goes_to_the_next() -> None:
    turns = await turns_of(1)
    assert turns.take()
    first, second = asyncio.create_task(turns.wait()), asyncio.create_task(turns.wait())
    await asyncio.sleep(0)

    turns.release()
    first.cancel()
    await asyncio.wait([first])
    await asyncio.wait_for(second, 10)

    assert first.cancelled()
    turns.release()
    assert turns.take()


async def test_a_crowd_costs_each_of_its_members_the_same() -> None:
    """``asyncio.Semaphore`` of Python 3.11 looks, at each release, through all who were let go in the same turn."""
    looks = 0

    class Place(asyncio.Future[None]):
        def done(self) -> bool:
            nonlocal looks
            looks += 1
            return super().done()

    class Loop:
        def create_future(self) -> asyncio.Future[None]:
            return Place()

    crowd = 500
    turns = Turns(Loop(), most=crowd)  # type: ignore[arg-type]
    for _ in range(crowd):
        assert turns.take()
    waiting = [asyncio.create_task(turns.wait()) for _ in range(crowd)]
    await asyncio.sleep(0)

    for _ in range(crowd):
        turns.release()
    await asyncio.wait(waiting)

    assert looks <= 2 * crowd
