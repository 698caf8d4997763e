"""Work that a cancellation must not leave half done, such as a thread's, which cannot be stopped."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Returns what work returns, when it is over; whoever cancels meanwhile is not heard."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()


async def whole(work: Coroutine[Any, Any, T], undone: Callable[[T], Coroutine[Any, Any, object]] | None = None) -> T:
    """Does work, and is over when it is, also when it is cancelled meanwhile.

    `undone` is then done with the result, which nobody gets.

    Raises:
        CancelledError: when work is over.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await to_its_end(_wait(task))
        if not task.cancelled() and task.exception() is None and undone is not None:
            await to_its_end(undone(task.result()))
        raise


async def in_thread(work: Callable[[], T], undone: Callable[[T], object] | None = None) -> T:
    """Runs work in a thread, as whole() does. `undone` is called with a result that nobody gets."""

    async def undo(result: T) -> None:
        if undone is not None:
            undone(result)

    return await whole(asyncio.to_thread(work), undo)


async def _wait(task: "asyncio.Task[Any]") -> None:
    await asyncio.wait([task])
