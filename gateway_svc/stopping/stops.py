"""The stops in force: in memory, where they count at once, and where the next start finds them (kept.py).

Gateways that share sessions, or a state directory, share their stops too: each keeps up with what is kept there. Where
they share a database whoever stops agents asks the others besides, so that the answer tells what was ended at all.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import structlog
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import control_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.conversations.undisturbed import to_its_end
from gateway_svc.errors import InvalidRequest, NotFound, Overloaded, StoreUnavailable, storing
from gateway_svc.stopping.kept import MAX_LIFTED, FileOfStops, KeptStops, NoFile, Ours, SharedStops
from gateway_svc.stopping.stop import check_reason, check_scope
from gateway_svc.stopping.turns import StoppableTurn
from service_kit.producing.stop import Subject, scope_text

MAX_STOPS = 100
END_SECONDS = 10.0
"""How long an answer waits for the end of what a stop ends."""
LOOK_SECONDS = 1.0
"""How often it is looked for stops of other gateways, of which nobody may have told this one."""
COUNTED = ("turn_refused", "turn_ended", "call_refused", "call_ended")

log = structlog.get_logger(__name__)


class Others(Protocol):
    """The other processes of this gateway, or the gateways that share sessions: what is stopped in one is in all."""

    async def stop(self, request: pb.StopAgentsRequest, stop: pb.Stop) -> list[pb.StopAgentsResponse]:
        """Has a stop hold in all, and returns what it ended in each.

        Raises:
            ShuttingDown: one does not answer.
        """
        ...

    async def resume(self, stop_id: str) -> None:
        """Lifts a stop in all.

        Raises:
            ShuttingDown: one does not answer.
        """
        ...


Record = Callable[..., Awaitable[None]]
"""Puts a control row on the record: recording.rows.control_row's arguments. Does not raise."""


async def record_nothing(kind: audit_pb2.ControlKind.ValueType, **fields: str) -> None:
    """A deployment that records nothing records no stop either."""


class Stops:
    """All stops of a gateway, and the turns that they reach."""

    def __init__(
        self,
        state_dir: Path | None = None,
        record: Record = record_nothing,
        others: Others | None = None,
        shared: SharedStops | None = None,
    ) -> None:
        """Reads the stops that an earlier run has left in force; without a state_dir they end with the process.

        shared: where gateways keep their stops together, and not in state_dir; those that are there move.

        Raises:
            SettingsError: the file cannot be read as stops. What is stopped is then not known.
            OSError: it cannot be read at all.
        """
        self._file = FileOfStops(state_dir) if state_dir else NoFile()
        self._shared = shared
        self._kept: KeptStops = shared or self._file
        self._record = record
        self._others = others
        found = self._file.load()
        self._in_force, self._lifted = tuple(ours.stop for ours in found.in_force), list(found.lifted)
        self._is_moving = bool(shared and self._in_force)
        self._told = set[str]()
        """The stops that the gateways' common place has."""
        self._let_end = {stop.id for stop, lets_calls_end in found.in_force if lets_calls_end}
        """The stops that let running calls go on."""
        self._early: dict[str, list[asyncio.Future[Any]]] = {}
        """What stops have ended here before who made them asked: the answer tells it."""
        self._unknown = "" if shared is None else "they were not read yet"
        self._is_known = shared is None
        """Whether what is stopped was known at least once; then the last that was known counts."""
        self._turns: set[StoppableTurn] = set()
        self._changing = asyncio.Lock()
        self._looking = asyncio.Lock()
        self.counts = Counter[str](dict.fromkeys(COUNTED, 0))
        """How much was refused or ended."""
        for stop in self._in_force:
            log.warning("agents.stopped", stop_id=stop.id, scope=scope_text(stop.scope), stopped_by=stop.principal)

    def in_force(self) -> tuple[pb.Stop, ...]:
        """The stops in force, the oldest first."""
        return self._in_force

    def by_scope(self) -> tuple[pb.Stop, ...]:
        """The stops in force as people have them: of those that several gateways made of one scope at once, the oldest.
        Whatever lifts it lifts them all.
        """
        firsts = dict[bytes, pb.Stop]()
        for stop in sorted(self._in_force, key=_age):
            firsts.setdefault(stop.scope.SerializeToString(deterministic=True), stop)
        return tuple(firsts.values())

    def _of(self, scope: pb.StopScope) -> list[pb.Stop]:
        """The stops in force of a scope, the oldest first."""
        return sorted((one for one in self._in_force if one.scope == scope), key=_age)

    def check_known(self) -> None:
        """Looks whether it is known what is stopped.

        Raises:
            StoreUnavailable: it was never read since the start.
        """
        if not self._is_known:
            raise StoreUnavailable(self.trouble())

    def trouble(self) -> str:
        """Why nothing may begin here yet; empty if it may."""
        return "" if self._is_known else f"what is stopped is not known: {self._unknown}"

    def detail(self) -> str:
        """What health says of them; empty when there are none."""
        told = [f"the stops that gateways share cannot be read, the last known hold: {self._unknown}"]
        told = told if self._is_known and self._unknown else []
        if in_force := self.by_scope():
            everything = any(stop.scope.HasField("everything") for stop in in_force)
            told.insert(0, f"stops in force: {len(in_force)}" + (", of everything" if everything else ""))
        return "; ".join(told)

    def turn(self, subject: Subject) -> StoppableTurn:
        """A new turn, which stops reach from when it is watched.

        Raises:
            StoreUnavailable: it is not known what is stopped.
        """
        self.check_known()
        return StoppableTurn(subject, self.in_force, self.counts)

    def watch(self, turn: StoppableTurn, task: "asyncio.Task[Any]") -> None:
        """A turn is run by a task, until which ends."""
        turn.begin(task)
        self._turns.add(turn)

        def end(task: "asyncio.Task[Any]") -> None:
            turn.end()
            self._turns.discard(turn)

        task.add_done_callback(end)

    async def stop(self, request: pb.StopAgentsRequest, principal: str) -> pb.StopAgentsResponse:
        """Makes a stop, or finds the one of this scope; ends what it is of; writes it; waits for what it ends.

        A caller that goes away changes nothing of that.

        Raises:
            InvalidRequest: the request names nothing, or not why.
            Overloaded: there are as many stops as there may be.
            StoreUnavailable: the stop is in force, and could not be written.
            ShuttingDown: it is in force, and a process of the gateway has not said that it holds there too.
        """
        check_scope(request.scope)
        check_reason(request.reason)
        return await to_its_end(self._stop(request, principal))

    async def _stop(self, request: pb.StopAgentsRequest, principal: str) -> pb.StopAgentsResponse:
        stop = next(iter(self._of(request.scope)), None)
        is_new = stop is None
        if stop is None:
            if len(self._in_force) >= MAX_STOPS and not request.scope.HasField("everything"):
                raise Overloaded(f"{MAX_STOPS} stops are in force: lift one, or stop more at once")
            stop = pb.Stop(
                id=str(uuid7()),
                scope=request.scope,
                reason=request.reason,
                principal=principal,
                at_ms=time.time_ns() // 1_000_000,
            )
            self._in_force += (stop,)
        # From here on it holds, whatever else fails; what runs is ended before anything is waited for.
        endings = self._apply(request, stop)
        elsewhere = asyncio.ensure_future(self._others.stop(request, stop)) if self._others else None
        if elsewhere:
            elsewhere.add_done_callback(lambda task: task.cancelled() or task.exception())  # else asyncio tells it
        if is_new:
            log.warning("agents.stopped", stop_id=stop.id, scope=scope_text(stop.scope), stopped_by=principal)
            await self._tell(audit_pb2.CONTROL_KIND_STOP, stop, principal, stop.reason)
        if not await self._write(stop):
            return await self._stop(request, principal)
        answer = await self._ended(request, stop, endings)
        for other in await elsewhere if elsewhere else ():
            answer.ended_turns += other.ended_turns
            answer.ended_tool_calls += other.ended_tool_calls
            answer.still_running += other.still_running
        answer.stop.CopyFrom(next(iter(self._of(request.scope)), stop))  # another gateway's may be the older one
        answer.was_in_force = not is_new or answer.stop.id != stop.id
        return answer

    async def adopt(self, request: pb.StopAgentsRequest, stop: pb.Stop) -> pb.StopAgentsResponse:
        """Has a stop hold that another process, or gateway, made, and puts on the record and where it is kept."""
        endings = self._adopt(stop, lets_calls_end=request.let_running_calls_end)
        early = self._early.pop(stop.id, [])
        return await self._ended(request, stop, list(dict.fromkeys([*early, *endings])))

    def forget(self, stop_id: str) -> None:
        """Lifts a stop that another process, or gateway, has lifted."""
        self._forget(stop_id)

    async def begin(self) -> None:
        """Reads the stops that gateways share, if that can be done now: until it was, nothing begins here."""
        with suppress(StoreUnavailable):
            await self._look()

    async def look_at_file(self) -> None:
        """Reads the file of stops again where another gateway has changed it; a database tells of changes itself."""
        with suppress(OSError, StoreUnavailable):  # follow() tells it
            if self._shared is None and await self._file.has_changed():
                await self._look()

    async def follow(self) -> None:
        """Keeps up with the stops that gateways share, until it is cancelled."""
        changed = self._shared.changed if self._shared else asyncio.Event()
        while self._shared or self._file.is_shared:
            changed.clear()
            await self.begin()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await changed.wait()

    async def _look(self, *ids: str) -> None:
        """Tells what the others may not know, and does what they have told. ids: of stops that may have been lifted.

        Raises:
            StoreUnavailable: that cannot be done now. The last that was known holds.
        """
        async with self._looking:
            held = {stop.id for stop in self._in_force}
            try:
                if self._shared is None:
                    with storing():
                        found = await self._file.look()
                else:
                    untold = [ours for ours in self._ours() if ours.stop.id not in self._told]
                    found = await self._shared.exchange(untold, {*held, *ids})
            except StoreUnavailable as error:
                if not self._unknown:
                    log.warning("stops.unreadable", reason=str(error))
                self._unknown = str(error)
                raise
            self._unknown, self._is_known = "", True
            self._told = {ours.stop.id for ours in found.in_force}
            self._forget(*found.lifted)  # one that is just not there any more stays, and is told again
            for stop, lets_calls_end in found.in_force:
                if stop.id not in held:
                    endings = self._adopt(stop, lets_calls_end=lets_calls_end)
                    if self._others:  # else nobody asks
                        self._early[stop.id] = endings
            if self._is_moving:
                self._file.remove()
                self._is_moving = False

    def _ours(self) -> list[Ours]:
        return [Ours(stop, stop.id in self._let_end) for stop in self._in_force]

    def _adopt(self, stop: pb.Stop, *, lets_calls_end: bool) -> "list[asyncio.Future[Any]]":
        """Has a stop hold that was made elsewhere; returns what it ends."""
        if stop.id in self._lifted:
            return []
        if all(one.id != stop.id for one in self._in_force):
            self._in_force = tuple(sorted((*self._in_force, stop), key=_age))
            log.warning("agents.stopped", stop_id=stop.id, scope=scope_text(stop.scope), stopped_by=stop.principal)
        return self._apply(pb.StopAgentsRequest(let_running_calls_end=lets_calls_end), stop)

    def _forget(self, *stop_ids: str) -> None:
        gone = set(stop_ids)
        self._in_force = tuple(one for one in self._in_force if one.id not in gone)
        self._lifted = [*(one for one in self._lifted if one not in gone), *stop_ids][-MAX_LIFTED:]
        self._let_end -= gone
        for stop_id in gone:
            self._early.pop(stop_id, None)

    def _apply(self, request: pb.StopAgentsRequest, stop: pb.Stop) -> "list[asyncio.Future[Any]]":
        let_end = request.let_running_calls_end
        if let_end:
            self._let_end.add(stop.id)
        else:
            self._let_end.discard(stop.id)
        return [ending for turn in list(self._turns) for ending in list(turn.apply(stop, let_calls_end=let_end))]

    async def _ended(
        self, request: pb.StopAgentsRequest, stop: pb.Stop, endings: "list[asyncio.Future[Any]]"
    ) -> pb.StopAgentsResponse:
        if endings and not request.let_running_calls_end:
            await asyncio.wait(endings, timeout=END_SECONDS)
        turns = [ending for ending in endings if isinstance(ending, asyncio.Task)]
        calls = [ending for ending in endings if not isinstance(ending, asyncio.Task)]
        return pb.StopAgentsResponse(
            stop=stop,
            ended_turns=sum(task.done() for task in turns),
            ended_tool_calls=sum(call.done() for call in calls),
            still_running=sum(not ending.done() for ending in endings),
        )

    async def resume(self, request: pb.ResumeRequest, principal: str) -> pb.ResumeResponse:
        """Lifts a stop, once that is on the record and on disk. A caller that goes away changes nothing of that.

        Raises:
            InvalidRequest: the request names no stop, or not why.
            NotFound: no such stop is in force, or was lifted lately.
            StoreUnavailable: it could not be written; the stop stays, here and in the file.
        """
        if not request.stop_id:
            raise InvalidRequest("stop_id is empty: name the stop", "stop_id")
        check_reason(request.reason)
        return await to_its_end(self._resume(request, principal))

    async def _resume(self, request: pb.ResumeRequest, principal: str) -> pb.ResumeResponse:
        async with self._changing:
            await self._look(request.stop_id)
            stop = next((one for one in self._in_force if one.id == request.stop_id), None)
            if stop is None:
                if request.stop_id in self._lifted:
                    if self._others:  # one may not have heard of it
                        await self._others.resume(request.stop_id)
                    return pb.ResumeResponse(was_lifted=True)
                raise NotFound(f"no stop {request.stop_id[:64]!r} is in force", "stop", request.stop_id)
            same = self._of(stop.scope)
            ids = [one.id for one in same]
            for one in same:
                await self._tell(audit_pb2.CONTROL_KIND_RESUME, one, principal, request.reason)
            with storing():
                unsynced = await self._kept.save(self._ours(), [*self._lifted, *ids])
            self._forget(*ids)
            log.warning("agents.resumed", stop_ids=ids, scope=scope_text(stop.scope), resumed_by=principal)
            if unsynced:  # the next start reads it as lifted, so it is; a loss of power may bring it back
                log.warning("agents.resume_unsynced", stop_ids=ids, error=str(unsynced))
            if self._others:
                for stop_id in ids:
                    await self._others.resume(stop_id)
            return pb.ResumeResponse(stop=stop)

    async def _write(self, stop: pb.Stop) -> bool:
        """Writes what is in force; returns whether the stop still is."""
        async with self._changing:
            if stop not in self._in_force:  # somebody has just lifted it
                return False
            try:
                if self._shared is not None:
                    await self._look()
                    return stop in self._in_force
                with storing():
                    if unsynced := await self._kept.save(self._ours(), self._lifted):
                        raise unsynced
            except StoreUnavailable as error:
                where = "here, and elsewhere when it can be written" if self._shared else "until this gateway ends"
                told = f"the stop {stop.id} is in force {where}, and could not be written: {error}"
                raise type(error)(told) from error
            await self.look_at_file()  # another gateway may just have lifted it
            return stop in self._in_force

    async def _tell(self, kind: audit_pb2.ControlKind.ValueType, stop: pb.Stop, principal: str, reason: str) -> None:
        scope = scope_text(stop.scope)
        await self._record(kind, scope=scope, principal=principal, reason=reason, stop_id=stop.id)


def _age(stop: pb.Stop) -> tuple[int, str]:
    return stop.at_ms, stop.id
