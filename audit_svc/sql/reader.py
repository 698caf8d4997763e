"""The reader: connections that only read, each used by one question at a time, off the event loop.

In threads, since the questions are plain functions over one connection, of which several go on where the one before
ended.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar, TypeVarTuple

from audit_svc.ledger.observer import StoreObserver

T = TypeVar("T")
Asked = TypeVarTuple("Asked")

_AGAIN_SECONDS = 0.05
"""A question is interrupted as often until it ends: an interrupt that comes before it has begun may be forgotten."""


class ReadConnection(Protocol):
    """One connection, whatever becomes of it."""

    def run(self, question: Callable[[Any], T]) -> T:
        """What question, a function on a Database, returns or raises. Raises the ledger's errors for the database's."""
        ...

    def interrupt(self) -> None:
        """Ends what is running, soon. From any thread, and without waiting."""
        ...

    def close(self) -> None:
        """Closes it. Nothing is running."""
        ...


class Throttle(Protocol):
    """What questions wait for."""

    async def wait(self) -> float:
        """Until a question may begin; returns the seconds that it took."""
        ...

    def spent(self, cpu_seconds: float) -> None:
        """Charges a question's CPU time. From any thread."""
        ...


class Reader:
    """Answers questions."""

    def __init__(
        self,
        connections: Sequence[ReadConnection],
        observer: StoreObserver | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        """throttle: None where nothing needs to be waited for."""
        self._observer = observer
        self._throttle = throttle
        self._connections = list(connections)
        # The last used is the next, since what it has read and prepared is at hand.
        self._idle: asyncio.Queue[ReadConnection] = asyncio.LifoQueue()
        for connection in connections:
            self._idle.put_nowait(connection)
        # Those that take long leave half of the connections to those that do not.
        self._heavy = asyncio.Semaphore(max(1, len(connections) // 2))
        self._threads = ThreadPoolExecutor(len(connections), thread_name_prefix="audit-reader")
        self._running: set[Future[Any]] = set()

    async def ask(self, question: Callable[[Any, *Asked], T], *asked: *Asked, heavy: bool = False) -> T:
        """What question, a function on a Database, returns or raises. A cancellation ends it.

        heavy: it may take long, and must not keep others waiting.
        """
        if self._throttle:
            waited = await self._throttle.wait()
            if self._observer:
                self._observer.throttled(waited)
        async with self._heavy if heavy else contextlib.nullcontext():
            return await self._run(lambda database: question(database, *asked))

    def close(self) -> None:
        """Ends running questions and closes the connections."""
        while wait(tuple(self._running), 0).not_done:
            for connection in self._connections:
                connection.interrupt()
            wait(tuple(self._running), _AGAIN_SECONDS)
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()

    async def _run(self, question: Callable[[Any], T]) -> T:
        connection = await self._idle.get()
        running = self._threads.submit(self._timed, question, connection)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        answer = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            # The client has gone, or its deadline has passed: what it asked for must not keep others waiting.
            self._interrupt(connection, running)
            raise
        finally:
            if answer.done():
                self._give_back(connection, answer)
            else:
                answer.add_done_callback(lambda done: self._give_back(connection, done))

    def _interrupt(self, connection: ReadConnection, running: Future[T]) -> None:
        # Nobody else has connection before this loop has been told that the question is done.
        if not running.done():
            connection.interrupt()
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._interrupt, connection, running)

    def _timed(self, question: Callable[[Any], T], connection: ReadConnection) -> T:
        started, cpu_started = time.perf_counter(), time.thread_time()
        try:
            return connection.run(question)
        finally:
            if self._throttle:
                self._throttle.spent(time.thread_time() - cpu_started)
            if self._observer:
                self._observer.queried(time.perf_counter() - started)

    def _give_back(self, connection: ReadConnection, done: "asyncio.Future[T]") -> None:
        # Looked at here, since nobody waits for a question that was interrupted.
        done.exception()
        self._idle.put_nowait(connection)
