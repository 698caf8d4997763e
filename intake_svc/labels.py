"""The labels of agents' sessions: which repository and branch they are in, where the agent or its hook says."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from onrecord.audit.v1 import audit_pb2

from intake_svc.dialects.reading import Labelled
from recording.rows import label_row

_MOST_SESSIONS = 4_096


class SessionLabels:
    """Remembers what was told of sessions, so that it is told once. From any thread.

    It is forgotten at a restart, and of the session idle for longest: the ledger knows what it is told again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: OrderedDict[str, tuple[int, dict[str, str]]] = OrderedDict()

    def rows(self, labelled: Sequence[Labelled]) -> list[audit_pb2.SessionRow]:
        """The rows of what is new. Nothing is remembered yet."""
        if not labelled:
            return []
        latest: dict[tuple[str, str], dict[str, str]] = {}
        at: dict[tuple[str, str], int] = {}
        for one in sorted(labelled, key=lambda one: one.at_ms):
            said = {"repository": one.repository, "branch": one.branch}
            key = one.session_id, one.engine
            latest[key] = latest.get(key, {}) | {name: text for name, text in said.items() if text}
            at[key] = one.at_ms
        rows = [label_row(*key, labels, at[key]) for key, labels in latest.items()]
        with self._lock:
            return [row for row in rows if dict(row.labels).items() - self._of(row.id).items()]

    def remember(self, rows: Sequence[object]) -> None:
        """Those of the rows that are of sessions are safe."""
        with self._lock:
            for row in rows:
                if isinstance(row, audit_pb2.SessionRow):
                    at_ms, known = self._told.pop(row.id, (0, {}))
                    both = known | dict(row.labels) if row.updated_at_ms >= at_ms else dict(row.labels) | known
                    self._told[row.id] = max(at_ms, row.updated_at_ms), both
            while len(self._told) > _MOST_SESSIONS:
                self._told.popitem(last=False)

    def _of(self, session_id: str) -> dict[str, str]:
        return self._told[session_id][1] if session_id in self._told else {}
