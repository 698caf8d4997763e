"""What the ledger says of itself as a whole."""

from collections.abc import Sequence

from audit_svc.errors import AmbiguousId
from audit_svc.sql.database import Connection


def pruned_before(connection: Connection) -> int:
    """The time that the ledger is pruned to, in milliseconds since 1970-01-01 UTC; 0 when it never was."""
    ((mark,),) = connection.execute("SELECT max(pruned_before) FROM pruned")
    return int(mark or 0)


def recorders_of(connection: Connection) -> set[str]:
    """The names of all who have recorded rows."""
    return {str(name) for (name,) in connection.execute("SELECT recorded_by FROM recorders")}


def ambiguous_session(session_id: str, recorded_by: Sequence[str]) -> AmbiguousId:
    """The error for a question about a session id that several callers recorded."""
    names = ", ".join(repr(name) for name in sorted(recorded_by))
    return AmbiguousId(
        f"several callers recorded a session with this id: choose one with recorded_by (`--recorded-by`): {names}",
        "session",
        session_id,
        sorted(recorded_by),
    )
