"""The writer: group commits by one connection, which is opened again when it was lost.

Every transaction begins with a change of the one row of ledger_writer. So the transactions of all writers are one after
the other, and one whose epoch is over writes nothing. By the number of that change a writer notices that another wrote
since: then it reads again what it knows by heart.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import NotWriter, StoreRefused, StoreUnavailable
from audit_svc.ledger.batch import Batch
from audit_svc.ledger.clock import SeenClock
from audit_svc.ledger.group_commit import GroupCommit
from audit_svc.ledger.observer import StoreObserver
from audit_svc.ledger.tables import CONTROL_COLUMNS, COST_COLUMNS, TOOL_CALL_COLUMNS
from audit_svc.ledger.usage import Usage
from audit_svc.postgres.open.cancelling import CancelToken
from audit_svc.postgres.open.connection import Connection, connect, detail_of, transaction, translate
from audit_svc.postgres.usage.session_sums import SessionSums
from audit_svc.postgres.write.log_table import LogTable
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sql.write.inserts import Inserts
from audit_svc.sql.write.rollups import Rollups

T = TypeVar("T")

STATEMENT_SECONDS = 30
"""The server ends a statement of the writer that takes longer, such as one that waits for the lock of somebody's ALTER
TABLE; where the URL's options or the role's settings say another time, that."""
STUCK_SECONDS = 40.0
"""A transaction that takes longer is one with a server that answers nothing any more: its connection is cut."""

_BEGIN = "UPDATE ledger_writer SET commits = commits + 1 WHERE id = 1 RETURNING commits"
_BEGIN_OF_EPOCH = "UPDATE ledger_writer SET commits = commits + 1 WHERE id = 1 AND epoch = ? RETURNING commits"


class Writer(GroupCommit[Connection]):
    """Owns the one connection that writes."""

    def __init__(
        self,
        url: str,
        queue_rows: int,
        observer: StoreObserver | None = None,
        epoch: Callable[[], int] | None = None,
    ) -> None:
        """Starts the thread, which connects when there is something to write.

        epoch: under which this process may write now, 0 while it may not; None where it is the only one that serves the
        database: two that are not fenced keep their rows apart all the same.
        """
        self._url = url
        self._epoch = epoch
        self._session: _Session | None = None
        self._began: float | None = None
        """When the transaction that is under way began."""
        self._clock = SeenClock(None)
        self._token = CancelToken()
        super().__init__(queue_rows, observer, SessionSums(self._between_commits))

    @property
    def clock(self) -> SeenClock:
        """For jobs alone, and to be read from any thread."""
        return self._clock

    def may_write(self) -> bool:
        """Whether this process may write now, as far as it knows."""
        return self._epoch is None or self._epoch() != 0

    def cut(self) -> None:
        """Ends the connection, whatever it waits for. From any thread."""
        if session := self._session:
            session.connection.cut()

    def give_up(self) -> None:
        """Ends the connection, or the attempt to have one, and has no other: what is to be written fails.

        From any thread, since close() waits for it.
        """
        self._token.cancel()

    def cut_stuck(self) -> None:
        """cut() where a transaction has taken longer than any does. From any thread."""
        began = self._began
        if began is not None and time.monotonic() - began > STUCK_SECONDS:
            self.cut()

    def _write(self, batches: Sequence[tuple[Batch, Usage]], now_ms: int) -> list[audit_pb2.RecordResponse]:
        with self._transaction() as session:
            responses = session.inserts.write(batches, now_ms)
            session.clock.look()
        session.inserts.committed()
        self.suspect_rows = session.inserts.suspect_rows
        return responses

    def _do(self, work: Callable[[Connection], T]) -> T:
        with self._transaction() as session:
            answer = work(session.connection)
        # It may have changed whatever is known by heart.
        session.commits = -1
        return answer

    @contextmanager
    def _between_commits(self) -> Iterator[Connection]:
        """A transaction for what nothing is known by heart of."""
        with self._transaction() as session:
            yield session.connection

    @contextmanager
    def _transaction(self) -> Iterator["_Session"]:
        """A transaction that is fenced; whatever it raises, nothing known by heart is believed afterwards."""
        session = self._opened()
        self._began = time.monotonic()
        try:
            with transaction(session.connection):
                session.begin(self._begin(session.connection))
                yield session
        except BaseException:
            session.commits = -1
            if session.connection.is_lost:
                self._forget()
            raise
        finally:
            self._began = None

    def _begin(self, connection: Connection) -> int:
        if self._epoch is None:
            found = connection.execute(_BEGIN).fetchall()
        elif epoch := self._epoch():
            found = connection.execute(_BEGIN_OF_EPOCH, (epoch,)).fetchall()
        else:
            found = []
        if not found:
            raise NotWriter("another replica of the ledger writes now: send the rows to it", "")
        return int(found[0][0])

    def _opened(self) -> "_Session":
        if self._session and self._session.connection.is_lost:
            self._forget()
        if self._session is None:
            connection = connect(self._url, writes=True, statement_seconds=STATEMENT_SECONDS, token=self._token)
            self._session = _Session(connection)
            self._clock = self._session.clock
        return self._session

    def _forget(self) -> None:
        if self._session:
            self._session.connection.close()
        self._session = None

    def _release(self) -> None:
        self._forget()

    def _has_room(self) -> bool:
        # Of another machine's disk nothing is known, but that a job has just been committed on it.
        return True

    def _detail(self, error: Exception) -> str:
        return detail_of(error)

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, StoreRefused):
            # A password that is being changed, a database that is being restored: the rows can wait for it.
            return StoreUnavailable(str(error))
        return translate(error)


class _Session:
    """A connection, and what is known by heart of the database while nobody else writes."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._tables = (
            LogTable(connection, "tool_call_log", TOOL_CALL_COLUMNS, has_suspects=True),
            LogTable(connection, "cost_log", COST_COLUMNS, has_suspects=True),
            LogTable(connection, "control_log", CONTROL_COLUMNS, has_suspects=False),
        )
        self._rollups = Rollups(connection)
        try:
            self.inserts = Inserts(connection, self._tables, self._rollups)
            self.clock = LedgerClock(connection)
        except psycopg.Error:
            connection.close()
            raise
        self.commits = -1
        """The number of the last transaction after which all is as it is known; -1 where nothing is."""

    def begin(self, commits: int) -> None:
        """At the begin of the transaction of a number."""
        if commits != self.commits + 1 or self.commits < 0:
            self.connection.version += 1
            self.inserts.forget()
            for table in self._tables:
                table.begin()
        self.commits = commits
