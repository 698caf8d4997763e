"""Threads for work that may hang, such as a call on a file whose server is away, and cannot be stopped then.

No pool has them: each call gets a thread of its own. Whoever gives up leaves it behind, and no end of the process waits
for it.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from gateway_svc.tools import ToolError

T = TypeVar("T")


class Threads:
    """Threads for one kind of work: so many calls at once, the others wait, and so many that were left behind."""

    def __init__(self, what: str, *, at_once: int = 32, left_behind: int = 128) -> None:
        """`what` the work is, in the plural, for the message of an error."""
        self._what = what
        self._turns = asyncio.Semaphore(at_once)
        self._max_left_behind = left_behind
        self._left_behind = 0

    async def run(self, work: Callable[[], T], undone: Callable[[T], object] | None = None) -> T:
        """Returns what work returns. If the call is cancelled meanwhile, `undone` gets the result once it is there.

        Raises:
            ToolError: too many are left behind.
        """
        async with self._turns:
            if self._left_behind >= self._max_left_behind:
                raise ToolError(f"too many {self._what} of earlier calls hang: try again later")
            loop = asyncio.get_running_loop()
            ended: asyncio.Future[T] = loop.create_future()

            def settle(result: Any, error: BaseException | None) -> None:
                if not ended.cancelled():
                    ended.set_result(result) if error is None else ended.set_exception(error)
                    return
                self._left_behind -= 1
                if undone and error is None:
                    undone(result)

            def to_its_end(context: contextvars.Context) -> None:
                result, error = None, None
                try:
                    result = context.run(work)
                except BaseException as raised:  # noqa: BLE001 - whoever waits gets it
                    error = raised
                with suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(settle, result, error)

            context = contextvars.copy_context()
            threading.Thread(target=to_its_end, args=(context,), name=self._what, daemon=True).start()
            try:
                return await ended
            except asyncio.CancelledError:
                if ended.cancelled():
                    self._left_behind += 1
                elif undone and ended.exception() is None:
                    undone(ended.result())
                raise
