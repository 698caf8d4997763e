"""Rollups: what was used in each hour and in each day, kept by the writer in the transaction of the rows themselves.

Four tables (migration 0012), by hour or by day of UTC; begins_at is when that began, in milliseconds since 1970:

    tool_call_usage_hourly, tool_call_usage_daily, by begins_at, engine, model, tool_name, outcome ('' for null):
        calls, errors (error is set), nonzero_exits, http_errors (statuses from 400), result_bytes,
        duration_ms (the sum), durations (the histogram: from_blob, + and quantiles of audit_svc.store.histogram)
    request_usage_hourly, request_usage_daily, by begins_at, engine, model:
        requests, errors, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens,
        cost_micros (what is known), unpriced_requests

Calls of shadow engines have an outcome of their own (dry_run); their model requests cost money, and are counted. A row
adds at most 2**36 - 1 to a sum. A day is the sum of its hours, so a range is read from the days that lie in it and the
hours at its ends. sum_durations(durations) merges histograms within SQL, on a connection that register() has seen.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import apsw

from audit_svc.store import histogram
from audit_svc.store.usage import HOUR_MS, MAX_SUMMED, Sums, Usage, add_sums

DAY_MS = 24 * HOUR_MS

CALL_KEY = ("begins_at", "engine", "model", "tool_name", "outcome")
CALL_SUMS = ("calls", "errors", "nonzero_exits", "http_errors", "result_bytes", "duration_ms", "durations")
REQUEST_KEY = ("begins_at", "engine", "model")
REQUEST_SUMS = (
    "requests",
    "errors",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "cost_micros",
    "unpriced_requests",
)

UPSERT_ROWS = 12
"""Rows of a rollup that one statement writes at most."""
MAX_KNOWN = 2000
"""Rows of the rollups that the writer remembers: some megabytes."""

_TABLES = {
    "tool_call_usage_hourly": (CALL_KEY, CALL_SUMS, HOUR_MS),
    "tool_call_usage_daily": (CALL_KEY, CALL_SUMS, DAY_MS),
    "request_usage_hourly": (REQUEST_KEY, REQUEST_SUMS, HOUR_MS),
    "request_usage_daily": (REQUEST_KEY, REQUEST_SUMS, DAY_MS),
}


class Rollups:
    """Adds to the rollups. Remembers what it wrote last, since a read for each row would hand over Python's lock."""

    def __init__(self, connection: apsw.Connection) -> None:
        register(connection)
        self._connection = connection
        self._known: dict[str, Sums] = {table: {} for table in _TABLES}
        self._version: int | None = None
        self._selects = {table: _select(table, key, sums) for table, (key, sums, _) in _TABLES.items()}
        self._upserts = {
            table: [_upsert(table, key, sums, rows) for rows in range(1, UPSERT_ROWS + 1)]
            for table, (key, sums, _) in _TABLES.items()
        }
        self.statements = [*self._selects.values(), *chain(*self._upserts.values())]

    def begin(self) -> None:
        """At the begin of a transaction: forgets what may have been taken back, or changed by somebody else."""
        version, self._version = self._version, None
        if version != self._connection.data_version() or sum(map(len, self._known.values())) > MAX_KNOWN:
            for known in self._known.values():
                known.clear()

    def add(self, usage: Usage) -> None:
        """Adds usage in the transaction."""
        for kind, hours in (("tool_call_usage", usage.calls), ("request_usage", usage.requests)):
            if hours:
                self._add(f"{kind}_hourly", hours)
                self._add(f"{kind}_daily", _by_day(hours))

    def committed(self) -> None:
        """After the COMMIT: what was written may be remembered."""
        self._version = self._connection.data_version()

    def _add(self, table: str, sums: Sums) -> None:
        known = self._known[table]
        for key in sums.keys() - known.keys():
            if row := self._connection.execute(self._selects[table], key).fetchone():
                known[key] = _from_columns(row)
        add_sums(known, sums)
        rows = [(*key, *_to_columns(known[key])) for key in sums]
        for first in range(0, len(rows), UPSERT_ROWS):
            part = rows[first : first + UPSERT_ROWS]
            self._connection.execute(self._upserts[table][len(part) - 1], tuple(chain(*part)))


def register(connection: apsw.Connection) -> None:
    """Teaches connection the aggregate sum_durations(durations)."""
    connection.create_aggregate_function("sum_durations", _Sum, 1)


def rebuild_rollups(connection: apsw.Connection) -> None:
    """Makes all rollups again from the rows, in one transaction: about 40 s for ten million rows."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for table in _TABLES:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
        connection.execute(fill_script("main"))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def rollup_differences(connection: apsw.Connection, from_ms: int = 0) -> dict[str, int]:
    """How many rows of each rollup are not what the rows themselves say, of one moment. All are 0 in a sound ledger.

    from_ms: only the hours and the days that begin at this time or later are looked at.

    Writes temporary tables, which a connection to a read-only database can, unless it is set to query_only.
    """
    differences = {}
    connection.execute("BEGIN")
    try:
        for table in _TABLES:
            connection.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM main.{table} LIMIT 0")  # noqa: S608 - names of ours
        connection.execute(fill_script("temp"))
        for table, (key, _, _) in _TABLES.items():
            kept, true = f"SELECT * FROM main.{table}", f"SELECT * FROM temp.{table}"  # noqa: S608 - names of ours
            differing = f"SELECT * FROM ({kept} EXCEPT {true}) UNION ALL SELECT * FROM ({true} EXCEPT {kept})"  # noqa: S608 - names of ours
            keys = connection.execute(
                f"SELECT DISTINCT {', '.join(key)} FROM ({differing}) WHERE begins_at >= ?",  # noqa: S608 - names of ours
                (from_ms,),
            )
            differences[table] = len(keys.fetchall())
    finally:
        connection.execute("ROLLBACK")
    return differences


def drop_rollups(connection: apsw.Connection, before_ms: int) -> None:
    """Forgets, in the open transaction, the hours that began before a time; the day that it cuts keeps its later hours.

    connection is one that register() has seen.
    """
    day = before_ms - before_ms % DAY_MS
    for kind, key, sums in (("tool_call_usage", CALL_KEY, CALL_SUMS), ("request_usage", REQUEST_KEY, REQUEST_SUMS)):
        connection.execute(f"DELETE FROM {kind}_hourly WHERE begins_at < ?", (before_ms,))  # noqa: S608 - names of ours
        connection.execute(f"DELETE FROM {kind}_daily WHERE begins_at <= ?", (day,))  # noqa: S608 - names of ours
        columns = ", ".join(key[1:])
        connection.execute(
            f"INSERT INTO {kind}_daily SELECT {DAY_MS} * (begins_at / {DAY_MS}), {columns}, "  # noqa: S608 - names of ours
            f"{', '.join('sum_durations(durations)' if name == 'durations' else f'sum({name})' for name in sums)} "
            f"FROM {kind}_hourly WHERE begins_at >= ? AND begins_at < ? GROUP BY {columns}",
            (day, day + DAY_MS),
        )


def fill_script(schema: str) -> str:
    """SQL that fills the empty rollups of schema (main or temp) from the rows. It needs no function of ours."""
    fills = [_COUNT_CALLS]
    for table, (_, _, step) in _TABLES.items():
        fill = _FILL_CALLS if table.startswith("tool_call") else _FILL_REQUESTS
        fills.append(fill.format(table=f"{schema}.{table}", step=step))
    return "".join(f"{sql};\n" for sql in (*fills, "\nDROP TABLE temp.usage_counted"))


# How many bits a duration has beyond the five of its bucket. SQLite has no exact logarithm.
_BITS = "\n        + ".join(
    " + ".join(f"(took_ms >= {2**bits})" for bits in range(first, min(first + 6, 36))) for first in range(5, 36, 6)
)

# By hour and by bucket of the histogram.
_COUNT_CALLS = f"""
CREATE TEMP TABLE usage_counted AS
SELECT created_at - created_at % {HOUR_MS} AS begins_at, engine, model, tool_name, coalesce(outcome, '') AS outcome,
    16 * bits + (took_ms >> bits) AS bucket, count(*) AS calls, count(error) AS errors,
    count(nullif(exit_code, 0)) AS nonzero_exits, count(*) FILTER (WHERE http_status >= 400) AS http_errors,
    sum(min(result_bytes, {MAX_SUMMED})) AS result_bytes, sum(took_ms) AS duration_ms
FROM (
    SELECT *, {_BITS} AS bits
    FROM (SELECT *, min(duration_ms, {MAX_SUMMED}) AS took_ms FROM main.tool_call_log)
)
GROUP BY 1, 2, 3, 4, 5, 6"""  # noqa: S608 - numbers of ours

# The lanes of a histogram are its buckets' counts in hexadecimal, each followed by the empty ones down to the next.
_FILL_CALLS = """
INSERT INTO {table}
SELECT begins_at, engine, model, tool_name, outcome, sum(calls), sum(errors), sum(nonzero_exits), sum(http_errors),
    sum(result_bytes), sum(duration_ms), unhex(group_concat(lanes, '' ORDER BY bucket DESC))
FROM (
    SELECT *, format('%010x', calls) || hex(zeroblob(5 * (bucket - 1 - lag(bucket, 1, -1) OVER (
        PARTITION BY begins_at, engine, model, tool_name, outcome ORDER BY bucket
    )))) AS lanes
    FROM (
        SELECT begins_at - begins_at % {step} AS begins_at, engine, model, tool_name, outcome, bucket,
            sum(calls) AS calls, sum(errors) AS errors, sum(nonzero_exits) AS nonzero_exits,
            sum(http_errors) AS http_errors, sum(result_bytes) AS result_bytes, sum(duration_ms) AS duration_ms
        FROM temp.usage_counted
        GROUP BY 1, 2, 3, 4, 5, 6
    )
)
GROUP BY begins_at, engine, model, tool_name, outcome"""

_CAPPED = ",\n    ".join(f"sum(min({name}, {MAX_SUMMED}))" for name in REQUEST_SUMS[2:-2])
_FILL_REQUESTS = f"""
INSERT INTO {{table}}
SELECT created_at - created_at % {{step}}, engine, model, count(*), count(error),
    {_CAPPED},
    coalesce(sum(min(cost_micros, {MAX_SUMMED})), 0), count(*) - count(cost_micros)
FROM main.cost_log
GROUP BY 1, 2, 3"""  # noqa: S608 - names of ours


def _select(table: str, key: Sequence[str], sums: Sequence[str]) -> str:
    where = " AND ".join(f"{name} = ?" for name in key)
    return f"SELECT {', '.join(sums)} FROM {table} WHERE {where}"  # noqa: S608 - names of ours


def _upsert(table: str, key: Sequence[str], sums: Sequence[str], rows: int) -> str:
    places = f"({', '.join('?' * (len(key) + len(sums)))})"
    changes = ", ".join(f"{name} = excluded.{name}" for name in sums)
    return (
        f"INSERT INTO {table} VALUES {', '.join([places] * rows)} "  # noqa: S608 - names of ours
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    )


def _by_day(hours: Sums) -> Sums:
    days: Sums = {}
    for (begins_at, *key), sums in hours.items():
        add_sums(days, {(begins_at - begins_at % DAY_MS, *key): sums})
    return days


def _to_columns(sums: list[int]) -> list[Any]:
    """Only the sums of tool calls end in a histogram."""
    return [*sums[:-1], histogram.to_blob(sums[-1])] if len(sums) == len(CALL_SUMS) else sums


def _from_columns(row: tuple[Any, ...]) -> list[int]:
    return [*row[:-1], histogram.from_blob(row[-1])] if len(row) == len(CALL_SUMS) else list(row)


class _Sum:
    """The aggregate sum_durations."""

    def __init__(self) -> None:
        self._total = 0

    def step(self, *durations: Any) -> None:
        self._total += histogram.from_blob(durations[0])

    def final(self) -> bytes:
        return histogram.to_blob(self._total)
