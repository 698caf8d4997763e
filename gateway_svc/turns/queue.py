"""Runs turns: each on its session, cancellable from elsewhere, and leaving the session ready for the next."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import (
    Busy,
    InvalidRequest,
    NotFound,
    Overloaded,
    ShuttingDown,
)
from gateway_svc.turns.account import Totals
from gateway_svc.turns.budgets import Budgets
from gateway_svc.turns.events import turn_finished
from gateway_svc.turns.session_turns import NOTES, Running, SessionTurns
from gateway_svc.turns.sessions import Sessions, SessionState
from gateway_svc.turns.shadows import Shadows
from gateway_svc.turns.turn import Runner, ShadowRunner
from gateway_svc.watching.telemetry import Telemetry

MAX_INPUT_BYTES = 2**20
MAX_MODEL_CHARACTERS = 2**14
MAX_SHADOWS_PER_SESSION = 4
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many turns a gateway accepts."""

    running: int = 1000
    queued: int = 1000
    """How many turns may wait for a slot or for their session."""


class Turns:
    """Runs turns: those of one session one after another, those of different sessions in parallel."""

    def __init__(
        self,
        sessions: Sessions,
        runners: Mapping[str, Runner],
        default_engine: str,
        record: Callable[[SessionState], None],
        telemetry: Telemetry | None = None,
        budgets: Budgets | None = None,
        capacity: Capacity | None = None,
        synced: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`record` receives a session's state at the start and the end of each turn, and must not raise.

        `synced` is awaited before a client hears that its turn has ended: see AuditLogger.synced.
        """
        self._sessions = sessions
        self._record = record
        self._shadows = Shadows(sessions, runners)
        self._on_session = SessionTurns(
            runners, default_engine, record, telemetry or Telemetry(), budgets or Budgets(), self._shadows, synced
        )
        self._capacity = capacity or Capacity()
        self._places = asyncio.Semaphore(self._capacity.running)
        self._running: dict[str, Running] = {}
        self._draining = False

    def create_session(
        self, request: pb.CreateSessionRequest | pb.RunTurnRequest, owner: str | None = None
    ) -> SessionState:
        """Creates a session, visible to the caller `owner` and to administrators; None: to everybody.

        Raises:
            EngineNotConfigured, InvalidRequest: the request's options are not available here.
        """
        runner = self._on_session.runner(request.engine)
        self._check_options(request)
        state = SessionState(
            id="",
            engine=runner.name,
            model=request.model or runner.default_model,
            system_prompt=request.system_prompt,
            owner=owner or "",
        )
        state.add_labels(request.labels)
        state.apply_options(request)
        self._sessions.create(state)
        self._record(state)
        return state

    async def run(self, request: pb.RunTurnRequest, caller: str | None = None) -> AsyncGenerator[pb.TurnEvent, None]:
        """Runs a turn and yields its events. Closing the generator, or cancelling its consumer, cancels the turn.

        `caller` owns a session that starts with this turn, and may continue only its own; None: any.

        Raises:
            GatewayError: for the caller.
        """
        if self._draining:
            raise ShuttingDown("the gateway is shutting down and begins no turn")
        if len(self._running) >= self._capacity.running + self._capacity.queued:
            raise Overloaded(f"{len(self._running)} turns run or wait here already: come again later")
        self._check(request)
        if request.session_id and caller is not None:
            self._sessions.get(request.session_id, caller)
        session_id = request.session_id or self.create_session(request, caller).id
        running = Running(session_id)
        # Here, so that log lines of both the turn and its RPC have them; both end with their task's context.
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
        """Cancels a turn by its id, or the running turn of a session that viewer may see, and returns its id.

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
        """Ends the sessions whose process died, so that the ledger does not show them as running for ever."""
        for session_id in await asyncio.to_thread(self._sessions.left_running):
            with suppress(NotFound, Busy):  # gone, or run by another gateway
                async with self._sessions.hold(session_id) as session:
                    if session.state.status == audit_pb2.SESSION_STATUS_RUNNING:
                        session.close_history(NOTES[audit_pb2.SESSION_STATUS_RUNNING])
                        self._on_session.save(session, audit_pb2.SESSION_STATUS_FAILED)

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
        """How many turns have not started yet."""
        return sum(not running.begun for running in list(self._running.values()))

    def begin_drain(self) -> None:
        """Starts no more turns or shadows."""
        self._draining = True
        self._shadows.close()

    async def drain(self, grace_seconds: float) -> None:
        """Starts no more, gives running turns grace_seconds to end, and cancels the rest."""
        self.begin_drain()
        if turns := [running.task for running in self._running.values()]:
            log.info("turns.draining", turns=len(turns), grace_seconds=grace_seconds)
            await asyncio.wait(turns, timeout=grace_seconds)
        await self.cancel_all()

    def _check(self, request: pb.RunTurnRequest) -> None:
        if not request.input.strip():
            raise InvalidRequest("input is empty: say what the agent should do", "input")
        _check_length(request.input, "input")
        if request.max_steps < 0:
            raise InvalidRequest("max_steps is negative: leave it 0 for the gateway's own limit", "max_steps")
        if request.engine:
            self._on_session.runner(request.engine)
        self._check_options(request)

    def _check_options(self, request: pb.CreateSessionRequest | pb.RunTurnRequest) -> None:
        """Checks the options that a request sets for its session.

        Raises:
            EngineNotConfigured, InvalidRequest: an option is not available here.
        """
        if len(request.shadow.engines) > MAX_SHADOWS_PER_SESSION:
            raise InvalidRequest(f"shadow: a session has at most {MAX_SHADOWS_PER_SESSION} shadows", "shadow")
        _check_length(request.system_prompt, "system_prompt")
        for name in (request.model, request.fallback.model, *(choice.model for choice in request.shadow.engines)):
            if len(name) > MAX_MODEL_CHARACTERS:
                raise InvalidRequest(f"a model's name is longer than {MAX_MODEL_CHARACTERS} characters", "model")
        for budget in ("max_cost_micros", "session_max_cost_micros"):
            if getattr(request, budget, 0) < 0:
                raise InvalidRequest(f"{budget} is negative: leave it 0 for none", budget)
        if request.fallback.engine:
            self._on_session.runner(request.fallback.engine)
        for choice in request.shadow.engines:
            if not isinstance(self._on_session.runner(choice.engine), ShadowRunner):
                raise InvalidRequest(
                    f"engine {choice.engine} brings its own tools, which cannot be kept from running", "shadow.engines"
                )

    async def _run(self, running: Running, request: pb.RunTurnRequest) -> None:
        # The session first: a turn that waits for another turn of its session holds no slot.
        async with self._sessions.hold(running.session_id) as session, self._places:
            running.begun = True
            await self._on_session.run(session, running, request)

    def _end(self, running: Running) -> None:
        """Called when a turn's task is done, even if it was cancelled before it started."""
        del self._running[running.turn_id]
        if running.cancel_asked and not running.begun:
            running.events.put(turn_finished(pb.STOP_REASON_CANCELLED, Totals(), 0))
        running.events.close()
        if not running.task.cancelled() and (error := running.task.exception()):
            log.info("turn.failed", trace_id=running.trace_id, error=type(error).__name__)


def _check_length(text: str, field: str) -> None:
    if len(text.encode()) > MAX_INPUT_BYTES:
        raise InvalidRequest(f"{field} is longer than {MAX_INPUT_BYTES} bytes", field)
