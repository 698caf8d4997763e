"""The sessions' rows: of each (id, recorded_by) the highest revision, with its labels; and a log of all revisions."""

from typing import Any, Final

from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.columns import Problem
from audit_svc.ledger.tables import SESSION_COLUMNS
from audit_svc.ledger.valid_rows import Values
from audit_svc.sql.write.session_labels import SessionLabels
from audit_svc.sql.write.summed_sessions import SummedSessions
from audit_svc.sql.writing import Connection

OTHER_SESSION = Problem(
    audit_pb2.REJECTION_CODE_CONFLICT,
    "the ledger has this revision of the caller's session with other content, or the id is another session's",
)
CONFLICT: Final = None
"""What write() answers for a row that is neither newer than the ledger's nor an earlier state of it."""

_NAMES = [column.name for column in SESSION_COLUMNS]
_REVISION, _CREATED_AT = _NAMES.index("revision"), _NAMES.index("created_at")
_UPSERT = (
    f"INSERT INTO sessions (recorded_by, recorded_at, {', '.join(_NAMES)}) "  # noqa: S608 - names of ours
    f"VALUES ({', '.join('?' * (2 + len(_NAMES)))}) ON CONFLICT (id, recorded_by) DO UPDATE SET "
    f"recorded_at = excluded.recorded_at, {', '.join(f'{name} = excluded.{name}' for name in _NAMES[1:])} "
    "WHERE excluded.revision > sessions.revision"
)
_SELECT = f"SELECT {', '.join(_NAMES)}, recorded_by FROM sessions WHERE id = ? AND "  # noqa: S608 - names of ours
_SELECT_OWN = _SELECT + "recorded_by = ?"


class SessionTable:
    """Writes sessions, one by one, inside the transaction that the writer has opened."""

    statements = (_UPSERT, _SELECT_OWN, *SessionLabels.statements)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._labels = SessionLabels(connection)
        self._summed = SummedSessions(connection)

    def write(self, row: Values, recorded_by: str, others: str, now_ms: int) -> bool | None:
        """Writes a row whose last value is the dictionary of its labels.

        others: where else the same row may stand (see Recorders.others).

        Returns whether it is newer than what the ledger has of the caller's session: False where the ledger has this
        row, or one that is newer than it; CONFLICT where it has neither.
        """
        *values, labels = row
        if not row[_REVISION]:
            return self._summed.label(row, recorded_by, others, now_ms)
        if others and self._stands_in(f"{_SELECT}{others}", (values[0],), row):
            return False
        self._connection.execute(_UPSERT, (recorded_by, now_ms, *values))
        if not self._connection.changes():
            return False if self._is_earlier(row, recorded_by) else CONFLICT
        self._labels.write(values[0], recorded_by, labels)
        self._labels.log(recorded_by, now_ms, values, labels)
        return True

    def _is_earlier(self, row: Values, recorded_by: str) -> bool:
        """Whether the row is the caller's, or an earlier state of it, which a batch that is sent again may have."""
        key = (row[0], recorded_by)
        found: Any = self._connection.execute(_SELECT_OWN, key).fetchone()
        if row[_REVISION] < found[_REVISION]:
            return bool(row[_CREATED_AT] == found[_CREATED_AT])
        return self._stands_in(_SELECT_OWN, key, row)

    def _stands_in(self, select: str, key: tuple[Any, ...], row: Values) -> bool:
        *values, labels = row
        for *found, recorded_by in self._connection.execute(select, key).fetchall():
            if found == values and self._labels.of(values[0], str(recorded_by)) == labels:
                return True
        return False
