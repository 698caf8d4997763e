"""The labels of sessions, and the log of what was said of sessions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from audit_svc.ledger.tables import SESSION_COLUMNS
from audit_svc.sql.usage.named_usage import note_labels
from audit_svc.sql.writing import Connection

_NAMES = [column.name for column in SESSION_COLUMNS]
_FORGET = "DELETE FROM session_labels WHERE session_id = ? AND recorded_by = ?"
_ADD = "INSERT INTO session_labels VALUES (?, ?, ?, ?)"
_OF = "SELECT key, value FROM session_labels WHERE session_id = ? AND recorded_by = ?"
_LOG = (
    f"INSERT INTO session_log (recorded_by, recorded_at, {', '.join(_NAMES)}, labels) "  # noqa: S608 - names of ours
    f"VALUES ({', '.join('?' * (3 + len(_NAMES)))})"
)


class SessionLabels:
    """Works inside the transaction that the writer has opened."""

    statements = (_FORGET, _ADD, _OF, _LOG)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, session_id: str, recorded_by: str) -> dict[str, str]:
        """The labels of a session."""
        return dict(self._connection.execute(_OF, (session_id, recorded_by)))

    def are_in(self, others: str, session_id: str, labels: Mapping[str, str]) -> bool:
        """Whether a session of the id has all of labels under a name that others tells (see Recorders.others)."""
        found = self._connection.execute(f"SELECT recorded_by FROM sessions WHERE id = ? AND {others}", (session_id,))  # noqa: S608 - ours
        return any(labels.items() <= self.of(session_id, str(name)).items() for (name,) in found.fetchall())

    def write(self, session_id: str, recorded_by: str, labels: Mapping[str, str]) -> None:
        """Has a session have these labels and no others."""
        before = self.of(session_id, recorded_by)
        if before == labels:
            return
        note_labels(self._connection, session_id, recorded_by, before, labels)
        self._connection.execute(_FORGET, (session_id, recorded_by))
        rows = [(session_id, recorded_by, key, value) for key, value in labels.items()]
        self._connection.executemany(_ADD, rows)

    def log(self, recorded_by: str, now_ms: int, values: Sequence[Any], labels: Mapping[str, str]) -> None:
        """Logs what was said of a session. values: those of SESSION_COLUMNS."""
        said = json.dumps(labels, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        self._connection.execute(_LOG, (recorded_by, now_ms, *values, said))
