"""Tool calls in the order in which they were committed, which is that of their row numbers."""

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import TOOL_CALL_COLUMNS, tool_call_row
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import MAX_PAGE_BYTES, Condition, Statement

ROWS_AT_ONCE = 1000
"""Rows that one look goes through at most."""

_COLUMNS = ["rowid", *(column.name for column in TOOL_CALL_COLUMNS)]
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM tool_call_log"  # noqa: S608 - names of ours


def last_row(connection: apsw.Connection, _: object = None) -> int:
    """The number of the last row; 0 when there is none."""
    row = connection.execute("SELECT max(rowid) FROM tool_call_log").fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def rows_after(
    connection: apsw.Connection, asked: tuple[audit_pb2.TailToolCallsRequest, int]
) -> tuple[list[audit_pb2.AuditRow], int, int]:
    """Goes on through the rows behind a number, as far as one message holds.

    Returns:
        The rows that the filters let through, the number of the row that it came to, and the number of the last row.

    Raises:
        InvalidRequest: see audit.proto.
    """
    request, after = asked
    filters = _filters(request)
    last = last_row(connection)
    upto = min(last, after + ROWS_AT_ONCE)
    if upto <= after:
        return [], after, last
    sql, arguments = listing.select(_SELECT, [Condition("rowid > ? AND rowid <= ?", (after, upto)), *filters])
    statement = Statement(f"{sql} ORDER BY rowid LIMIT {ROWS_AT_ONCE}", arguments)
    rows: list[audit_pb2.AuditRow] = []
    size_bytes = 0
    for number, *values in listing.fetch(connection, _COLUMNS, statement):
        rows.append(tool_call_row(values))
        size_bytes += rows[-1].ByteSize()
        if size_bytes > MAX_PAGE_BYTES:
            return rows, int(number), last
    return rows, upto, last


def _filters(request: audit_pb2.TailToolCallsRequest) -> list[Condition]:
    texts = ("session_id", "engine", "tool_name", "model")
    conditions = [Condition(f"+{name} = ?", (getattr(request, name),)) for name in texts if getattr(request, name)]
    conditions += [Condition("+error IS NOT NULL")] if request.errors_only else []
    if request.outcomes:
        names = [name or "" for name in listing.outcome_names(request.outcomes)]
        conditions.append(Condition(f"coalesce(outcome, '') IN ({', '.join('?' * len(names))})", tuple(names)))
    return conditions
