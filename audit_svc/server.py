"""The ledger as a service, from start to drain."""

import asyncio
import sys

import structlog
from prometheus_client import CollectorRegistry

from audit_svc.care import keep_retention
from audit_svc.metrics import StoreMetrics
from audit_svc.sealing.process import SealProcess
from audit_svc.services import RECORD_BATCH, ROLES, LedgerServices, error_interceptor, rules
from audit_svc.settings import AuditSettings
from audit_svc.stores.store import WRITER, Store, open_store
from service_kit import event_loop
from service_kit.access.guard import Guard, open_guard
from service_kit.collector import tune_collector
from service_kit.observing.logs import for_people
from service_kit.observing.metrics import new_registry
from service_kit.run import Service, run_service
from service_kit.server import refuse_taken
from service_kit.settings import check_disk, describe_settings, unknown_variables

log = structlog.get_logger(__name__)


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
    refuse_taken(settings.listen, settings.metrics_listen)
    guard = open_guard(settings, rules())
    _tune_interpreter()
    registry = new_registry()
    metrics = StoreMetrics(registry)
    # Before the store, whose threads keep the process from ending: what it refuses, it refuses with nothing open.
    seal = SealProcess(settings, lambda: store.writes(), lambda: store.held_up_by())
    store = open_store(settings, metrics, apply_migrations=apply_migrations, create=create)
    registry.register(store.collector)
    registry.register(seal)
    event_loop.run(_serve(settings, guard, store, registry, seal))


async def _serve(
    settings: AuditSettings, guard: Guard, store: Store, registry: CollectorRegistry, seal: SealProcess
) -> None:
    look = asyncio.Event()
    days = settings.retention_days, settings.retention_args_days

    async def detail() -> str:
        return "; ".join(filter(None, (store.why_troubled(), seal.why_troubled())))

    async with store.running(look):
        retention = asyncio.create_task(keep_retention(store.ledger, *days, store.writes))
        services = LedgerServices(store.ledger, seal.reader)
        service = Service(
            names=tuple(ROLES),
            health_names=(WRITER,),
            resting=store.resting,
            add_to=services.add_to,
            errors=error_interceptor(),
            check=store.why_unfit,
            check_now=look,
            detail=detail,
            begin_drain=services.begin_drain,
            routing=store.routing,
            takes_unknown_fields=(RECORD_BATCH,),
            beside=seal.running,
        )
        try:
            await run_service(service, settings, guard, registry)
        finally:
            retention.cancel()
            await asyncio.wait([retention])
            await services.close()


def _tune_interpreter() -> None:
    """Tunes the garbage collector and thread switching for ingest (docs/decisions/store-group-commit.md)."""
    tune_collector()
    # How long the event loop may keep the lock while the writer wants it, in seconds; 0.005 by default.
    sys.setswitchinterval(0.0001)
