"""Counts the rollups again from the rows, to compare them and to make them anew."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from audit_svc.ledger import histogram
from audit_svc.ledger.progress import OnProgress
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.ledger.usage import MAX_SUMMED, Sums, by_step
from audit_svc.postgres.open.connection import Connection, transaction
from audit_svc.postgres.read.database import POSTGRES
from audit_svc.sql.usage import named_recount, session_recount
from audit_svc.sql.usage.rollups import ROLLUPS, Rollup
from audit_svc.sql.usage.usage_tables import Table, usage_tables
from service_kit.bounds import saturated

_HOUR = f"r.created_at - r.created_at % {HOUR_MS}"
_DURATION = f"sum(CASE WHEN r.duration_ms > {MAX_SUMMED} THEN {MAX_SUMMED} ELSE r.duration_ms END)"


def rollup_differences(connection: Connection, from_ms: int, on_progress: OnProgress) -> dict[str, int]:
    """How many rows of each rollup, and of the sums of sessions, are not what the rows say.

    In the open transaction, which sees one moment. from_ms: only the periods that begin at this time or later are
    looked at.
    """
    differences = {}
    for rollup, sums in _counted(connection):
        on_progress(0, 0)
        columns, width = ", ".join((*rollup.key, *rollup.sums)), len(rollup.key)
        rows = connection.execute(f"SELECT {columns} FROM {rollup.name} WHERE begins_at >= ?", (from_ms,))  # noqa: S608 - names of ours
        kept = {row[:width]: row[width:] for row in rows}
        true = {key: _stored(rollup, values) for key, values in sums.items() if key[0] >= from_ms}
        differences[rollup.name] = sum(kept.get(key) != true.get(key) for key in kept.keys() | true.keys())
    return {
        **differences,
        "session_usage": session_recount.session_differences(connection, POSTGRES),
        "named_usage": named_recount.named_differences(connection, POSTGRES),
        "session_traits": named_recount.trait_differences(connection, POSTGRES),
    }


def rebuild_rollups(connection: Connection, on_progress: OnProgress) -> None:
    """Makes all rollups again from the rows, in one transaction, and then the sums of sessions in steps."""
    writing = partial(_writing, connection)
    with writing():
        for rollup, sums in _counted(connection):
            on_progress(0, 0)
            places = ", ".join("?" * len((*rollup.key, *rollup.sums)))
            connection.execute(f"DELETE FROM {rollup.name}")  # noqa: S608 - names of ours
            rows = [(*key, *_stored(rollup, values)) for key, values in sums.items()]
            connection.executemany(f"INSERT INTO {rollup.name} VALUES ({places})", rows)  # noqa: S608 - names of ours
    for _ in session_recount.rebuild_sessions(connection, POSTGRES, writing):
        on_progress(0, 0)


@contextmanager
def _writing(connection: Connection) -> Iterator[None]:
    """A transaction as a writer's: one that began meanwhile waits, and reads again what it knew by heart."""
    with transaction(connection):
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")  # nobody waits for it
        connection.execute("UPDATE ledger_writer SET commits = commits + 1 WHERE id = 1")
        yield


def _counted(connection: Connection) -> Iterator[tuple[Rollup, Sums]]:
    """Each rollup with what the rows say: counted once by hour, and those of hours for the longer steps."""
    tables = usage_tables(POSTGRES)
    calls = replace(tables.call_rows, sums=(*tables.call_rows.sums, _DURATION))
    hours = {
        "tool_call_usage": _hours(connection, calls, ("engine", "model", "tool", "outcome")),
        "request_usage": _hours(connection, tables.request_rows, ("engine", "model")),
    }
    for rollup in ROLLUPS:
        yield rollup, by_step(hours[rollup.kind], rollup.step.ms)


def _hours(connection: Connection, table: Table, dimensions: Sequence[str]) -> Sums:
    groups = [_HOUR, *(table.columns[name] for name in dimensions)]
    sql, arguments = table.statement(groups, "", [])
    sums: Sums = {}
    for row in connection.execute(sql, arguments):
        key, values = row[: len(groups)], list(row[len(groups) :])
        if table.durations is not None:
            values[-2:] = [table.durations.merge(*values[-2:])]
        sums[key] = values
    return sums


def _stored(rollup: Rollup, sums: Sequence[Any]) -> tuple[Any, ...]:
    """Sums as the rollup keeps them."""
    if "durations" in rollup.sums:
        return (*map(saturated, sums[:-1]), histogram.to_blob(sums[-1]))
    return tuple(map(saturated, sums))
