"""The ledger in PostgreSQL: one writer, some readers."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Self

import structlog
from onrecord.audit.v1 import administration_pb2

from audit_svc.ledger.batch import query_batch
from audit_svc.ledger.observer import StoreObserver
from audit_svc.postgres.care.online import OnlineCare
from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import Connection, connect
from audit_svc.postgres.read.reader import PostgresReader
from audit_svc.postgres.text.trigrams import has_index
from audit_svc.postgres.write.writer import Writer
from audit_svc.sql.ledger import WritableSql

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 2.0
"""What is queued at the end is given so long. Then the server answers nothing: it is cut off, and the rest fails."""


class PostgresLedger(WritableSql[Connection]):
    """The ledger of a service, which other replicas may have too (the Ledger protocol)."""

    _writer: Writer

    def __init__(self, url: str, writer: Writer, reader: PostgresReader, beside: Writer | None = None) -> None:
        """beside: writes the log of queries of a replica that does not write."""
        care = OnlineCare(url, writer)
        super().__init__(reader, writer, care)
        self._beside = beside
        self._care = care
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

    async def log_queries(self, queries: Sequence[administration_pb2.QueryRow]) -> None:
        """Writes them with the next commit, or in one of their own where this replica does not write.

        Questions at a standby are its own to tell: its transaction is one after the writer's others, and not fenced.
        """
        writer = self._writer if self._beside is None or self._writer.may_write() else self._beside
        await writer.record_async(query_batch(queries))

    def cut(self) -> None:
        """Ends what the writer has under way: this replica does not write any more, and the database may not answer."""
        self._writer.cut()

    def cut_stuck(self) -> None:
        """Ends transactions that take longer than any does, with a server that answers nothing any more."""
        for writer in self._writers():
            writer.cut_stuck()

    async def close(self) -> None:
        self._care.give_up()
        await asyncio.gather(super().close(), *map(_close, self._writers()))

    def _writers(self) -> list[Writer]:
        return [self._writer, *([self._beside] if self._beside else [])]

    def _touch(self, connection: Connection) -> None:
        """The transaction has written already when a job begins."""
        self._writer.clock.look()


async def _close(writer: Writer) -> None:
    closing = asyncio.create_task(asyncio.to_thread(writer.close))
    while not (await asyncio.wait([closing], timeout=CLOSE_SECONDS))[0]:
        writer.give_up()
    closing.result()
