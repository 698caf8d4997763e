"""Another task beside one that is busy, and a clock that makes its slices of time the same on every machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from service_kit import time_slice
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
    """So much of a slice passes at each look at the clock, and none otherwise."""
    looks = count()
    monkeypatch.setattr(time_slice, "perf_counter", lambda: next(looks) * slices * time_slice.SLICE_SECONDS)


def count_ways_given(monkeypatch: pytest.MonkeyPatch) -> list[TimeSlice]:
    """One entry for each time that a task gives way."""
    given, give_way = list[TimeSlice](), TimeSlice.give_way

    async def counted(self: TimeSlice) -> None:
        given.append(self)
        await give_way(self)

    monkeypatch.setattr(TimeSlice, "give_way", counted)
    return given
