"""How long a task works before others have their turn, since what comes from outside may have come all at once.

Reading what is there already does not wait, and an `await` that does not wait gives nobody a turn. So a loop over
others' bytes looks at the time that its turn of the event loop has taken: that is what the others wait for, however
many pieces and tasks there were. A call that comes needs several turns, and gRPC accepts those of a method one by one.

Of the tasks that have given way, one at a time goes on. A hundred of them would otherwise have a slice each in every
turn of the loop, and whoever has little to do would wait for them all.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Generator
from time import perf_counter
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from service_kit.event_loop import ServiceLoop

T = TypeVar("T")

SLICE_SECONDS = 0.003
TURNS = 4
"""Of others each time. A call takes several turns of the loop until it runs, and so does its answer: with one turn a
slice, callers waited for a slice with each. A turn that nobody needs takes some microseconds."""
OTHERS_SECONDS = 2 * SLICE_SECONDS
"""What the others' turns may take together. On a busy loop they are fewer, so that large work goes on there too."""


class _Queue:
    """The tasks of an event loop that have given way.

    They go on in their order, one in a turn and a slice in all. Then the others have their turns.
    """

    def __init__(self) -> None:
        self._waiting = deque[asyncio.Future[None]]()
        self._goes_on = False
        """Whether tasks that gave way go on now, or the others have their turns."""
        self._turns = 1
        """That the others have had, with the one in which the next task is woken."""
        self._since = 0.0

    def join(self) -> asyncio.Future[None]:
        """Done when the task may go on."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._change(goes_on=False)
            loop.call_soon(self._turn)
        self._waiting.append(loop.create_future())
        return self._waiting[-1]

    def _turn(self) -> None:
        passed = perf_counter() - self._since
        self._turns += 1
        over = passed > SLICE_SECONDS if self._goes_on else self._turns >= TURNS or passed > OTHERS_SECONDS
        if over:
            self._change(goes_on=not self._goes_on)
        if self._goes_on:
            self._wake()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)

    def _change(self, *, goes_on: bool) -> None:
        self._goes_on, self._turns, self._since = goes_on, 1, perf_counter()

    def _wake(self) -> None:
        while self._waiting:
            if not (first := self._waiting.popleft()).cancelled():
                first.set_result(None)
                return


_queues = WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue]()


async def give_way() -> None:
    """Lets others have their turns, and whoever gave way before."""
    loop = asyncio.get_running_loop()
    if (queue := _queues.get(loop)) is None:
        queue = _queues[loop] = _Queue()
    await queue.join()


class TimeSlice:
    """The time that the loop's turn has taken so far, or the task since it gave way, if that was later.

    All tasks of a turn share it: a hundred that each work for a moment hold others up as one does that works long. On
    a loop that is no ServiceLoop it is the task's alone, and waiting counts as work.
    """

    __slots__ = ("_began", "_loop")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop if isinstance(loop, ServiceLoop) else None
        self._began = 0.0 if self._loop else perf_counter()

    def is_over(self) -> bool:
        """Whether it is time to give way. Costs a look at the clock, so it can be asked after each line."""
        began = self._began if self._loop is None else max(self._began, self._loop.turn_began)
        return perf_counter() - began > SLICE_SECONDS

    async def give_way(self) -> None:
        """Lets others have their turns, and begins anew."""
        await give_way()
        self._began = perf_counter()

    def each(self, source: AsyncIterator[T]) -> AsyncIterator[T]:
        """The items of source. Gives way before one is worked on, when it is time."""
        return _Each(self, source)

    async def through(self, steps: Generator[None, None, T]) -> T:
        """What steps return at their end. Gives way between two of them when it is time."""
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if self.is_over():
                await self.give_way()


class _Each(AsyncIterator[T], Generic[T]):
    """No generator, so that nothing has to be closed when a reader leaves."""

    __slots__ = ("_slice", "_source")

    def __init__(self, time_slice: TimeSlice, source: AsyncIterator[T]) -> None:
        self._slice = time_slice
        self._source = source

    async def __anext__(self) -> T:
        item = await anext(self._source)
        if self._slice.is_over():
            await self._slice.give_way()
        return item
