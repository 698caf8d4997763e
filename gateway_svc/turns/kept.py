"""Turns that wait, run, or have ended within the last hour, for those who attach to them."""

import asyncio
import time
from collections import OrderedDict

from google.rpc import status_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.conversations.session import SessionState, may_see
from gateway_svc.stopping.turns import CANCELLED, StoppableTurn
from gateway_svc.turns.account import Totals
from gateway_svc.turns.events import TurnEvents, accepted, now_ms, turn_finished
from service_kit.observing.trace_context import CALLERS_TRACE

KEEP_SECONDS = 3600.0
"""How long a turn is kept after its end."""

MAX_ENDED = 10_000
"""How many turns that have ended are kept; beyond it those that ended first are forgotten."""

MAX_ENDED_BYTES = 16 * 2**20
"""How much the events of ended turns may take; beyond it those of the turns that ended first are dropped, but their
last."""

MAX_KEPT_BYTES = 256 * 2**20
"""How much all events together may take; beyond it those of ended turns are dropped likewise, and then the clients that
are furthest behind are cut off."""


class KeptTurn:
    """A turn that waits for its session, runs, or has ended."""

    task: asyncio.Task[None] | None = None
    """What runs it; None when it has ended."""

    def __init__(
        self,
        session: SessionState,
        events: TurnEvents,
        *,
        principal: str = "",
        keep_on_disconnect: bool = False,
        stops: StoppableTurn | None = None,
    ) -> None:
        self.turn_id = str(uuid7())
        self.session_id = session.id
        self.accepted_ms = now_ms()
        self.owner = session.owner
        self.principal = principal
        """The name of the caller that began it; empty where callers have no names."""
        self.events = events
        self.stops = stops or StoppableTurn()
        self.keep_on_disconnect = keep_on_disconnect
        self.clients = 0
        """How many clients that asked for it listen to it."""
        self.trace_id = CALLERS_TRACE.get().trace_id
        self.begun = False
        self.stop_reason = pb.STOP_REASON_UNSPECIFIED
        """Why it ended, once its engine has."""
        self.totals = Totals()
        self.started = 0.0
        """When it began, by time.monotonic(); 0 before."""
        self.ended = 0.0
        """When it ended, by time.monotonic(); 0 before."""

    def is_visible_to(self, viewer: str | None) -> bool:
        """Whether the caller `viewer` may see it; None: somebody who may see all sessions."""
        return may_see(self.owner, viewer)

    def cancel(self, why: str = CANCELLED) -> None:
        """Cancels it: why is the error of its calls, unless it is being cancelled already. Ended, it stays as it is."""
        if self.task is None:
            return
        if not self.task.cancelling():
            self.stops.why_cancelled = why
        self.task.cancel()

    def accept(self) -> None:
        """Tells its ids, once."""
        if not self.events.last:
            self.events.put(self.accepted())

    def accepted(self) -> pb.TurnEvent:
        """Its first event."""
        return accepted(self.session_id, self.turn_id, self.accepted_ms)

    def finish(self, error: status_pb2.Status | None) -> pb.TurnEvent:
        """Makes its last event. `error` is why it failed; None if it did not."""
        self.accept()
        stop_reason = pb.STOP_REASON_FAILED if error else self.stop_reason or pb.STOP_REASON_CANCELLED
        self.ended = time.monotonic()
        milliseconds = round((self.ended - self.started) * 1000) if self.started else 0
        event = turn_finished(stop_reason, self.totals, milliseconds, error)
        self.events.put(event)
        return event


class KeptTurns:
    """All turns that this gateway keeps, with a bound on what their events take."""

    def __init__(self) -> None:
        self._running: dict[str, KeptTurn] = {}
        self._ended = OrderedDict[str, KeptTurn]()
        self._bytes = 0
        self._ended_bytes = 0
        """Of the events of ended turns."""
        self._full_at, self._ended_full_at = MAX_KEPT_BYTES, MAX_ENDED_BYTES
        """At what sums it is looked for what can be dropped: what is waited for is not looked through each time."""

    def __len__(self) -> int:
        """How many run or wait."""
        return len(self._running)

    def begin(
        self, session: SessionState, principal: str, *, keep_on_disconnect: bool, stops: StoppableTurn | None = None
    ) -> KeptTurn:
        """A new turn of the caller `principal`, which `stops` can end."""
        events = TurnEvents(self._grow)
        turn = KeptTurn(session, events, principal=principal, keep_on_disconnect=keep_on_disconnect, stops=stops)
        self._running[turn.turn_id] = turn
        return turn

    def end(self, turn: KeptTurn) -> None:
        """The turn has ended. What it held is let go, but its events."""
        turn.task = None
        del self._running[turn.turn_id]
        self._ended[turn.turn_id] = turn
        self._ended_bytes += turn.events.kept_bytes
        self._forget_old()
        if self._ended_bytes > self._ended_full_at:
            self._drop_ended(self._ended_bytes - MAX_ENDED_BYTES * 3 // 4)
            self._ended_full_at = max(MAX_ENDED_BYTES, self._ended_bytes + MAX_ENDED_BYTES // 16)

    def running(self) -> list[KeptTurn]:
        """Those that run or wait, in the order of their requests."""
        return list(self._running.values())

    def find(self, turn_id: str) -> KeptTurn | None:
        """The turn, if it is kept."""
        self._forget_old()
        return self._running.get(turn_id) or self._ended.get(turn_id)

    def of_session(self, session_id: str) -> KeptTurn | None:
        """The running turn of a session, else the one that waits longest, else the one that ended last."""
        self._forget_old()
        here = [turn for turn in self._running.values() if turn.session_id == session_id]
        ended = (turn for turn in reversed(self._ended.values()) if turn.session_id == session_id)
        return next((turn for turn in here if turn.begun), None) or next(iter(here), None) or next(ended, None)

    def forget_session(self, session_id: str) -> None:
        """Forgets the turns of a session that have ended."""
        for turn in [turn for turn in self._ended.values() if turn.session_id == session_id]:
            self._forget(turn)

    def _forget(self, turn: KeptTurn) -> None:
        del self._ended[turn.turn_id]
        self._ended_bytes -= turn.events.kept_bytes
        turn.events.forget()

    def _forget_old(self) -> None:
        longest_ago = time.monotonic() - KEEP_SECONDS
        while self._ended:
            turn = next(iter(self._ended.values()))
            if turn.ended > longest_ago and len(self._ended) <= MAX_ENDED:
                return
            self._forget(turn)

    def _grow(self, size: int) -> None:
        self._bytes += size
        if size > 0 and self._bytes > self._full_at:
            self._drop_ended(self._bytes - MAX_KEPT_BYTES * 3 // 4)
            for turn in self.running():
                if self._bytes < MAX_KEPT_BYTES * 3 // 4:
                    break
                turn.events.drop()
            if self._bytes > MAX_KEPT_BYTES:
                self._cut_off_slow_readers()
            self._full_at = max(MAX_KEPT_BYTES, self._bytes + MAX_KEPT_BYTES // 16)

    def _drop_ended(self, excess: int) -> None:
        """Drops events of ended turns until `excess` bytes are gone, or all that nobody waits for."""
        most = self._ended_bytes - excess
        for turn in self._ended.values():
            if self._ended_bytes < most:
                return
            before = turn.events.kept_bytes
            turn.events.drop()
            self._ended_bytes += turn.events.kept_bytes - before

    def _cut_off_slow_readers(self) -> None:
        for turn in sorted(self.running(), key=lambda turn: turn.events.kept_bytes, reverse=True):
            if turn.events.cut_off() and not turn.keep_on_disconnect:
                turn.cancel()
            if self._bytes < MAX_KEPT_BYTES * 3 // 4:
                break
