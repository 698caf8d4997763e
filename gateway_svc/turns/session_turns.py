"""One turn on its session, which it holds exclusively: its start, its engines and its end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

import structlog
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.conversations.session import SessionState
from gateway_svc.conversations.undisturbed import to_its_end
from gateway_svc.errors import (
    EngineBrokeOff,
    EngineNotConfigured,
    EngineRateLimited,
    EngineUnavailable,
    Stopped,
    StoreUnavailable,
)
from gateway_svc.messages import AssistantMessage, UserMessage
from gateway_svc.programs import NO_JAIL
from gateway_svc.stopping.stop import stopped
from gateway_svc.turns.account import SessionSpendings, SharedBudgets, TurnAccount
from gateway_svc.turns.budgets import Budgets, LabelBudgets
from gateway_svc.turns.kept import KeptTurn
from gateway_svc.turns.session_settings import budget
from gateway_svc.turns.sessions import Session
from gateway_svc.turns.shadows import Shadow, Shadows
from gateway_svc.turns.turn import Runner, Turn
from gateway_svc.watching.telemetry import Telemetry, TurnTelemetry
from recording.calls import Scope
from service_kit.time_slice import TimeSlice

NOTES = {
    common_pb2.SESSION_STATUS_CANCELLED: "(The turn was cancelled.)",
    common_pb2.SESSION_STATUS_FAILED: "(The turn failed before it was finished.)",
    common_pb2.SESSION_STATUS_IDLE: "(The turn was stopped at its limit.)",
    common_pb2.SESSION_STATUS_RUNNING: "(The turn was interrupted.)",
}
"""What a history says of a turn that did not finish, by the status of its session."""

GO_ON = "Go on."
"""What an engine is told when it takes over a turn from another."""

log = structlog.get_logger(__name__)


class SessionTurns:
    """Runs turns on sessions that are held for them."""

    def __init__(
        self,
        runners: Mapping[str, Runner],
        default_engine: str,
        record: Callable[[SessionState], None],
        telemetry: Telemetry,
        budgets: Budgets,
        shadows: Shadows,
        synced: Callable[[], Awaitable[object]] | None,
    ) -> None:
        """`record` receives a session's state when it is saved; `shadows` run after turns that succeeded."""
        self._synced = synced
        self._runners = runners
        self._default_engine = default_engine
        self._record = record
        self._telemetry = telemetry
        self._budgets = budgets
        self._shadows = shadows
        self._spendings = SessionSpendings()

    def runner(self, engine: str = "") -> Runner:
        """The runner of an engine, by default of the default engine.

        Raises:
            EngineNotConfigured: this deployment has no such engine.
        """
        engine = engine or self._default_engine
        if engine not in self._runners:
            configured = ", ".join(sorted(self._runners))
            raise EngineNotConfigured(
                f"engine {engine[:64]!r} is not configured here; configured: {configured}", engine
            )
        return self._runners[engine]

    def choose(self, settings: pb.SessionSettings, engine: str = "", model: str = "") -> Runner:
        """Sets the engine and the model that a request names, and returns the engine's runner.

        What the request leaves empty stays as it is in the settings, the model as long as its engine does.

        Raises:
            EngineNotConfigured: this deployment has no such engine.
        """
        kept = settings.engine or self._default_engine
        runner = self.runner(engine or kept)
        settings.model = model or (settings.model if runner.name == kept else "") or runner.default_model
        settings.engine = runner.name
        return runner

    async def run(self, session: Session, running: KeptTurn, request: pb.RunTurnRequest) -> None:
        """Runs a turn on its session, which is saved at its begin and at its end.

        Raises:
            Exception: why the turn failed.
        """
        await session.close_history(NOTES[common_pb2.SESSION_STATUS_RUNNING])  # what a crash may have left
        labels = await self._budgets.of(session.state.settings.labels)
        turn, runner, telemetry = await self._begin(session, running, request, labels)
        begin, totals = len(turn.history) - 1, turn.account.totals
        settings = session.state.settings  # UpdateSession puts others in their place while the turn runs
        running.totals, running.started = totals, time.monotonic()
        status, stop_reason, error_type = common_pb2.SESSION_STATUS_FAILED, pb.STOP_REASON_FAILED, ""
        try:
            stop_reason = await self._run_engines(runner, turn, settings)
            status = common_pb2.SESSION_STATUS_IDLE
        except asyncio.CancelledError:
            if running.stops.stop is not None:
                error_type = Stopped.__name__
                raise stopped(running.stops.stop) from None
            status, stop_reason = common_pb2.SESSION_STATUS_CANCELLED, pb.STOP_REASON_CANCELLED
            raise
        except BaseException as error:
            error_type = type(error).__name__
            raise
        finally:
            unsaved = await to_its_end(self._end(session, status))
            if unsaved and status == common_pb2.SESSION_STATUS_IDLE:
                stop_reason, error_type = pb.STOP_REASON_FAILED, type(unsaved).__name__
            telemetry.end(stop_reason, totals, error_type)
            log.info("turn.finished", engine=runner.name, requests=totals.requests, tool_calls=totals.tool_calls)
            running.stop_reason = stop_reason
            if self._synced is not None:
                await self._synced()
        if unsaved:
            raise unsaved
        if status == common_pb2.SESSION_STATUS_IDLE and settings.shadows:
            self._shadows.start(Shadow(turn, begin, budget(request)), settings.shadows)

    async def _begin(
        self, session: Session, running: KeptTurn, request: pb.RunTurnRequest, labels: LabelBudgets
    ) -> tuple[Turn, Runner, TurnTelemetry]:
        state = session.state
        runner = self.choose(state.settings, request.engine, request.model)
        model = state.settings.model
        running.stops.check(engine=runner.name, labels=dict(state.settings.labels))  # both may have changed meanwhile
        state.turns += 1
        session.append(UserMessage(request.input))
        await self.save(session, common_pb2.SESSION_STATUS_RUNNING)
        if (time_slice := TimeSlice()).is_over():  # those that were saved together go on together
            await time_slice.give_way()
        telemetry = self._telemetry.begin_turn(runner.name, state.id, running.turn_id)
        running.trace_id = telemetry.trace_id
        structlog.contextvars.bind_contextvars(trace_id=telemetry.trace_id)
        log.info("turn.started", engine=runner.name)
        spent = state.totals.known_cost_micros + state.shadow_totals.known_cost_micros
        shared = SharedBudgets(self._spendings.of(state.id, spent), labels, budget(state.settings))
        turn = Turn(
            scope=Scope(
                state.id,
                runner.name,
                model,
                running.turn_id,
                telemetry.trace_id,
                principal=running.principal,
                on_behalf_of=request.on_behalf_of,
                agent=(request.agent.name, request.agent.version),
                parent_turn_id=request.parent_turn_id,
            ),
            owner=state.owner,
            system_prompt=state.settings.system_prompt,
            history=session.history,
            append=session.append,
            kept=session.kept,
            events=running.events,
            account=TurnAccount(
                running.events.warn,
                shared,
                max_micros=budget(request),
                session_totals=state.totals,
                save=partial(_save_sums, session),
                observer=telemetry,
            ),
            labels=dict(state.settings.labels),
            max_steps=request.max_steps if request.HasField("max_steps") else None,
            contexts=session.contexts,
            stops=running.stops,
        )
        started = pb.TurnStarted(engine=runner.name, model=model, unconfined=runner.jail == NO_JAIL)
        running.events.put(pb.TurnEvent(turn_started=started))
        if session.unreadable:
            told = f"not all of the session's messages could be read: {session.unreadable}"
            turn.events.warn(pb.WARNING_CODE_HISTORY_DAMAGED, told)
        for sentence in labels.uncertain:
            turn.events.warn(pb.WARNING_CODE_BUDGET_UNCERTAIN, sentence)
        return turn, runner, telemetry

    async def _run_engines(self, runner: Runner, turn: Turn, settings: pb.SessionSettings) -> pb.StopReason.ValueType:
        """Runs a turn on its engine and, where that cannot work now, on the session's fallback.

        The turn's budgets hold on both; its scope changes with the engine.

        Raises:
            GatewayError: for the caller.
        """
        if turn.account.is_over_budget():
            return pb.STOP_REASON_MAX_COST
        try:
            return await runner.run(turn)
        except (EngineUnavailable, EngineRateLimited, EngineBrokeOff) as error:
            other = self._runners.get(settings.fallback.engine)
            if other is None:
                raise
            model = settings.fallback.model or other.default_model
            if (other.name, model) == (turn.scope.engine, turn.scope.model):
                raise
            try:
                turn.stops.check(engine=other.name)
            except Stopped:
                log.warning("turn.fallback_stopped", engine=other.name)
                raise error from None
            log.warning("turn.engine_changed", engine=other.name, model=model, error=type(error).__name__)
            turn.scope = replace(turn.scope, engine=other.name, model=model)
            changed = pb.EngineChanged(engine=other.name, model=model, reason=str(error))
            turn.events.put(pb.TurnEvent(engine_changed=changed))
        if isinstance(turn.history[-1], AssistantMessage):
            turn.append(UserMessage(GO_ON))
        return pb.STOP_REASON_MAX_COST if turn.account.is_over_budget() else await other.run(turn)

    async def _end(self, session: Session, status: common_pb2.SessionStatus.ValueType) -> StoreUnavailable | None:
        """Completes and saves the session. Returns what hindered that, which must not hide how the turn ended."""
        try:
            await session.close_history(NOTES[status])
            await self.save(session, status)
        except StoreUnavailable as error:
            log.warning("turn.end_unsaved", reason=str(error))
            return error
        return None

    async def save(self, session: Session, status: common_pb2.SessionStatus.ValueType) -> None:
        """Keeps the session's state, and puts its row on the record.

        Raises:
            StoreUnavailable: it cannot be kept.
        """
        session.state.status = status
        await session.save()
        self._record(session.state)


def _save_sums(session: Session) -> None:
    try:
        session.note_sums()
    except OSError as error:  # a full disk: the turn's next message will fail with it
        log.warning("turn.sums_unsaved", reason=str(error))
