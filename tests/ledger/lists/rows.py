"""The rows of the ledger of lists, and which of them a filter means."""

import operator
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2

from audit_svc.ledger.clock import SeenClock, wall_ms
from audit_svc.ledger.columns import Column
from audit_svc.ledger.query import STATUSES, Filter
from audit_svc.ledger.tables import CONTROL_COLUMNS, COST_COLUMNS, OUTCOMES, SESSION_COLUMNS, TOOL_CALL_COLUMNS
from tests.audit_svc.samples import row_of

Key = tuple[str, str]
"""(id, recorded_by)."""


class Rows:
    """Records by their rows' keys."""

    queued_rows = 0

    def __init__(self) -> None:
        self._calls: dict[Key, questions_pb2.ToolCallRecord] = {}
        self._requests: dict[Key, questions_pb2.ModelRequestRecord] = {}
        self._sessions: dict[Key, questions_pb2.SessionRecord] = {}
        self._controls: dict[Key, questions_pb2.ControlRecord] = {}
        self._queries: list[administration_pb2.QueryRow] = []
        self._covered: dict[Key, set[int]] = {}
        self._position = 0
        self._pruned_before = 0
        self._suspects: dict[Key, int] = {}
        self._labelled: dict[Key, int] = {}
        self._refusals: dict[tuple[str, str, str], list[tuple[int, int]]] = defaultdict(list)
        self._clock = SeenClock(None)
        self._is_pruning = self._is_closed = False
        self._erased: set[tuple[str, Key]] = set()
        self._kept_by_holds = 0
        self._holds: list[administration_pb2.Hold] = []

    async def close(self) -> None:
        self._is_closed = True

    async def why_no_commit(self) -> str:
        return ""

    async def log_queries(self, queries: Sequence[administration_pb2.QueryRow]) -> None:
        for row in queries:
            self._queries.append(administration_pb2.QueryRow(id=len(self._queries) + 1))
            self._queries[-1].MergeFrom(row)

    def _receipt(self, by: str) -> tuple[int, str, int]:
        self._position += 1
        return self._position, by, wall_ms()

    def _labels(self, record: Any) -> dict[str, str]:
        row = row_of(record)
        session_id = row.id if isinstance(row, audit_pb2.SessionRow) else getattr(row, "session_id", "")
        session = self._sessions.get((session_id, record.receipt.recorded_by))
        return dict(session.session.labels) if session else {}

    def _matching(self, wanted: Filter, table: Mapping[Key, Any]) -> list[Any]:
        return [
            record
            for key, record in table.items()
            if holds(wanted, record, self._labels(record)) and wanted.clock_suspect in (None, key in self._suspects)
        ]


def holds(wanted: Filter, record: Any, labels: Any) -> bool:
    row: Any = row_of(record)
    equal = dict[str, Any](wanted.equal)
    name = equal.pop("recorded_by", None)
    if name is not None and name != record.receipt.recorded_by:
        return False
    is_cost = isinstance(row, audit_pb2.CostRow)
    return (
        all(stored(row, name) == value for name, value in equal.items() if not (is_cost and name == "tool_name"))
        and all(stored(row, name) in values for name, values in wanted.any_of.items())
        and (not wanted.outcomes or is_cost or OUTCOMES[row.outcome] in wanted.outcomes)
        and (not wanted.statuses or STATUSES[row.status] in wanted.statuses)
        and (wanted.has_error is None or row.HasField("error") == wanted.has_error)
        and (wanted.shadow is None or row.shadow == wanted.shadow)
        and all(labels.get(key) == value for key, value in wanted.labels)
        and (not wanted.contains or wanted.contains.lower() in row.args_summary.lower())
        and (wanted.from_ms is None or began(row) >= wanted.from_ms)
        and (wanted.before_ms is None or began(row) < wanted.before_ms)
        and (wanted.updated_from_ms is None or row.updated_at_ms >= wanted.updated_from_ms)
        and (wanted.updated_before_ms is None or row.updated_at_ms < wanted.updated_before_ms)
    )


def began(row: Any) -> int:
    return int(row.at_ms if isinstance(row, audit_pb2.ControlRow) else row.created_at_ms)


def stored(row: Any, name: str) -> Any:
    """What a column of a table has of a row. Rows of the log of queries have their fields' names."""
    column = next((one for one in _COLUMNS.get(type(row), ()) if one.name == name), None)
    if column is None:
        return getattr(row, name)
    return column.store([operator.attrgetter(column.wire_name)(row)], [row])[0]


_COLUMNS: Mapping[type, tuple[Column, ...]] = {
    audit_pb2.AuditRow: TOOL_CALL_COLUMNS,
    audit_pb2.CostRow: COST_COLUMNS,
    audit_pb2.SessionRow: SESSION_COLUMNS,
    audit_pb2.ControlRow: CONTROL_COLUMNS,
}


def texts(row: Any) -> list[tuple[Any, str]]:
    """The texts of a row that can be erased: in which message, and their names."""
    names: list[tuple[Any, str]]
    if isinstance(row, audit_pb2.AuditRow):
        names = [(row, "args_summary"), *([(row, "error")] if row.HasField("error") else [])]
        return names + ([(row.decision, "reason")] if row.decision.reason else [])
    if isinstance(row, audit_pb2.ControlRow):
        return [(row, "reason")] if row.reason else []
    return [(row, "error")] if isinstance(row, audit_pb2.CostRow) and row.HasField("error") else []
