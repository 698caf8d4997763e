"""What each session used, so that usage by session and by label is answered without its rows.

session_usage (migration 0016) has the sums of each (session, recorded_by, engine, model), and the times between which
its calls and requests began. The writer adds rows when it has nothing else to do, in the order of their positions, up
to those of session_usage_summed; an answer counts the rows after them. So it is exact at any time.
"""

import operator
from collections.abc import Iterator, Sequence
from typing import Any

from audit_svc.ledger import histogram
from audit_svc.sql.database import Connection, Database
from audit_svc.sql.read.listing import Condition
from audit_svc.sql.read.session_traits import sum_traits
from audit_svc.sql.usage.kept_sums import KeptSums
from audit_svc.sql.usage.named_usage import sum_named
from audit_svc.sql.usage.usage_tables import CALLS, REQUESTS, Kind, Table
from service_kit.bounds import saturated

LEAST_ROWS = 25
"""The first step of a round adds as many, and no later one fewer."""

KEY = ("session", "recorded_by", "engine", "model")
_EMPTY = (*(0,) * len(CALLS), histogram.to_blob(0), *(0,) * len(REQUESTS))
_SUMS = (*CALLS, "durations", *REQUESTS)
SELECT_SUMS = (
    f"SELECT earliest, latest, {', '.join(_SUMS)} FROM session_usage "  # noqa: S608 - names of ours
    "WHERE session_id = ? AND recorded_by = ? AND engine = ? AND model = ?"
)
_KEPT = KeptSums("session_usage", ("session_id", "recorded_by", "engine", "model"), ("earliest", "latest", *_SUMS))


def session_parts(
    database: Database, kind: Kind, begin: int, end: int | None
) -> Iterator[tuple[Table, list[Condition]]]:
    """Where the usage of a range is, exactly: the sums of sessions that lie in it, the rows of those that do not, and
    the rows that no sum has yet.

    end: None for a range without one.
    """
    hint, last = database.dialect.without_index, summed_of(database)[kind.summed]
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
        parts = [*overlaps, Condition(f"NOT ({cut})", tuple(time for _, time in ends)), Condition(_same(hint))]
        yield kind.straddlers, [*parts, *within, Condition(f"{hint}r.position <= ?", (last,))]
    yield kind.later, [Condition("r.position > ?", (last,)), *(Condition(f"{hint}{sql}", x) for sql, x in within)]


def is_short(database: Database, begin: int, end: int | None) -> bool:
    """Whether a range has fewer calls than there are sessions, so that its rows are sooner counted."""
    ((sessions,),) = database.execute(database.dialect.count_sessions)
    ((calls,),) = database.execute(
        "SELECT count(*) FROM (SELECT 1 FROM tool_call_log INDEXED BY idx_tool_call_log_created "
        "WHERE created_at >= ? AND created_at < ? LIMIT ?) AS found",
        (begin, end if end is not None else 2**63 - 1, sessions or 0),
    )
    return int(calls) < int(sessions or 0)


def rows_next(rows: int, took: float, wanted: float, most: int) -> int:
    """How many rows the next step may add, where one of so many rows took some seconds: as many as the wanted ones."""
    return max(LEAST_ROWS, min(most, int(rows * wanted / max(took, 1e-6))))


def sum_some(connection: Connection, kind: Kind, most: int) -> int | None:
    """Adds the next rows in the open transaction, and returns the number of the last; None when there are no more."""
    first = summed_of(connection)[kind.summed]
    ((last,),) = connection.execute(
        "SELECT max(number) FROM "  # noqa: S608 - a name of ours
        f"(SELECT position AS number FROM {kind.rows.name} WHERE position > ? ORDER BY position LIMIT ?) AS found",
        (first, most),
    )
    if last is None:
        return None
    within = [Condition("r.position > ?", (first,)), Condition("r.position <= ?", (last,))]
    at = 0 if kind.rows.durations else len(CALLS) + 1
    added = list(grouped(connection, kind.rows, within, "created_at", "created_at"))
    known, rows = _KEPT.read(connection, [key for key, *_ in added]), list[tuple[Any, ...]]()
    for key, earliest, latest, values in added:
        row: Sequence[Any] = known.get(key) or (earliest, latest, *_EMPTY)
        had_first, had_last, *sums = row
        sums[len(CALLS)] = histogram.from_blob(sums[len(CALLS)])
        sums[at : at + len(values)] = map(operator.add, sums[at : at + len(values)], values)
        durations = histogram.to_blob(sums[len(CALLS)])
        sums = [durations if place == len(CALLS) else saturated(total) for place, total in enumerate(sums)]
        rows.append((*key, min(earliest, had_first), max(latest, had_last), *sums))
    _KEPT.write(connection, rows)
    sum_named(connection, kind, first, last)
    sum_traits(connection, kind, first, last)
    connection.execute(f"UPDATE session_usage_summed SET {kind.summed} = ?", (last,))  # noqa: S608 - a name of ours
    return int(last)


def summed_of(connection: Connection) -> dict[str, int]:
    """The positions up to which the sums have the rows, by Kind.summed."""
    ((calls, requests),) = connection.execute("SELECT tool_calls, model_requests FROM session_usage_summed")
    return {"tool_calls": int(calls), "model_requests": int(requests)}


def grouped(
    connection: Connection, table: Table, conditions: list[Condition], earliest: str, latest: str
) -> Iterator[tuple[tuple[str, ...], int, int, list[int]]]:
    """The sums and times of each key of session_usage in a table; the last sum of calls is the histogram."""
    keys = [table.columns[name] for name in KEY]
    times = (f"min(r.{earliest})", f"max(r.{latest})")
    sql, arguments = table.statement(keys, "", conditions, times)
    for row in connection.execute(sql, arguments):
        first, last, *values = row[len(keys) :]
        if table.durations is not None:
            which, what = values[-2:]
            values[-2:] = [table.durations.merge(which, what)]
        yield tuple(row[: len(keys)]), first, last, values


def _same(hint: str) -> str:
    """That a row is of the session's row."""
    of_session = " AND ".join(f"{hint}r.{name} = s.{name}" for name in KEY[1:])
    return f"r.session_id = s.session_id AND {of_session}"
