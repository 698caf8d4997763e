"""The stops in force: in memory, where they count at once, and in a file, where the next start finds them."""

import asyncio
import fcntl
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import structlog
from google.protobuf import json_format
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import control_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.conversations.undisturbed import to_its_end
from gateway_svc.errors import InvalidRequest, NotFound, Overloaded, SettingsError, StoreUnavailable, storing
from gateway_svc.stopping.stop import check_reason, check_scope
from gateway_svc.stopping.turns import StoppableTurn
from recording.locks import sync_folder
from recording.replacing import replace_file
from service_kit.producing.stop import Subject, scope_text

MAX_STOPS = 100
MAX_LIFTED = 1000
"""How many of the stops that were lifted are remembered, so that a Resume may be tried again."""
END_SECONDS = 10.0
"""How long an answer waits for the end of what a stop ends."""
COUNTED = ("turn_refused", "turn_ended", "call_refused", "call_ended")
_VERSION = 1

log = structlog.get_logger(__name__)


class Others(Protocol):
    """The other processes of this gateway: what is stopped in one is stopped in all."""

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
        self, state_dir: Path | None = None, record: Record = record_nothing, others: Others | None = None
    ) -> None:
        """Reads the stops that an earlier run has left in force; without a state_dir they end with the process.

        Raises:
            SettingsError: the file cannot be read as stops. What is stopped is then not known.
            OSError: it cannot be read at all.
        """
        self._path = state_dir / "stops.json" if state_dir else None
        self._record = record
        self._others = others
        self._in_force, self._lifted = _load(self._path) if self._path else ((), [])
        self._turns: set[StoppableTurn] = set()
        self._changing = asyncio.Lock()
        self.counts = Counter[str](dict.fromkeys(COUNTED, 0))
        """How much was refused or ended."""
        for stop in self._in_force:
            log.warning("agents.stopped", stop_id=stop.id, scope=scope_text(stop.scope), stopped_by=stop.principal)

    def in_force(self) -> tuple[pb.Stop, ...]:
        """The stops in force, the oldest first."""
        return self._in_force

    def detail(self) -> str:
        """What health says of them; empty when there are none."""
        if not self._in_force:
            return ""
        everything = any(stop.scope.HasField("everything") for stop in self._in_force)
        return f"stops in force: {len(self._in_force)}" + (", of everything" if everything else "")

    def turn(self, subject: Subject) -> StoppableTurn:
        """A new turn, which stops reach from when it is watched."""
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
        stop = next((one for one in self._in_force if one.scope == request.scope), None)
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
        return answer

    async def adopt(self, request: pb.StopAgentsRequest, stop: pb.Stop) -> pb.StopAgentsResponse:
        """Has a stop hold that another process of this gateway made, and puts on the record and on disk."""
        if all(one.id != stop.id for one in self._in_force) and stop.id not in self._lifted:
            self._in_force += (stop,)
        return await self._ended(request, stop, self._apply(request, stop))

    def forget(self, stop_id: str) -> None:
        """Lifts a stop that another process of this gateway has lifted."""
        self._in_force = tuple(one for one in self._in_force if one.id != stop_id)
        self._lifted = [*self._lifted, stop_id][-MAX_LIFTED:]

    def _apply(self, request: pb.StopAgentsRequest, stop: pb.Stop) -> "list[asyncio.Future[Any]]":
        let_end = request.let_running_calls_end
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

    async def resume(self, request: pb.ResumeRequest, principal: str) -> None:
        """Lifts a stop, once that is on the record and on disk. A caller that goes away changes nothing of that.

        Raises:
            InvalidRequest: the request names no stop, or not why.
            NotFound: no such stop is in force, or was lifted lately.
            StoreUnavailable: it could not be written; the stop stays, here and in the file.
        """
        if not request.stop_id:
            raise InvalidRequest("stop_id is empty: name the stop", "stop_id")
        check_reason(request.reason)
        await to_its_end(self._resume(request, principal))

    async def _resume(self, request: pb.ResumeRequest, principal: str) -> None:
        async with self._changing:
            stop = next((one for one in self._in_force if one.id == request.stop_id), None)
            if stop is None:
                if request.stop_id in self._lifted:
                    if self._others:  # one may not have heard of it
                        await self._others.resume(request.stop_id)
                    return
                raise NotFound(f"no stop {request.stop_id[:64]!r} is in force", "stop", request.stop_id)
            await self._tell(audit_pb2.CONTROL_KIND_RESUME, stop, principal, request.reason)
            lifted = [*self._lifted, stop.id][-MAX_LIFTED:]
            left = [one for one in self._in_force if one is not stop]
            with storing():
                unsynced = await asyncio.to_thread(_save, self._path, left, lifted)
            # Of what is in force now: a stop that came meanwhile waits to be written.
            self._in_force = tuple(one for one in self._in_force if one is not stop)
            self._lifted = lifted
            if self._others:
                await self._others.resume(stop.id)
            log.warning("agents.resumed", stop_id=stop.id, scope=scope_text(stop.scope), resumed_by=principal)
            if unsynced:  # the next start reads it as lifted, so it is; a loss of power may bring it back
                log.warning("agents.resume_unsynced", stop_id=stop.id, error=str(unsynced))

    async def _write(self, stop: pb.Stop) -> bool:
        """Writes what is in force; returns whether the stop still is."""
        async with self._changing:
            if stop not in self._in_force:  # somebody has just lifted it
                return False
            try:
                with storing():
                    if unsynced := await asyncio.to_thread(_save, self._path, self._in_force, self._lifted):
                        raise unsynced
            except StoreUnavailable as error:
                told = f"the stop {stop.id} is in force until this gateway ends, and could not be written: {error}"
                raise type(error)(told) from error
        return True

    async def _tell(self, kind: audit_pb2.ControlKind.ValueType, stop: pb.Stop, principal: str, reason: str) -> None:
        scope = scope_text(stop.scope)
        await self._record(kind, scope=scope, principal=principal, reason=reason, stop_id=stop.id)


def _save(path: Path | None, stops: Iterable[pb.Stop], lifted: list[str]) -> OSError | None:
    """Writes them beside those of other gateways on the folder.

    Returns why the file, which is there for the next start, may be the one before it after a loss of power.

    Raises:
        StoreUnavailable: the file cannot be read, and is left as it is.
        OSError: it could not be written, and is what it was.
    """
    if path is None:
        return None
    with path.with_suffix(".lock").open("a") as lock:  # which its closing lets go
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            others, gone = _load(path)
        except SettingsError as error:
            raise StoreUnavailable(str(error)) from error
        known = {*(stop.id for stop in stops), *lifted, *gone}
        every = [*stops, *(stop for stop in others if stop.id not in known)]
        value = {
            "version": _VERSION,
            "stops": [json_format.MessageToDict(stop, preserving_proto_field_name=True) for stop in every],
            "lifted": [*dict.fromkeys([*gone, *lifted])][-MAX_LIFTED:],
        }
        replace_file(path, json.dumps(value, indent=1).encode() + b"\n")
        try:
            sync_folder(path.parent)
        except OSError as error:
            return error
    return None


def _load(path: Path) -> tuple[tuple[pb.Stop, ...], list[str]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return (), []
    try:
        value = json.loads(content)
        if value.keys() != {"version", "stops", "lifted"} or value["version"] != _VERSION:
            raise ValueError("it is of another version")
        stops = tuple(json_format.ParseDict(one, pb.Stop()) for one in value["stops"])
        for stop in stops:
            check_scope(stop.scope)
            if not stop.id:
                raise ValueError("a stop has no id")
        return stops, [str(one) for one in value["lifted"]]
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, what is stopped is not known
        raise SettingsError(
            f"{path}: cannot be read as the stops in force ({type(error).__name__}): it may be damaged, or of a newer "
            "version. Restore it, or remove it if nothing is to be stopped"
        ) from None
