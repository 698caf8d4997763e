"""The ledger in PostgreSQL: one writer, some readers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from typing import Self

import structlog
from onrecord.audit.v1 import administration_pb2, audit_pb2

from audit_svc.errors import AuditError
from audit_svc.ledger.batch import Batch, query_batch
from audit_svc.ledger.observer import StoreObserver
from audit_svc.postgres.care.online import OnlineCare
from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import Connection, connect
from audit_svc.postgres.read.reader import PostgresReader
from audit_svc.postgres.text.trigrams import has_index
from audit_svc.postgres.write.writer import Writer
from audit_svc.sql.ledger import ReadableSql

log = structlog.get_logger(__name__)


class PostgresLedger(ReadableSql):
    """The ledger of a service, which other replicas may have too (the Ledger protocol)."""

    def __init__(self, url: str, writer: Writer, reader: PostgresReader, beside: Writer | None = None) -> None:
        """beside: writes the log of queries of a replica that does not write."""
        super().__init__(reader)
        self._writer = writer
        self._beside = beside
        care = OnlineCare(url, writer)
        self.reset_mark = care.reset_mark
        self.prune, self.count_prunable, self.unfinished_prune = care.prune, care.count_prunable, care.unfinished_prune
        self.act_on_hold, self.list_holds = care.act_on_hold, care.list_holds
        self.erase, self.count_erasable = care.erase, care.count_erasable
        self.back_up = care.back_up

    @classmethod
    def open(
        cls,
        url: str,
        *,
        queue_rows: int,
        apply_migrations: bool = True,
        observer: StoreObserver | None = None,
        epoch: Callable[[], int] | None = None,
    ) -> Self:
        """Opens the database at a URL as libpq takes it, and applies pending migrations.

        epoch: under which this process may write now, 0 while it may not; None where no other process writes.

        Raises:
            StoreRefused: the database cannot be served; the message says what to do.
            StoreUnavailable: there is no connection now.
        """
        with closing(connect(url, writes=True)) as connection:
            if apply_migrations:
                for migration in migrate.up(connection, migrate.load_migrations()):
                    log.info("store.migrated", migration=migration.label)
            else:
                migrate.refuse_older(connection)
            reader = PostgresReader(url, observer)
            reader.tell_of_texts(has_index(connection))
        beside = Writer(url, queue_rows) if epoch else None
        return cls(url, Writer(url, queue_rows, observer, epoch), reader, beside)

    def clock_jump_ms(self) -> int:
        """How far the clock is ahead of what has passed since it was believed; 0 where it is believed."""
        return self._writer.clock.jump_ms()

    def why_clock_jumped(self) -> str:
        """How far the clock jumped, and what to do about it, for people; empty where it is believed."""
        return self._writer.clock.why_jumped()

    @property
    def queued_rows(self) -> int:
        """The number of rows waiting for their commit. Thread-safe."""
        return self._writer.queued_rows

    def record(self, batch: Batch) -> Awaitable[audit_pb2.RecordResponse]:
        return self._writer.record_async(batch)

    async def why_no_commit(self) -> str:
        try:
            await asyncio.wrap_future(self._writer.run(self._touch))
        except AuditError as error:
            return str(error)
        return self._writer.why_failing()

    async def log_queries(self, queries: Sequence[administration_pb2.QueryRow]) -> None:
        """Writes them with the next commit, or in one of their own where this replica does not write.

        Questions at a standby are its own to tell: its transaction is one after the writer's others, and not fenced.
        """
        writer = self._writer if self._beside is None or self._writer.may_write() else self._beside
        await writer.record_async(query_batch(queries))

    def cut(self) -> None:
        """Ends what the writer has under way: this replica does not write any more, and the database may not answer."""
        self._writer.cut()

    async def close(self) -> None:
        await super().close()
        for writer in (self._writer, self._beside):
            if writer is not None:
                await asyncio.to_thread(writer.close)

    def _touch(self, connection: Connection) -> None:
        """The transaction has written already when a job begins."""
        self._writer.clock.look()
