"""Runs turns: each on its session, cancellable from elsewhere, and leaving the session ready for the next."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog
from google.rpc import status_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import (
    Busy,
    InvalidRequest,
    NotFound,
    Overloaded,
    ShuttingDown,
)
from gateway_svc.turns.budgets import Budgets
from gateway_svc.turns.session_settings import (
    check_budget,
    check_length,
    check_model,
    check_settings,
    masked,
    updated,
)
from gateway_svc.turns.session_turns import NOTES, Running, SessionTurns
from gateway_svc.turns.sessions import Session, Sessions, SessionState
from gateway_svc.turns.shadows import Shadows
from gateway_svc.turns.turn import Runner
from gateway_svc.watching.telemetry import Telemetry
from service_kit.errors import code_name

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
        status_of: Callable[[BaseException], status_pb2.Status],
        telemetry: Telemetry | None = None,
        budgets: Budgets | None = None,
        capacity: Capacity | None = None,
        synced: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`record` receives a session's state at the start and the end of each turn, and must not raise.

        `status_of` says what a client is told of the error that a turn failed with.
        `synced` is awaited before a client hears that its turn has ended: see AuditLogger.synced.
        """
        self._sessions = sessions
        self._record = record
        self._status_of = status_of
        self._telemetry = telemetry or Telemetry()
        self._shadows = Shadows(sessions, runners)
        self._on_session = SessionTurns(
            runners, default_engine, record, self._telemetry, budgets or Budgets(), self._shadows, synced
        )
        self._capacity = capacity or Capacity()
        self._places = asyncio.Semaphore(self._capacity.running)
        self._running: dict[str, Running] = {}
        self._draining = False

    def create_session(self, settings: pb.SessionSettings, owner: str | None = None) -> SessionState:
        """Makes a session, which only the caller named owner and administrators see; None: everybody does.

        Raises:
            EngineNotConfigured, InvalidRequest: the settings cannot be had.
        """
        check_settings(settings, self._on_session.runner, "settings")
        return self._create(settings, owner)

    async def update_session(self, request: pb.UpdateSessionRequest, viewer: str | None = None) -> SessionState:
        """Changes the settings of a session that viewer may know of, at once, whether or not one of its turns runs.

        That turn goes on with what it began with; the next one has the new settings.

        Raises:
            EngineNotConfigured, InvalidRequest: the settings cannot be had.
            NotFound: there is no such session.
            Busy: another process has it open.
        """
        given, paths = masked(request), request.update_mask.paths
        check_settings(given, self._on_session.runner, "settings")

        def change(session: Session) -> None:
            session.state.settings = updated(session.state.settings, paths, given)  # a new one: see SessionTurns.run
            self._on_session.choose(session.state.settings)
            self._on_session.save(session, common_pb2.SessionStatus.ValueType(session.state.status))

        return await self._sessions.change(self._sessions.get(request.session_id, viewer).id, change)

    async def run(self, request: pb.RunTurnRequest, caller: str | None = None) -> AsyncGenerator[pb.TurnEvent, None]:
        """Runs a turn and yields its events. Closing the generator, or cancelling its consumer, cancels the turn.

        `caller` owns a session that starts with this turn, and may continue only its own; None: any.
        From the first event on, turn_accepted, it raises nothing: the last one, turn_finished, says how it ended.

        Raises:
            GatewayError: for the caller; nothing ran.
        """
        if self._draining:
            raise ShuttingDown("the gateway is shutting down and begins no turn")
        if len(self._running) >= self._capacity.running + self._capacity.queued:
            raise Overloaded(f"{len(self._running)} turns run or wait here already: come again later")
        running = Running(self._find_session(request, caller))
        # Here, so that the lines of the turn and those of its RPC have them; both end with their task's context.
        structlog.contextvars.bind_contextvars(session_id=running.session_id, turn_id=running.turn_id)
        running.events.put(
            pb.TurnEvent(turn_accepted=pb.TurnAccepted(session_id=running.session_id, turn_id=running.turn_id))
        )
        running.task = asyncio.create_task(self._run(running, request))
        self._running[running.turn_id] = running
        running.task.add_done_callback(lambda _: self._end(running))
        try:
            async for event in running.events.stream():
                yield event
            structlog.contextvars.bind_contextvars(trace_id=running.trace_id)
        finally:
            if not running.task.done():
                running.task.cancel()
                await asyncio.wait([running.task])

    def cancel(self, request: pb.CancelTurnRequest, viewer: str | None = None) -> str:
        """Cancels a turn by its id, or the running one of a session that viewer may know of, and returns its id.

        Raises:
            InvalidRequest: the request names neither.
            NotFound: no such turn is running or waiting.
        """
        target = request.WhichOneof("target") or "target"
        wanted = request.turn_id or request.session_id
        if not wanted:
            raise InvalidRequest(f"{target} is empty: name the turn, or the session whose turn is meant", target)
        for running in self._running.values():
            meant = running.turn_id == wanted if request.turn_id else running.session_id == wanted and running.begun
            if meant and (viewer is None or self._sessions.get(running.session_id).is_visible_to(viewer)):
                running.task.cancel()
                return running.turn_id
        if request.turn_id:
            raise NotFound(f"no turn {wanted!r} is running or waiting", "turn", wanted)
        raise NotFound("no turn of this session is running", "session", wanted)

    async def recover(self) -> None:
        """Ends the sessions whose process died, so that the ledger does not show them as running for ever."""
        for session_id in await asyncio.to_thread(self._sessions.left_running):
            with suppress(NotFound, Busy):  # gone, or run by another gateway
                async with self._sessions.hold(session_id) as session:
                    if session.state.status == common_pb2.SESSION_STATUS_RUNNING:
                        session.close_history(NOTES[common_pb2.SESSION_STATUS_RUNNING])
                        self._on_session.save(session, common_pb2.SESSION_STATUS_FAILED)

    async def cancel_all(self) -> None:
        """Cancels all turns and waits for their end."""
        turns = list(self._running.values())
        for running in turns:
            running.task.cancel()
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

    def _find_session(self, request: pb.RunTurnRequest, caller: str | None) -> str:
        """The id of the session that a turn is for: the one that it names, or a new one. Nothing is left of a refusal.

        Raises:
            EngineNotConfigured, InvalidRequest, NotFound: the turn cannot be run.
        """
        if not request.input.strip():
            raise InvalidRequest("input is empty: say what the agent should do", "input")
        check_length(request.input, "input")
        if request.HasField("max_steps") and request.max_steps < 1:
            raise InvalidRequest("max_steps is below 1: leave it unset for the gateway's own limit", "max_steps")
        check_model(request.model, "model")
        check_budget(request, "max_cost_micros")
        if request.HasField("session_id"):
            state = self._sessions.get(request.session_id, caller)
            self._on_session.choose(state.settings, request.engine, request.model)  # what is read here is thrown away
            return state.id
        check_settings(request.new_session, self._on_session.runner, "new_session")
        return self._create(request.new_session, caller, request.engine, request.model).id

    def _create(
        self, settings: pb.SessionSettings, owner: str | None, engine: str = "", model: str = ""
    ) -> SessionState:
        state = SessionState(id="", owner=owner or "")
        state.settings.CopyFrom(settings)
        self._on_session.choose(state.settings, engine, model)
        self._sessions.create(state)
        self._record(state)
        return state

    async def _run(self, running: Running, request: pb.RunTurnRequest) -> None:
        # The session first: a turn that waits for another turn of its session holds no slot.
        async with self._sessions.hold(running.session_id) as session, self._places:
            running.begun = True
            await self._on_session.run(session, running, request)

    def _end(self, running: Running) -> None:
        """Called when a turn's task is done, even if it was cancelled before it started."""
        del self._running[running.turn_id]
        error = None if running.task.cancelled() else running.task.exception()
        status = self._status_of(error) if error else None
        if error and status:
            log.info("turn.failed", trace_id=running.trace_id, error=type(error).__name__, code=code_name(status))
            if not running.started:
                self._telemetry.turn_failed_before_its_begin()
        running.finish(status)
