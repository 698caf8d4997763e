"""A store as the service has it: a ledger, and what has to be done for it while it is served."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import grpc
from prometheus_client.registry import Collector

from audit_svc.ledger.protocol import Ledger
from audit_svc.metrics import StoreMetrics
from audit_svc.settings import AuditSettings
from audit_svc.stores.driver import refuse_without_driver

WRITER = "writer"
"""The name under which health tells whether this service writes: of replicas, one does."""


class Store(Protocol):
    """An open store."""

    @property
    def kind(self) -> str:
        """For logs and metrics: sqlite or postgres."""
        ...

    @property
    def ledger(self) -> Ledger:
        """What it has."""
        ...

    @property
    def collector(self) -> Collector:
        """Its gauges."""
        ...

    @property
    def routing(self) -> Sequence[grpc.aio.ServerInterceptor]:
        """Who answers calls in the place of this service, behind all other interceptors."""
        ...

    def running(self, look: asyncio.Event) -> AbstractAsyncContextManager[None]:
        """Watches over it while the body runs, and closes its ledger in the end.

        look: set when health is to look at once.
        """
        ...

    def writes(self) -> bool:
        """Whether this service is the one that writes."""
        ...

    def resting(self) -> Collection[str]:
        """The names that are not served now, for health."""
        ...

    async def why_unfit(self) -> str:
        """Why it cannot do its work; empty when it can."""
        ...

    def queued_rows(self) -> int:
        """Rows that wait for the disk."""
        ...

    def clock_jump_ms(self) -> int:
        """How far the clock is ahead of what it can be."""
        ...

    def held_up_by(self) -> Collection[int]:
        """The ids of processes that keep it from giving room back for long."""
        ...

    def why_troubled(self) -> str:
        """What an operator should look at although it can; empty when there is nothing."""
        ...


def open_store(settings: AuditSettings, metrics: StoreMetrics, *, apply_migrations: bool, create: bool) -> Store:
    """The store that the settings name.

    create: begin an empty ledger where a file that was served is missing.

    Raises:
        StoreRefused: it cannot be served.
        StoreUnavailable: there is no connection to the database now.
    """
    if url := settings.database_url:
        refuse_without_driver()
        from audit_svc.stores.postgres import PostgresStore

        return PostgresStore.open(url, settings, metrics, apply_migrations=apply_migrations)
    from audit_svc.stores.sqlite import SqliteStore

    return SqliteStore.open(settings, metrics, apply_migrations=apply_migrations, create=create)
