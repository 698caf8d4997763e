"""The record: what a tool call leaves behind, and how it gets to the audit service without anybody waiting for it."""

from typing import Protocol

import structlog
from onrecord.audit.v1 import audit_pb2

Row = audit_pb2.AuditRow | audit_pb2.CostRow | audit_pb2.SessionRow

log = structlog.get_logger(__name__)


class AuditRefused(Exception):
    """In mode `strict`: the call's intent could not be put on the record, so the tool must not run."""


class AuditLogger(Protocol):
    """Where rows go. Both methods return without waiting for the network, and may raise: see safe_audit."""

    def intend(self, row: audit_pb2.AuditRow) -> None:
        """Puts on the record that a tool is about to run: the row of its call, whose outcome is not known yet.

        record() of a row with the same id closes the intent. One that is never closed becomes a row with the outcome
        `interrupted` when the record is recovered.

        Raises:
            AuditRefused: the mode is `strict` and the intent could not be taken.
        """
        ...

    def record(self, row: Row) -> None:
        """Takes a row. When it has returned, the row survives the death of this process."""
        ...


def safe_audit(logger: AuditLogger, row: Row) -> None:
    """Records row; whatever goes wrong is logged and changes nothing for the caller."""
    try:
        logger.record(row)
    except Exception:  # a broken audit path never changes what an engine, a tool or the loop does
        log.warning("audit.record_failed", row_id=row.id, exc_info=True)


def safe_intend(logger: AuditLogger, row: audit_pb2.AuditRow) -> str | None:
    """Records the intent of row; returns why the tool must not run, or None when it may."""
    try:
        logger.intend(row)
    except AuditRefused as refusal:
        return str(refusal)
    except Exception:  # as in safe_audit
        log.warning("audit.intend_failed", row_id=row.id, exc_info=True)
    return None
