"""The reader of an SQLite file."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import apsw

from audit_svc.ledger.observer import StoreObserver
from audit_svc.sql import reader
from audit_svc.sqlite.read.database import SqliteDatabase
from audit_svc.sqlite.read.failures import failures_are_errors
from audit_svc.sqlite.read.throttle import Throttle

T = TypeVar("T")


class Reader(reader.Reader):
    """Answers questions on connections that cannot write."""

    def __init__(
        self,
        connections: Sequence[apsw.Connection],
        observer: StoreObserver | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        """throttle: what questions wait for; None where nobody writes."""
        super().__init__(list(map(_ReadConnection, connections)), observer, throttle)


class _ReadConnection:
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.interrupt, self.close = connection.interrupt, connection.close

    def run(self, question: Callable[[SqliteDatabase], T]) -> T:
        with failures_are_errors():
            return question(SqliteDatabase(self._connection))
