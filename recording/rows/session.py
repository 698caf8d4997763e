"""The session row: the state of a session at one revision, or labels of one that nobody keeps."""

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
    turns: int,
    tool_calls: int,
    usage: common_pb2.Usage,
    labels: Mapping[str, str],
    created_at_ms: int,
    updated_at_ms: int,
) -> audit_pb2.SessionRow:
    """The row of a session. No value that a caller chose makes it raise.

    Args:
        session_id: the session.
        revision: starts at 1 and grows with each row of the session; 0 in label_row().
        status: what the session is doing.
        engine: that of the last turn.
        model: that of the last turn.
        turns: turns begun.
        tool_calls: tool calls made.
        usage: what the session's model requests took together.
        labels: as the caller gave them.
        created_at_ms: when the session began, in milliseconds since 1970-01-01 UTC.
        updated_at_ms: when it reached this state, likewise.
    """
    return audit_pb2.SessionRow(
        id=fit.identifier(session_id),
        revision=revision,
        engine=fit.engine(engine),
        model=fit.model(model),
        status=status,
        turns=fit.bounded(turns),
        tool_calls=fit.bounded(tool_calls),
        usage=common_pb2.Usage(**{field.name: fit.bounded(count) for field, count in usage.ListFields()}),
        labels=fit.labels(labels),
        created_at_ms=fit.bounded(created_at_ms),
        updated_at_ms=fit.bounded(updated_at_ms),
    )


def label_row(session_id: str, engine: str, labels: Mapping[str, str], at_ms: int) -> audit_pb2.SessionRow:
    """The row that adds labels to a session which the ledger sums up: one of revision 0.

    Args:
        session_id: the session.
        engine: of its rows.
        labels: of two values of a key the later one stands.
        at_ms: when they were so, in milliseconds since 1970-01-01 UTC.
    """
    return session_row(
        session_id,
        0,
        common_pb2.SESSION_STATUS_UNSPECIFIED,
        engine=engine,
        model="",
        turns=0,
        tool_calls=0,
        usage=common_pb2.Usage(),
        labels=labels,
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
    )
