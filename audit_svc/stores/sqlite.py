"""A ledger in an SQLite file, which one service has for itself."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

import grpc
import structlog

from audit_svc.metrics import StoreCollector, StoreMetrics
from audit_svc.settings import AuditSettings
from audit_svc.sqlite.open.connection import leave_out_memory_statistics
from audit_svc.sqlite.store import SqliteLedger
from recording.upkeep import attempt
from service_kit.paging import keep_key

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
"""How often it is looked whether the database's path still names the file that is open, and may be written."""


class SqliteStore:
    """See audit_svc.stores.store.Store."""

    kind = "sqlite"
    routing: Sequence[grpc.aio.ServerInterceptor] = ()

    def __init__(self, path: Path, ledger: SqliteLedger, metrics: StoreMetrics) -> None:
        self.ledger = ledger
        self.collector = StoreCollector(self, path, lambda: ledger.unindexed_rows)
        self._metrics = metrics

    @classmethod
    def open(cls, settings: AuditSettings, metrics: StoreMetrics, *, apply_migrations: bool, create: bool) -> Self:
        """See open_store()."""
        path = settings.database_file
        leave_out_memory_statistics()
        ledger = SqliteLedger.open(
            path,
            queue_rows=settings.queue_rows,
            apply_migrations=apply_migrations,
            create=create,
            observer=metrics,
            check_days=settings.check_days,
        )
        keep_key(path.with_name(f"{path.name}-page-key"))
        return cls(path, ledger, metrics)

    @asynccontextmanager
    async def running(self, look: asyncio.Event) -> AsyncIterator[None]:
        """Watches the files, and closes the ledger in the end."""
        self._metrics.on_failed_commit = partial(asyncio.get_running_loop().call_soon_threadsafe, look.set)
        watching = asyncio.create_task(self._watch_files(look))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await self.ledger.close()

    def writes(self) -> bool:
        """The file is this service's alone."""
        return True

    def resting(self) -> Collection[str]:
        """Everything is served."""
        return ()

    async def why_unfit(self) -> str:
        """Tries a commit."""
        return await self.ledger.why_no_commit()

    def queued_rows(self) -> int:
        """Rows that wait for the disk."""
        return self.ledger.queued_rows

    def clock_jump_ms(self) -> int:
        """How far the clock is ahead of what it can be."""
        return self.ledger.clock_jump_ms()

    def why_troubled(self) -> str:
        """Whether the clock has jumped."""
        return self.ledger.why_clock_jumped()

    def held_up_by(self) -> Collection[int]:
        """Those that read the WAL for long."""
        return self.ledger.held_up_by()

    async def _watch_files(self, look: asyncio.Event) -> None:
        """Each second, since a service to which nobody writes has no commit that would notice."""
        while True:
            with attempt("watching the database's files"):
                if self.ledger.why_files_unfit():
                    look.set()
            await asyncio.sleep(WATCH_SECONDS)
