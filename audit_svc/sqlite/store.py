"""The store on SQLite: one writer, some readers, and a lock on the file."""

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import apsw
import structlog
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import AuditError, MigrationRefused, StoreRefused
from audit_svc.ledger.batch import Batch, Values, query_batch
from audit_svc.ledger.observer import StoreObserver
from audit_svc.sqlite.care.housekeeping import Housekeeping
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import FileLock, open_for_reading, open_for_writing
from audit_svc.sqlite.read.reader import Reader
from audit_svc.sqlite.read.throttle import Throttle
from audit_svc.sqlite.text.indexer import Indexer
from audit_svc.sqlite.write.acks import Acks
from audit_svc.sqlite.write.load import Load
from audit_svc.sqlite.write.writer import Writer

log = structlog.get_logger(__name__)

READERS = 4


class SqliteStore:
    """The ledger in one SQLite file, which belongs to one process."""

    def __init__(
        self,
        lock: FileLock,
        writer: Writer,
        acks: Acks,
        indexer: Indexer,
        reader: Reader,
        housekeeping: Housekeeping,
    ) -> None:
        self._lock = lock
        self._writer = writer
        self._acks = acks
        self._indexer = indexer
        self._reader = reader
        self.housekeeping = housekeeping
        self.ask = reader.ask

    @classmethod
    def open(
        cls, path: Path, *, queue_rows: int, apply_migrations: bool = True, observer: StoreObserver | None = None
    ) -> Self:
        """Opens the database, which is made if it is not there, and applies pending migrations.

        Raises:
            StoreRefused: the database cannot be served; the message says what to do.
        """
        lock = FileLock(path)
        try:
            connection = open_for_writing(path)
            migrations = migrate.load_migrations()
            if apply_migrations:
                for migration in migrate.up(connection, migrations):
                    log.info("store.migrated", migration=migration.label)
            elif waiting := migrate.pending(connection, migrations):
                labels = ", ".join(migration.label for migration in waiting)
                raise MigrationRefused(f"migrations are pending ({labels}): run `audit-svc migrate up --db {path}`")
            readers = [open_for_reading(path) for _ in range(READERS)]
            indexer = Indexer(connection)
            acks = Acks()
            writer = Writer(connection, queue_rows, observer, indexer, acks.call)
        except BaseException:
            lock.release()
            raise
        reader = Reader(readers, observer, Throttle(Load(lambda: writer.committing_seconds)))
        return cls(lock, writer, acks, indexer, reader, Housekeeping(path, writer))

    @property
    def queued_rows(self) -> int:
        """Rows that wait for their commit. From any thread."""
        return self._writer.queued_rows

    @property
    def unindexed_rows(self) -> int:
        """Tool calls that the index of texts has not yet; some thousands at rest. From any thread."""
        return self._indexer.unindexed_rows

    def record(self, batch: Batch) -> Awaitable[audit_pb2.RecordResponse]:
        """See audit_svc.sqlite.Store."""
        return self._acks.expect(partial(self._writer.record, batch))

    async def why_no_commit(self) -> str:
        """Commits what changes nothing: why it cannot be done, empty when it can."""
        try:
            await asyncio.wrap_future(self._writer.run(_touch))
        except AuditError as error:
            return str(error)
        return ""

    async def log_queries(self, queries: Sequence[Values]) -> None:
        """See audit_svc.sqlite.Store."""
        await self.record(query_batch(queries))

    async def close(self) -> None:
        """See audit_svc.sqlite.Store."""
        self.housekeeping.close()
        # The last connection to close folds the WAL into the database, which a reader could not.
        await asyncio.to_thread(self._reader.close)
        await asyncio.to_thread(self._writer.close)
        self._lock.release()


def _touch(connection: apsw.Connection) -> None:
    """Writes the first page as it is. The store itself has no use for the number that is in it."""
    connection.pragma("user_version", connection.pragma("user_version"))


class ReadOnlyStore:
    """A ledger that is only read: a backup, or the file of a service that runs."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.ask = reader.ask

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens the database, which may be in use.

        Raises:
            StoreRefused: it cannot be read, or its schema is not what this version knows.
        """
        connection = open_for_reading(path)
        try:
            waiting = migrate.pending(connection, migrate.load_migrations())
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise StoreRefused(f"{path} is damaged or no SQLite database ({error}): restore a backup") from None
        if waiting:
            labels = ", ".join(migration.label for migration in waiting)
            raise MigrationRefused(
                f"{path} is of an older version ({labels} are missing): run `audit-svc migrate up --db {path}`"
            )
        return cls(Reader([connection]))

    async def log_queries(self, queries: Sequence[Values]) -> None:
        """Forgets them: who can read the file needs no leave."""

    async def close(self) -> None:
        """See audit_svc.sqlite.Store."""
        await asyncio.to_thread(self._reader.close)
