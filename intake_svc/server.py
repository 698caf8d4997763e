"""The door as a service, from start to drain."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import structlog

from intake_svc.calls.calls import Calls
from intake_svc.calls.journal import Journal
from intake_svc.door import Door
from intake_svc.errors import STATUSES
from intake_svc.hooks.http import HookRoutes
from intake_svc.hooks.service import Hooks
from intake_svc.labels import SessionLabels
from intake_svc.metrics import DoorMetrics
from intake_svc.otlp_grpc import add_to_server
from intake_svc.otlp_http import OtlpApp
from intake_svc.settings import IntakeSettings
from intake_svc.signals import SIGNALS
from intake_svc.stops import Stops
from recording import redact
from recording.channel.watched import WrongFile
from recording.record import open_record
from service_kit.access.guard import open_guard
from service_kit.access.interceptor import rules_for
from service_kit.access.roles import Role
from service_kit.collector import tune_collector
from service_kit.errors import ErrorInterceptor
from service_kit.http_server import serve_http
from service_kit.observing.logs import for_people
from service_kit.observing.metrics import new_registry
from service_kit.producing.metrics import RecordCollector
from service_kit.producing.target import WrongTarget, open_target
from service_kit.run import Service, run_service
from service_kit.server import refuse_taken
from service_kit.settings import EXIT_WRONG_SETTINGS, check_disk, describe_settings, name_variable, unknown_variables

RULES = {
    method: roles
    for signal in SIGNALS
    for method, roles in rules_for(signal.service, {"Export": frozenset({Role.PRODUCER})}).items()
}

log = structlog.get_logger(__name__)


async def serve(settings: IntakeSettings) -> None:
    """Serves until SIGTERM or SIGINT; then answers what has come, sends its rows, and returns.

    Raises:
        SystemExit: with code 2 when a setting or a file cannot be used, with code 1 when an address cannot be had.
    """
    log.info("service.starting", **describe_settings(settings, only_given=for_people(settings.log_style)))
    for told in unknown_variables("INTAKE_", IntakeSettings):
        log.warning("settings.unknown", hint=told)
    check_disk(settings)
    refuse_taken(settings.listen, settings.http_listen, settings.metrics_listen)
    redact.keep_arguments(settings.arguments)
    guard, registry = open_guard(settings, RULES), new_registry()
    try:
        # The disk has each row before its answer, and what cannot be recorded is refused.
        record = open_record(
            settings.state_dir,
            open_target(settings),
            mode="strict",
            sync="always",
            max_bytes=settings.spool_max_bytes,
            keep_acked_bytes=settings.spool_keep_acked_bytes,
            witness_seconds=settings.witness_seconds,
            log_key=settings.audit_log_key,
            args_key_file=settings.args_key_file,
            refuse_doubted=False,  # what an agent did is told, whatever the ledger is
        )
        journal = Journal(settings.state_dir / "hooks")
        calls = Calls(journal, record.args_key, settings.join_seconds, settings.open_call_seconds)
        stops = Stops(open_target(settings, "stops") if settings.stops_target else None, settings.state_dir)
    except (WrongTarget, WrongFile, OSError) as error:
        why = name_variable(settings, error) if isinstance(error, WrongFile) else str(error)
        sys.stderr.write(f"{why}\n")
        raise SystemExit(EXIT_WRONG_SETTINGS) from None
    registry.register(RecordCollector(record))
    metrics = DoorMetrics(registry)
    labels = SessionLabels()
    hooks = Hooks(record, calls, labels, stops, metrics)
    door = Door(record, calls, labels, metrics, settings)
    look = asyncio.Event()
    record.logger.on_refusal = partial(asyncio.get_running_loop().call_soon_threadsafe, look.set)
    routes = HookRoutes(door, hooks, guard, metrics, settings.max_message_bytes).routes
    http = OtlpApp(door, guard, metrics, settings.max_message_bytes, routes)

    def trouble() -> str:
        # an answer waits for the ledger where it is told to: without it, none is given
        waits = settings.answer_after == "ledger"
        return record.trouble() or (record.ledger_trouble() if waits else "")

    async def drain() -> None:
        await door.drain()
        await hooks.flush(all_ended=True)  # nothing more is told of them while nobody listens
        await record.drain(settings.drain_seconds)

    def detail() -> str:
        return "; ".join(filter(None, (record.detail(), stops.detail())))

    service = Service(
        names=tuple(signal.service for signal in SIGNALS),
        add_to=partial(add_to_server, door),
        errors=ErrorInterceptor(STATUSES),
        check=partial(asyncio.to_thread, trouble),
        check_now=look,
        begin_drain=door.begin_drain,
        drain=drain,
        detail=partial(asyncio.to_thread, detail),
        takes_unknown_fields=tuple(signal.method for signal in SIGNALS),
        beside=partial(_serve_beside, http.asgi, settings),
    )
    record.start()
    tune_collector()
    beside = [
        asyncio.create_task(hooks.flush_for_ever(), name="hooks"),
        asyncio.create_task(stops.follow_for_ever(), name="stops"),
    ]
    try:
        await run_service(service, settings, guard, registry)
    finally:
        for task in beside:
            task.cancel()
        door.close()
        hooks.close()
        await record.aclose()
        journal.close()


@asynccontextmanager
async def _serve_beside(app: Any, settings: IntakeSettings) -> AsyncIterator[None]:
    """Serves HTTP while the body runs."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            serve_http(app, settings.http_listen, settings.server_files, settings.max_calls)
        )
        if settings.hook_socket:
            await stack.enter_async_context(serve_http(app, f"unix:{settings.hook_socket}", None, settings.max_calls))
        yield
