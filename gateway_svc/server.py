"""The gateway put together from its settings, served, and taken apart."""

import asyncio
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import structlog
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from gateway_svc.engines.kinds import RunnerKind, Surroundings, engine_kinds
from gateway_svc.engines.pricing import cost_micros
from gateway_svc.errors import SettingsError
from gateway_svc.loop.answers import Answers
from gateway_svc.marks import Run
from gateway_svc.servicer import RETRY_AFTER_SECONDS, ROLES, STATUSES, GatewayServicer
from gateway_svc.settings import GatewaySettings
from gateway_svc.turns.budgets import Budgets, Spending
from gateway_svc.turns.queue import Capacity, Turns
from gateway_svc.turns.sessions import Sessions, SessionState
from gateway_svc.turns.turn import Runner
from gateway_svc.watching.metrics import CLAUDE_TOOLS, RecordCollector, TurnMetrics, add_waiting_gauge
from gateway_svc.watching.readiness import EngineCheck
from gateway_svc.watching.telemetry import Telemetry
from gateway_svc.watching.tracing import open_tracing
from service_kit.access.guard import open_guard
from service_kit.access.interceptor import rules_for
from service_kit.errors import ErrorInterceptor
from service_kit.observing.metrics import new_registry
from service_kit.run import Service
from service_kit.run import run as run_service
from service_kit.settings import EXIT_WRONG_SETTINGS, describe_settings

if TYPE_CHECKING:
    from gateway_svc.assembly import Recorded

SERVICE = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name
TURNS_SHARE_OF_DRAIN = 0.5
"""How much of the drain time turns may take to end by themselves; the rest is for cancelling them and sending rows."""

log = structlog.get_logger(__name__)


async def run(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT; then lets the turns end, sends their rows, and returns.

    Raises:
        SystemExit: with code 2 when a setting or a file cannot be used, with code 1 when the address cannot be had.
    """
    log.info("service.starting", **describe_settings(settings), **_describe_engines(settings))
    guard = open_guard(settings, rules_for(SERVICE, ROLES))
    answers = Answers(settings.answer_seconds)
    try:
        settings.workspace.mkdir(parents=True, exist_ok=True)
        sessions = Sessions(settings.state_dir)
        recorded = _open_recorded(settings, answers) if settings.keeps_record else None
        runners = {runner.name: runner for runner in _build_runners(settings, recorded)}
        tracing = open_tracing(wanted=settings.traces)
        this_run = Run(settings.state_dir)
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(EXIT_WRONG_SETTINGS) from None
    record_session = recorded.record_session if recorded else _no_record
    registry = new_registry()
    servers = recorded.mcp.names if recorded and recorded.mcp else ()
    own_tools = recorded.tool_names if recorded else ()
    telemetry = Telemetry(TurnMetrics(registry, {*own_tools, *CLAUDE_TOOLS}, servers), tracing)
    if recorded:
        registry.register(RecordCollector(recorded.record))
    ledger = recorded.ledger if recorded else None
    strict = settings.audit_mode == "strict"
    budgets = Budgets(settings.budgets, Spending(settings.state_dir), ledger.ask if ledger else None, strict=strict)
    capacity = Capacity(settings.max_turns, settings.max_queued_turns)
    turns = Turns(sessions, runners, settings.default_engine, record_session, telemetry, budgets, capacity)
    add_waiting_gauge(registry, lambda: turns.waiting)
    servicer = GatewayServicer(turns, sessions, answers, runners, settings.default_engine)

    async def drain() -> None:
        await turns.drain(settings.drain_seconds * TURNS_SHARE_OF_DRAIN)
        if recorded:
            await recorded.record.drain(settings.drain_seconds * (1 - TURNS_SHARE_OF_DRAIN))

    if recorded:
        recorded.record.start()
        if recorded.mcp:
            await recorded.mcp.start()
    recovery = asyncio.create_task(turns.recover())
    try:
        async with EngineCheck(settings.engines) as check:
            service = Service(
                name=SERVICE,
                add_to=partial(gateway_pb2_grpc.add_GatewayServiceServicer_to_server, servicer),
                errors=ErrorInterceptor(STATUSES, RETRY_AFTER_SECONDS),
                check=check,
                begin_drain=turns.begin_drain,
                drain=drain,
            )
            await run_service(service, settings, guard, registry)
    finally:
        recovery.cancel()
        await asyncio.wait([recovery])
        await turns.cancel_all()  # those that the drain time was too short for: their rows must still reach the spool
        for runner in runners.values():
            await runner.aclose()
        if recorded:
            if recorded.ledger:
                await recorded.ledger.aclose()
            if recorded.mcp:
                await recorded.mcp.aclose()
            await recorded.record.aclose()
        if tracing:
            await asyncio.to_thread(tracing.close)
        this_run.close()


def _open_recorded(settings: GatewaySettings, answers: Answers) -> "Recorded":
    from gateway_svc.assembly import open_recorded  # only here, so that who records nothing does not load it

    return open_recorded(settings, answers)


def _build_runners(settings: GatewaySettings, recorded: "Recorded | None") -> Iterator[Runner]:
    if recorded:
        yield from recorded.agents
    for kind in engine_kinds():
        if isinstance(kind, RunnerKind) and (chosen := settings.engines.get(kind.name)):
            yield kind.build(
                chosen,
                Surroundings(
                    settings.state_dir,
                    settings.workspace,
                    price=partial(cost_micros, None, kind.price_provider, local=False),
                    max_steps=settings.max_steps,
                    max_turn_seconds=settings.max_turn_seconds,
                    audit=recorded.claude_audit if recorded and chosen.keeps_record else None,
                ),
            )


def _describe_engines(settings: GatewaySettings) -> dict[str, str]:
    """The settings of the engines for one line in the log."""
    return {
        f"{name}_{field}": value
        for name, chosen in settings.engines.items()
        for field, value in describe_settings(chosen).items()
    }


def _no_record(state: SessionState) -> None:
    """A deployment that records nothing records no session either."""
