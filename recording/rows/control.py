"""The control row: an act that changes what agents may do."""

import time

from onrecord.audit.v1 import audit_pb2

from recording.ids import uuid7
from recording.rows import fit


def control_row(
    kind: audit_pb2.ControlKind.ValueType,
    *,
    scope: str,
    principal: str = "",
    policy_digest: str = "",
    reason: str = "",
    stop_id: str = "",
) -> audit_pb2.ControlRow:
    """The row of an act that happens now. Never raises.

    Args:
        kind: what was done.
        scope: what it applies to.
        principal: the authenticated name of who did it; empty where it was the service, or callers have no names.
        policy_digest: of the rules that are in force from now on.
        reason: why, in the words of who did it.
        stop_id: the stop that was made or lifted.
    """
    return audit_pb2.ControlRow(
        id=str(uuid7()),
        kind=kind,
        principal=fit.name(principal),
        scope=fit.scope(scope),
        policy_digest=fit.name(policy_digest),
        reason=fit.reason(reason),
        at_ms=time.time_ns() // 1_000_000,
        stop_id=fit.identifier(stop_id),
    )
