"""The mark that the ledger is pruned to: rows that began before it are refused, so that none comes back."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import COST_COLUMNS, SESSION_COLUMNS, TOOL_CALL_COLUMNS, Accepted, Batch, Values, rejection
from audit_svc.ledger.columns import Column
from audit_svc.sqlite.open.connection import Connection

Rejections = list[tuple[int, audit_pb2.Rejection]]


def _place(columns: Sequence[Column], name: str) -> int:
    return [column.name for column in columns].index(name)


_CALL_BEGAN = _place(TOOL_CALL_COLUMNS, "created_at")
_REQUEST_BEGAN = _place(COST_COLUMNS, "created_at")
_SESSION_UPDATED = _place(SESSION_COLUMNS, "updated_at")


def pruned_before(connection: Connection) -> int:
    """The time that the ledger is pruned to, in milliseconds since 1970-01-01 UTC; 0 when it never was."""
    ((mark,),) = connection.execute("SELECT max(pruned_before) FROM pruned")
    return int(mark or 0)


def refuse_old(connection: Connection, batch: Batch, mark: int, rejections: Rejections) -> Batch:
    """The batch without what began before mark; adds what it leaves out to rejections.

    A session that the ledger still has may go on, however old its row is.
    """

    def known(row: Values) -> bool:
        return connection.execute("SELECT 1 FROM sessions WHERE id = ?", (row[0],)).fetchone() is not None

    return replace(
        batch,
        tool_calls=_recent(batch.tool_calls, _CALL_BEGAN, "created_at_ms", mark, rejections),
        costs=_recent(batch.costs, _REQUEST_BEGAN, "created_at_ms", mark, rejections),
        sessions=_recent(batch.sessions, _SESSION_UPDATED, "updated_at_ms", mark, rejections, spare=known),
    )


def _recent(
    accepted: Accepted,
    place: int,
    field: str,
    mark: int,
    rejections: Rejections,
    spare: Callable[[Values], bool] = lambda row: False,
) -> Accepted:
    if not accepted or min(accepted.values[place :: accepted.width]) >= mark:
        return accepted
    kept: list[object] = []
    positions: list[int] = []
    for position, row in zip(accepted.positions, accepted.rows(), strict=True):
        if row[place] >= mark or spare(row):
            kept.extend(row)
            positions.append(position)
        else:
            message = f"{field} is before what the ledger has been pruned to"
            rejections.append((position, rejection(row[0], audit_pb2.REJECTION_CODE_TOO_OLD, message)))
    return Accepted(kept, accepted.width, positions)
