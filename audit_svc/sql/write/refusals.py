"""Rows that were refused for good, on the record: summed up, so that refusals cannot fill a disk."""

from collections import Counter
from collections.abc import Sequence

from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import Batch
from audit_svc.sql.writing import Connection, larger, smaller

MINUTE_MS = 60_000

_ADD = (
    "INSERT INTO refusals VALUES (?, ?, ?, ?, ?, ?, ?) "  # noqa: S608 - names of ours
    "ON CONFLICT (recorded_by, producer_id, code, minute) DO UPDATE SET rows = refusals.rows + excluded.rows, "
    f"first_sequence = {smaller('refusals.first_sequence', 'excluded.first_sequence')}, "
    f"last_sequence = {larger('refusals.last_sequence', 'excluded.last_sequence')}"
)


def note_refusals(connection: Connection, batch: Batch, refused: Sequence[audit_pb2.Rejection]) -> None:
    """Adds the refused rows of a batch, in the open transaction. A batch that is sent again is counted again."""
    minute = batch.received_ms - batch.received_ms % MINUTE_MS
    producer_id, first, last = batch.numbers or ("", 0, 0)
    for code, rows in Counter(rejection.code for rejection in refused).items():
        name = audit_pb2.RejectionCode.Name(code).removeprefix("REJECTION_CODE_").lower()
        key = (batch.recorded_by, producer_id, name, minute)
        connection.execute(_ADD, (*key, rows, first, last))
