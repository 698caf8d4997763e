"""A producer that only appends: rows go to a folder of this process's own, and another process sends them.

A fork is safe at any moment, from any thread. The child is a producer of its own, with a folder of its own from its
first row on; it writes nothing of its parent's, and lets go of the parent's lock, which would keep a dead parent's
folder from being sent. A fork of which Python is not told, as a server in C makes it, is noticed at the next call.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from onrecord.audit.v1 import audit_pb2

from recording.kept.folder import KEEP_BYTES
from recording.log import get_logger
from recording.logger import AuditRefused, Row
from recording.producing.spool_logger import REFUSAL, Mode, SpoolLogger
from recording.spool import Folders, Spool, SpoolClosed, SpoolOptions
from recording.witness.doubts import Doubts

log = get_logger(__name__)

AHEAD_BYTES = 16 * 2**10
"""Disk space that a folder takes ahead of its rows: a child that makes one call leaves little."""

_CARE_SECONDS = 1.0


class Courier(Protocol):
    """Whoever sends what a producer appends."""

    def is_running(self) -> bool:
        """Whether somebody sends what lies in the state directory."""
        ...

    def ensure(self) -> None:
        """Starts somebody who sends, by need and if it can. Never raises."""
        ...


class Producer:
    """An AuditLogger for any thread, and for any process that fork() makes of this one."""

    def __init__(
        self, root: Path, courier: Courier, mode: Mode = "best_effort", keep_acked_bytes: int = KEEP_BYTES
    ) -> None:
        """Opens nothing yet. root: the parent of all spool folders. keep_acked_bytes: see SpoolOptions."""
        self._keep_acked_bytes = keep_acked_bytes
        self._root = root
        self._courier = courier
        self._mode = mode
        self._folders: Folders | None = None
        self._logger: SpoolLogger | None = None
        self._moved: list[Spool] = []
        self._unrecorded, self._unrecorded_from_ms = 0, 0
        self._next_care = 0.0

    def open(self) -> None:
        """Makes root ready, and has what earlier processes left there sent. The folder is made with the first row.

        Raises:
            OSError: root cannot be used.
        """
        _notice_fork()
        with _opening:
            options = SpoolOptions(
                ahead_bytes=AHEAD_BYTES,
                keep_acked_bytes=self._keep_acked_bytes,
                sent_by_others=True,
                on_upkeep=self._care,
            )
            self._folders = Folders(self._root, options)
            _producers.add(self)
            if self._folders.names():
                self._courier.ensure()

    @property
    def is_open(self) -> bool:
        """Whether rows can be recorded."""
        return self._folders is not None

    @property
    def spool(self) -> Spool:
        """The spool of this process; made if there is none.

        Raises:
            OSError: none can be made.
            SpoolClosed: the producer is closed.
        """
        return self._current().spool

    def intend(self, row: audit_pb2.AuditRow) -> None:
        """Records that a tool is about to run.

        Raises:
            AuditRefused: the mode is `strict`, and the intent was not recorded, or the ledger is doubted.
            SpoolClosed: the producer is closed.
        """
        try:
            self._current().intend(row)
        except OSError as error:
            if self._mode == "strict":
                raise AuditRefused(REFUSAL) from error
            raise

    def record(self, row: Row) -> None:
        """Records a row, which then survives the death of this process. One that cannot be is told by a gap row.

        Raises:
            SpoolClosed: the producer is closed.
        """
        try:
            self._current().record(row)
        except OSError:
            with _opening:
                self._unrecorded += 1
                self._unrecorded_from_ms = self._unrecorded_from_ms or time.time_ns() // 1_000_000
            raise

    async def synced(self) -> None:
        """Waits for nothing: rows reach the disk a moment later."""

    def is_sent(self) -> bool:
        """Whether all that this process recorded has reached the ledger."""
        _notice_fork()
        logger = self._logger
        return not self._unrecorded and (logger is None or logger.spool.is_sent())

    def can_be_sent(self) -> bool:
        """Whether there is somebody who sends; starts one by need."""
        _notice_fork()
        with _opening:
            self._courier.ensure()
        return self._courier.is_running()

    def close(self) -> None:
        """Syncs, and lets go of the folder, which is sent and removed by whoever sends. open() opens it again."""
        _notice_fork()
        with _opening:
            logger, self._logger, self._folders = self._logger, None, None
            _producers.discard(self)
            if logger is not None:
                self._leave_what_is_gone(logger)
                for spool in (*self._moved, logger.spool):
                    spool.close()
                self._moved = []
                self._courier.ensure()  # or nobody removes the folder

    def _current(self) -> SpoolLogger:
        _notice_fork()
        logger = self._logger
        return self._begin() if logger is None else logger

    def _begin(self) -> SpoolLogger:
        with _opening:
            if self._folders is None:
                raise SpoolClosed("the ledger is closed")
            process = os.getpid()
            while self._logger is None:
                spool = self._folders.make()
                if os.getpid() != process:  # a signal's handler forked: the folder is the parent's
                    process = os.getpid()
                    spool.leave()
                    continue
                if self._unrecorded:
                    spool.note_lost(self._unrecorded, self._unrecorded_from_ms)
                    self._unrecorded = self._unrecorded_from_ms = 0
                self._logger = SpoolLogger(spool, self._mode, "interval")
                self._logger.doubts = Doubts(self._root.parent)
            return self._logger

    def _care(self) -> None:
        """By the spool's thread, soon after rows: somebody has to send them, and the folder must still be there."""
        if time.monotonic() < self._next_care or not _opening.acquire(blocking=False):
            return
        try:
            self._next_care = time.monotonic() + _CARE_SECONDS
            if (logger := self._logger) is not None:
                self._leave_what_is_gone(logger)
                self._courier.ensure()
        finally:
            _opening.release()

    def _leave_what_is_gone(self, logger: SpoolLogger) -> None:
        """Goes on in another folder where this one was removed, moved or replaced."""
        spool = logger.spool
        if spool.is_there() or self._folders is None:
            return
        try:
            fresh = self._folders.make()
        except OSError as error:
            log.error("spool.folder_gone", reason=str(error), hint="no other can be created: rows are in danger")
            return
        spool.move_to(fresh, partial(setattr, logger, "spool", fresh))
        self._moved.append(spool)

    def _rest(self) -> None:
        if self._logger is not None:
            self._logger.spool.rest()

    def _resume(self) -> None:
        if self._logger is not None:
            self._logger.spool.resume()

    def _leave(self) -> None:
        """In a child: what is open is the parent's."""
        logger, self._logger = self._logger, None
        spools, self._moved = self._moved, []
        for spool in [*spools, *([logger.spool] if logger is not None else [])]:
            spool.leave()
        self._unrecorded = self._unrecorded_from_ms = 0


_opening = threading.RLock()
"""Held while folders are opened and closed, and programs started: a fork waits for that, so that a child inherits no
descriptor that it does not know of."""
_process = os.getpid()
"""The process to which the open folders belong."""
_noticing: dict[int, threading.Lock] = {}
_producers: "weakref.WeakSet[Producer]" = weakref.WeakSet()


def _each(do: Callable[[Producer], None]) -> None:
    for producer in list(_producers):
        do(producer)


def _before_fork() -> None:
    _opening.acquire()
    _each(Producer._rest)


def _after_fork_in_parent() -> None:
    try:
        _each(Producer._resume)
    finally:
        _opening.release()


def _after_fork_in_child() -> None:
    global _opening, _process
    _opening = threading.RLock()
    _each(Producer._leave)
    _process = os.getpid()


def _notice_fork() -> None:
    """Does what no handler has done: a server that forks in C, such as uWSGI, runs none."""
    process = os.getpid()
    if _process == process:
        return
    with _noticing.setdefault(process, threading.Lock()):  # a lock that no thread of the parent's can hold
        if _process != process:
            _after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
