"""Counters of recording since the process started, for metrics."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counters that only grow. All spools of a process and its sender share one."""

    accepted: int = 0
    """Rows accepted by record(), without intents."""
    dropped: int = 0
    """Rows that could not be recorded; gap rows count them."""
    lost: int = 0
    """Accepted rows whose files were taken away before they were sent; gap rows count them."""
    moved: int = 0
    """Times that a spool moved because its folder, or a file in it, was taken away."""
    interrupted: int = 0
    """Tool calls found open at the recovery of a spool."""
    quarantined: int = 0
    """Damaged pieces of segments that were set aside."""
    missing: int = 0
    """Record numbers that a spool should hold and does not."""
    sync_failures: int = 0
    acked: int = 0
    """Rows that the audit service has answered, rejected ones included."""
    stored: int = 0
    """Acked rows that were new in the ledger."""
    duplicates: int = 0
    """Acked rows that were in the ledger already."""
    rejected: int = 0
    """Rows in the dead-letter file."""
    resent: int = 0
    """Rows resent because no ack came."""
    reconnects: int = 0
    """Connections that ended or failed."""
    adopted: int = 0
    """Adopted folders of other processes."""
    doubts: int = 0
    """Times that the ledger was found not to be what it was."""
    returned: int = 0
    """Acked rows that the ledger did not have any more, and that were sent again."""
