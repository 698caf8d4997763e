"""Keeps the sums of sessions: adds rows in the writer's idle time, forgets, rebuilds and checks."""

from collections.abc import Iterator
from typing import Any

from audit_svc.sql.marks import pruned_before
from audit_svc.sql.read.listing import Condition
from audit_svc.sql.usage.session_usage import SELECT_SUMS, grouped, sum_some, summed_of
from audit_svc.sql.usage.usage_tables import usage_tables
from audit_svc.sqlite.open.connection import Connection, transaction
from audit_svc.sqlite.read.database import SQLITE

KINDS = usage_tables(SQLITE).kinds


def sum_sessions(connection: Connection) -> Iterator[None]:
    """Adds all rows that no sum has yet, in steps of some milliseconds; the connection may do other things between."""
    for kind in KINDS:
        while True:
            with transaction(connection):
                last = sum_some(connection, kind)
            if last is None:
                break
            yield


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
    with transaction(connection):
        connection.execute("DELETE FROM session_usage")
        connection.execute("UPDATE session_usage_summed SET tool_calls = 0, model_requests = 0")
    yield from sum_sessions(connection)


def session_differences(connection: Connection) -> int:
    """How many sums are not what the rows say that they have, of those that answers are made from."""
    mark = pruned_before(connection)
    wrong = set()
    for kind in KINDS:
        last = summed_of(connection)[kind.summed]
        kept = {
            key: (earliest, latest, values)
            for key, earliest, latest, values in grouped(connection, kind.sums, [], "earliest", "latest")
            if earliest >= mark
        }
        within = [Condition("r.position <= ?", (last,)), Condition("+r.created_at >= ?", (mark,))]
        for key, earliest, latest, values in grouped(connection, kind.rows, within, "created_at", "created_at"):
            if key not in kept:
                # Its sums have what was pruned too, or are missing.
                found: Any = connection.execute(SELECT_SUMS, key).fetchone()
                if found is None or found[0] >= mark:
                    wrong.add(key)
                continue
            first, until, sums = kept.pop(key)
            if not first <= earliest <= latest <= until or sums != values:
                wrong.add(key)
        wrong |= {key for key, (_, _, sums) in kept.items() if any(sums)}
    return len(wrong)
