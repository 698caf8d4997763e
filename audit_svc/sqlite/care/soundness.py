"""The check of a whole file beside a running service: in a thread, on a connection of its own, out of ingest's way."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import structlog

from audit_svc.errors import AuditError
from audit_svc.ledger.load import Load
from audit_svc.sqlite.care.last_check import LastCheck, leave
from audit_svc.sqlite.open.connection import open_for_reading, why_damaged
from recording.upkeep import attempt

log = structlog.get_logger(__name__)

SHARE = 0.12
"""Of a core, while the writer is busy."""

_STEPS = 10_000
"""Of SQLite, some milliseconds, between two looks at the writer."""
_DAY_SECONDS = 24 * 3600
_AGAIN_SECONDS = 60.0
"""After a check that could not be made."""


class Soundness:
    """Whether the file is known to be sound. It is checked when it has to be, and every so many days."""

    def __init__(
        self, path: Path, load: Load, last: LastCheck | None, every_days: int, is_wal_held: Callable[[], bool]
    ) -> None:
        """Starts the thread.

        last: of the file, where the service before came to a clean end. load: the writer's. is_wal_held: whether the
        WAL is too long, and cannot be emptied while somebody reads: a check is one moment, and makes haste then.
        """
        self._path = path
        self._load = load
        self._is_wal_held = is_wal_held
        self._every_seconds = every_days * _DAY_SECONDS
        self._checked_at_ms = last.checked_at_ms if last and last.need(path) == "none" else 0
        self._damage = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-check")
        self._thread.start()

    def why_damaged(self) -> str:
        """What the last check found wrong, and what to do: a sentence; empty while nothing was. From any thread."""
        return self._damage

    def close(self) -> None:
        """Gives up a check that is under way."""
        self._closing.set()
        self._thread.join()

    def leave_mark(self) -> None:
        """Call it when all connections are closed. Of a file that was not checked there is none."""
        if self._checked_at_ms:
            leave(self._path, self._checked_at_ms, is_sound=not self._damage)

    def _run(self) -> None:
        pause = self._left_seconds()
        while not self._closing.wait(pause) and not self._damage:
            pause = _AGAIN_SECONDS
            with attempt("checking the database", foreseen=(apsw.Error, AuditError)):
                self._check()
                pause = self._left_seconds()

    def _left_seconds(self) -> float:
        """Until the next check is due. A clock that was set back makes it due."""
        since = time.time() - self._checked_at_ms / 1000
        return max(0.0, self._every_seconds - since) if self._checked_at_ms and since >= 0 else 0.0

    def _check(self) -> None:
        began, spent = time.monotonic(), time.thread_time()

        def make_room() -> bool:
            nonlocal spent
            if self._load.is_busy() and not self._is_wal_held():
                self._closing.wait((time.thread_time() - spent) / SHARE)
            spent = time.thread_time()
            return self._closing.is_set()

        with closing(open_for_reading(self._path)) as connection:
            connection.set_progress_handler(make_room, _STEPS)
            try:
                damage = why_damaged(connection)
            except apsw.InterruptError:
                return
        self._checked_at_ms, self._damage = time.time_ns() // 1_000_000, damage
        if damage:
            leave(self._path, self._checked_at_ms, is_sound=False)
            log.error("store.damaged", reason=damage)
        else:
            log.info("store.checked", seconds=round(time.monotonic() - began, 3))
