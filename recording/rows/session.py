"""The session row: the state of a session at one revision."""

from collections.abc import Mapping

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.rows import fit


def session_row(
    session_id: str,
    revision: int,
    status: common_pb2.SessionStatus.ValueType,
    *,
    engine: str,
    model: str,
    labels: Mapping[str, str],
    created_at_ms: int,
    updated_at_ms: int,
    **counts: int,
) -> audit_pb2.SessionRow:
    """The row of a session. No value that a caller chose makes it raise.

    Args:
        session_id: the session.
        revision: starts at 1 and grows with each row of the session.
        status: what the session is doing.
        engine: that of the last turn.
        model: that of the last turn.
        labels: as the caller gave them.
        created_at_ms: when the session began, in milliseconds since 1970-01-01 UTC.
        updated_at_ms: when it reached this state, likewise.
        counts: turns, steps, tool_calls, input_tokens, output_tokens, cost_micros, unpriced_steps.
    """
    return audit_pb2.SessionRow(
        id=fit.identifier(session_id),
        revision=revision,
        engine=fit.engine(engine),
        model=fit.model(model),
        status=status,
        labels=fit.labels(labels),
        created_at_ms=fit.bounded(created_at_ms),
        updated_at_ms=fit.bounded(updated_at_ms),
        **{name: fit.bounded(count) for name, count in counts.items()},
    )
