"""How long a task works before others have their turn, since what comes from outside may have come all at once.

Reading what is there already does not wait, and an `await` that does not wait gives nobody a turn. So a loop over
others' bytes looks at the time that it has worked: that is what it costs the others, however many pieces there were.

Of the tasks that have given way, one at a time goes on. A hundred of them would otherwise have a slice each in every
turn of the loop, and whoever has little to do would wait for them all.
"""

import asyncio
import types
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Generator
from time import perf_counter
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

SLICE_SECONDS = 0.003
TURNS = 4
"""Of others each time. A call takes several turns of the loop until it runs, and so does its answer: with one turn a
slice, callers waited for a slice with each. A turn that nobody needs takes some microseconds."""
OTHERS_SECONDS = 2 * SLICE_SECONDS
"""What the others' turns may take together. On a busy loop they are fewer, so that large work goes on there too."""


class _Queue:
    """The tasks of an event loop that have given way. They go on in their order."""

    def __init__(self) -> None:
        self._waiting = deque[asyncio.Future[None]]()
        self._turns = 1
        """With the one in which the next task is woken."""
        self._since = 0.0

    def join(self) -> asyncio.Future[None]:
        """Done when the task may go on."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._turns, self._since = 1, loop.time()
            loop.call_soon(self._turn)
        self._waiting.append(loop.create_future())
        return self._waiting[-1]

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._turns += 1
        if self._turns >= TURNS or loop.time() - self._since > OTHERS_SECONDS:
            self._turns, self._since = 1, loop.time()
            while self._waiting:
                if not (first := self._waiting.popleft()).cancelled():
                    first.set_result(None)
                    break
        if self._waiting:
            loop.call_soon(self._turn)


_queues = WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue]()


async def give_way() -> None:
    """Lets others have their turns, and whoever gave way before."""
    loop = asyncio.get_running_loop()
    if (queue := _queues.get(loop)) is None:
        queue = _queues[loop] = _Queue()
    await queue.join()


class TimeSlice:
    """The time that a task has worked since it last waited or gave way. It begins when it is made."""

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = perf_counter()

    def is_over(self) -> bool:
        """Whether it is time to give way. Costs a look at the clock, so it can be asked after each line."""
        return perf_counter() - self._began > SLICE_SECONDS

    async def give_way(self) -> None:
        """Lets others have their turns, and begins anew."""
        await give_way()
        self._began = perf_counter()

    def each(self, source: AsyncIterator[T]) -> AsyncIterator[T]:
        """The items of source. Gives way between two of them when it is time; begins anew where source waited."""
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

    @types.coroutine
    def waiting(self, awaitable: Awaitable[T]) -> Generator[Any, Any, T]:
        """What awaitable returns. Begins anew if that really had to be waited for."""
        steps = awaitable.__await__()
        step, given = steps.send, None
        while True:
            try:
                waits_for = step(given)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            try:
                given = yield waits_for
                step = steps.send
            except BaseException as error:  # noqa: BLE001 - such as a cancellation: it is for what is waited for
                step, given = steps.throw, error
            self._began = perf_counter()


class _Each(AsyncIterator[T], Generic[T]):
    """No generator, so that nothing has to be closed when a reader leaves."""

    __slots__ = ("_slice", "_source")

    def __init__(self, time_slice: TimeSlice, source: AsyncIterator[T]) -> None:
        self._slice = time_slice
        self._source = source

    async def __anext__(self) -> T:
        if self._slice.is_over():
            await self._slice.give_way()
        return await self._slice.waiting(anext(self._source))
