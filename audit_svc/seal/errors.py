"""What can be wrong with a seal."""

from audit_svc.errors import AuditError


class SealError(AuditError):
    """The message says what is wrong and what to do."""


class BadLog(SealError):
    """The files of the log contradict each other or the signed checkpoint."""


class Rewritten(SealError):
    """The ledger no longer has what was sealed."""


class InUse(SealError):
    """Another process seals into the folder."""


class NotSealed(SealError):
    """The row is not in the log."""
