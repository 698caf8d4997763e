"""Keeps the sums of sessions of a file: adds rows in the writer's idle time, forgets."""

from collections.abc import Iterator
from functools import partial

from audit_svc.sql.usage import session_recount
from audit_svc.sql.usage.usage_tables import usage_tables
from audit_svc.sqlite.open.connection import Connection, transaction
from audit_svc.sqlite.read.database import SQLITE

KINDS = usage_tables(SQLITE).kinds


def sum_sessions(connection: Connection) -> Iterator[None]:
    """Adds all rows that no sum has yet, in steps of some milliseconds; the connection may do other things between."""
    return session_recount.sum_sessions(connection, SQLITE, partial(transaction, connection))


def forget_sessions(connection: Connection, before_ms: int, limit: int) -> bool:
    """Forgets sums of what ended before before_ms, at most limit of them; False when none is left.

    In the open transaction. What ended later stays as it is: it begins before what is pruned, so that it is counted
    from its rows.
    """
    # A table of which all rows are removed begins again with the row numbers.
    for kind in KINDS:
        table = kind.rows.name
        connection.execute(
            f"UPDATE session_usage_summed SET {kind.summed} = min({kind.summed}, "  # noqa: S608 - names of ours
            f"(SELECT coalesce(max(position), 0) FROM {table}))"
        )
    old = "SELECT rowid FROM session_usage WHERE latest < ? LIMIT ?"
    connection.execute(f"DELETE FROM session_usage WHERE rowid IN ({old})", (before_ms, limit))  # noqa: S608 - a text of ours
    return connection.changes() == limit


def rebuild_sessions(connection: Connection) -> Iterator[None]:
    """Makes the sums again from the rows, in steps as sum_sessions()."""
    return session_recount.rebuild_sessions(connection, SQLITE, partial(transaction, connection))


def session_differences(connection: Connection) -> int:
    """How many sums are not what the rows say that they have, of those that answers are made from."""
    return session_recount.session_differences(connection, SQLITE)
