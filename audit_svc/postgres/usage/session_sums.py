"""Adds rows to the sums of sessions when nothing else is to be written: see audit_svc.sql.usage.session_usage."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import psycopg

from audit_svc.errors import AuditError, NotWriter
from audit_svc.ledger.groups import LABEL
from audit_svc.ledger.idle import IdleSteps
from audit_svc.postgres.open.connection import Connection
from audit_svc.postgres.read.database import POSTGRES
from audit_svc.sql.usage.named_usage import KEPT, LABELLED, move_relabelled
from audit_svc.sql.usage.session_recount import forget_sums
from audit_svc.sql.usage.session_usage import LEAST_ROWS, rows_next, sum_some
from audit_svc.sql.usage.usage_tables import usage_tables

STEP_SECONDS, ROWS_A_STEP = 0.05, 500
"""The processor time that a step may take here, and its rows at most: batches wait for the server, which takes 30 ms or
more for them."""


def _sums_of(name: str, calls: str, requests: str, grouped: str = "") -> str:
    return (
        f"(SELECT substr(name, {len(name) + 1}) AS key, begins_at, {calls} AS calls, {requests} AS requests "  # noqa: S608 - names of ours
        f"FROM named_usage WHERE starts_with(name, '{name}') AND step = {KEPT[1].ms} {grouped})"
    )


_WRONG_LABELLED = (
    f"SELECT 1 FROM {_sums_of(LABEL, 'sum(calls)', 'sum(requests)', 'GROUP BY name, begins_at')} AS of_values "  # noqa: S608
    f"FULL JOIN {_sums_of(LABELLED, 'calls', 'requests')} AS of_all USING (key, begins_at) "
    "WHERE (of_values.calls, of_values.requests) IS DISTINCT FROM (of_all.calls, of_all.requests) LIMIT 1"
)
"""Whether what all sessions with a label used is not the sum of what each of its values did."""


class SessionSums(IdleSteps):
    """Goes on with what is committed, in steps. It is called by the writer's thread.

    A replica that has committed nothing does nothing, so that one that only stands by leaves this to the writer.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]]) -> None:
        """transaction: the writer's, which raises NotWriter where another replica writes."""
        super().__init__({"summing": self._sum}, (AuditError, psycopg.Error))
        self._transaction = transaction
        self._has_work = False
        self._has_compared = False

    def _sum(self) -> Iterator[None]:
        rows = LEAST_ROWS
        if not self._has_compared:
            try:
                with self._transaction() as connection:
                    _forget_older(connection)
            except NotWriter:
                return
            self._has_compared = True
            yield
        for kind in usage_tables(POSTGRES).kinds:
            while True:
                began = time.thread_time()
                try:
                    with self._transaction() as connection:
                        last = sum_some(connection, kind, rows)
                except NotWriter:
                    return
                if last is None:
                    break
                rows = rows_next(rows, time.thread_time() - began, STEP_SECONDS, ROWS_A_STEP)
                yield
        while True:
            try:
                with self._transaction() as connection:
                    moved = move_relabelled(connection, usage_tables(POSTGRES).kinds)
            except NotWriter:
                return
            if not moved:
                break
            yield


def _forget_older(connection: Connection) -> None:
    """Has all rows summed anew where an older replica has summed some, since migration 0025, as it did before."""
    if connection.execute(_WRONG_LABELLED).fetchall():
        forget_sums(connection)
