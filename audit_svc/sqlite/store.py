"""The ledger in one SQLite file: one writer, some readers, and a lock on the file."""

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Self

import structlog
from onrecord.audit.v1 import administration_pb2

from audit_svc.ledger.batch import query_batch
from audit_svc.ledger.load import Load
from audit_svc.ledger.observer import StoreObserver
from audit_svc.sql.ledger import WritableSql
from audit_svc.sqlite.care import last_check
from audit_svc.sqlite.care.online import OnlineCare
from audit_svc.sqlite.care.soundness import Soundness
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import Connection, open_for_reading, open_for_writing, refuse_damage
from audit_svc.sqlite.open.identity import FileIdentity
from audit_svc.sqlite.open.lock import FileLock
from audit_svc.sqlite.open.served import is_missing, mark_served
from audit_svc.sqlite.open.wal_readers import wal_readers
from audit_svc.sqlite.read.reader import Reader
from audit_svc.sqlite.read.throttle import Throttle
from audit_svc.sqlite.text.indexer import Indexer
from audit_svc.sqlite.write.writer import Writer

log = structlog.get_logger(__name__)

READERS = 4
CHECK_DAYS = 30
HELD_SECONDS = 30.0
"""Of a WAL that is too long: one who only reads often is seldom in the way for so long."""


class SqliteLedger(WritableSql[Connection]):
    """The ledger of a service, to which the file belongs (the Ledger protocol)."""

    _writer: Writer

    def __init__(
        self,
        path: Path,
        lock: FileLock,
        writer: Writer,
        indexer: Indexer,
        reader: Reader,
        care: OnlineCare,
        files: FileIdentity,
        soundness: Soundness,
    ) -> None:
        super().__init__(reader, writer, care)
        self._path = path
        self._lock = lock
        self._indexer = indexer
        self._care = care
        self._soundness = soundness
        self.why_files_unfit = files.why_unfit
        self.clock_jump_ms, self.why_clock_jumped = writer.clock.jump_ms, writer.clock.why_jumped
        self.back_up = care.back_up

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        queue_rows: int,
        apply_migrations: bool = True,
        create: bool = False,
        observer: StoreObserver | None = None,
        check_days: int = CHECK_DAYS,
    ) -> Self:
        """Opens the database, which is made if there never was one, and applies pending migrations.

        create: make it also where one was served before and is missing. check_days: after as many the whole file is
        checked again.

        Raises:
            DatabaseVanished: one was served before and is missing.
            StoreRefused: the database cannot be served; the message says what to do.
        """
        lock = FileLock(path)
        try:
            if is_missing(path):
                log.warning("store.created", path=str(path))
            last = last_check.take(path)
            need = last.need(path) if last else "in the background"
            connection = open_for_writing(path, create=create, check=need == "before it is served")
            if apply_migrations:
                # It rewrites tables, which may be what is damaged.
                if need != "none" and migrate.pending(connection, migrate.load_migrations()):
                    refuse_damage(path)
                for migration in migrate.up(connection, migrate.load_migrations()):
                    log.info("store.migrated", migration=migration.label)
            else:
                migrate.refuse_older(connection, path)
            readers = [open_for_reading(path) for _ in range(READERS)]
            indexer = Indexer(connection)
            mark_served(path)
            files = FileIdentity(path)
            writer = Writer(connection, queue_rows, observer, indexer, files.changed)
            load = Load(lambda: writer.committing_seconds)
            soundness = Soundness(path, load, last, check_days, lambda: writer.wal_held_seconds() > 0)
            writer.why_damaged = soundness.why_damaged
        except BaseException:
            lock.release()
            raise
        reader = Reader(readers, observer, Throttle(Load(lambda: writer.committing_seconds)))
        return cls(path, lock, writer, indexer, reader, OnlineCare(path, writer), files, soundness)

    @property
    def unindexed_rows(self) -> int:
        """Tool calls that the index of texts has not yet; some thousands at rest. From any thread."""
        return self._indexer.unindexed_rows

    def held_up_by(self) -> Collection[int]:
        """The ids of processes that have kept a WAL that is too long from being emptied for HELD_SECONDS."""
        return wal_readers(self._path) if self._writer.wal_held_seconds() > HELD_SECONDS else ()

    async def why_no_commit(self) -> str:
        return self.why_files_unfit() or await super().why_no_commit()

    async def log_queries(self, queries: Sequence[administration_pb2.QueryRow]) -> None:
        """Writes them with the next commit."""
        await self.record(query_batch(queries))

    async def close(self) -> None:
        self._care.close()
        await asyncio.to_thread(self._soundness.close)
        # The last connection to close folds the WAL into the database, which a reader could not.
        await super().close()
        await asyncio.to_thread(self._writer.close)
        self._soundness.leave_mark()
        self._lock.release()

    def _touch(self, connection: Connection) -> None:
        """Writes the first page as it is. The store itself has no use for the number that is in it."""
        connection.pragma("user_version", connection.pragma("user_version"))
        self._writer.clock.look()
