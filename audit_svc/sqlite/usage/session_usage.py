"""What each session used, so that usage by session and by label is answered without its rows.

session_usage (migration 0016) has the sums of each (session, recorded_by, engine, model), and the times between which
its calls and requests began. The writer adds rows when it has nothing else to do, in the order of their positions, up
to those of session_usage_summed; an answer counts the rows after them. So it is exact at any time.
"""

import operator
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from audit_svc.ledger import histogram
from audit_svc.sqlite.care.pruned import pruned_before
from audit_svc.sqlite.open.connection import Connection, transaction
from audit_svc.sqlite.read.listing import Condition
from audit_svc.sqlite.usage.usage_tables import BLOBS, CALL_ROWS, CALLS, REQUEST_ROWS, REQUESTS, Table, sum_sql
from service_kit.bounds import saturated

SESSION_USAGE = "session_usage"
"""The table."""
ROWS_A_STEP = 1000
"""Some milliseconds of the writer's time."""

_KEY = ("session", "recorded_by", "engine", "model")
_COLUMNS = {name: f"r.{name}" for name in _KEY[1:]} | {"session": "r.session_id"}
_STRADDLERS = "session_usage s CROSS JOIN {}"
_SAME = "r.session_id = s.session_id AND " + " AND ".join(f"+r.{name} = s.{name}" for name in _KEY[1:])
_EMPTY = (*(0,) * len(CALLS), histogram.to_blob(0), *(0,) * len(REQUESTS))
_SUMS = (*CALLS, "durations", *REQUESTS)
_SELECT = (
    f"SELECT earliest, latest, {', '.join(_SUMS)} FROM session_usage "  # noqa: S608 - names of ours
    "WHERE session_id = ? AND recorded_by = ? AND engine = ? AND model = ?"
)
_UPSERT = (
    f"INSERT INTO session_usage VALUES ({', '.join('?' * (6 + len(_SUMS)))}) "  # noqa: S608 - names of ours
    "ON CONFLICT (session_id, recorded_by, engine, model) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in ("earliest", "latest", *_SUMS))
)


class Kind(NamedTuple):
    """Calls or requests."""

    rows: Table
    later: Table
    """The rows again, by their numbers: SQLite would rather go by an index that has them in the order of groups."""
    sums: Table
    straddlers: Table
    """The rows of sessions of which a range has only a part; s is the session's row."""
    summed: str
    """The column of session_usage_summed."""


def _kind(rows: Table, columns: tuple[str, ...], summed: str) -> Kind:
    sums = Table(SESSION_USAGE, "", _COLUMNS, [sum_sql(f"r.{name}") for name in columns], rows.durations and BLOBS)
    later = replace(rows, columns={name: f"+{sql}" for name, sql in rows.columns.items()})
    return Kind(rows, later, sums, replace(rows, name=_STRADDLERS.format(rows.name)), summed)


KINDS = (_kind(CALL_ROWS, CALLS, "tool_calls"), _kind(REQUEST_ROWS, REQUESTS, "model_requests"))


def session_parts(
    connection: Connection, kind: Kind, begin: int, end: int | None
) -> Iterator[tuple[Table, list[Condition]]]:
    """Where the usage of a range is, exactly: the sums of sessions that lie in it, the rows of those that do not, and
    the rows that no sum has yet.

    end: None for a range without one.
    """
    last = _summed(connection)[kind.summed]
    before = [] if end is None else [Condition("r.created_at < ?", (end,))]
    within = [*([Condition("r.created_at >= ?", (begin,))] if begin else []), *before]
    ends = [("earliest >= ?", begin)] if begin else []
    ends += [("latest < ?", end)] if end is not None else []
    yield kind.sums, [Condition(f"r.{sql}", (time,)) for sql, time in ends]
    if ends:
        cut = " AND ".join(f"s.{sql}" for sql, _ in ends)
        overlaps = [
            Condition("s.latest >= ?", (begin,)),
            *([] if end is None else [Condition("s.earliest < ?", (end,))]),
        ]
        parts = [*overlaps, Condition(f"NOT ({cut})", tuple(time for _, time in ends)), Condition(_SAME)]
        yield kind.straddlers, [*parts, *within, Condition("+r.position <= ?", (last,))]
    yield kind.later, [Condition("r.position > ?", (last,)), *(Condition(f"+{sql}", x) for sql, x in within)]


def is_short(connection: Connection, begin: int, end: int | None) -> bool:
    """Whether a range has fewer calls than there are sessions, so that its rows are sooner counted."""
    ((sessions,),) = connection.execute("SELECT max(rowid) FROM session_usage")
    ((calls,),) = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM tool_call_log INDEXED BY idx_tool_call_log_created "
        "WHERE created_at >= ? AND created_at < ? LIMIT ?)",
        (begin, end if end is not None else 2**63 - 1, sessions or 0),
    )
    return int(calls) < int(sessions or 0)


def sum_sessions(connection: Connection) -> Iterator[None]:
    """Adds all rows that no sum has yet, in steps of some milliseconds; the connection may do other things between."""
    for kind in KINDS:
        while True:
            with transaction(connection):
                last = sum_some(connection, kind)
            if last is None:
                break
            yield


def sum_some(connection: Connection, kind: Kind, rows: int = ROWS_A_STEP) -> int | None:
    """Adds the next rows in the open transaction, and returns the number of the last; None when there are no more."""
    first = _summed(connection)[kind.summed]
    ((last,),) = connection.execute(
        "SELECT max(number) FROM "  # noqa: S608 - a name of ours
        f"(SELECT position AS number FROM {kind.rows.name} WHERE position > ? ORDER BY position LIMIT ?)",
        (first, rows),
    )
    if last is None:
        return None
    within = [Condition("r.position > ?", (first,)), Condition("r.position <= ?", (last,))]
    at = 0 if kind.rows.durations else len(CALLS) + 1
    for key, earliest, latest, values in _grouped(connection, kind.rows, within, "created_at", "created_at"):
        row: Any = connection.execute(_SELECT, key).fetchone() or (earliest, latest, *_EMPTY)
        sums = list(row[2:])
        sums[len(CALLS)] = histogram.from_blob(sums[len(CALLS)])
        sums[at : at + len(values)] = map(operator.add, sums[at : at + len(values)], values)
        durations = histogram.to_blob(sums[len(CALLS)])
        sums = [durations if place == len(CALLS) else saturated(total) for place, total in enumerate(sums)]
        connection.execute(_UPSERT, (*key, min(earliest, row[0]), max(latest, row[1]), *sums))
    connection.execute(f"UPDATE session_usage_summed SET {kind.summed} = ?", (last,))  # noqa: S608 - a name of ours
    return int(last)


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
        last = _summed(connection)[kind.summed]
        kept = {
            key: (earliest, latest, values)
            for key, earliest, latest, values in _grouped(connection, kind.sums, [], "earliest", "latest")
            if earliest >= mark
        }
        within = [Condition("r.position <= ?", (last,)), Condition("+r.created_at >= ?", (mark,))]
        for key, earliest, latest, values in _grouped(connection, kind.rows, within, "created_at", "created_at"):
            if key not in kept:
                # Its sums have what was pruned too, or are missing.
                found: Any = connection.execute(_SELECT, key).fetchone()
                if found is None or found[0] >= mark:
                    wrong.add(key)
                continue
            first, until, sums = kept.pop(key)
            if not first <= earliest <= latest <= until or sums != values:
                wrong.add(key)
        wrong |= {key for key, (_, _, sums) in kept.items() if any(sums)}
    return len(wrong)


def _summed(connection: Connection) -> dict[str, int]:
    ((calls, requests),) = connection.execute("SELECT tool_calls, model_requests FROM session_usage_summed")
    return {"tool_calls": int(calls), "model_requests": int(requests)}


def _grouped(
    connection: Connection, table: Table, conditions: list[Condition], earliest: str, latest: str
) -> Iterator[tuple[tuple[str, ...], int, int, list[int]]]:
    """The sums and times of each key of session_usage in a table; the last sum of calls is the histogram."""
    keys = [table.columns[name] for name in _KEY]
    times = (f"min(r.{earliest})", f"max(r.{latest})")
    sql, arguments = table.statement(keys, "", conditions, times)
    for row in connection.execute(sql, arguments):
        first, last, *values = row[len(keys) :]
        if table.durations is not None:
            which, what = values[-2:]
            values[-2:] = [table.durations.merge(which, what)]
        yield tuple(row[: len(keys)]), first, last, values
