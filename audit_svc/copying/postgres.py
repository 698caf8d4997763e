"""An end of a copy in PostgreSQL."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psycopg

from audit_svc.copying.ends import End
from audit_svc.postgres.copying import PostgresTables
from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import Connection, connect, translated
from audit_svc.postgres.open.served import refuse_served
from audit_svc.postgres.seal.ledger import PostgresSealedLedger
from audit_svc.postgres.seal.log import PostgresLog
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import Log


class PostgresEnd:
    """A database to which no replica writes."""

    name = "the database"

    def __init__(self, url: str, connection: Connection, log: Log) -> None:
        self.tables = PostgresTables(connection)
        self.log = log
        self._url = url
        self._commits = _commits(connection)

    @contextmanager
    def reading(self) -> Iterator[SealedLedger]:
        """See End."""
        with closing(PostgresSealedLedger.open(self._url)) as ledger:
            yield ledger

    def is_unchanged(self) -> bool:
        """By the number that each transaction of a writer changes."""
        with closing(connect(self._url)) as connection:
            return _commits(connection) == self._commits

    def make_derived(self) -> None:
        """Its indexes are made with the rows."""

    def finish(self, unmark: Callable[[Log], None]) -> None:
        """See End."""
        unmark(self.log)


@contextmanager
def source_database(url: str) -> Iterator[End]:
    """A ledger to read from, in one moment. Raises DatabaseInUse: a replica writes to it; StoreRefused."""
    with closing(connect(url)) as connection, closing(PostgresLog(url)) as log, translated():
        migrate.refuse_older(connection)
        refuse_served(connection)
        connection.raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.raw.read_only = True
        with connection.raw.transaction():
            yield PostgresEnd(url, connection, log)


@contextmanager
def target_database(url: str) -> Iterator[End]:
    """A ledger to copy into, which is made where there is none. Raises as source_database()."""
    with closing(connect(url, writes=True)) as connection, closing(PostgresLog(url)) as log:
        with suppress(migrate.UnfinishedCopy):
            migrate.up(connection, migrate.load_migrations())
        refuse_served(connection)
        yield PostgresEnd(url, connection, log)


def _commits(connection: Connection) -> int:
    with translated():
        ((commits,),) = connection.execute("SELECT commits FROM ledger_writer").fetchall()
    return int(commits)
