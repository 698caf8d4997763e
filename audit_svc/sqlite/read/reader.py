"""The reader: read-only connections, each used by one query at a time, off the event loop."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar, TypeVarTuple

import apsw

from audit_svc.ledger.observer import StoreObserver
from audit_svc.sqlite.read.database import SqliteDatabase
from audit_svc.sqlite.read.failures import failures_are_errors
from audit_svc.sqlite.read.throttle import Throttle

T = TypeVar("T")
Asked = TypeVarTuple("Asked")

_AGAIN_SECONDS = 0.05
"""A query is interrupted as often until it ends: SQLite forgets an interrupt that comes before the query has begun."""


class Reader:
    """Answers queries on read-only connections."""

    def __init__(
        self,
        connections: Sequence[apsw.Connection],
        observer: StoreObserver | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        """throttle: what queries wait for; None where nobody writes."""
        self._observer = observer
        self._throttle = throttle
        self._connections = list(connections)
        self._idle: asyncio.Queue[apsw.Connection] = asyncio.Queue()
        for connection in connections:
            self._idle.put_nowait(connection)
        # Those that take long leave half of the connections to those that do not.
        self._heavy = asyncio.Semaphore(max(1, len(connections) // 2))
        self._threads = ThreadPoolExecutor(len(connections), thread_name_prefix="audit-reader")
        self._running: set[Future[Any]] = set()

    async def ask(self, question: Callable[[SqliteDatabase, *Asked], T], *asked: *Asked, heavy: bool = False) -> T:
        """What question, a function on a database, returns or raises. A cancellation ends it.

        heavy: it may take long, and must not keep others waiting.
        """
        if self._throttle:
            waited = await self._throttle.wait()
            if self._observer:
                self._observer.throttled(waited)
        async with self._heavy if heavy else contextlib.nullcontext():
            return await self._run(lambda connection: question(SqliteDatabase(connection), *asked))

    def close(self) -> None:
        """Ends running queries and closes the connections."""
        while wait(tuple(self._running), 0).not_done:
            for connection in self._connections:
                connection.interrupt()
            wait(tuple(self._running), _AGAIN_SECONDS)
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()

    async def _run(self, query: Callable[[apsw.Connection], T]) -> T:
        connection = await self._idle.get()
        running = self._threads.submit(self._timed, query, connection)
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
            answer.add_done_callback(lambda done: self._give_back(connection, done))

    def _interrupt(self, connection: apsw.Connection, running: Future[T]) -> None:
        # Nobody else has connection before this loop has been told that the query is done.
        if not running.done():
            connection.interrupt()
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._interrupt, connection, running)

    def _timed(self, query: Callable[[apsw.Connection], T], connection: apsw.Connection) -> T:
        started, cpu_started = time.perf_counter(), time.thread_time()
        try:
            with failures_are_errors():
                return query(connection)
        finally:
            if self._throttle:
                self._throttle.spent(time.thread_time() - cpu_started)
            if self._observer:
                self._observer.queried(time.perf_counter() - started)

    def _give_back(self, connection: apsw.Connection, done: "asyncio.Future[T]") -> None:
        # Looked at here, since nobody waits for a query that was interrupted.
        done.exception()
        self._idle.put_nowait(connection)
