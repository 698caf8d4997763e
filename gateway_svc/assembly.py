"""The parts that a deployment has, by its settings. Nowhere else is asked whether something is configured.

A deployment that records nothing must not load the record: what needs it is imported where it is built.
"""

import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry

from gateway_svc.approvals import ApprovalServicer
from gateway_svc.conversations.home import open_home, read_session_keys
from gateway_svc.conversations.protocol import Conversations
from gateway_svc.conversations.retention import Retention
from gateway_svc.conversations.session import SessionState
from gateway_svc.engines.claude.calls import TOOLS as CLAUDE_TOOLS
from gateway_svc.engines.claude.failures import ENGINE as CLAUDE
from gateway_svc.engines.claude.memory import Memory
from gateway_svc.engines.kinds import EngineKind, RunnerContext, RunnerKind, engine_kinds
from gateway_svc.errors import SettingsError
from gateway_svc.gateway import Audited, Gateway
from gateway_svc.loop.answers import Answers
from gateway_svc.marks import Run
from gateway_svc.servicer import GatewayServicer, status_of
from gateway_svc.settings import GatewaySettings
from gateway_svc.stopping.service import ControlServicer
from gateway_svc.stopping.stop import is_known
from gateway_svc.stopping.stops import Others, Stops, record_nothing
from gateway_svc.turns.budgets import Budgets, Spending
from gateway_svc.turns.queue import Capacity, Turns
from gateway_svc.turns.requests import Requests
from gateway_svc.turns.sessions import Sessions
from gateway_svc.turns.turn import Runner
from gateway_svc.watching.metrics import McpCollector, StopsCollector, TurnMetrics, add_waiting_gauge
from gateway_svc.watching.readiness import EngineCheck
from gateway_svc.watching.telemetry import Telemetry
from gateway_svc.watching.tracing import open_tracing
from service_kit.pricing import context_tokens, cost_micros
from service_kit.settings import name_variable

if TYPE_CHECKING:
    from gateway_svc.loop.agent import Agent
    from gateway_svc.tools.files import Files
    from gateway_svc.tools.toolbox import Toolbox
    from gateway_svc.workers.peers import Peers
    from gateway_svc.workers.worker import Worker
    from recording.record import Record

log = structlog.get_logger(__name__)

SECRET_VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN")


def assemble(settings: GatewaySettings, registry: CollectorRegistry, peers: "Peers | None" = None) -> Gateway:
    """Builds what settings ask for; its metrics go into registry. peers: the other workers, where there are any.

    Raises:
        SettingsError: it cannot be had as it is set.
        OSError: the state directory or the workspace cannot be used.
    """
    if settings.approval_by_others and settings.tokens_file is None:
        raise SettingsError("GATEWAY_APPROVAL_BY_OTHERS needs GATEWAY_TOKENS_FILE: without names nobody is another")
    (settings.state_dir / "workspace").mkdir(parents=True, exist_ok=True)
    conversations = open_conversations(settings)
    worker, answers = peers.worker if peers else None, Answers(settings.answer_seconds)
    sessions = Sessions(conversations, worker.is_home) if worker else Sessions(conversations)
    audited = open_audited(settings, answers) if settings.keeps_record else None
    runners = {runner.name: runner for runner in _build_runners(settings, audited)}
    tracing = open_tracing(wanted=settings.traces)
    own_tools = audited.tool_names if audited else ()
    servers = audited.mcp.names if audited and audited.mcp else ()
    metrics = TurnMetrics(registry, {*own_tools, *CLAUDE_TOOLS}, servers)
    if audited:
        from service_kit.producing.metrics import RecordCollector

        registry.register(RecordCollector(audited.record))
    if audited and audited.mcp:
        registry.register(McpCollector(audited.mcp.states))
    spending = conversations.spending or Spending(settings.state_dir)
    ask = audited.ledger.ask if audited and audited.ledger else None
    others: Others | None = peers
    if conversations.calls is not None:
        from gateway_svc.replicas import Replicas

        others = replicas = Replicas(conversations.calls)
    record_control = audited.record_control if audited else record_nothing
    stops = Stops(settings.state_dir, record_control, others, conversations.stops)
    tools = {*own_tools, *(CLAUDE_TOOLS if CLAUDE in runners else ())}
    control = ControlServicer(stops, partial(is_known, engines=runners, tools=tools, servers=servers))
    registry.register(StopsCollector(stops))
    turns = Turns(
        sessions,
        runners,
        settings.default_engine,
        audited.record_session if audited else _record_nothing,
        status_of,
        Requests(settings.state_dir),
        Telemetry(metrics, tracing),
        Budgets(settings.budgets, spending, ask, strict=settings.audit_mode == "strict"),
        _capacity(settings, worker),
        audited.synced if audited else None,
        Memory(settings.state_dir / "claude").forget,
        stops,
        conversations.requests,
    )
    retention = None
    if settings.session_retention_days and (worker is None or worker.slot == 0):  # one of them is enough
        notes = settings.state_dir / "retention.json"
        retention = Retention(conversations, turns.sessions.delete, settings.session_retention_days, notes)
    add_waiting_gauge(registry, lambda: turns.waiting)
    servicer = GatewayServicer(turns, sessions, runners, settings.default_engine)
    approvals, check = ApprovalServicer(answers, by_others=settings.approval_by_others), EngineCheck(settings.engines)
    run = Run(settings.state_dir)
    if conversations.calls is not None:
        replicas.answer_for(servicer, approvals, stops)
    return Gateway(
        settings,
        conversations,
        turns,
        servicer,
        approvals,
        control,
        stops,
        runners,
        check,
        audited,
        tracing,
        run,
        retention,
    )


def open_conversations(settings: GatewaySettings) -> Conversations:
    """The home of conversations that settings name.

    Raises:
        SettingsError: the database is not what is needed.
        OSError: the state directory cannot be used.
    """
    return open_home(
        settings.state_dir,
        settings.sessions.get_secret_value() if settings.sessions else None,
        read_session_keys(settings.sessions_key_file),
        synced=settings.conversations_sync == "turns",
        memory_bytes=settings.conversations_memory_bytes,
    )


def _capacity(settings: GatewaySettings, worker: "Worker | None") -> Capacity:
    numbers = settings.max_turns, settings.max_queued_turns, settings.max_prompt_bytes
    if worker is None:
        return Capacity(*numbers)
    from gateway_svc.workers.counts import SharedCount, SharedPlaces
    from gateway_svc.workers.table import Field

    running = SharedPlaces(SharedCount(worker.table, Field.RUNNING), settings.max_turns)
    return Capacity(*numbers, SharedCount(worker.table, Field.TURNS), running)


def open_audited(settings: GatewaySettings, answers: Answers) -> Audited:
    """Builds the tools and the record once, and an agent over each HTTP engine that is configured.

    Raises:
        SettingsError: the tools, or the files for the audit service, cannot be had as they are set.
        OSError: the state directory cannot be used.
    """
    from onrecord.audit.v1 import audit_pb2

    from gateway_svc.engines.claude import ClaudeAudit
    from gateway_svc.tools.files import Files
    from gateway_svc.toolset import open_tools
    from gateway_svc.turns.ledger_spending import LedgerSpending
    from recording import redact
    from recording.channel.watched import WrongFile
    from recording.logger import safe_audit, safe_intend, safe_synced
    from recording.record import open_record
    from recording.rows import close_call, control_row, cost_row, decide, open_call
    from service_kit.producing.target import WrongTarget, open_target

    redact.protect(_secrets(settings))
    toolset = open_tools(settings)
    files = Files(settings.workspace)
    try:
        target = open_target(settings)
    except WrongTarget as error:
        raise SettingsError(str(error)) from None
    try:
        record = open_record(
            settings.state_dir,
            target,
            mode=settings.audit_mode,
            sync=settings.spool_sync,
            sync_interval_ms=settings.spool_sync_interval_ms,
            max_bytes=settings.spool_max_bytes,
            keep_acked_bytes=settings.spool_keep_acked_bytes,
            witness_seconds=settings.witness_seconds,
            log_key=settings.audit_log_key,
            args_key_file=settings.args_key_file,
        )
    except WrongFile as error:
        raise SettingsError(name_variable(settings, error)) from None
    if toolset.rules and settings.rules_file:
        answers.policy_digest = toolset.rules.digest
        loaded = partial(control_row, audit_pb2.CONTROL_KIND_RULES_LOADED, scope=settings.rules_file.name)
        toolset.rules.tell(lambda digest: safe_audit(record.logger, loaded(policy_digest=digest)))

    async def record_control(kind: audit_pb2.ControlKind.ValueType, **fields: str) -> None:
        safe_audit(record.logger, control_row(kind, **fields))
        await safe_synced(record.logger)

    agents = list(_build_agents(settings, toolset.toolbox, files, record, answers))
    claude_audit = ClaudeAudit(
        partial(open_call, key=record.args_key),
        decide,
        close_call,
        cost_row,
        partial(safe_intend, record.logger),
        partial(safe_synced, record.logger),
        partial(safe_audit, record.logger),
    )
    return Audited(
        agents,
        record,
        claude_audit,
        lambda state: safe_audit(record.logger, state.to_row()),
        partial(safe_synced, record.logger),
        record_control,
        LedgerSpending(target, settings.budgets_producers) if settings.budgets_from_ledger else None,
        toolset.mcp,
        toolset.toolbox.names,
        toolset.rules,
    )


def _build_runners(settings: GatewaySettings, audited: Audited | None) -> Iterator[Runner]:
    if audited:
        yield from audited.agents
    for kind in engine_kinds():
        if isinstance(kind, RunnerKind) and (chosen := settings.engines.get(kind.name)):
            if settings.rules_file:
                log.warning("rules.not_asked", engine=kind.name, hint="it decides on its tools by its own permissions")
            yield kind.build(
                chosen,
                RunnerContext(
                    settings.state_dir,
                    settings.workspace,
                    price=partial(cost_micros, None, kind.price_provider, local=False),
                    max_steps=settings.max_steps,
                    max_turn_seconds=settings.max_turn_seconds,
                    audit=audited.claude_audit if audited and chosen.keeps_record else None,
                ),
            )


def _build_agents(
    settings: GatewaySettings, toolbox: "Toolbox", files: "Files", record: "Record", answers: Answers
) -> Iterator["Agent"]:
    """The gateway's own loop over each model server that is configured."""
    from gateway_svc.loop.agent import Agent, Limits

    limits = Limits(settings.max_steps, settings.max_turn_seconds, settings.max_parallel_tools)
    for kind in engine_kinds():
        if not isinstance(kind, EngineKind) or (chosen := settings.engines.get(kind.name)) is None:
            continue
        yield Agent(
            kind.build(chosen),
            toolbox,
            files,
            record.logger,
            price=partial(cost_micros, chosen.url, kind.price_provider, local=chosen.is_local),
            context_tokens=partial(context_tokens, chosen.url, chosen.context_limit),
            cuts_silently=chosen.is_local,
            answers=answers,
            limits=limits,
            args_key=record.args_key,
        )


def _secrets(settings: GatewaySettings) -> list[str]:
    """The keys that this process holds: whatever a model makes of them, they are not recorded."""
    keys = [os.environ.get(name, "") for name in SECRET_VARIABLES]
    for engine in settings.engines.values():
        keys += engine.secrets
    return [key for key in keys if key]


def _record_nothing(state: SessionState) -> None:
    """A deployment that records nothing records no session either."""
