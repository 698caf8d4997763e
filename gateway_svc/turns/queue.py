"""Runs turns: each on its session, cancellable from elsewhere, and leaving the session ready for the next."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from functools import partial

import structlog
from google.rpc import status_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.conversations.session import SessionState
from gateway_svc.errors import Damaged, InvalidRequest, NotFound, Overloaded, ShuttingDown
from gateway_svc.stopping.stop import stopped
from gateway_svc.stopping.stops import Stops
from gateway_svc.stopping.turns import StoppableTurn
from gateway_svc.turns.arrivals import Arrivals
from gateway_svc.turns.budgets import Budgets
from gateway_svc.turns.client_sessions import ClientSessions
from gateway_svc.turns.kept import KeptTurn, KeptTurns
from gateway_svc.turns.keyed_locks import KeyedLocks
from gateway_svc.turns.named import Claims, NamedRequests
from gateway_svc.turns.requests import Request, Requests
from gateway_svc.turns.session_settings import MAX_PROMPT_BYTES, check_budget, check_claims, check_length, check_model
from gateway_svc.turns.session_turns import SessionTurns
from gateway_svc.turns.sessions import Sessions
from gateway_svc.turns.shadows import Shadows
from gateway_svc.turns.turn import Runner
from gateway_svc.watching.telemetry import Telemetry
from recording.calls import GATEWAY_ENDED
from service_kit.access.calls import Count, OwnCount
from service_kit.errors import code_name
from service_kit.producing.stop import Subject
from service_kit.time_slice import TimeSlice

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a gateway accepts."""

    running: int = 1000
    queued: int = 1000
    """How many turns may wait for a slot or for their session."""
    prompt_bytes: int = MAX_PROMPT_BYTES
    """How long a session's prompt may be."""
    turns: Count = field(default_factory=OwnCount)
    """Counts the turns that run or wait."""
    places: AbstractAsyncContextManager[object] | None = None
    """A place for a turn that runs, waited for, where other processes have a part in them; None: this one's own."""


class Turns:
    """Runs turns: those of one session one after another, those of different sessions in parallel."""

    def __init__(
        self,
        sessions: Sessions,
        runners: Mapping[str, Runner],
        default_engine: str,
        record: Callable[[SessionState], None],
        status_of: Callable[[BaseException], status_pb2.Status],
        requests: Requests,
        telemetry: Telemetry | None = None,
        budgets: Budgets | None = None,
        capacity: Capacity | None = None,
        synced: Callable[[], Awaitable[object]] | None = None,
        forget: Callable[[str], object] = lambda session_id: None,
        stops: Stops | None = None,
        shared: Claims | None = None,
    ) -> None:
        """`record` receives a session's state at the start and the end of each turn, and must not raise.

        `status_of` says what a client is told of the error that a turn failed with. `requests` are those that have a
        request_id.
        `synced` is awaited before a client hears that its turn has ended: see AuditLogger.synced.
        `forget` drops what is kept of a session elsewhere. `stops` refuse and end turns.
        `shared` are the requests that other gateways must not run again.
        """
        self._sessions = sessions
        self._status_of = status_of
        self._telemetry = telemetry or Telemetry()
        self._stops = stops or Stops()
        self._shadows = Shadows(sessions, runners, self._stops)
        self._on_session = SessionTurns(
            runners, default_engine, record, self._telemetry, budgets or Budgets(), self._shadows, synced
        )
        self._capacity = capacity or Capacity()
        self._places = self._capacity.places or asyncio.Semaphore(self._capacity.running)
        self._kept = KeptTurns()

        def forget_everywhere(session_id: str) -> None:
            self._kept.forget_session(session_id)
            forget(session_id)

        self.sessions = ClientSessions(
            sessions, self._on_session, record, forget_everywhere, self._capacity.prompt_bytes
        )
        """What clients do with sessions, beside running turns on them."""
        self._in_order = KeyedLocks()
        """Of sessions: turns begin in the order of their requests."""
        self._requests = NamedRequests(requests, shared, status_of)
        self._arrivals = Arrivals()
        self._draining = False

    async def run(
        self, request: pb.RunTurnRequest, viewer: str | None = None, owner: str = ""
    ) -> AsyncGenerator[pb.TurnEvent, None]:
        """Runs a turn and yields its events. Closing the generator, or cancelling its consumer, cancels the turn.

        `viewer` is the caller whose sessions may be continued; None: all. `owner` is the caller's name, empty if
        callers have none: a session that starts with this turn is its own, and its request_id is meant. A client of
        an equal request listens to the turn of the first one, which is cancelled when all of them have left.
        From the first event on, turn_accepted, it raises nothing but EventsGone: the last one, turn_finished, says how
        the turn ended.

        Raises:
            GatewayError: for the caller; nothing ran.
            EventsGone: a client of an equal request that reads too slowly, or comes too late for all events.
        """
        turn: KeptTurn | None
        async with self._requests.in_turn(owner, request):
            known = self._requests.find(owner, request)
            if known is not None:
                turn = self._kept.find(known.turn_id)
            else:
                turn, known = await self._begin_once(request, viewer, owner)
        if turn is None:
            for event in self._requests.told_again(known) if known else ():
                yield event
            return
        # Here, so that the lines of the turn and those of its RPC have them; both end with their task's context.
        structlog.contextvars.bind_contextvars(session_id=turn.session_id, turn_id=turn.turn_id)
        task, after = turn.task, 0
        turn.clients += 1
        try:
            if turn.events.first > 1:  # the first event tells the turn's id whatever else is gone
                yield turn.accepted()
                after = 1
            async with aclosing(turn.events.stream(after, holds_up=True)) as events:
                async for event in events:
                    yield event
            structlog.contextvars.bind_contextvars(trace_id=turn.trace_id)
        finally:
            turn.clients -= 1
            if task and not task.done() and not turn.clients and not turn.keep_on_disconnect:
                task.cancel()
                await asyncio.wait([task])

    async def attach(
        self, request: pb.AttachTurnRequest, viewer: str | None = None
    ) -> AsyncGenerator[pb.TurnEvent, None]:
        """Yields the events of a turn that viewer may know of. Closing the generator leaves the turn as it is.

        Raises:
            InvalidRequest: the request names no turn, or an event that has not happened.
            NotFound: no such turn is kept.
            EventsGone: events that are asked for are not kept any more.
        """
        if not request.turn_id:
            raise InvalidRequest("turn_id is empty: name the turn", "turn_id")
        if request.after_sequence < 0:
            raise InvalidRequest("after_sequence is negative: send 0 for all events", "after_sequence")
        turn = self._kept.find(request.turn_id)
        known = self._requests.of_turn(request.turn_id, viewer) if turn is None else None
        if known is not None and await self._has_session(known):
            for event in self._requests.told_again(known, request.after_sequence):
                yield event
            return
        if turn is None or not turn.is_visible_to(viewer):
            told = f"no turn {request.turn_id[:64]!r} runs here or has ended within the last hour"
            raise NotFound(told, "turn", request.turn_id)
        if request.after_sequence > turn.events.last:
            raise InvalidRequest(
                f"after_sequence is beyond the turn's last event, {turn.events.last}", "after_sequence"
            )
        structlog.contextvars.bind_contextvars(session_id=turn.session_id, turn_id=turn.turn_id)
        async with aclosing(turn.events.stream(request.after_sequence)) as events:
            async for event in events:
                yield event

    async def attach_to_gone(
        self, request: pb.AttachTurnRequest, viewer: str | None = None
    ) -> list[pb.TurnEvent] | None:
        """What is known of a turn whose gateway, one of those that share sessions, is gone; None if nothing is.

        Raises:
            StoreUnavailable: it cannot be looked for now.
        """
        known = await self._requests.of_gone(request.turn_id, viewer)
        if known is None or not await self._has_session(known):
            return None
        return list(self._requests.told_again(known, request.after_sequence))

    def cancel(self, request: pb.CancelTurnRequest, viewer: str | None = None) -> str:
        """Cancels a turn by its id, or the running one of a session that viewer may know of, and returns its id.

        Does nothing to a turn that has ended.

        Raises:
            InvalidRequest: the request names neither.
            NotFound: no such turn is kept.
        """
        target = request.WhichOneof("target") or "target"
        wanted = request.turn_id or request.session_id
        if not wanted:
            raise InvalidRequest(f"{target} is empty: name the turn, or the session whose turn is meant", target)
        turn = self._kept.find(wanted) if request.turn_id else self._kept.of_session(wanted)
        if turn is None and request.turn_id and self._requests.of_turn(wanted, viewer):
            return wanted
        if turn is None or not turn.is_visible_to(viewer):
            told = f"turn {wanted[:64]!r}" if request.turn_id else "turn of this session"
            resource = "turn" if request.turn_id else "session"
            raise NotFound(f"no {told} runs here or has ended within the last hour", resource, wanted)
        turn.cancel()
        return turn.turn_id

    async def _has_session(self, known: Request) -> bool:
        """Whether the session of a request is still there: who deletes it deletes the events of its turns.

        Raises:
            StoreUnavailable: it cannot be looked for now.
        """
        try:
            await self._sessions.get(known.session_id)
        except NotFound:
            return False
        except Damaged:
            pass
        return True

    async def cancel_all(self) -> None:
        """Cancels all turns and waits for their end."""
        for turn in self._kept.running():
            turn.cancel(GATEWAY_ENDED)
        if tasks := self._tasks():
            await asyncio.wait(tasks)
        await self._shadows.cancel_all()

    def knows(self, request: pb.RunTurnRequest, owner: str) -> bool:
        """Whether a request of the caller owner under this request_id, equal or not, is remembered here."""
        return self._requests.knows(owner, request)

    def close(self) -> None:
        """Closes the file of requests."""
        self._requests.close()

    @property
    def waiting(self) -> int:
        """How many turns have not started yet."""
        return sum(not turn.begun for turn in self._kept.running())

    def begin_drain(self) -> None:
        """Starts no more turns or shadows."""
        self._draining = True
        self._shadows.close()

    async def drain(self, grace_seconds: float) -> None:
        """Starts no more, gives running turns grace_seconds to end, and cancels the rest."""
        self.begin_drain()
        if tasks := self._tasks():
            log.info("turns.draining", turns=len(tasks), grace_seconds=grace_seconds)
            await asyncio.wait(tasks, timeout=grace_seconds)
        await self.cancel_all()

    async def _begin_once(
        self, request: pb.RunTurnRequest, viewer: str | None, owner: str
    ) -> tuple[KeptTurn | None, Request | None]:
        """Begins a turn, or finds the request that it was begun by at another gateway.

        Raises:
            GatewayError: for the caller; nothing ran.
        """
        self._check_draining()
        async with self._requests.claimed(owner, request) as known:
            if known is not None:
                return None, known
            async with self._in_order.hold(request.session_id or object()):
                return await self._begin(request, viewer, owner), None

    async def _begin(self, request: pb.RunTurnRequest, viewer: str | None, owner: str) -> KeptTurn:
        """Begins a turn.

        Raises:
            GatewayError: for the caller; nothing ran.
        """
        self._check_draining()
        limit = self._capacity.running + self._capacity.queued
        if not self._capacity.turns.try_take(limit):
            raise Overloaded(f"{limit} turns run or wait here already: come again later")
        try:
            return await self._begin_counted(request, viewer, owner)
        except BaseException:
            self._capacity.turns.release()
            raise

    async def _begin_counted(self, request: pb.RunTurnRequest, viewer: str | None, owner: str) -> KeptTurn:
        _check_request(request)
        self._arrivals.note()
        await self._stops.look_at_file()
        session = await self.sessions.for_turn(request, viewer, owner, partial(self._check_stopped, request, owner))
        self._check_draining()
        stops = self._check_stopped(request, owner, session.settings)
        # From here to the task nothing is awaited: a stop finds the turn, or the turn has found the stop.
        turn = self._kept.begin(session, owner, keep_on_disconnect=request.keep_on_disconnect, stops=stops)
        known = self._requests.begin(owner, request, turn)
        structlog.contextvars.bind_contextvars(session_id=turn.session_id, turn_id=turn.turn_id)
        if known is None:
            turn.accept()
        turn.task = asyncio.create_task(self._run(turn, request, known))
        turn.task.add_done_callback(lambda task: self._end(turn, task))
        self._stops.watch(stops, turn.task)
        return turn

    def _check_stopped(self, request: pb.RunTurnRequest, owner: str, settings: pb.SessionSettings) -> StoppableTurn:
        """The turn as stops see it.

        Raises:
            Stopped: it may not begin.
        """
        engine = self._on_session.runner(settings.engine).name
        turn = self._stops.turn(Subject(owner, request.agent.name, engine, dict(settings.labels)))
        turn.check()
        return turn

    def _check_draining(self) -> None:
        if self._draining:
            raise ShuttingDown("the gateway is shutting down and begins no turn")

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [turn.task for turn in self._kept.running() if turn.task]

    async def _run(self, turn: KeptTurn, request: pb.RunTurnRequest, known: Request | None) -> None:
        if known is not None:
            await self._requests.keep(known)
            turn.accept()
        await self._arrivals.over()
        # The session first: a turn that waits for another turn of its session holds no slot.
        async with self._sessions.hold(turn.session_id, patient=True) as session, self._places:
            turn.begun = True
            if (time_slice := TimeSlice()).is_over():  # turns that arrived together get their sessions together
                await time_slice.give_way()
            await self._on_session.run(session, turn, request)

    def _end(self, turn: KeptTurn, task: asyncio.Task[None]) -> None:
        """Called when a turn's task is done, even if it was cancelled before it started."""
        self._capacity.turns.release()
        # A stop may have cancelled it before its session was its own.
        by_stop = stopped(turn.stops.stop) if turn.stops.stop else None
        error = by_stop if task.cancelled() else task.exception()
        status = self._status_of(error) if error else None
        if error and status:
            log.info("turn.failed", trace_id=turn.trace_id, error=type(error).__name__, code=code_name(status))
            if not turn.started:
                self._telemetry.turn_failed_before_its_begin()
        self._requests.end(turn, turn.finish(status))
        turn.events.close()
        self._kept.end(turn)


def _check_request(request: pb.RunTurnRequest) -> None:
    """Checks what is asked of a turn, but for its session.

    Raises:
        InvalidRequest: it cannot be had.
    """
    if not request.input.strip():
        raise InvalidRequest("input is empty: say what the agent should do", "input")
    check_length(request.input, "input")
    if request.HasField("max_steps") and request.max_steps < 1:
        raise InvalidRequest("max_steps is below 1: leave it unset for the gateway's own limit", "max_steps")
    check_model(request.model, "model")
    check_budget(request, "max_cost_micros")
    check_claims(request)
