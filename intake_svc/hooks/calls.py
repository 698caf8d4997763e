"""The calls that are told of before they end: by a hook, or by telemetry that has the decision and not the result.

A call waits for what else is told of it: how it ended, and then, for a short while, the agent's telemetry of the same
call. All of it is one row. What comes after that is a duplicate, and counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from intake_svc.dialects import claude, codex
from intake_svc.hooks import rows
from intake_svc.hooks.event import HookEvent
from intake_svc.hooks.journal import Journal
from intake_svc.hooks.tables import TABLES, Kind
from recording.args_key import ArgsKey
from recording.calls import Decision
from recording.ids import uuid7
from recording.rows import decide

SLACK_MS = 2_000
"""How far apart the clocks of two accounts of one call may be, where nothing but times tells that it is one."""
NEVER_ENDED = "the agent never said how the call ended"
SESSION_ENDED = "the session ended while the call was open"
_MAX_RECENT = 4_096
_MAX_OPEN = 16_384
_DECIDES_APART = frozenset((claude.DIALECT.engine, codex.DIALECT.engine))
"""Agents whose telemetry tells of decisions by themselves."""
_RESULT = "result "
"""Marks the id of a row that telemetry made of a result alone: an agent's model server may give a call's id again."""


@dataclass(slots=True)
class Call:
    """A call that is not in the spool yet."""

    row: audit_pb2.AuditRow
    key: str
    """What it is known by; empty where the agent gives calls no ids."""
    due: float
    """When it goes to the spool as it is, by time.monotonic()."""
    why: str = NEVER_ENDED
    """Said where nobody has told how it ended."""
    has_ended: bool = False
    arguments: bytes = b""
    """A digest of them, where the agent gives calls no ids."""
    told: list[str] = field(default_factory=list)
    """What would tell of it again."""


@dataclass(slots=True)
class Joined:
    """Rows of telemetry, with what hooks told of the same calls."""

    rows: list[audit_pb2.AuditRow]
    """To be taken into the spool."""
    finished: list[Call]
    """Calls whose rows are among them."""
    duplicates: int = 0
    """Rows that were left out, since their calls are on the record."""


class Calls:
    """The calls. Its methods may be called by several threads."""

    def __init__(self, journal: Journal, args_key: ArgsKey | None, join_seconds: float, open_seconds: float) -> None:
        self._journal = journal
        self._args_key = args_key
        self._join_seconds = join_seconds
        self._open_seconds = open_seconds
        self._lock = threading.Lock()
        self._open: dict[str, Call] = {}
        self._by_key: dict[str, Call] = {}
        self._recent: deque[audit_pb2.AuditRow] = deque(maxlen=_MAX_RECENT)
        for row in journal.calls.values():
            has_ended = row.outcome != common_pb2.OUTCOME_UNSPECIFIED or row.duration_ms > 0
            call = Call(row, _key(row), self._until(has_ended=has_ended), has_ended=has_ended)
            self._add(call)

    def begin(
        self, event: HookEvent, principal: str, decision: Decision | None = None, *, is_kept: bool = False
    ) -> bool:
        """A tool is about to run, or is refused by the decision; on the disk when it returns. False: a duplicate.

        Raises:
            OSError: it is not on the disk.
        """
        with self._lock:
            intent = self._intent(event, principal)
            key = _key(intent)
            if is_kept and (intent.id in self._open or key in self._journal.done):
                return False
            is_refused = decision is not None and decision.verdict == common_pb2.VERDICT_DENIED
            known = self._by_key.get(key) if key else None
            if known is not None and known.row.source == common_pb2.SOURCE_OTLP:  # kept lines may come late
                intent.id = known.row.id
                intent.decision.CopyFrom(known.row.decision)
            elif known is not None and not known.has_ended and known.arguments == _digest(event):
                if not is_refused:  # a hook that is configured twice tells each event twice
                    return False
                intent.id = known.row.id
            elif known is not None and is_kept and not known.arguments:
                return False  # taken before a restart that lost the answer, so that the hook kept it too
            elif known is not None:  # an agent that gives an id again has begun again
                known.due, known.key = 0.0, ""
            if decision is not None and is_refused:
                intent = rows.refused(intent, decision)
            elif decision is not None:
                decide(intent, decision)
            self._journal.put([intent])
            self._journal.done.pop(key, None)
            self._add(
                Call(intent, key, self._until(has_ended=is_refused), has_ended=is_refused, arguments=_digest(event))
            )
            return True

    def end(self, event: HookEvent, principal: str, *, is_kept: bool = False) -> bool:
        """A call ended or was refused; on the disk when it returns. False: a duplicate.

        Raises:
            OSError: it is not on the disk.
        """
        with self._lock:
            fresh = self._intent(event, principal)
            call = self._find(fresh, _digest(event), key := _key(fresh))
            if call is None:
                if key in self._journal.done or (is_kept and fresh.id in self._open):
                    return False
                if event.duration_ms is not None:
                    fresh.created_at_ms = max(1, event.at_ms - event.duration_ms)
                call = Call(fresh, key, 0.0, arguments=_digest(event))
            elif call.has_ended:
                return False
            row = rows.ended(call.row, event)
            self._journal.put([row])
            call.row, call.has_ended, call.why = row, True, rows.NOT_TOLD
            call.due = self._until(has_ended=True)
            self._add(call)
            return True

    def end_session(self, event: HookEvent, principal: str) -> None:
        """A session ended. Its open calls wait for telemetry a little longer, and are then told as interrupted."""
        session = self._intent(event, principal)
        with self._lock:
            for call in self._open.values():
                if not call.has_ended and _session(call.row) == _session(session):
                    call.due, call.why = self._until(has_ended=True), SESSION_ENDED

    def is_here(self, engine: str) -> bool:
        """Whether calls of an engine may be told of by hooks."""
        return engine in TABLES

    def decide(self, intents: Iterable[audit_pb2.AuditRow]) -> None:
        """Telemetry says what decided on calls whose result it does not have: they are open when this returns.

        Raises:
            OSError: they are not on the disk.
        """
        with self._lock:
            opened: dict[str, Call] = {}
            for intent in intents:
                if not self.is_here(intent.engine) or not (key := _key(intent)):
                    continue
                call = self._by_key.get(key) or opened.get(key)
                if call is None and not self._is_told(key, intent):
                    opened[key] = Call(intent, key, self._until(has_ended=False))
                elif call is not None and not call.row.outcome:
                    call.row.decision.CopyFrom(rows.merged_decision(call.row.decision, intent.decision))
            if opened:
                self._journal.put(call.row for call in opened.values())
            for key, call in opened.items():
                self._journal.done.pop(key, None)
                self._add(call)

    def join(self, told: Sequence[audit_pb2.AuditRow]) -> Joined:
        """Joins rows of telemetry with what hooks told; settle() says that the result is in the spool.

        Raises:
            OSError: what they become is not on the disk.
        """
        joined = Joined([], [])
        if not any(self.is_here(row.engine) for row in told):
            return Joined(list(told), [])
        with self._lock:
            changed: dict[str, tuple[Call, audit_pb2.AuditRow]] = {}
            for row in told:
                key = _key(row)
                call = None if not self.is_here(row.engine) else self._by_key.get(key) or self._same(row, changed)
                if call is not None and call.row.id not in changed:
                    one = rows.merged(call.row, row)
                    changed[one.id] = call, one
                    joined.rows.append(one)
                    call.told.append(row.id)
                elif self.is_here(row.engine) and self._is_done(key, row):
                    joined.duplicates += 1
                else:
                    joined.rows.append(row)
            if changed:
                self._journal.put(one for _, one in changed.values())
                for call, one in changed.values():
                    call.row, call.has_ended = one, True
                    joined.finished.append(call)
        return joined

    def settle(self, joined: Joined) -> None:
        """What was joined is in the spool."""
        with self._lock:
            self._finish(joined.finished)
            ours = {call.row.id for call in joined.finished}
            for row in joined.rows:
                if row.id not in ours and self.is_here(row.engine) and (key := _key(row)):
                    known_as = row.id if row.outcome == common_pb2.OUTCOME_DENIED else _RESULT + row.id
                    if row.engine in _DECIDES_APART:  # also after a restart, its decision opens nothing
                        self._journal.finish(known_as, [key])
                    else:
                        self._journal.remember(key, known_as)

    def flush(self, take: Callable[[list[audit_pb2.AuditRow]], bool], *, all_ended: bool = False) -> int:
        """Takes into the spool what has waited long enough; returns how many.

        Args:
            take: puts rows into the spool; False where that cannot be done now.
            all_ended: also those that have ended, and only wait for what telemetry may add.
        """
        with self._lock:
            now = time.monotonic()
            ready = [
                call
                for call in self._open.values()
                if call.due <= now or (all_ended and call.has_ended and call.row.outcome)
            ]
            for call in ready:
                if not call.row.outcome:
                    call.row = rows.interrupted(call.row, call.why)
            if not ready:
                return 0
            self._journal.put(call.row for call in ready)  # what is sent again after a restart must be the same
            if not take([call.row for call in ready]):
                return 0
            self._recent += (call.row for call in ready if not call.key)
            self._finish(ready)
            return len(ready)

    def waiting(self) -> int:
        """How many calls are not in the spool yet."""
        return len(self._open)

    def _until(self, *, has_ended: bool) -> float:
        return time.monotonic() + (self._join_seconds if has_ended else self._open_seconds)

    def _intent(self, event: HookEvent, principal: str) -> audit_pb2.AuditRow:
        intent = rows.intent_of(event, "", principal, self._args_key)
        intent.id = rows.row_id(key, event.at_ms) if (key := _key(intent)) else str(uuid7())
        return intent

    def _add(self, call: Call) -> None:
        self._open[call.row.id] = call
        if len(self._open) > _MAX_OPEN:  # the oldest goes as it is
            oldest = next((each for each in self._open.values() if each.due), call)
            oldest.due = 0.0
        if call.key:
            self._by_key[call.key] = call

    def _finish(self, calls: Iterable[Call]) -> None:
        for call in calls:
            self._open.pop(call.row.id, None)
            if self._by_key.get(call.key) is call:
                del self._by_key[call.key]
            self._journal.finish(call.row.id, [call.key, *call.told])

    def _find(self, row: audit_pb2.AuditRow, arguments: bytes, key: str) -> Call | None:
        if key:
            return self._by_key.get(key)
        alike = [
            call
            for call in self._open.values()
            if not (call.key or call.has_ended)
            and _session(call.row) == _session(row)
            and call.row.tool_name == row.tool_name
        ]
        return next((call for call in alike if call.arguments == arguments), alike[0] if alike else None)

    def _same(self, row: audit_pb2.AuditRow, taken: Iterable[str]) -> Call | None:
        """The call of a row of telemetry, where no id but their times and tool tell that they are one."""
        found = (call for call in self._open.values() if not call.key and _overlap(call.row, row))
        return next((call for call in found if call.row.id not in taken), None)

    def _is_told(self, key: str, row: audit_pb2.AuditRow) -> bool:
        """Whether a row of telemetry is of the call that is known by the key, and not of a later one of that id."""
        known = self._journal.done.get(key, "").removeprefix(_RESULT)
        if not known:
            return False
        began_ms = _time_of(known)
        return began_ms is None or row.created_at_ms <= began_ms + SLACK_MS

    def _is_done(self, key: str, row: audit_pb2.AuditRow) -> bool:
        """Whether a row of telemetry is of a call that is on the record by another row."""
        known = self._journal.done.get(row.id)
        if known is None and key and self._is_told(key, row):
            known = self._journal.done[key]
        if known is not None:
            return known != row.id and not known.startswith(_RESULT)
        alone = next((one for one in self._recent if _overlap(one, row)), None)
        if alone is None:
            return False
        self._recent.remove(alone)
        self._journal.finish(alone.id, [row.id])
        return True


def _key(row: audit_pb2.AuditRow) -> str:
    if not (row.provider_call_id and row.session_id):
        return ""
    said = "\0".join((row.principal, row.engine, row.session_id, row.provider_call_id))
    return sha256(said.encode()).hexdigest()[:32]


def _time_of(row_id: str) -> int | None:
    """When the call of a row of telemetry began, by its id; None of a hook's."""
    return int(row_id[:8] + row_id[9:13], 16) if row_id[14:15] == "7" else None


def _session(row: audit_pb2.AuditRow) -> tuple[str, str, str]:
    return row.principal, row.engine, row.session_id


def _overlap(by_hook: audit_pb2.AuditRow, row: audit_pb2.AuditRow) -> bool:
    if _session(by_hook) != _session(row) or by_hook.tool_name != row.tool_name:
        return False
    began, ended = by_hook.created_at_ms - SLACK_MS, by_hook.created_at_ms + by_hook.duration_ms + SLACK_MS
    if not by_hook.outcome:  # it runs
        ended = row.created_at_ms
    return row.created_at_ms + row.duration_ms >= began and row.created_at_ms <= ended


def _digest(event: HookEvent) -> bytes:
    """Of arguments, where a call has no id. Never stored."""
    if event.call_id or event.kind is Kind.SESSION_ENDED:
        return b""
    return sha256((event.arguments or "").encode("utf-8", "surrogatepass")).digest()
