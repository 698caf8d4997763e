"""The tables that say what was used: rows and rollups, and the statements that sum them up in groups.

The database gathers the durations of a group, and they are merged at once: an aggregate of ours would take Python's
lock for each row, from the writer and the event loop.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from audit_svc.ledger import histogram
from audit_svc.ledger.groups import WHO
from audit_svc.ledger.steps import Step
from audit_svc.ledger.usage import MAX_SUMMED
from audit_svc.sql.database import Dialect
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import Condition, Statement
from audit_svc.sql.usage.rollups import CALL_SUMS, HAS_NO_DURATION, REQUEST_SUMS, Rollup

CALLS = CALL_SUMS[:-2]
REQUESTS = ("requests", "request_errors", *REQUEST_SUMS[2:])
AT_CALLS, AT_COST = CALLS.index("calls"), REQUESTS.index("cost_micros")
SESSION_USAGE = "session_usage"
"""The table of what each session used."""


class Durations(NamedTuple):
    """How the durations of a group are told."""

    sql: str
    """Two expressions."""
    merge: Callable[[Any, Any], int]
    """Makes a histogram of their values."""
    apart: str
    """An expression whose values have rows of their own."""
    is_by_bucket: bool = False
    """Whether rows are counted by bucket first, so that what is gathered stays short however many rows there are."""


@dataclass(frozen=True)
class Table:
    """A table that knows a part of the answer; r is its name in statements."""

    name: str
    time: str
    columns: dict[str, str]
    """A dimension's expression."""
    sums: Sequence[str]
    """Expressions of the sums: CALLS or REQUESTS."""
    durations: Durations | None = None
    """None for requests."""
    sign: int = 1
    """-1 where what it says is taken away."""

    def named(self, group: str, value: str, sign: int = 1) -> "Table":
        """The table of named sums with their values, an expression, as a dimension."""
        return replace(self, columns={group: value}, sign=sign)

    def statement(
        self, groups: Sequence[str], joins: str, conditions: Iterable[Condition], times: Sequence[str] = ()
    ) -> Statement:
        """The sums of each group, which may come in several rows: values, times, sums, then what durations tells.

        groups: expressions.
        times: aggregates of a group's first and last time.
        """
        by = list(map(str, range(1, len(groups) + 1)))
        if self.durations and self.durations.is_by_bucket:
            named = [*(f"{one} AS g{at}" for at, one in enumerate(groups)), f"{self.durations.apart} AS bucket"]
            named += [f"{one} AS t{at}" for at, one in enumerate(times)]
            named += [f"{one} AS s{at}" for at, one in enumerate(self.sums)]
            sql, arguments = listing.select(f"SELECT {', '.join(named)} FROM {self.name} r{joins}", conditions)  # noqa: S608 - names of ours
            what = [f"g{at}" for at in range(len(groups))] + (["min(t0)", "max(t1)"] if times else [])
            what += [f"sum(s{at})" for at in range(len(self.sums))]
            table = f"({sql} GROUP BY {', '.join([*by, str(len(by) + 1)])}) AS by_bucket"
            sql = f"SELECT {', '.join([*what, self.durations.sql])} FROM {table}"  # noqa: S608 - names of ours
        else:
            what = [*groups, *times, *self.sums, *([self.durations.sql] if self.durations else [])]
            sql, arguments = listing.select(f"SELECT {', '.join(what)} FROM {self.name} r{joins}", conditions)  # noqa: S608 - names of ours
            by += [self.durations.apart] if self.durations else []
        return Statement(f"{sql}{' GROUP BY ' if by else ''}{', '.join(by)}", arguments)


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


class UsageTables:
    """The tables as a dialect asks them."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        gathered = dialect.gathered
        buckets = Durations(
            f"{gathered.format('bucket')}, {gathered.format('s0')}", _of_texts, _BUCKET, is_by_bucket=True
        )
        self._blobs = Durations(", ".join(dialect.histograms), histogram.merged, dialect.apart)
        self._session_blobs = self._blobs._replace(apart=dialect.apart_sessions)
        self.call_rows = Table(
            "tool_call_log",
            "r.created_at",
            _CALL_COLUMNS | _SESSION | _CALL_WHO,
            (
                "count(*)",
                "count(r.error)",
                "count(nullif(r.exit_code, 0))",
                "count(*) FILTER (WHERE r.http_status >= 400)",
                f"coalesce(sum({_capped('r.result_bytes')}), 0)",
            ),
            buckets,
        )
        self.request_rows = Table(
            "cost_log",
            "r.created_at",
            _REQUEST_COLUMNS | _SESSION | _REQUEST_WHO,
            (
                "count(*)",
                "count(r.error)",
                *(f"sum({_capped(f'r.{name}')})" for name in REQUESTS[2:6]),
                f"coalesce(sum({_capped('r.cost_micros')}), 0)",
                "count(*) - count(r.cost_micros)",
            ),
        )
        sums = [dialect.whole_sum(f"r.{name}") for name in CALLS]
        named = self._blobs._replace(apart=dialect.apart_named)
        self.named_calls = Table("named_usage", "r.begins_at", {}, sums, named)
        sums = [dialect.whole_sum(f"r.{name}") for name in REQUESTS]
        self.named_requests = Table("named_usage", "r.begins_at", {}, sums)
        self.kinds = (
            self._kind(self.call_rows, CALLS, "tool_calls"),
            self._kind(self.request_rows, REQUESTS, "model_requests"),
        )

    def call_rollup(self, step: Step) -> Table:
        """The rollup of calls by a step."""
        sums = [self._dialect.whole_sum(f"r.{name}") for name in CALLS]
        return Table(Rollup("tool_call_usage", step).name, "r.begins_at", _CALL_COLUMNS, sums, self._blobs)

    def request_rollup(self, step: Step) -> Table:
        """The rollup of requests by a step."""
        sums = [self._dialect.whole_sum(f"r.{name.removeprefix('request_')}") for name in REQUESTS]
        return Table(Rollup("request_usage", step).name, "r.begins_at", _REQUEST_COLUMNS, sums)

    def _kind(self, rows: Table, columns: Sequence[str], summed: str) -> Kind:
        hint = self._dialect.without_index
        sums = [self._dialect.whole_sum(f"r.{name}") for name in columns]
        durations = self._session_blobs if rows.durations else None
        sums_table = Table(SESSION_USAGE, "", _SUMMED_COLUMNS, sums, durations)
        later = replace(rows, columns={name: f"{hint}{sql}" for name, sql in rows.columns.items()})
        return Kind(rows, later, sums_table, replace(rows, name=f"{SESSION_USAGE} s CROSS JOIN {rows.name}"), summed)


usage_tables = lru_cache(UsageTables)
"""Those of a dialect."""


def _capped(column: str) -> str:
    """What a row adds to a sum; null where it says nothing."""
    return f"CASE WHEN {column} > {MAX_SUMMED} THEN {MAX_SUMMED} ELSE {column} END"


def _of_texts(buckets: str, counts: str) -> int:
    return histogram.of_buckets(map(int, buckets.split(",")), map(int, counts.split(",")))


_BUCKET = f"CASE WHEN r.{HAS_NO_DURATION} THEN {histogram.NO_BUCKET} ELSE {histogram.bucket_sql('r.duration_ms')} END"

_CALL_COLUMNS = {"engine": "r.engine", "model": "r.model", "tool": "r.tool_name", "outcome": "coalesce(r.outcome, '')"}
_REQUEST_COLUMNS = {"engine": "r.engine", "model": "r.model", "tool": "''", "outcome": "''"}
_SESSION = {"session": "r.session_id", "recorded_by": "r.recorded_by"}
_SUMMED_COLUMNS = _SESSION | {"engine": "r.engine", "model": "r.model"}
_CALL_WHO = {name: f"coalesce(r.{name}, '')" for name in WHO}
_REQUEST_WHO = _CALL_WHO | {"mcp_server": "''"}
