"""Another task beside one that is busy, and a clock that makes its slices of time the same on every machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service_kit import event_loop, time_slice
from service_kit.time_slice import TimeSlice


class Others:
    """Looks how much is done between two of its turns."""

    def __init__(self) -> None:
        self.done = self.most = self.turns = 0

    async def look(self) -> None:
        while True:
            self.most, self.done = max(self.most, self.done), 0
            self.turns += 1
            await asyncio.sleep(0)


@asynccontextmanager
async def others() -> AsyncIterator[Others]:
    """Others while the block runs."""
    looking = Others()
    task = asyncio.create_task(looking.look())
    try:
        yield looking
    finally:
        task.cancel()


def each_look_takes(monkeypatch: pytest.MonkeyPatch, slices: float) -> None:
    """So much of a slice passes at each look of a task at the clock, from the turn of the loop that runs, and none
    otherwise."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, event_loop.ServiceLoop)
    now = loop.turn_began

    def look() -> float:
        nonlocal now
        now += slices * time_slice.SLICE_SECONDS
        return now

    monkeypatch.setattr(time_slice, "perf_counter", look)
    monkeypatch.setattr(event_loop, "perf_counter", lambda: now)


def count_ways_given(monkeypatch: pytest.MonkeyPatch) -> list[TimeSlice]:
    """One entry for each time that a task gives way."""
    given, give_way = list[TimeSlice](), TimeSlice.give_way

    async def counted(self: TimeSlice) -> None:
        given.append(self)
        await give_way(self)

    monkeypatch.setattr(TimeSlice, "give_way", counted)
    return given
