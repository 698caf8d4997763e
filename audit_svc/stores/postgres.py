"""A ledger in PostgreSQL, which replicas share: one writes, each answers questions."""

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Self

import grpc
import structlog

from audit_svc.errors import AuditError
from audit_svc.forwarding import ForwardingInterceptor
from audit_svc.metrics import StoreCollector, StoreMetrics
from audit_svc.postgres.open.connection import connect
from audit_svc.postgres.open.writership import Writership
from audit_svc.postgres.store import PostgresLedger
from audit_svc.services import OF_THE_WRITER
from audit_svc.settings import AuditSettings
from audit_svc.stores.address import replica_address
from audit_svc.stores.store import WRITER
from recording.channel.tls import ClientFiles, channel_credentials
from service_kit.paging import KEY_BYTES, use_key

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
"""How often it is looked whether the database has stopped to answer."""


class PostgresStore:
    """See audit_svc.stores.store.Store."""

    kind = "postgres"

    def __init__(
        self, ledger: PostgresLedger, writership: Writership, forwarding: ForwardingInterceptor, metrics: StoreMetrics
    ) -> None:
        self.ledger = ledger
        self.collector = StoreCollector(self, None)
        self.routing: Sequence[grpc.aio.ServerInterceptor] = (forwarding,)
        self._writership = writership
        self._forwarding = forwarding
        self._metrics = metrics

    @classmethod
    def open(cls, url: str, settings: AuditSettings, metrics: StoreMetrics, *, apply_migrations: bool) -> Self:
        """See open_store()."""
        writership = Writership(url, replica_address(settings, url))
        ledger = PostgresLedger.open(
            url,
            queue_rows=settings.queue_rows,
            apply_migrations=apply_migrations,
            observer=metrics,
            epoch=lambda: writership.epoch,
        )
        _share_page_key(url)
        files = ClientFiles(settings.replica_ca, settings.tls_cert, settings.tls_key) if settings.tls_cert else None

        def writer() -> str | None:
            if writership.epoch:
                return None
            return writership.holder.address if writership.holder else ""

        forwarding = ForwardingInterceptor(OF_THE_WRITER, writer, channel_credentials(files) if files else None)
        return cls(ledger, writership, forwarding, metrics)

    @asynccontextmanager
    async def running(self, look: asyncio.Event) -> AsyncIterator[None]:
        """Follows which replica writes. One that ends has committed what it queued when another may begin."""
        self._metrics.on_failed_commit = partial(asyncio.get_running_loop().call_soon_threadsafe, look.set)

        wrote = False

        def changed() -> None:
            nonlocal wrote
            self._forwarding.writer_changed()
            if wrote and not self.writes():
                self.ledger.cut()
            wrote = self.writes()
            look.set()

        async with self._writership.running(changed):
            watching = asyncio.create_task(self._cut_stuck())
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.wait([watching])
                await self.ledger.close()
                await self._forwarding.aclose()

    async def _cut_stuck(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self.ledger.cut_stuck()

    def writes(self) -> bool:
        """Whether this replica holds the lease."""
        return self._writership.epoch != 0

    def resting(self) -> Collection[str]:
        """A standby is none that writes."""
        return () if self.writes() else (WRITER,)

    async def why_unfit(self) -> str:
        """Tries a commit, or on a standby a question."""
        if self.writes():
            return await self.ledger.why_no_commit()
        try:
            await self.ledger.last_position()
        except AuditError as error:
            return str(error)
        return ""

    def queued_rows(self) -> int:
        """Rows that wait for their commit."""
        return self.ledger.queued_rows

    def clock_jump_ms(self) -> int:
        """How far the clock is ahead of what it can be."""
        return self.ledger.clock_jump_ms()

    def held_up_by(self) -> Collection[int]:
        """Who reads for long only keeps rows that are gone from being vacuumed."""
        return ()

    def why_troubled(self) -> str:
        """Whether it is not known who writes, or the clock has jumped."""
        if self._writership.trouble:
            return f"it is not known which replica writes ({self._writership.trouble})"
        if not self.writes() and self._writership.holder is None:
            return "no replica writes now"
        return self.ledger.why_clock_jumped()


def _share_page_key(url: str) -> None:
    """Has this replica read the page tokens of the others."""
    with closing(connect(url, writes=True)) as connection:
        made = os.urandom(KEY_BYTES)
        connection.execute("UPDATE ledger_lease SET page_key = ? WHERE id = 1 AND page_key IS NULL", (made,))
        ((key,),) = connection.execute("SELECT page_key FROM ledger_lease WHERE id = 1").fetchall()
    use_key(bytes(key))
