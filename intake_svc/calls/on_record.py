"""What is known of calls that are on the record, so that whatever tells of them again is a duplicate."""

from collections.abc import Mapping

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from intake_svc.calls.call import SLACK_MS, ByTool, Call, began_ms, is_told_by, may_be_alike, may_begin, overlap
from intake_svc.calls.journal import Journal
from intake_svc.dialects import claude, codex

_MAX_RECENT = 4_096
_DECIDES_APART = frozenset((claude.DIALECT.engine, codex.DIALECT.engine))
"""Agents whose telemetry tells of decisions by themselves."""
_RESULT = "result "
"""Marks the id of a row that telemetry made of a result alone: an agent's model server may give a call's id again."""


class OnRecord:
    """The calls. One thread at a time."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._recent: ByTool[audit_pb2.AuditRow] = ByTool(_MAX_RECENT)
        """Calls that only times tell."""
        self._expected: ByTool[audit_pb2.AuditRow] = ByTool(_MAX_RECENT)
        """Calls that only times tell, of which telemetry told before their hooks."""
        self._begun: dict[str, Call | None] = {}
        """By the ids of those of which a hook has told that they begin: what it told; None where it told in time."""

    def knows(self, key: str) -> bool:
        """Whether something with such a key is of a call on the record, or of a call of that id was."""
        return key in self._journal.done

    def forget(self, key: str) -> None:
        """A new call has the key."""
        self._journal.done.pop(key, None)

    def add(self, call: Call, *, is_joined: bool) -> None:
        """A call is in the spool. is_joined: with what telemetry told of it."""
        if not (call.key or is_joined):
            self._recent.add(call.row, call.row)
        self._journal.finish(call.row.id, [call.key, *call.told])

    def expect(self, row: audit_pb2.AuditRow, *, has_begun: bool) -> None:
        """A row of telemetry is in the spool, and hooks may yet tell of its call. has_begun: of its end alone."""
        self._begun.pop(self._expected.add(row, row), None)
        if has_begun:
            self._begun[row.id] = None

    def share_out(self, call: Call) -> tuple[Call | None, Mapping[str, Call]]:
        """Finds the row of telemetry of a call of whose beginning a hook told late.

        Of several beginnings near a row's start the latest before it is the row's: a call that is taken for another has
        no row at all. Nothing changes until was_begun().

        Returns: the call that is of no such row, an earlier one that gives its row to this one too, None for none; and
            what was_begun() takes.
        """
        begun: dict[str, Call] = {}
        apart: Call | None = call
        while apart is not None and (row := self._nearest(apart, begun)) is not None:
            begun[row.id], apart = apart, begun.get(row.id) or self._begun.get(row.id)
        return apart, begun

    def was_begun(self, begun: Mapping[str, Call]) -> None:
        """Calls began of which telemetry told before, by the ids of its rows."""
        for id_, call in begun.items():
            self._begun[id_] = call
            for told in call.told:
                self._journal.remember(told, id_)

    def _nearest(self, call: Call, begun: Mapping[str, Call]) -> audit_pb2.AuditRow | None:
        """The row to whose start a call's beginning is nearest, of those to which none is nearer."""
        found = []
        for row in self._expected.like(call.row):
            distance = _distance(call, row)
            if abs(row.created_at_ms - call.row.created_at_ms) > SLACK_MS or not may_be_alike(row, call.row):
                continue
            if row.id in begun or row.id in self._begun:
                other = begun.get(row.id) or self._begun[row.id]
                if other is None or _distance(other, row) <= distance:
                    continue
            found.append((distance, row))
        return min(found, key=lambda each: each[0])[1] if found else None

    def was_expected_to_end(
        self, ended: audit_pb2.AuditRow, at_ms: int, told: str, *, begun_late: bool = False
    ) -> bool:
        """Whether a hook that was called then tells of the end of a call of which telemetry has told.

        told: what would tell of it again. begun_late: of those alone of which was_begun() told.
        """
        found = []
        for row in self._expected.like(ended):
            begun, distance = self._begun.get(row.id), abs(at_ms - row.created_at_ms - row.duration_ms)
            if distance > SLACK_MS or not may_be_alike(row, ended) or (begun_late and begun is None):
                continue
            if begun is None or may_be_alike(begun.row, ended):
                found.append((distance, row))
        if not found:
            return False
        row = min(found, key=lambda each: each[0])[1]
        self._expected.remove(row.id)
        self._begun.pop(row.id, None)
        self._journal.remember(told, row.id)
        return True

    def add_result(self, key: str, row: audit_pb2.AuditRow) -> None:
        """A row is in the spool of a call that only telemetry told of."""
        known_as = row.id if row.outcome == common_pb2.OUTCOME_DENIED else _RESULT + row.id
        if row.engine in _DECIDES_APART:  # also after a restart, its decision opens nothing
            self._journal.finish(known_as, [key])
        else:
            self._journal.remember(key, known_as)

    def has_begun(self, key: str, at_ms: int) -> bool:
        """Whether a hook's event that was kept since then tells of the call that is known by the key."""
        known = self._journal.done.get(key, "").removeprefix(_RESULT)
        return bool(known) and may_begin(known, began_ms(known), at_ms)

    def is_told(self, key: str, row: audit_pb2.AuditRow) -> bool:
        """Whether a row of telemetry is of the call that is known by the key, and not of a later one of that id."""
        known = self._journal.done.get(key, "").removeprefix(_RESULT)
        return bool(known) and is_told_by(known, row)

    def is_done(self, key: str, row: audit_pb2.AuditRow) -> bool:
        """Whether a row of telemetry is of a call that is on the record by another row."""
        known = self._journal.done.get(row.id)
        if known is None and key and self.is_told(key, row):
            known = self._journal.done[key]
        if known is not None:
            return known != row.id and not known.startswith(_RESULT)
        alone = next((one for one in self._recent.like(row) if overlap(one, row)), None)
        if alone is None:
            return False
        self._recent.remove(alone.id)
        self._journal.finish(alone.id, [row.id])
        return True


def _distance(call: Call, row: audit_pb2.AuditRow) -> tuple[bool, int]:
    """How far a beginning is from a row's start; what is behind it is farther than all before it."""
    behind_ms = call.row.created_at_ms - row.created_at_ms
    return behind_ms > 0, abs(behind_ms)
