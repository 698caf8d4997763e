"""The mark that the ledger is pruned to: what was pruned does not come back, and what is new is kept.

A row that began before the mark is one or the other. Its producer's numbers decide, not a clock: rows of a batch of
which no number has come before are new, and are kept and marked as suspect. Others are refused: also those of a
producer that keeps no numbers, or sends old numbers together with new ones.
"""

from collections.abc import Callable
from dataclasses import replace

from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import Batch
from audit_svc.ledger.columns import Problem
from audit_svc.ledger.tables import CALL_BEGAN, REQUEST_BEGAN, SESSION_UPDATED
from audit_svc.ledger.valid_rows import ValidRows, Values
from audit_svc.sql.write.producers import highest_of
from audit_svc.sql.writing import Connection

Rejections = list[audit_pb2.Rejection]


def refuse_old(connection: Connection, batch: Batch, mark: int, rejections: Rejections) -> tuple[Batch, bool]:
    """The batch without what was pruned, and whether it has rows from before mark that are new.

    Adds what it leaves out to rejections.

    A session that the ledger still has may go on, however old its row is.
    """

    def known(where: str) -> Callable[[Values], bool]:
        sql = f"SELECT 1 FROM {where} AND recorded_by = ?"  # noqa: S608 - texts of ours
        return lambda row: connection.execute(sql, (row[0], batch.recorded_by)).fetchone() is not None

    refused: Rejections = []
    kept_calls, kept_costs = (
        known(f"{table} WHERE id = ? AND clock_suspect IS NOT NULL") for table in ("tool_call_log", "cost_log")
    )
    recent = replace(
        batch,
        tool_calls=_recent(batch.tool_calls, CALL_BEGAN, "created_at_ms", mark, refused, spare=kept_calls),
        model_requests=_recent(batch.model_requests, REQUEST_BEGAN, "created_at_ms", mark, refused, spare=kept_costs),
        sessions=_recent(
            batch.sessions, SESSION_UPDATED, "updated_at_ms", mark, refused, spare=known("sessions WHERE id = ?")
        ),
    )
    if refused and is_new(connection, batch):
        return batch, True
    rejections.extend(refused)
    return recent, False


def is_new(connection: Connection, batch: Batch) -> bool:
    """Whether none of the batch's numbers has come before. It has come before where it has no numbers."""
    if not batch.numbers:
        return False
    producer_id, first, last = batch.numbers
    producer = producer_id, batch.recorded_by
    if first > highest_of(connection, producer):
        return True
    within = "producer_id = ? AND recorded_by = ? AND first_sequence <= ? AND last_sequence >= ?"
    gap = connection.execute(
        f"SELECT 1 FROM producer_gaps WHERE {within}",  # noqa: S608 - a text of ours
        (*producer, first, last),
    )
    return gap.fetchone() is not None


def _recent(
    accepted: ValidRows,
    place: int,
    field: str,
    mark: int,
    rejections: Rejections,
    spare: Callable[[Values], bool] = lambda row: False,
) -> ValidRows:
    if not accepted or min(accepted.values[place :: accepted.width]) >= mark:
        return accepted
    problem = Problem(audit_pb2.REJECTION_CODE_TOO_OLD, f"{field} is before what the ledger has been pruned to", field)
    kept: list[object] = []
    positions: list[int] = []
    for position, row in zip(accepted.positions, accepted.rows(), strict=True):
        if row[place] >= mark or spare(row):
            kept.extend(row)
            positions.append(position)
        else:
            rejections.append(accepted.rejection(position, row[0], problem))
    return replace(accepted, values=kept, positions=positions)
