"""The calls that are told of before they end: by a hook, or by telemetry that has the decision and not the result.

A call waits for what else is told of it: how it ended, and then, for a short while, the agent's telemetry of the same
call. All of it is one row. What comes after that is a duplicate, and counted.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from intake_svc.calls.accounts import decided, interrupted, merged
from intake_svc.calls.call import Call, event_key, is_told_by, key_of, may_be_alike, may_begin, row_id, session_of
from intake_svc.calls.journal import Journal
from intake_svc.calls.on_record import OnRecord
from intake_svc.calls.open_calls import OpenCalls
from intake_svc.hooks import rows
from intake_svc.hooks.event import HookEvent
from intake_svc.hooks.tables import TABLES
from recording.args_key import ArgsKey
from recording.calls import Decision
from recording.ids import uuid7
from recording.rows import decide

SESSION_ENDED = "the session ended while the call was open"


@dataclass(slots=True)
class Joined:
    """Rows of telemetry, with what hooks told of the same calls."""

    rows: list[audit_pb2.AuditRow]
    """To be taken into the spool."""
    finished: list[Call]
    """Calls whose rows are among them."""
    expected: list[audit_pb2.AuditRow] = field(default_factory=list)
    """Those of the finished calls whose hooks have not told yet that they ended, and can tell by times alone."""
    duplicates: int = 0
    """Rows that were left out, since their calls are on the record."""


class Calls:
    """The calls. Its methods may be called by several threads."""

    def __init__(self, journal: Journal, args_key: ArgsKey | None, join_seconds: float, open_seconds: float) -> None:
        self._args_key = args_key
        self._lock = threading.RLock()
        self._journal = journal
        self._open = OpenCalls(journal, join_seconds, open_seconds)
        self._on_record = OnRecord(journal)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is told in the body, by this thread, is on the disk when it ends: the disk is waited for once.

        Raises:
            OSError: it is not on the disk.
        """
        with self._lock, self._journal.together():
            yield

    def begin(
        self, event: HookEvent, principal: str, decision: Decision | None = None, *, is_kept: bool = False
    ) -> bool:
        """A tool is about to run, or is refused by the decision; on the disk when it returns. False: a duplicate.

        Args:
            event: what the hook told.
            principal: the authenticated name of the caller.
            decision: what was decided here; None for nothing.
            is_kept: whether the hook kept the event, since it had no answer when it first told of it.

        Raises:
            OSError: it is not on the disk.
        """
        with self._lock:
            if self._is_told(told := event_key(principal, event.id)):
                return False
            intent = self._intent(event, principal)
            key = key_of(intent)
            if is_kept and self._on_record.has_begun(key, event.at_ms):
                return False
            is_refused = decision is not None and decision.verdict == common_pb2.VERDICT_DENIED
            if is_kept and not key and self._was_expected_to_begin(intent, told):
                return False
            alike = self._open.with_key(key)
            if is_kept:
                alike = [call for call in alike if may_begin(call.row.id, call.row.created_at_ms, event.at_ms)]
            known = alike[-1] if alike else None
            told_before: list[str] = []
            if known is not None and known.row.source == common_pb2.SOURCE_OTLP:  # kept lines may come late
                intent.id, told_before = known.row.id, known.told
                intent.decision.CopyFrom(known.row.decision)
            elif known is not None and (is_kept or (not known.has_ended and may_be_alike(known.row, intent))):
                if not is_refused:  # a hook that is configured twice tells each event twice
                    return False
                intent.id, told_before = known.row.id, known.told
            if decision is not None and is_refused:
                intent = rows.refused(intent, decision)
            elif decision is not None:
                decide(intent, decision)
            call = self._open.make(intent, has_ended=is_refused)
            call.told = [*told_before, *filter(None, (told,))]
            self._open.keep([call])
            if known is not None and known.row.id != intent.id and not is_kept:
                known.due = 0.0  # an agent that gives an id again has begun again
            self._on_record.forget(key)
            return True

    def end(self, event: HookEvent, principal: str, *, is_kept: bool = False) -> bool:
        """A call ended or was refused; on the disk when it returns. False: a duplicate.

        Raises:
            OSError: it is not on the disk.
        """
        with self._lock:
            if self._is_told(told := event_key(principal, event.id)):
                return False
            fresh = self._intent(event, principal)
            key = key_of(fresh)
            is_late = is_kept and not key  # and may be the end of no other call that is open
            if is_late and self._on_record.was_expected_to_end(fresh, event.at_ms, told, begun_late=True):
                return False
            call = self._open.that_ends(fresh, key, event.at_ms if is_kept else None)
            if call is None:
                if self._on_record.knows(key) or (
                    not key and self._on_record.was_expected_to_end(fresh, event.at_ms, told)
                ):
                    return False
                fresh.id = str(uuid7())
                if event.duration_ms is not None:
                    fresh.created_at_ms = max(1, event.at_ms - event.duration_ms)
                call = self._open.make(fresh, has_ended=False)
            elif call.has_ended:
                return False
            ended = replace(
                call,
                row=rows.ended(call.row, event),
                has_ended=True,
                why=rows.NOT_TOLD,
                due=self._open.until(has_ended=True),
                told=[*call.told, *filter(None, (told,))],
            )
            self._open.keep([ended])
            return True

    def end_session(self, event: HookEvent, principal: str) -> None:
        """A session ended. Its open calls wait for telemetry a little longer, and are then told as interrupted."""
        session = session_of(self._intent(event, principal))
        with self._lock:
            for call in self._open:
                if not call.has_ended and session_of(call.row) == session:
                    call.due, call.why = self._open.until(has_ended=True), SESSION_ENDED

    def is_here(self, engine: str) -> bool:
        """Whether calls of an engine may be told of by hooks."""
        return engine in TABLES

    def decide(self, intents: Iterable[audit_pb2.AuditRow]) -> None:
        """Telemetry says what decided on calls whose result it does not have: they are open when this returns.

        Raises:
            OSError: they are not on the disk.
        """
        with self._lock:
            changed: dict[str, Call] = {}
            opened: set[str] = set()
            for intent in intents:
                if not self.is_here(intent.engine) or not (key := key_of(intent)):
                    continue
                call = changed.get(key) or self._latest(key)
                if call is None and not self._on_record.is_told(key, intent):
                    changed[key] = self._open.make(intent, has_ended=False)
                    opened.add(key)
                elif call is not None and not call.row.outcome:
                    changed[key] = replace(call, row=decided(call.row, intent))
            if changed:
                self._open.keep(changed.values())
            for key in opened:
                self._on_record.forget(key)

    def join(self, told: Sequence[audit_pb2.AuditRow]) -> Joined:
        """Joins rows of telemetry with what hooks told; settle() says that the result is in the spool.

        Raises:
            OSError: what they become is not on the disk.
        """
        joined = Joined([], [])
        if not any(self.is_here(row.engine) for row in told):
            return Joined(list(told), [])
        with self._lock:
            changed: dict[str, Call] = {}
            for row in told:
                key = key_of(row)
                call = (self._latest(key) or self._open.same(row, changed)) if self.is_here(row.engine) else None
                if call is not None and call.row.id not in changed:
                    both = replace(call, row=merged(call.row, row), has_ended=True, told=[*call.told, row.id])
                    changed[both.row.id] = both
                    joined.rows.append(both.row)
                    if not (call.key or call.has_ended):
                        joined.expected.append(both.row)
                elif self._is_told_again(key, row, call):
                    joined.duplicates += 1
                else:
                    joined.rows.append(row)
            if changed:
                joined.finished += changed.values()
                self._open.keep(joined.finished)
        return joined

    def settle(self, joined: Joined) -> None:
        """What was joined is in the spool."""
        with self._lock:
            for call in joined.finished:
                self._open.remove(call)
                self._on_record.add(call, is_joined=True)
            ours = {call.row.id for call in joined.finished}
            for row in joined.rows:
                if row.id in ours or not self.is_here(row.engine):
                    continue
                if key := key_of(row):
                    self._on_record.add_result(key, row)
                if not TABLES[row.engine].call_id:
                    self._on_record.expect(row, has_begun=False)
            for row in joined.expected:
                self._on_record.expect(row, has_begun=True)

    def flush(self, take: Callable[[list[audit_pb2.AuditRow]], bool], *, all_ended: bool = False) -> int:
        """Takes into the spool what has waited long enough; returns how many.

        Args:
            take: puts rows into the spool; False where that cannot be done now.
            all_ended: also those that have ended, and only wait for what telemetry may add.

        Raises:
            OSError: what they become is not on the disk.
        """
        with self._lock:
            now = time.monotonic()
            ready = [
                call if call.row.outcome else replace(call, row=interrupted(call.row, call.why))
                for call in self._open
                if call.due <= now or (all_ended and call.has_ended and call.row.outcome)
            ]
            if not ready:
                return 0
            self._open.keep(ready)  # what is sent again after a restart must be the same
            if not take([call.row for call in ready]):
                return 0
            for call in ready:
                self._open.remove(call)
                self._on_record.add(call, is_joined=False)
            return len(ready)

    def waiting(self) -> int:
        """How many calls are not in the spool yet."""
        return len(self._open)

    def _was_expected_to_begin(self, intent: audit_pb2.AuditRow, told: str) -> bool:
        """Whether telemetry has told of a call without an id; one that was taken for it before is open then."""
        call = self._open.make(intent, has_ended=False)
        call.told += filter(None, (told,))
        apart, begun = self._on_record.share_out(call)
        if apart is call:
            return False
        if apart is not None:
            self._open.keep([replace(apart, due=call.due)])
        self._on_record.was_begun(begun)
        return True

    def _is_told(self, event: str) -> bool:
        """Whether a hook's event has been taken before."""
        return bool(event) and (self._open.was_told_by(event) or self._on_record.knows(event))

    def _is_told_again(self, key: str, row: audit_pb2.AuditRow, joined: Call | None) -> bool:
        """Whether a row of telemetry is of a call on the record, or that another of its export was joined to."""
        if joined is not None and is_told_by(joined.row.id, row):
            return True
        return self.is_here(row.engine) and self._on_record.is_done(key, row)

    def _latest(self, key: str) -> Call | None:
        calls = self._open.with_key(key)
        return calls[-1] if calls else None

    def _intent(self, event: HookEvent, principal: str) -> audit_pb2.AuditRow:
        intent = rows.intent_of(event, "", principal, self._args_key)
        intent.id = row_id(key, event.at_ms) if (key := key_of(intent)) else str(uuid7())
        return intent
