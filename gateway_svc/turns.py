"""Turns under way: each runs on its session, can be cancelled from elsewhere, and leaves the session ready for more."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.budgets import Budget, Budgets, LabelBudgets
from gateway_svc.choices import check_choices, choose
from gateway_svc.errors import (
    Busy,
    EngineNotConfigured,
    InvalidRequest,
    NotFound,
    Overloaded,
    ShuttingDown,
)
from gateway_svc.fallback import run_engines
from gateway_svc.messages import Scope, UserMessage
from gateway_svc.session_spending import SessionSpending, SessionSpendings
from gateway_svc.sessions import Session, Sessions, SessionState
from gateway_svc.shadows import Shadow, Shadows
from gateway_svc.turn import Runner, Totals, Turn, TurnEvents
from gateway_svc.watch import TurnWatch, Watch
from service_kit.trace_context import CALLERS_TRACE

MAX_INPUT_BYTES = 2**20
NOTES = {
    audit_pb2.SESSION_STATUS_CANCELLED: "(The turn was cancelled.)",
    audit_pb2.SESSION_STATUS_FAILED: "(The turn failed before it was finished.)",
    audit_pb2.SESSION_STATUS_IDLE: "(The turn was stopped at its limit.)",
    audit_pb2.SESSION_STATUS_RUNNING: "(The turn was interrupted.)",
}
"""What a model reads in a history in which a turn ended in its middle, by the status of its session."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """How many turns a gateway takes."""

    running: int = 1000
    queued: int = 1000
    """Turns that may wait for others to end: of the gateway, or of their session."""


class Turns:
    """Runs turns: the ones of a session one after another, those of different sessions side by side."""

    def __init__(
        self,
        sessions: Sessions,
        runners: Mapping[str, Runner],
        default_engine: str,
        record: Callable[[audit_pb2.SessionRow], None],
        watch: Watch | None = None,
        budgets: Budgets | None = None,
        room: "Room | None" = None,
    ) -> None:
        """`record` is given a session's row at the begin and the end of each turn, and must not raise."""
        self._sessions = sessions
        self._runners = runners
        self._default_engine = default_engine
        self._record = record
        self._watch = watch or Watch()
        self._budgets = budgets or Budgets()
        self._shadows = Shadows(sessions, runners)
        self._spendings = SessionSpendings()
        self._room = room or Room()
        self._places = asyncio.Semaphore(self._room.running)
        self._running: dict[str, _Running] = {}
        self._draining = False

    def create_session(
        self, request: pb.CreateSessionRequest | pb.RunTurnRequest, owner: str | None = None
    ) -> SessionState:
        """Makes a session, which only the caller named owner and administrators see; None: everybody does.

        Raises:
            EngineNotConfigured, InvalidRequest: what the request names cannot be had.
        """
        runner = self.runner(request.engine or self._default_engine)
        check_choices(request, self.runner)
        state = SessionState(
            id="",
            engine=runner.name,
            model=request.model or runner.default_model,
            system_prompt=request.system_prompt,
            owner=owner or "",
        )
        state.add_labels(request.labels)
        choose(state, request)
        self._sessions.create(state)
        self._record(state.to_row())
        return state

    def runner(self, engine: str) -> Runner:
        """The runner of an engine.

        Raises:
            EngineNotConfigured: this deployment has no such engine.
        """
        if engine not in self._runners:
            configured = ", ".join(sorted(self._runners))
            raise EngineNotConfigured(f"engine {engine[:64]!r} is not configured here; configured: {configured}")
        return self._runners[engine]

    async def run(self, request: pb.RunTurnRequest, caller: str | None = None) -> AsyncGenerator[pb.TurnEvent, None]:
        """Runs a turn and yields its events. Closing the generator, or cancelling its consumer, cancels the turn.

        `caller` owns the session that begins with it, and goes on with its own alone; None: with any.

        Raises:
            GatewayError: for the caller.
        """
        if self._draining:
            raise ShuttingDown("the gateway is shutting down and begins no turn")
        if len(self._running) >= self._room.running + self._room.queued:
            raise Overloaded(f"{len(self._running)} turns run or wait here already: come again later")
        self._check(request)
        if request.session_id and caller is not None:
            self._sessions.get(request.session_id, caller)
        session_id = request.session_id or self.create_session(request, caller).id
        running = _Running(session_id)
        # Here, so that the lines of the turn and those of its RPC have them; both end with their task's context.
        structlog.contextvars.bind_contextvars(session_id=session_id, turn_id=running.turn_id)
        running.task = asyncio.create_task(self._run(running, request))
        self._running[running.turn_id] = running
        running.task.add_done_callback(lambda _: self._end(running))
        try:
            async for event in running.events.stream():
                yield event
            structlog.contextvars.bind_contextvars(trace_id=running.trace_id)
            if not running.task.cancelled():
                running.task.result()
        finally:
            if not running.task.done():
                running.task.cancel()
                await asyncio.wait([running.task])

    def cancel(self, turn_id: str, session_id: str, viewer: str | None = None) -> str:
        """Cancels a turn by its id, or the running one of a session that viewer may know of, and returns its id.

        Raises:
            NotFound: no such turn is running or waiting.
        """
        for running in self._running.values():
            meant = running.turn_id == turn_id or (not turn_id and running.session_id == session_id and running.begun)
            if meant and (viewer is None or self._sessions.get(running.session_id).is_visible_to(viewer)):
                running.ask_to_cancel()
                return running.turn_id
        raise NotFound(
            f"no turn {turn_id!r} is running or waiting" if turn_id else "no turn of this session is running"
        )

    async def recover(self) -> None:
        """Ends the sessions that died with their process, so that the ledger does not show them as running for ever."""
        for session_id in await asyncio.to_thread(self._sessions.left_running):
            with suppress(NotFound, Busy):  # gone, or run by another gateway
                async with self._sessions.hold(session_id) as session:
                    if session.state.status == audit_pb2.SESSION_STATUS_RUNNING:
                        session.close_history(NOTES[audit_pb2.SESSION_STATUS_RUNNING])
                        self._save(session, audit_pb2.SESSION_STATUS_FAILED)

    async def cancel_all(self) -> None:
        """Cancels all turns and waits for their end."""
        turns = list(self._running.values())
        for running in turns:
            running.ask_to_cancel()
        if turns:
            await asyncio.wait([running.task for running in turns])
        await self._shadows.cancel_all()

    @property
    def waiting(self) -> int:
        """How many turns wait for their beginning."""
        return sum(not running.begun for running in list(self._running.values()))

    async def drain(self, grace_seconds: float) -> None:
        """Begins no turn any more, lets running ones end by themselves for grace_seconds, and cancels the rest."""
        self._draining = True
        if turns := [running.task for running in self._running.values()]:
            log.info("turns.draining", turns=len(turns), grace_seconds=grace_seconds)
            await asyncio.wait(turns, timeout=grace_seconds)
        await self.cancel_all()

    def _check(self, request: pb.RunTurnRequest) -> None:
        if not request.input.strip():
            raise InvalidRequest("input is empty: say what the agent should do", "input")
        if len(request.input.encode()) > MAX_INPUT_BYTES:
            raise InvalidRequest(f"input is longer than {MAX_INPUT_BYTES} bytes", "input")
        if request.max_steps < 0:
            raise InvalidRequest("max_steps is negative: leave it 0 for the gateway's own limit", "max_steps")
        if request.engine:
            self.runner(request.engine)
        check_choices(request, self.runner)

    async def _run(self, running: "_Running", request: pb.RunTurnRequest) -> None:
        # Its session first: a turn that waits for another of its session takes nobody's place.
        async with self._sessions.hold(running.session_id) as session, self._places:
            running.begun = True
            await self._run_on(session, running, request)

    def _end(self, running: "_Running") -> None:
        """Called when the task of a turn is done, even if it was cancelled before its first line."""
        del self._running[running.turn_id]
        if running.cancel_asked and not running.begun:
            running.events.put(_turn_finished(pb.STOP_REASON_CANCELLED, Totals(), 0))
        running.events.close()
        if not running.task.cancelled() and (error := running.task.exception()):
            log.info("turn.failed", trace_id=running.trace_id, error=type(error).__name__)

    async def _run_on(self, session: Session, running: "_Running", request: pb.RunTurnRequest) -> None:
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
            self._save(session, status)
            watch.end(stop_reason, turn.totals[0], error_type)
            log.info(
                "turn.finished", engine=runner.name, steps=turn.totals[0].steps, tool_calls=turn.totals[0].tool_calls
            )
        running.events.put(_turn_finished(stop_reason, turn.totals[0], round((time.monotonic() - started) * 1000)))
        if status == audit_pb2.SESSION_STATUS_IDLE and session.state.shadows and not self._draining:
            budgets = _budgets(session.state, spending, labels)
            shadow = Shadow(turn, begin, request.max_cost_micros, budgets, _spend(spending, labels))
            self._shadows.start(shadow, session.state.shadows)

    def _begin(
        self,
        session: Session,
        running: "_Running",
        request: pb.RunTurnRequest,
        labels: LabelBudgets,
        spending: SessionSpending,
    ) -> tuple[Turn, Runner, TurnWatch]:
        state = session.state
        runner = self.runner(request.engine or state.engine or self._default_engine)
        model = request.model or (state.model if runner.name == state.engine else "") or runner.default_model
        state.add_labels(request.labels)
        choose(state, request)
        state.engine, state.model = runner.name, model
        state.system_prompt = request.system_prompt or state.system_prompt
        state.turns += 1
        self._save(session, audit_pb2.SESSION_STATUS_RUNNING)
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

    def _save(self, session: Session, status: audit_pb2.SessionStatus.ValueType) -> None:
        session.state.status = status
        session.save()
        self._record(session.state.to_row())


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


class _Running:
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
        self.cancel_asked = True
        self.task.cancel()


def _turn_finished(stop_reason: pb.StopReason.ValueType, totals: Totals, duration_ms: int) -> pb.TurnEvent:
    return pb.TurnEvent(
        turn_finished=pb.TurnFinished(
            stop_reason=stop_reason,
            steps=totals.steps,
            tool_calls=totals.tool_calls,
            usage=totals.to_usage(),
            duration_ms=duration_ms,
        )
    )
