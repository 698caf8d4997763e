"""What the record has done since the process started, for metrics."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counts only rise. All spools of a process and its sender share one."""

    accepted: int = 0
    """Rows taken by record(); intents are not counted."""
    dropped: int = 0
    """Rows that could not be taken: each is told by a gap row."""
    lost: int = 0
    """Rows that were taken and whose files were taken away before they were sent: each is told by a gap row."""
    moved: int = 0
    """Folders that were left for another, since they or a file in them were taken away."""
    interrupted: int = 0
    """Tool calls that were found open when a spool was recovered."""
    quarantined: int = 0
    """Damaged pieces of segments that were set aside."""
    missing: int = 0
    """Record numbers that a spool should hold and does not."""
    sync_failures: int = 0
    acked: int = 0
    """Rows that the audit service has answered for, rejected ones included."""
    stored: int = 0
    """Acked rows that were new in the ledger."""
    duplicates: int = 0
    """Acked rows that were in the ledger already."""
    rejected: int = 0
    """Rows in the dead-letter file."""
    resent: int = 0
    """Rows sent again since no ack came for them."""
    reconnects: int = 0
    """Connections that ended, or were never made."""
    adopted: int = 0
    """Folders of other processes taken over."""
