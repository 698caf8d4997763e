"""The tables that say what was used: rows and rollups, and the statements that sum them up in groups.

SQLite gathers the durations of a group, and they are merged at once: an aggregate of ours would take Python's lock for
each row, from the writer and the event loop.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from audit_svc.ledger import histogram
from audit_svc.ledger.groups import WHO
from audit_svc.ledger.steps import Step
from audit_svc.ledger.usage import MAX_SUMMED
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import Condition, Statement
from audit_svc.sqlite.usage.rollups import CALL_SUMS, REQUEST_SUMS, Rollup
from service_kit.bounds import MAX_SUM

CALLS = CALL_SUMS[:-2]
REQUESTS = ("requests", "request_errors", *REQUEST_SUMS[2:])

BLOBS_AT_ONCE = 1024
"""A row of an answer has at most so many histograms, some 500 kB: a group of all time would not fit in a value."""


class Durations(NamedTuple):
    """How the durations of a group are told."""

    sql: str
    """Two expressions."""
    merge: Callable[[Any, Any], int]
    """Makes a histogram of their values."""
    apart: str = ""
    """An expression whose values have rows of their own."""


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

    def statement(
        self, groups: Sequence[str], joins: str, conditions: Iterable[Condition], times: Sequence[str] = ()
    ) -> Statement:
        """The sums of each group, which may come in several rows: values, times, sums, then what durations tells.

        groups: expressions.
        times: aggregates of a group's first and last time.
        """
        by = list(map(str, range(1, len(groups) + 1)))
        if self.durations is _BUCKETS:
            named = [*(f"{one} AS g{at}" for at, one in enumerate(groups)), f"{_BUCKET} AS bucket"]
            named += [f"{one} AS t{at}" for at, one in enumerate(times)]
            named += [f"{one} AS s{at}" for at, one in enumerate(self.sums)]
            sql, arguments = listing.select(f"SELECT {', '.join(named)} FROM {self.name} r{joins}", conditions)  # noqa: S608 - names of ours
            what = [f"g{at}" for at in range(len(groups))] + (["min(t0)", "max(t1)"] if times else [])
            what += [f"sum(s{at})" for at in range(len(self.sums))]
            table = f"({sql} GROUP BY {', '.join([*by, str(len(by) + 1)])})"
            sql = f"SELECT {', '.join([*what, _BUCKETS.sql])} FROM {table}"  # noqa: S608 - names of ours
        else:
            what = [*groups, *times, *self.sums, *([self.durations.sql] if self.durations else [])]
            sql, arguments = listing.select(f"SELECT {', '.join(what)} FROM {self.name} r{joins}", conditions)  # noqa: S608 - names of ours
            by += [self.durations.apart] if self.durations else []
        return Statement(f"{sql}{' GROUP BY ' if by else ''}{', '.join(by)}", arguments)


def sum_sql(value: str) -> str:
    """SQL for the exact sum of a value of 0 or more, which stays at MAX_SUM; null of no rows.

    sum() would raise there. What passes it in a multiplication or an addition is a REAL, which min() leaves out.
    """
    return f"min(sum(({value}) >> 31) * 2147483648 + sum(({value}) & 2147483647), {MAX_SUM})"


def _of_texts(buckets: str, counts: str) -> int:
    return histogram.of_buckets(map(int, buckets.split(",")), map(int, counts.split(",")))


# A text of SQLite may hold any bytes. The aggregates of a statement see its rows in one order.
_WIDTH = "unicode(substr(r.durations, 1, 1))"
BLOBS = Durations(
    f"group_concat((length(r.durations) - 1) / {_WIDTH} * 5, 's') || 's', "
    "CAST(substr(r.durations, 1, 1) || group_concat(substr(r.durations, 2), '') AS BLOB)",
    histogram.merged,
    f"{_WIDTH}, r.rowid / {BLOBS_AT_ONCE}",
)
# Counted by bucket first, so that what is gathered stays short however many rows there are.
_BUCKET = histogram.bucket_sql("r.duration_ms")
_BUCKETS = Durations("group_concat(bucket), group_concat(s0)", _of_texts)

_CALL_COLUMNS = {"engine": "r.engine", "model": "r.model", "tool": "r.tool_name", "outcome": "coalesce(r.outcome, '')"}
_REQUEST_COLUMNS = {"engine": "r.engine", "model": "r.model", "tool": "''", "outcome": "''"}
_SESSION = {"session": "r.session_id", "recorded_by": "r.recorded_by"}
_CALL_WHO = {name: f"coalesce(r.{name}, '')" for name in WHO}
_REQUEST_WHO = _CALL_WHO | {"mcp_server": "''"}

CALL_ROWS = Table(
    "tool_call_log",
    "r.created_at",
    _CALL_COLUMNS | _SESSION | _CALL_WHO,
    (
        "count(*)",
        "count(r.error)",
        "count(nullif(r.exit_code, 0))",
        "count(*) FILTER (WHERE r.http_status >= 400)",
        f"coalesce(sum(min(r.result_bytes, {MAX_SUMMED})), 0)",
    ),
    _BUCKETS,
)
REQUEST_ROWS = Table(
    "cost_log",
    "r.created_at",
    _REQUEST_COLUMNS | _SESSION | _REQUEST_WHO,
    (
        "count(*)",
        "count(r.error)",
        *(f"sum(min(r.{name}, {MAX_SUMMED}))" for name in REQUESTS[2:6]),
        f"coalesce(sum(min(r.cost_micros, {MAX_SUMMED})), 0)",
        "count(*) - count(r.cost_micros)",
    ),
)


def call_rollup(step: Step) -> Table:
    """The rollup of calls by a step."""
    sums = [sum_sql(f"r.{name}") for name in CALLS]
    return Table(Rollup("tool_call_usage", step).name, "r.begins_at", _CALL_COLUMNS, sums, BLOBS)


def request_rollup(step: Step) -> Table:
    """The rollup of requests by a step."""
    sums = [sum_sql(f"r.{name.removeprefix('request_')}") for name in REQUESTS]
    return Table(Rollup("request_usage", step).name, "r.begins_at", _REQUEST_COLUMNS, sums)
