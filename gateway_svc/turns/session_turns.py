"""One turn on its session, which nobody else has meanwhile: its begin, its engines and its end."""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.errors import EngineNotConfigured
from gateway_svc.messages import UserMessage
from gateway_svc.turns.budgets import Budget, Budgets, LabelBudgets
from gateway_svc.turns.choices import choose
from gateway_svc.turns.fallback import run_engines
from gateway_svc.turns.session_spending import SessionSpending, SessionSpendings
from gateway_svc.turns.sessions import Session, SessionState
from gateway_svc.turns.shadows import Shadow, Shadows
from gateway_svc.turns.turn import Runner, Totals, Turn, TurnEvents
from gateway_svc.watching.watch import TurnWatch, Watch
from recording.calls import Scope
from service_kit.observing.trace_context import CALLERS_TRACE

NOTES = {
    audit_pb2.SESSION_STATUS_CANCELLED: "(The turn was cancelled.)",
    audit_pb2.SESSION_STATUS_FAILED: "(The turn failed before it was finished.)",
    audit_pb2.SESSION_STATUS_IDLE: "(The turn was stopped at its limit.)",
    audit_pb2.SESSION_STATUS_RUNNING: "(The turn was interrupted.)",
}
"""What a model reads in a history in which a turn ended in its middle, by the status of its session."""

log = structlog.get_logger(__name__)


class Running:
    """A turn that runs or waits for its session."""

    task: asyncio.Task[None]

    def __init__(self, session_id: str) -> None:
        self.turn_id = str(uuid7())
        self.session_id = session_id
        self.events = TurnEvents()
        self.trace_id = CALLERS_TRACE.get().trace_id
        self.begun = False
        self.cancel_asked = False
        """Whether it was cancelled by CancelTurn or by the gateway's end, so that its client still hears of it."""

    def ask_to_cancel(self) -> None:
        """Cancels it so that its client hears of it."""
        self.cancel_asked = True
        self.task.cancel()


class SessionTurns:
    """Runs turns on sessions that are held for them."""

    def __init__(
        self,
        runners: Mapping[str, Runner],
        default_engine: str,
        record: Callable[[SessionState], None],
        watch: Watch,
        budgets: Budgets,
        shadows: Shadows,
    ) -> None:
        """See Turns; `shadows` are started behind turns that have ended well."""
        self._runners = runners
        self._default_engine = default_engine
        self._record = record
        self._watch = watch
        self._budgets = budgets
        self._shadows = shadows
        self._spendings = SessionSpendings()

    def runner(self, engine: str = "") -> Runner:
        """The runner of an engine; of the default one where none is named.

        Raises:
            EngineNotConfigured: this deployment has no such engine.
        """
        engine = engine or self._default_engine
        if engine not in self._runners:
            configured = ", ".join(sorted(self._runners))
            raise EngineNotConfigured(f"engine {engine[:64]!r} is not configured here; configured: {configured}")
        return self._runners[engine]

    async def run(self, session: Session, running: Running, request: pb.RunTurnRequest) -> None:
        """Runs a turn on its session, which is saved at its begin and at its end."""
        session.close_history(NOTES[audit_pb2.SESSION_STATUS_RUNNING])  # what a crash may have left
        labels = await self._budgets.of(session.state.labels | dict(request.labels))
        spending = self._spendings.of(session.state)
        turn, runner, watch = self._begin(session, running, request, labels, spending)
        begin = len(turn.history) - 1
        status, stop_reason, error_type = audit_pb2.SESSION_STATUS_FAILED, pb.STOP_REASON_UNSPECIFIED, ""
        started = time.monotonic()
        try:
            stop_reason = await run_engines(self._runners, runner, turn, session.state.fallback)
            status = audit_pb2.SESSION_STATUS_IDLE
        except asyncio.CancelledError:
            status, stop_reason = audit_pb2.SESSION_STATUS_CANCELLED, pb.STOP_REASON_CANCELLED
            if not running.cancel_asked:
                raise
        except BaseException as error:
            error_type = type(error).__name__
            raise
        finally:
            session.close_history(NOTES[status])
            self.save(session, status)
            watch.end(stop_reason, turn.totals[0], error_type)
            log.info(
                "turn.finished", engine=runner.name, steps=turn.totals[0].steps, tool_calls=turn.totals[0].tool_calls
            )
        running.events.put(turn_finished(stop_reason, turn.totals[0], round((time.monotonic() - started) * 1000)))
        if status == audit_pb2.SESSION_STATUS_IDLE and session.state.shadows:
            budgets = _budgets(session.state, spending, labels)
            shadow = Shadow(turn, begin, request.max_cost_micros, budgets, _spend(spending, labels))
            self._shadows.start(shadow, session.state.shadows)

    def _begin(
        self,
        session: Session,
        running: Running,
        request: pb.RunTurnRequest,
        labels: LabelBudgets,
        spending: SessionSpending,
    ) -> tuple[Turn, Runner, TurnWatch]:
        state = session.state
        runner = self.runner(request.engine or state.engine)
        model = request.model or (state.model if runner.name == state.engine else "") or runner.default_model
        state.add_labels(request.labels)
        choose(state, request)
        state.engine, state.model = runner.name, model
        state.system_prompt = request.system_prompt or state.system_prompt
        state.turns += 1
        self.save(session, audit_pb2.SESSION_STATUS_RUNNING)
        session.append(UserMessage(request.input))
        watch = self._watch.begin_turn(runner.name, state.id, running.turn_id)
        running.trace_id = watch.trace_id
        structlog.contextvars.bind_contextvars(trace_id=watch.trace_id)
        log.info("turn.started", engine=runner.name)
        own = Totals()
        budgets = _budgets(state, spending, labels)
        if request.max_cost_micros:
            budgets.insert(0, Budget("this turn", request.max_cost_micros, lambda: own.cost_micros))
        turn = Turn(
            scope=Scope(state.id, runner.name, model, running.turn_id, watch.trace_id),
            system_prompt=state.system_prompt,
            history=session.history,
            append=session.append,
            events=running.events,
            max_steps=request.max_steps or None,
            budgets=budgets,
            spend=_spend(spending, labels, session),
            totals=[own, state.totals],
            observer=watch,
        )
        started = pb.TurnStarted(session_id=state.id, turn_id=running.turn_id, engine=runner.name, model=model)
        running.events.put(pb.TurnEvent(turn_started=started))
        for sentence in labels.uncertain:
            turn.warn(pb.WARNING_CODE_BUDGET_UNCERTAIN, sentence)
        return turn, runner, watch

    def save(self, session: Session, status: audit_pb2.SessionStatus.ValueType) -> None:
        """Writes the session's state, and puts its row on the record."""
        session.state.status = status
        session.save()
        self._record(session.state)


def _budgets(state: SessionState, spending: SessionSpending, labels: LabelBudgets) -> list[Budget]:
    own = [spending.budget(state.max_cost_micros)] if state.max_cost_micros else []
    return [*own, *labels.budgets]


def _spend(spending: SessionSpending, labels: LabelBudgets, session: Session | None = None) -> Callable[[int], None]:
    """What a request's cost is told to. A session that is given is saved, so that a crash forgets no cost."""

    def spend(micros: int) -> None:
        spending.add(micros)
        labels.add(micros)
        if session is not None and micros:
            try:
                session.save()
            except OSError as error:  # a full disk: the turn's next message will tell
                log.warning("turn.cost_unsaved", reason=str(error))

    return spend


def turn_finished(stop_reason: pb.StopReason.ValueType, totals: Totals, duration_ms: int) -> pb.TurnEvent:
    """The last event of a turn."""
    return pb.TurnEvent(
        turn_finished=pb.TurnFinished(
            stop_reason=stop_reason,
            steps=totals.steps,
            tool_calls=totals.tool_calls,
            usage=totals.to_usage(),
            duration_ms=duration_ms,
        )
    )
