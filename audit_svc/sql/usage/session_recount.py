"""Makes the sums of sessions again from the rows, and compares them."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from audit_svc.sql.database import Dialect
from audit_svc.sql.marks import pruned_before
from audit_svc.sql.read.listing import Condition
from audit_svc.sql.usage.named_usage import move_relabelled
from audit_svc.sql.usage.session_usage import LEAST_ROWS, SELECT_SUMS, grouped, rows_next, sum_some, summed_of
from audit_svc.sql.usage.usage_tables import usage_tables
from audit_svc.sql.writing import Connection

STEP_SECONDS, ROWS_A_STEP = 0.015, 250
"""The processor time that a step may take, most of it for named_usage, and its rows at most. With labels that only
their own session has, a row takes six times as long as others."""

Transaction = Callable[[], AbstractContextManager[Any]]


def sum_sessions(connection: Connection, dialect: Dialect, transaction: Transaction) -> Iterator[None]:
    """Adds all rows that no sum has yet, in steps of some milliseconds; the connection may do other things between."""
    rows = LEAST_ROWS
    for kind in usage_tables(dialect).kinds:
        while True:
            began = time.thread_time()
            with transaction():
                last = sum_some(connection, kind, rows)
            if last is None:
                break
            rows = rows_next(rows, time.thread_time() - began, STEP_SECONDS, ROWS_A_STEP)
            yield
    moved = True
    while moved:
        with transaction():
            moved = move_relabelled(connection, usage_tables(dialect).kinds)
        yield


def rebuild_sessions(connection: Connection, dialect: Dialect, transaction: Transaction) -> Iterator[None]:
    """Makes the sums again from the rows, in steps as sum_sessions()."""
    with transaction():
        forget_sums(connection)
    yield from sum_sessions(connection, dialect, transaction)


def forget_sums(connection: Connection) -> None:
    """Has all rows summed anew. Answers count those that are not summed yet."""
    for table in ("session_usage", "named_usage", "session_traits", "relabelled"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
    connection.execute("UPDATE session_usage_summed SET tool_calls = 0, model_requests = 0")


def session_differences(connection: Connection, dialect: Dialect) -> int:
    """How many sums are not what the rows say that they have, of those that answers are made from."""
    mark = pruned_before(connection)
    wrong = set()
    for kind in usage_tables(dialect).kinds:
        last = summed_of(connection)[kind.summed]
        kept = {
            key: (earliest, latest, values)
            for key, earliest, latest, values in grouped(connection, kind.sums, [], "earliest", "latest")
            if earliest >= mark
        }
        within = [
            Condition("r.position <= ?", (last,)),
            Condition(f"{dialect.without_index}r.created_at >= ?", (mark,)),
        ]
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
