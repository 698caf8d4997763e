"""The ledger as a service, from start to drain."""

import asyncio
import sys
from functools import partial

import structlog
from prometheus_client import CollectorRegistry

from audit_svc.care import keep_retention
from audit_svc.metrics import StoreCollector, StoreMetrics
from audit_svc.sealing.process import SealProcess
from audit_svc.services import RECORD_BATCH, ROLES, LedgerServices, error_interceptor, rules
from audit_svc.settings import AuditSettings
from audit_svc.sqlite.open.connection import leave_out_memory_statistics
from audit_svc.sqlite.store import SqliteLedger
from recording.upkeep import attempt
from service_kit.access.guard import Guard, open_guard
from service_kit.collector import tune_collector
from service_kit.observing.logs import for_people
from service_kit.observing.metrics import new_registry
from service_kit.paging import keep_key
from service_kit.run import Service, run_service
from service_kit.settings import check_disk, describe_settings, unknown_variables

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
"""How often it is looked whether the database's path still names the file that is open, and may be written."""


def serve(settings: AuditSettings, *, apply_migrations: bool, create: bool = False) -> None:
    """Serves until a signal comes.

    Raises:
        StoreRefused: the database cannot be served.
        SystemExit: the address cannot be had, or a file that settings name cannot be used.
    """
    log.info("service.starting", **describe_settings(settings, only_given=for_people(settings.log_style)))
    for told in unknown_variables("AUDIT_", AuditSettings):
        log.warning("settings.unknown", hint=told)
    check_disk(settings)
    guard = open_guard(settings, rules())
    _tune_interpreter()
    leave_out_memory_statistics()
    registry = new_registry()
    metrics = StoreMetrics(registry)
    ledger = SqliteLedger.open(
        settings.db,
        queue_rows=settings.queue_rows,
        apply_migrations=apply_migrations,
        create=create,
        observer=metrics,
        check_days=settings.check_days,
    )
    keep_key(settings.db.with_name(f"{settings.db.name}-page-key"))
    registry.register(
        StoreCollector(settings.db, lambda: ledger.queued_rows, lambda: ledger.unindexed_rows, ledger.clock_jump_ms)
    )
    seal = SealProcess(settings)
    registry.register(seal)
    asyncio.run(_serve(settings, guard, ledger, registry, metrics, seal))


async def _serve(
    settings: AuditSettings,
    guard: Guard,
    ledger: SqliteLedger,
    registry: CollectorRegistry,
    metrics: StoreMetrics,
    seal: SealProcess,
) -> None:
    look = asyncio.Event()
    metrics.on_failed_commit = partial(asyncio.get_running_loop().call_soon_threadsafe, look.set)
    watching = asyncio.create_task(_watch_files(ledger, look))
    retention = asyncio.create_task(keep_retention(ledger, settings.retention_days, settings.retention_args_days))
    services = LedgerServices(ledger, seal.reader)

    async def detail() -> str:
        return "; ".join(filter(None, (ledger.why_clock_jumped(), seal.why_troubled())))

    service = Service(
        names=tuple(ROLES),
        add_to=services.add_to,
        errors=error_interceptor(),
        check=ledger.why_no_commit,
        check_now=look,
        detail=detail,
        begin_drain=services.begin_drain,
        takes_unknown_fields=(RECORD_BATCH,),
        beside=seal.running,
    )
    try:
        await run_service(service, settings, guard, registry)
    finally:
        for task in (watching, retention):
            task.cancel()
        await asyncio.wait([watching, retention])
        await services.close()
        await ledger.close()


async def _watch_files(ledger: SqliteLedger, look: asyncio.Event) -> None:
    """Each second, since a service to which nobody writes has no commit that would notice."""
    while True:
        with attempt("watching the database's files"):
            if ledger.why_files_unfit():
                look.set()
        await asyncio.sleep(WATCH_SECONDS)


def _tune_interpreter() -> None:
    """Tunes the garbage collector and thread switching for ingest (docs/decisions/store-group-commit.md)."""
    tune_collector()
    # How long the event loop may keep the lock while the writer wants it, in seconds; 0.005 by default.
    sys.setswitchinterval(0.0001)
