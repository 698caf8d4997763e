"""Group commit: one thread commits all queued batches in one transaction, then those queued meanwhile.

Single batches wait in a line of their own, and where both lines wait they take turns: many streams together do not hold
up who sends a row now and then, who waits for the commit under way and for no row of another. A large batch is
committed in parts, so that a commit is short.

There is no timer: on a slow disk more batches gather and the next commit is larger; on a fast disk nobody waits.
"""

import asyncio
import collections
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import structlog
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import AuditError, DiskFull, StoreClosed, StoreUnavailable
from audit_svc.ledger.batch import Batch, in_order
from audit_svc.ledger.clock import wall_ms
from audit_svc.ledger.observer import StoreObserver
from audit_svc.ledger.room import Room
from audit_svc.ledger.usage import Usage

C = TypeVar("C")
T = TypeVar("T")

log = structlog.get_logger(__name__)

COMMIT_ROWS = 8000
"""A commit takes no more rows than this: larger ones gain nothing, and make the first ones wait."""
PART_ROWS = 1000
"""A larger batch is committed in parts, and where the lines take turns a commit takes no more rows than this: the other
line waits for it, and 8,000 take up to 150 ms."""


class IdleWork(Protocol):
    """What the thread does when nothing waits, in steps of some milliseconds."""

    def committed(self, committing_seconds: float) -> None:
        """Rows may have come. committing_seconds: how long commits have taken in all."""
        ...

    def pause(self) -> float | None:
        """Seconds until the next step is due; None when there is nothing to do until rows come."""
        ...

    def step(self) -> None:
        """The next step. It raises nothing."""
        ...


@dataclass(frozen=True, slots=True)
class _Queued:
    batch: Batch
    usage: Usage
    response: Future[audit_pb2.RecordResponse] = field(default_factory=Future)


_Line = collections.deque[_Queued]


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[Any], Any]
    answer: Future[Any] = field(default_factory=Future)


class GroupCommit(ABC, Generic[C]):
    """The queue, and the thread that alone writes. C is what a job is given: the connection that writes."""

    suspect_rows = 0
    """How many rows of the last commit have a time that the ledger's clock contradicts."""

    def __init__(self, queue_rows: int, observer: StoreObserver | None = None, idle: IdleWork | None = None) -> None:
        """Starts the thread: all that _write() needs must be there."""
        self._observer = observer
        self._idle = idle
        self._failure: AuditError | None = None
        """Of the last commit, or of a job for want of room, until a commit succeeds or health has told it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """Sets the responses once record_async() was called on it."""
        self._lines: tuple[_Line, _Line] = (collections.deque(), collections.deque())
        """Single batches, and those of streams."""
        self._turn = 0
        """Which line is next where both wait."""
        self._most_rows = PART_ROWS
        """Of the last commit. It grows while the same line goes on."""
        self._jobs: collections.deque[_Job] = collections.deque()
        self._room = Room(queue_rows)
        self.committing_seconds = 0.0
        """How long commits have taken in all. From any thread."""
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="audit-writer")
        self._thread.start()

    @abstractmethod
    def _write(self, batches: Sequence[tuple[Batch, Usage]], now_ms: int) -> list[audit_pb2.RecordResponse]:
        """Commits batches, each with the usage of its rows, in one transaction: a response for each."""

    @abstractmethod
    def _do(self, work: Callable[[C], T]) -> T:
        """Runs work in a transaction of its own, and commits it."""

    @abstractmethod
    def _translate(self, error: Exception) -> Exception:
        """What an error means for who waits: an AuditError, unless the rows themselves are at fault."""

    @abstractmethod
    def _detail(self, error: Exception) -> str:
        """What may be logged of an error: no values."""

    @abstractmethod
    def _has_room(self) -> bool:
        """Whether a disk that was full has room again, as far as it can be known."""

    @abstractmethod
    def _release(self) -> None:
        """Closes what _write() needs."""

    def record(self, batch: Batch) -> Future[audit_pb2.RecordResponse]:
        """Queues a batch. The future is done when the batch is committed and synced; it cannot be cancelled.

        Raises:
            QueueFull: too many rows are waiting.
            StoreClosed: the writer was closed.
        """
        with self._changed:
            self._check_open()
            self._room.take(batch)
        # Counted here, on the caller's thread, while the writer is busy with the batches before.
        parts = [_Queued(part, Usage(part.tool_calls, part.model_requests)) for part in batch.in_parts(PART_ROWS)]
        for part in parts:
            part.response.set_running_or_notify_cancel()
        with self._changed:
            self._check_open()
            self._lines[batch.of_stream].extend(parts)
            self._changed.notify()
        return _together([part.response for part in parts])

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

    def run(self, work: Callable[[C], T]) -> Future[T]:
        """Runs work between two commits, in a transaction of its own, which must be short: batches wait for it.

        Raises:
            StoreClosed: the writer was closed.
        """
        job = _Job(work)
        job.answer.set_running_or_notify_cancel()
        with self._changed:
            self._check_open()
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
        self._release()

    def _check_open(self) -> None:
        if self._closing:
            raise StoreClosed("the ledger is shutting down")

    def _run(self) -> None:
        try:
            self._go_on()
        except BaseException:
            # A defect. Nobody may wait for ever for a dead thread, which health reports.
            with self._changed:
                self._closing = True
                queued, jobs = [*self._lines[0], *self._lines[1]], list(self._jobs)
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
            if self._idle:
                if group or job is not None:
                    self._idle.committed(self.committing_seconds)
                else:
                    self._idle.step()

    def _take(self) -> tuple[list[_Queued], _Job | None] | None:
        """The batches of the next commit and a job to run after it; neither when the idle work may go on.

        None when the writer closes and all is done.
        """
        with self._changed:
            while not any(self._lines) and not self._jobs and not self._closing:
                pause = self._idle.pause() if self._idle else None
                if pause == 0:
                    break
                self._changed.wait(pause)
            if self._closing and not any(self._lines) and not self._jobs:
                return None
            goes_on = not self._lines[self._turn]
            line = self._lines[self._turn] or self._lines[1 - self._turn]
            self._turn = 1 if line is self._lines[0] else 0
            self._most_rows = min(2 * self._most_rows, COMMIT_ROWS) if goes_on else PART_ROWS
            group = self._first(line, self._most_rows)
            return group, self._jobs.popleft() if self._jobs else None

    def _first(self, line: _Line, most_rows: int) -> list[_Queued]:
        """Takes the first of those that wait: one, and as many more as fit."""
        taken: list[_Queued] = []
        rows = 0
        while line and (not taken or rows + len(line[0].batch) <= most_rows):
            taken.append(line.popleft())
            rows += len(taken[-1].batch)
            self._room.give_back(taken[-1].batch)
        return taken

    def _commit(self, group: list[_Queued]) -> None:
        started = time.perf_counter()
        try:
            responses = self._timed(group)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear it, and the thread go on
            reason = self._translate(error)
            if len(group) > 1 and not isinstance(reason, AuditError):
                # Neither disk nor database: one batch is the cause, and must not take the others with it.
                for queued in group:
                    self._commit([queued])
                return
            if isinstance(reason, AuditError):
                self._failure = reason
            self._ack(partial(_fail, group, reason))
            if self._observer:
                self._observer.commit_failed()
            log.warning(
                "store.commit_failed", error=type(error).__name__, detail=self._detail(error), batches=len(group)
            )
        else:
            self._failure = None
            self._ack(partial(_succeed, group, responses))
            if self._observer:
                self._observer.committed(responses, time.perf_counter() - started)
            if suspects := self.suspect_rows:
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
            answer = self._do(job.work)
        except Exception as error:  # noqa: BLE001 - as in _commit
            reason = self._translate(error)
            if isinstance(reason, DiskFull):  # the next job may find the little room that it needs, and rows would not
                self._failure = reason
            job.answer.set_exception(reason)
            log.warning("store.job_failed", error=type(error).__name__, detail=self._detail(error))
        else:
            job.answer.set_result(answer)

    def _timed(self, group: list[_Queued]) -> list[audit_pb2.RecordResponse]:
        started = time.perf_counter()
        try:
            return self._write([(queued.batch, queued.usage) for queued in group], wall_ms())
        finally:
            self.committing_seconds += time.perf_counter() - started


def _together(parts: Sequence[Future[audit_pb2.RecordResponse]]) -> Future[audit_pb2.RecordResponse]:
    """The response to a batch, once all its parts have theirs. What was committed stays so if another part fails."""
    if len(parts) == 1:
        return parts[0]
    whole = Future[audit_pb2.RecordResponse]()
    whole.set_running_or_notify_cancel()

    def look(_: Future[audit_pb2.RecordResponse]) -> None:
        if not all(part.done() for part in parts):
            return
        if error := next(filter(None, map(Future.exception, parts)), None):
            whole.set_exception(error)
            return
        responses = [part.result() for part in parts]
        whole.set_result(
            audit_pb2.RecordResponse(
                range=responses[-1].range if responses[-1].HasField("range") else None,
                stored=sum(response.stored for response in responses),
                duplicates=sum(response.duplicates for response in responses),
                rejections=in_order(rejection for response in responses for rejection in response.rejections),
            )
        )

    for part in parts:
        part.add_done_callback(look)
    return whole


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
