"""A task that finds all its work there at once gives way in time; one that waits for it does not give way besides."""

import asyncio
import time
from collections.abc import AsyncIterator, Generator

import pytest

from service_kit.time_slice import OTHERS_SECONDS, TURNS, TimeSlice, give_way
from tests.support.others import count_ways_given, each_look_takes, others


async def one_a_turn(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


async def test_what_is_there_at_once_leaves_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    each_look_takes(monkeypatch, 0.3)

    async def source() -> AsyncIterator[int]:
        for number in range(100):
            yield number

    taken = []
    async with others() as beside:
        async for number in TimeSlice().each(source()):
            taken.append(number)
            beside.done += 1
    assert taken == list(range(100))
    assert 2 <= beside.most <= 4


async def test_who_needs_several_turns_has_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a call that comes does, until it runs."""
    each_look_takes(monkeypatch, 0.6)
    turns: list[int] = []

    def steps() -> Generator[None, None, str]:
        for _ in range(9):
            turns.append(0)
            yield
        return "done"

    async def other() -> None:
        while True:
            turns[-1] += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await TimeSlice().through(steps()) == "done"
    task.cancel()
    assert [count for count in turns if count] == [TURNS] * sum(map(bool, turns))


async def test_of_many_who_gave_way_one_at_a_time_goes_on_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has little to do waits for one slice a turn, and not for those of all."""
    each_look_takes(monkeypatch, 2)  # each step is a slice
    went_on: list[int] = []

    def steps(number: int) -> Generator[None, None, None]:
        for _ in range(5):
            yield
            went_on.append(number)
            beside.done += 1

    async with others() as beside, asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(TimeSlice().through(steps(number)))
    assert went_on == [*range(10)] * 5
    assert beside.most == 1


async def test_who_is_cancelled_while_others_have_their_turns_holds_nobody_up() -> None:
    waiting = [asyncio.create_task(give_way()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    async with asyncio.timeout(30):
        await waiting[2]


async def test_on_a_busy_loop_large_work_waits_for_fewer_turns() -> None:
    async def busy() -> None:
        while True:
            time.sleep(2 * OTHERS_SECONDS)  # noqa: ASYNC251 - it holds up the loop
            turns.append(None)
            await asyncio.sleep(0)

    turns: list[None] = []
    task = asyncio.create_task(busy())
    await asyncio.sleep(0)
    turns.clear()
    await give_way()
    task.cancel()
    assert 1 <= len(turns) < TURNS


async def test_what_is_waited_for_does_not_count_as_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes: each item comes a whole slice later."""
    each_look_takes(monkeypatch, 0.6)
    given = count_ways_given(monkeypatch)
    assert [number async for number in TimeSlice().each(one_a_turn(100))] == list(range(100))
    assert given == []


async def test_many_tasks_that_work_for_a_moment_share_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty model servers write at once: whoever calls does not wait for a piece of each in every turn."""
    each_look_takes(monkeypatch, 0.3)
    taken = 0

    async def read() -> None:
        nonlocal taken
        async for _ in TimeSlice().each(one_a_turn(4)):
            taken += 1
            beside.done += 1

    async with others() as beside, asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(read())
    assert taken == 200
    assert beside.most <= 5, "a slice's, and the one that was woken"


async def test_who_has_little_left_goes_on_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' turns stand between slices, not between tasks: a thousand tasks would wait for four thousand."""
    each_look_takes(monkeypatch, 0)
    async with others() as beside, asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(give_way())
    assert beside.turns <= 20 + 2 * TURNS


async def test_it_begins_anew_when_way_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    each_look_takes(monkeypatch, 0.4)
    time_slice = TimeSlice()
    assert [time_slice.is_over() for _ in range(3)] == [False, False, True]
    await time_slice.give_way()
    assert [time_slice.is_over() for _ in range(3)] == [False, False, True]
