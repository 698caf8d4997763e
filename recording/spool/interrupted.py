"""The row of a call that never ended, because its process did."""

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.spool.records import Versioned, decode_row, encode_row

RUNNING = "interrupted: the gateway ended while the tool ran, so whether it finished is not known"
WAITING = "interrupted: the gateway ended while the call waited for an answer, so the tool did not run"


def interrupted(intent: Versioned) -> Versioned:
    """The row that follows from an intent. What a newer version has put into the intent stays in it."""
    row = decode_row(intent.payload)
    assert isinstance(row, audit_pb2.AuditRow)  # noqa: S101 - append_intent takes no other
    row.outcome = common_pb2.OUTCOME_INTERRUPTED
    asked = row.decision.source == common_pb2.DECISION_SOURCE_PERSON and not row.decision.verdict
    row.error = WAITING if asked else RUNNING
    row.duration_ms = 0
    return Versioned(intent.row_version, encode_row(row))
