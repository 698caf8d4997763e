"""Threads for work that may hang, such as a call on a file whose server is away, and cannot be stopped then.

Each call has a thread to itself: an idle one, or else a new one. Whoever gives up leaves it behind, and no end of the
process waits for it.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from gateway_svc.errors import Overloaded

T = TypeVar("T")

IDLE_SECONDS = 5.0
"""How long a thread waits for another call."""


class Threads:
    """Threads for one kind of work: so many calls at once, the others wait, and so many that were left behind."""

    def __init__(
        self, what: str, *, at_once: int = 32, left_behind: int = 128, refusal: type[Exception] = Overloaded
    ) -> None:
        """`what` the work is, in the plural, for the message of a refusal."""
        self._what = what
        self._refusal = refusal
        self._turns = asyncio.Semaphore(at_once)
        self._max_left_behind = left_behind
        self._left_behind = 0
        self._idle: list[_Thread] = []
        """The last used at the end. Only operations that need no lock are used."""

    async def run(self, work: Callable[[], T], undone: Callable[[T], object] | None = None) -> T:
        """Returns what work returns. If the call is cancelled meanwhile, `undone` gets the result once it is there.

        Raises:
            the refusal: too many are left behind.
        """
        async with self._turns:
            if self._left_behind >= self._max_left_behind:
                raise self._refusal(f"too many {self._what} of earlier calls hang: try again later")
            loop = asyncio.get_running_loop()
            ended: asyncio.Future[T] = loop.create_future()

            def settle(result: Any, error: BaseException | None) -> None:
                if not ended.cancelled():
                    ended.set_result(result) if error is None else ended.set_exception(error)
                    return
                self._left_behind -= 1
                if undone and error is None:
                    undone(result)

            def answer(result: Any, error: BaseException | None) -> None:
                with suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(settle, result, error)

            try:
                thread = self._idle.pop()
            except IndexError:
                thread = _Thread(self._what, self._idle)
            thread.do(partial(contextvars.copy_context().run, work), answer)
            try:
                return await ended
            except asyncio.CancelledError:
                if ended.cancelled():
                    self._left_behind += 1
                elif undone and ended.exception() is None:
                    undone(ended.result())
                raise


class _Thread:
    """A thread that does one call after another, and ends when none comes for IDLE_SECONDS."""

    def __init__(self, name: str, idle: "list[_Thread]") -> None:
        self._idle = idle
        self._calls: SimpleQueue[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, work: Callable[[], Any], answer: Callable[[Any, BaseException | None], None]) -> None:
        """Does work in the thread, and gives its result, or what it raised, to answer, which must not wait."""
        self._calls.put((work, answer))

    def _run(self) -> None:
        while True:
            try:
                work, answer = self._calls.get(timeout=IDLE_SECONDS)
            except Empty:
                try:
                    self._idle.remove(self)
                except ValueError:  # it has just been taken: its call comes
                    continue
                return
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 - whoever waits gets it
                error = raised
            self._idle.append(self)  # ahead of the answer, which the next call may follow at once
            answer(result, error)
            del work, answer, result, error
