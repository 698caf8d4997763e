"""The audit logger's protocol, and calls to it that never fail."""

from typing import Protocol

from onrecord.audit.v1 import audit_pb2

from recording.log import get_logger

Row = audit_pb2.AuditRow | audit_pb2.CostRow | audit_pb2.SessionRow | audit_pb2.ControlRow

log = get_logger(__name__)


class AuditRefused(Exception):
    """In mode `strict`: the call's intent could not be recorded, so the tool must not run."""


class AuditLogger(Protocol):
    """Where rows go. No method waits for the network. All may raise; safe_audit() and its like do not."""

    def intend(self, row: audit_pb2.AuditRow) -> None:
        """Records that a tool is about to run: the row of its call, without an outcome.

        record() with a row of the same id closes the intent. If none comes, recovery turns the intent into a row with
        the outcome `interrupted`.

        Raises:
            AuditRefused: the mode is `strict` and the intent could not be recorded.
        """
        ...

    def record(self, row: Row) -> None:
        """Records a row. Once this returns, the row survives the death of this process."""
        ...

    async def synced(self) -> None:
        """Waits until what was taken before survives a power cut, where the deployment promises that of each row.

        Elsewhere it returns at once.

        Raises:
            AuditRefused: the mode is `strict`, and the disk failed.
        """
        ...


def safe_audit(logger: AuditLogger, row: Row) -> None:
    """Records the row. A failure is logged and has no effect on the caller."""
    try:
        logger.record(row)
    except Exception:  # a broken audit path never changes what an engine, a tool or the loop does
        log.warning("audit.record_failed", row_id=row.id, exc_info=True)


def safe_intend(logger: AuditLogger, row: audit_pb2.AuditRow) -> str | None:
    """Records the intent. Returns why the tool must not run, or None if it may."""
    try:
        logger.intend(row)
    except AuditRefused as refusal:
        return str(refusal)
    except Exception:  # as in safe_audit
        log.warning("audit.intend_failed", row_id=row.id, exc_info=True)
    return None


async def safe_synced(logger: AuditLogger) -> str | None:
    """Waits for the disk where that is promised; returns why a tool must not run, or None when it may."""
    try:
        await logger.synced()
    except AuditRefused as refusal:
        return str(refusal)
    except Exception:  # as in safe_audit
        log.warning("audit.sync_failed", exc_info=True)
    return None
