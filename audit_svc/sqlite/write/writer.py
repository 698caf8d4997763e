"""The writer: one thread that commits all queued batches in one transaction, then those queued meanwhile.

Group commit without a timer: on a slow disk more batches gather and the next commit is larger; on a fast disk nobody
waits.
"""

import asyncio
import collections
import errno
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw
import structlog
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import AuditError, DiskFull, FileLost, StoreClosed, StoreUnavailable
from audit_svc.ledger.batch import Batch
from audit_svc.ledger.clock import wall_ms
from audit_svc.ledger.observer import StoreObserver
from audit_svc.ledger.usage import Usage
from audit_svc.sqlite.open.connection import transaction
from audit_svc.sqlite.text.indexer import Indexer
from audit_svc.sqlite.write.checkpoints import Checkpoints
from audit_svc.sqlite.write.clock import LedgerClock
from audit_svc.sqlite.write.inserts import Inserts
from audit_svc.sqlite.write.room import Room

T = TypeVar("T")

log = structlog.get_logger(__name__)

COMMIT_ROWS = 8000
"""A commit takes no more batches beyond this: larger ones gain nothing, and make the first ones wait."""

ROOM_BYTES = 4 * 2**20
"""Of a disk that was full: with as much it has room again."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class _Queued:
    batch: Batch
    usage: Usage
    response: Future[audit_pb2.RecordResponse] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[apsw.Connection], Any]
    answer: Future[Any] = field(default_factory=Future)


class Writer:
    """Owns the one connection that writes."""

    def __init__(
        self,
        connection: apsw.Connection,
        queue_rows: int,
        observer: StoreObserver | None = None,
        indexer: Indexer | None = None,
        why_lost: Callable[[], str] = str,
    ) -> None:
        """Prepares the statements and starts the thread. connection belongs to the writer from now on.

        why_lost: says why what is committed would not be found, empty while it would; asked after each commit.

        Raises:
            StoreRefused: a table or a column is missing.
        """
        self._connection = connection
        self._inserts = Inserts(connection)
        self.clock = LedgerClock(connection)
        """For jobs alone, and to be read from any thread."""
        self._checkpoints = Checkpoints(connection)
        self._observer = observer
        self._indexer = indexer
        self._why_lost = why_lost
        self.why_damaged: Callable[[], str] = str
        """Says what is wrong with the file, empty while nothing is known to be: nothing is written into it then."""
        self._failure: AuditError | None = None
        """Of the last commit, until one succeeds or health has told it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """Sets the responses once record_async() was called on it."""
        self._queue: collections.deque[_Queued] = collections.deque()
        self._jobs: collections.deque[_Job] = collections.deque()
        self._room = Room(queue_rows)
        self.committing_seconds = 0.0
        """How long commits have taken in all. From any thread."""
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="audit-writer")
        self._thread.start()

    def record(self, batch: Batch) -> Future[audit_pb2.RecordResponse]:
        """Queues a batch. The future is done when the batch is committed and synced; it cannot be cancelled.

        Raises:
            QueueFull: too many rows are waiting.
            StoreClosed: the writer was closed.
        """
        # Counted here, on the caller's thread, while the writer is busy with the batches before.
        queued = _Queued(batch, Usage(batch.tool_calls, batch.model_requests))
        queued.response.set_running_or_notify_cancel()
        with self._changed:
            if self._closing:
                raise StoreClosed("the ledger is shutting down")
            self._room.take(batch)
            self._queue.append(queued)
            self._changed.notify()
        return queued.response

    def record_async(self, batch: Batch) -> asyncio.Future[audit_pb2.RecordResponse]:
        """record() for the event loop, which is always the same one: the batch is written even if nobody waits."""
        self._loop = self._loop or asyncio.get_running_loop()
        response: asyncio.Future[audit_pb2.RecordResponse] = self._loop.create_future()
        # Looked at here, since the caller may have gone.
        response.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.record(batch).add_done_callback(partial(_pass_on, response))
        return response

    @property
    def queued_rows(self) -> int:
        """The number of rows waiting for their commit. Thread-safe."""
        return self._room.queued_rows

    def run(self, work: Callable[[apsw.Connection], T]) -> Future[T]:
        """Runs work between two commits, in a transaction of its own, which must be short: batches wait for it.

        Raises:
            StoreClosed: the writer was closed.
        """
        job = _Job(work)
        job.answer.set_running_or_notify_cancel()
        with self._changed:
            if self._closing:
                raise StoreClosed("the ledger is shutting down")
            self._jobs.append(job)
            self._changed.notify()
        return job.answer

    def why_failing(self) -> str:
        """Why the last commit of rows failed, empty when it did not. From any thread, after a job that went well.

        A failure is told once, since the job has shown that it is over. A full disk is told until it has room again or
        a commit succeeds: a job needs less room than rows.
        """
        failure = self._failure
        if failure is None:
            return ""
        if not isinstance(failure, DiskFull) or self._has_room():
            self._failure = None
        return str(failure)

    def close(self) -> None:
        """Commits queued batches, ends the thread and closes the connection."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._checkpoints.close()
        self._connection.close()

    def _run(self) -> None:
        try:
            self._go_on()
        except BaseException:
            # A defect. Nobody may wait for ever for a dead thread, which health reports.
            with self._changed:
                self._closing = True
                queued, jobs = list(self._queue), list(self._jobs)
            self._ack(partial(_fail, queued, StoreUnavailable("the ledger's writer has died; its log says why")))
            for job in jobs:
                job.answer.set_exception(StoreUnavailable("the ledger's writer has died; its log says why"))
            raise

    def _go_on(self) -> None:
        while (taken := self._take()) is not None:
            group, job = taken
            if group:
                self._commit(group)
            if job is not None:
                self._work(job)
            if self._indexer:
                if group or job is not None:
                    self._indexer.committed(self.committing_seconds)
                else:
                    self._indexer.step()

    def _take(self) -> tuple[list[_Queued], _Job | None] | None:
        """The batches of the next commit and a job to run after it; neither when the indexer may run.

        None when the writer closes and all is done.
        """
        with self._changed:
            while not self._queue and not self._jobs and not self._closing:
                pause = self._indexer.pause() if self._indexer else None
                if pause == 0:
                    break
                self._changed.wait(pause)
            if self._closing and not self._queue and not self._jobs:
                return None
            group: list[_Queued] = []
            rows = 0
            while self._queue and (not group or rows + len(self._queue[0].batch) <= COMMIT_ROWS):
                group.append(self._queue.popleft())
                rows += len(group[-1].batch)
                self._room.give_back(group[-1].batch)
            return group, self._jobs.popleft() if self._jobs else None

    def _commit(self, group: list[_Queued]) -> None:
        started = time.perf_counter()
        try:
            responses = self._transaction(group)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear it, and the thread go on
            reason = self._translate(error)
            if len(group) > 1 and not isinstance(reason, AuditError):
                # Neither disk nor database: one batch is the cause, and must not take the others with it.
                for queued in group:
                    self._commit([queued])
                return
            # SQLite's messages quote no values; others might.
            detail = str(error) if isinstance(error, apsw.Error) else ""
            if isinstance(reason, AuditError):
                self._failure = reason
            self._ack(partial(_fail, group, reason))
            if self._observer:
                self._observer.commit_failed()
            log.warning("store.commit_failed", error=type(error).__name__, detail=detail, batches=len(group))
        else:
            self._failure = None
            self._ack(partial(_succeed, group, responses))
            if self._observer:
                self._observer.committed(responses, time.perf_counter() - started)
            if suspects := self._inserts.suspect_rows:
                if self._observer:
                    self._observer.suspected(suspects)
                log.warning("store.clock_suspect", rows=suspects)

    def _ack(self, answer_all: Callable[[], None]) -> None:
        """Has the event loop answer all batches of a commit by one call, or does it here where no loop waits.

        To wake the loop, this thread lets go of Python's lock and waits for it, up to 0.1 ms while the loop is busy.
        Once for each batch, that took as long as 3 % of the commit.
        """
        if self._loop is None:
            answer_all()
            return
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(answer_all)

    def _work(self, job: _Job) -> None:
        try:
            self._refuse_damaged()
            with transaction(self._connection):
                answer = job.work(self._connection)
            self._inserts.read_mark()
            self._refuse_lost()
        except Exception as error:  # noqa: BLE001 - as in _commit
            job.answer.set_exception(self._translate(error))
            log.warning("store.job_failed", error=type(error).__name__)
        else:
            job.answer.set_result(answer)

    def _transaction(self, group: list[_Queued]) -> list[audit_pb2.RecordResponse]:
        started, now_ms = time.perf_counter(), wall_ms()
        try:
            self._refuse_damaged()
            with transaction(self._connection):
                responses = self._inserts.write([(queued.batch, queued.usage) for queued in group], now_ms)
                self.clock.look()
            self._inserts.committed()
            self._refuse_lost()
        finally:
            self.committing_seconds += time.perf_counter() - started
        return responses

    def _refuse_damaged(self) -> None:
        if damage := self.why_damaged():
            raise StoreUnavailable(damage)

    def _refuse_lost(self) -> None:
        if reason := self._why_lost():
            raise FileLost(reason)

    def _has_room(self) -> bool:
        try:
            return shutil.disk_usage(Path(self._connection.filename).parent).free >= ROOM_BYTES
        except OSError:
            return False

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, apsw.ConnectionClosedError):
            return StoreUnavailable("the database was closed")
        if isinstance(error, apsw.FullError):
            return DiskFull("the disk of the ledger's database is full")
        if isinstance(error, apsw.IOError) and self._connection.system_errno in _NO_ROOM:
            return DiskFull("the disk of the ledger's database is full")
        if isinstance(error, apsw.Error) and not isinstance(error, apsw.ConstraintError):
            return StoreUnavailable("the ledger's database cannot be written now; its log says why")
        return error


def _succeed(group: Sequence[_Queued], responses: Sequence[audit_pb2.RecordResponse]) -> None:
    for queued, response in zip(group, responses, strict=True):
        queued.response.set_result(response)
    for response in responses:
        if response.rejections:
            log.warning("store.rows_rejected", rows=len(response.rejections), last=response.range.last)


def _fail(group: Sequence[_Queued], reason: Exception) -> None:
    for queued in group:
        queued.response.set_exception(reason)


def _pass_on(response: asyncio.Future[audit_pb2.RecordResponse], stored: Future[audit_pb2.RecordResponse]) -> None:
    if response.done():
        return
    if error := stored.exception():
        response.set_exception(error)
    else:
        response.set_result(stored.result())
