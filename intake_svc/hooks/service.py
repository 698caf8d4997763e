"""Takes the events of hooks, whichever way they come, and says what the agent is answered."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from intake_svc.calls.calls import Calls
from intake_svc.dialects.reading import Labelled
from intake_svc.errors import StoreUnavailable, TooLarge
from intake_svc.hooks.answers import refusal
from intake_svc.hooks.event import HookEvent, WrongEvent, from_line, read_event
from intake_svc.hooks.rules import decide
from intake_svc.hooks.tables import Kind
from intake_svc.labels import SessionLabels
from intake_svc.lenient_json import load_json
from intake_svc.metrics import DoorMetrics
from intake_svc.stops import Stops
from recording.calls import Decision
from recording.logger import AuditRefused
from recording.record import Record
from recording.spool import SpoolClosed
from service_kit.access.callers import current_caller
from service_kit.bounds import Exceeded, check_json
from service_kit.errors import InvalidRequest
from service_kit.producing.stop import Subject, told
from service_kit.producing.stop import decision as stopped_by

log = structlog.get_logger(__name__)

STOPS_UNKNOWN = "stops_unknown"
"""The rule of a call that is refused since it cannot be known whether it is stopped."""
FLUSH_SECONDS = 0.5
MAX_LOST = 2**20
LINES_AT_ONCE = 128
"""Of what hooks kept: the disk is waited for once for so many."""


class Hooks:
    """The events of hooks. Its methods belong to the event loop."""

    def __init__(self, record: Record, calls: Calls, labels: SessionLabels, stops: Stops, metrics: DoorMetrics) -> None:
        self._record = record
        self._calls = calls
        self._labels = labels
        self._stops = stops
        self._metrics = metrics
        # Of its own: a tool does not wait for exports that are unpacked.
        self._thread = ThreadPoolExecutor(1, "hooks")
        metrics.add_open_calls(calls.waiting)

    async def take(
        self,
        agent: str,
        name: str,
        body: bytes,
        rules: bytes = b"",
        place: tuple[str, str] = ("", ""),
        event_id: str = "",
        *,
        is_strict: bool = False,
    ) -> dict[str, Any] | None:
        """Takes one event; it is on the disk when this returns the answer, None for none.

        Args:
            agent: a key of TABLES.
            name: of the event, where the body does not say it.
            body: what the agent gave to its hook.
            rules: a file of rules that came with it; empty for none.
            place: the repository and the branch in which the hook ran.
            event_id: by which the event is known when it comes again; empty where the agent sent it by itself.
            is_strict: whether a call is refused when these cannot be used.

        Raises:
            InvalidRequest: it is no event of the agent's hooks.
            TooLarge: it has more values than bounds.JSON_VALUES.
            StoreUnavailable: it is not on the disk.
        """
        caller = current_caller()
        principal = caller.name if caller else ""
        event = partial(self._take, agent, name, body, principal, rules, place, event_id, is_strict=is_strict)
        return await asyncio.get_running_loop().run_in_executor(self._thread, event)

    async def take_kept(self, body: bytes, lost: int) -> None:
        """Takes the lines that `onrecord-hook` kept while no door was there, and how many it had no room for.

        Raises:
            StoreUnavailable: they are not on the disk; none is lost.
        """
        caller = current_caller()
        principal = caller.name if caller else ""
        lines, loop = body.splitlines(), asyncio.get_running_loop()
        for start in range(0, len(lines), LINES_AT_ONCE):  # between two of them, tools that wait have their turn
            piece = lines[start : start + LINES_AT_ONCE]
            await loop.run_in_executor(self._thread, self._take_kept, piece, principal)
        if lost:
            note_lost = partial(self._record.spool.note_lost, min(lost, MAX_LOST), time.time_ns() // 1_000_000)
            await loop.run_in_executor(self._thread, note_lost)

    async def flush_for_ever(self) -> None:
        """Has calls go to the spool when they have waited long enough."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self, *, all_ended: bool = False) -> None:
        """Has those go to the spool that have waited long enough, or all that ended. Where that fails, they wait on."""
        flush = partial(self._calls.flush, self._spool, all_ended=all_ended)
        try:
            count = await asyncio.get_running_loop().run_in_executor(self._thread, flush)
            if count:
                self._metrics.count_hooks("tool_call", count)
                await self._record.logger.synced()
        except (OSError, AuditRefused) as error:
            log.warning("hooks.flush_failed", error=type(error).__name__)

    def close(self) -> None:
        """Ends its thread."""
        self._thread.shutdown()

    def _take(
        self,
        agent: str,
        name: str,
        body: bytes,
        principal: str,
        rules: bytes,
        place: tuple[str, str],
        event_id: str,
        *,
        is_strict: bool,
    ) -> dict[str, Any] | None:
        now = time.time_ns() // 1_000_000
        try:
            check_json(body)
            event = read_event(agent, load_json(body), now, name, place, event_id)
        except Exceeded as exceeded:  # `onrecord-hook` keeps what it says, without the arguments
            self._metrics.count_hooks("not_understood")
            raise TooLarge(f"the event has {exceeded}") from None
        except WrongEvent as error:
            self._metrics.count_hooks("not_understood")
            raise InvalidRequest(str(error), "") from None
        except (ValueError, RecursionError):
            self._metrics.count_hooks("not_understood")
            raise InvalidRequest("the body is not JSON", "") from None
        if event.kind is Kind.BEFORE and (trouble := self._record.spool.trouble()):
            raise StoreUnavailable(trouble)
        decision, answer = None, None
        if event.kind is Kind.BEFORE:
            decision, answer = self._stopped(event, principal, is_strict=is_strict)
        if rules and event.kind is Kind.BEFORE and decision is None:
            decision, answer = decide(rules, event, principal, is_strict=is_strict)
        with self._on_disk():
            self._tell(event, principal, decision)
        return answer

    def _stopped(
        self, event: HookEvent, principal: str, *, is_strict: bool
    ) -> tuple[Decision | None, dict[str, Any] | None]:
        """The decision and the answer of a stop; None for neither. What cannot be known refuses in strict."""
        subject = Subject(principal, event.table.agent, event.agent, event.labels)
        if stop := self._stops.of(subject, event.tool):
            self._metrics.count_hooks("stopped")
            return stopped_by(stop), refusal(event.agent, told(stop))
        if is_strict and (trouble := self._stops.trouble()):
            source, denied = common_pb2.DECISION_SOURCE_RULE, common_pb2.VERDICT_DENIED
            return Decision(source, denied, rule=STOPS_UNKNOWN), refusal(event.agent, f"It was not run: {trouble}.")
        return None, None

    def _take_kept(self, lines: Sequence[bytes], principal: str) -> None:
        with self._on_disk(), self._calls.together():
            for line in lines:
                try:
                    self._tell(from_line(line), principal, is_kept=True)
                except WrongEvent:
                    self._metrics.count_hooks("not_understood")

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Raises StoreUnavailable where the body cannot write."""
        try:
            yield
        except OSError as error:
            log.error("hooks.not_on_disk", reason=error.strerror)
            raise StoreUnavailable("the event cannot be made safe now") from None

    def _tell(
        self, event: HookEvent, principal: str, decision: Decision | None = None, *, is_kept: bool = False
    ) -> None:
        match event.kind:
            case Kind.NOTHING:
                self._metrics.count_hooks("ignored")
            case Kind.SESSION_ENDED:
                self._calls.end_session(event, principal)
                self._metrics.count_hooks("ignored")
            case Kind.BEFORE:
                if not self._calls.begin(event, principal, decision, is_kept=is_kept):
                    self._metrics.count_hooks("duplicate")
            case _:
                if not self._calls.end(event, principal, is_kept=is_kept):
                    self._metrics.count_hooks("duplicate")
        self._label(event)

    def _label(self, event: HookEvent) -> None:
        """Says where the session is. What cannot be said now is said at the next event."""
        if event.session and (event.repository or event.branch):
            told = Labelled(event.session, event.agent, event.repository, event.branch, event.at_ms)
            rows = self._labels.rows([told])
            if rows and self._spool(rows):
                self._labels.remember(rows)

    def _spool(self, rows: Sequence[audit_pb2.AuditRow | audit_pb2.SessionRow]) -> bool:
        try:
            return self._record.logger.take(rows) is not None
        except SpoolClosed:
            return False
