"""Usage in groups: from the rollups where they know what is asked, else from the rows.

A time range that does not begin or end on the hour is summed up from whole days, whole hours and the rows of the hours
that it cuts, so that the answer is exact.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.store import histogram, listing
from audit_svc.store.columns import MAX_INT64
from audit_svc.store.listing import Condition
from audit_svc.store.rollups import DAY_MS
from audit_svc.store.usage import HOUR_MS, MAX_SUMMED
from service_kit.paging import decode_token, encode_token, page_size

MAX_GROUPS = 8
LABEL = "label:"
DIMENSIONS = ("session", "engine", "model", "tool", "outcome", "hour", "day")

_STEPS = {"hour": (HOUR_MS, "%Y-%m-%dT%H:00Z"), "day": (DAY_MS, "%Y-%m-%d")}
_CALLS = ("calls", "errors", "nonzero_exits", "http_errors", "result_bytes")
_REQUESTS = (
    "requests",
    "request_errors",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "cost_micros",
    "unpriced_requests",
)

Group = tuple[int | str, ...]


@dataclass(frozen=True)
class _Source:
    """A table that knows a part of the answer."""

    table: str
    time: str
    columns: dict[str, str]
    """A dimension's expression."""
    sums: str
    """Expressions of the sums, in their order."""
    durations: str = ""
    """What is grouped by besides, to make histograms of: nothing where the table has them."""


_CALL_COLUMNS = {"engine": "r.engine", "model": "r.model", "tool": "r.tool_name", "outcome": "coalesce(r.outcome, '')"}
_REQUEST_COLUMNS = {"engine": "r.engine", "model": "r.model", "tool": "''", "outcome": "''"}
_SESSION = {"session": "r.session_id"}
_CALL_ROLLUP = (
    "sum(r.calls), sum(r.errors), sum(r.nonzero_exits), sum(r.http_errors), sum(r.result_bytes), "
    "sum_durations(r.durations)"
)
_REQUEST_ROLLUP = (
    "sum(r.requests), sum(r.errors), sum(r.input_tokens), sum(r.output_tokens), sum(r.cached_input_tokens), "
    "sum(r.reasoning_tokens), sum(r.cost_micros), sum(r.unpriced_requests)"
)
_CALL_ROWS = _Source(
    "tool_call_log",
    "r.created_at",
    _CALL_COLUMNS | _SESSION,
    "count(*), count(r.error), count(nullif(r.exit_code, 0)), count(*) FILTER (WHERE r.http_status >= 400), "
    f"sum(min(r.result_bytes, {MAX_SUMMED}))",
    durations="r.duration_ms",
)
_REQUEST_ROWS = _Source(
    "cost_log",
    "r.created_at",
    _REQUEST_COLUMNS | _SESSION,
    "count(*), count(r.error), "
    + ", ".join(
        f"sum(min(r.{name}, {MAX_SUMMED}))"
        for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
    )
    + f", coalesce(sum(min(r.cost_micros, {MAX_SUMMED})), 0), count(*) - count(r.cost_micros)",
)


@dataclass(order=True)
class _Sums:
    calls: list[int] = field(default_factory=lambda: [0] * len(_CALLS))
    durations: int = 0
    """A histogram."""
    requests: list[int] = field(default_factory=lambda: [0] * len(_REQUESTS))

    def add(self, source: _Source, values: Sequence[Any]) -> None:
        """Adds what a row of source says. That of calls ends in a histogram, or in the duration that they all took."""
        if source.columns["tool"] == "''":
            self.requests = [a + b for a, b in zip(self.requests, values, strict=True)]
            return
        *sums, durations = values
        self.calls = [a + b for a, b in zip(self.calls, sums, strict=True)]
        self.durations += (
            histogram.from_blob(durations) if isinstance(durations, bytes) else histogram.count([durations]) * sums[0]
        )


def summarize_usage(
    connection: apsw.Connection, request: audit_pb2.SummarizeUsageRequest
) -> audit_pb2.SummarizeUsageResponse:
    """One page of groups.

    Raises:
        InvalidPage, InvalidRequest: see audit.proto.
    """
    groups = _groups(request.group_by)
    size = page_size(request.page_size)
    after = _position(request, len(groups))
    found: dict[Group, _Sums] = {}
    for source, conditions in _parts(connection, request, groups):
        for group, values in _read(connection, source, groups, conditions):
            found.setdefault(group, _Sums()).add(source, values)
    if not groups:
        return audit_pb2.SummarizeUsageResponse(rows=[_row([], found.get((), _Sums()))])
    named = sorted(([_name(*part) for part in zip(groups, group, strict=True)], sums) for group, sums in found.items())
    rest = [entry for entry in named if after is None or entry[0] > after]
    page = [_row(group, sums) for group, sums in rest[:size]]
    token = encode_token(tuple(page[-1].group), listing.filters(request)) if len(rest) > size else ""
    return audit_pb2.SummarizeUsageResponse(rows=page, next_page_token=token)


def _groups(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in DIMENSIONS and not (name.startswith(LABEL) and 0 < len(name) - len(LABEL) <= 64):
            known = ", ".join(DIMENSIONS)
            raise InvalidRequest(f"group_by has an entry that is none of {known} or label:KEY", "group_by")
    if len(names) > MAX_GROUPS:
        raise InvalidRequest(f"group_by has more than {MAX_GROUPS} entries", "group_by")
    if len(set(names)) < len(names):
        raise InvalidRequest("group_by has an entry twice", "group_by")
    return list(names)


def _position(request: audit_pb2.SummarizeUsageRequest, width: int) -> list[str] | None:
    if not request.page_token:
        return None
    return [str(part) for part in decode_token(request.page_token, listing.filters(request), (str,) * width)]


def _parts(
    connection: apsw.Connection, request: audit_pb2.SummarizeUsageRequest, groups: Sequence[str]
) -> Iterator[tuple[_Source, list[Condition]]]:
    """What is to be read: calls and requests, each from the tables that know them."""
    listing.time_range(request)  # refuses what is no range
    filters = _filters(connection, request)
    by_session = bool(request.session_id or request.labels) or any(
        name == "session" or name.startswith(LABEL) for name in groups
    )
    begin = request.created_from_ms if request.HasField("created_from_ms") else 0
    end = request.created_before_ms if request.HasField("created_before_ms") else MAX_INT64
    steps = (
        [] if by_session else [("hourly", HOUR_MS)] if "hour" in groups else [("daily", DAY_MS), ("hourly", HOUR_MS)]
    )
    kinds = [("tool_call_usage", _CALL_ROWS, _CALL_COLUMNS, _CALL_ROLLUP)]
    if not (request.tool_name or request.outcomes):
        kinds.append(("request_usage", _REQUEST_ROWS, _REQUEST_COLUMNS, _REQUEST_ROLLUP))
    for rollup, rows, columns, sums in kinds:
        for step, first, last in _cut(begin, end, steps):
            source = _Source(f"{rollup}_{step}", "r.begins_at", columns, sums) if step else rows
            within = [Condition(f"{source.time} >= ?", (first,))] if first else []
            within += [Condition(f"{source.time} < ?", (last,))] if last < MAX_INT64 else []
            yield source, [*within, *filters]


def _cut(begin: int, end: int, steps: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    """A range in pieces: what whole days cover, what whole hours cover before and after them, and the rest ("")."""
    if begin >= end:
        return
    if not steps:
        yield "", begin, end
        return
    name, step = steps[0]
    first = -(-begin // step) * step
    last = end if end == MAX_INT64 else end - end % step
    if first >= last:
        yield from _cut(begin, end, steps[1:])
        return
    yield from _cut(begin, first, steps[1:])
    yield name, first, last
    yield from _cut(last, end, steps[1:])


def _filters(connection: apsw.Connection, request: audit_pb2.SummarizeUsageRequest) -> list[Condition]:
    named = {"session_id": request.session_id, "engine": request.engine, "model": request.model}
    named["tool_name"] = request.tool_name
    conditions = [Condition(f"r.{name} = ?", (value,)) for name, value in named.items() if value]
    if request.outcomes:
        outcomes = tuple(name or "" for name in listing.outcome_names(request.outcomes))
        conditions.append(Condition(f"coalesce(r.outcome, '') IN ({', '.join('?' * len(outcomes))})", outcomes))
    rare = listing.with_rare_label(connection, request.labels, "r.session_id")
    return [*conditions, *([rare] if rare else []), *listing.has_labels(request.labels, "r.session_id")]


def _read(
    connection: apsw.Connection, source: _Source, groups: Sequence[str], conditions: Sequence[Condition]
) -> Iterator[tuple[Group, Sequence[Any]]]:
    """The sums of each group, several times where it has several durations."""
    joins: list[str] = []
    keys: list[str] = []
    columns: list[str] = []
    for at, name in enumerate(groups):
        if name.startswith(LABEL):
            joins.append(f" LEFT JOIN session_labels l{at} ON l{at}.session_id = r.session_id AND l{at}.key = ?")
            keys.append(name.removeprefix(LABEL))
            columns.append(f"coalesce(l{at}.value, '')")
        elif name in _STEPS:
            columns.append(f"{source.time} - {source.time} % {_STEPS[name][0]}")
        else:
            columns.append(source.columns[name])
    durations = [source.durations] if source.durations else []
    what = f"SELECT {', '.join([*columns, source.sums, *durations])} FROM {source.table} r{''.join(joins)}"  # noqa: S608 - names of ours
    sql, arguments = listing.select(what, conditions)
    by = ", ".join([*columns, *durations])
    for row in connection.execute(f"{sql}{f' GROUP BY {by}' if by else ''}", [*keys, *arguments]):
        # Without any row, the sums of no group are null.
        if None not in row:
            yield tuple(row[: len(columns)]), row[len(columns) :]


def _name(dimension: str, value: int | str) -> str:
    """A group's value as it is told."""
    if dimension not in _STEPS:
        return str(value)
    return datetime.fromtimestamp(int(value) / 1000, UTC).strftime(_STEPS[dimension][1])


def _row(group: Sequence[str], sums: _Sums) -> audit_pb2.UsageRow:
    row = audit_pb2.UsageRow(
        group=group,
        **dict(zip(_CALLS, sums.calls, strict=True)),
        **dict(zip(_REQUESTS, sums.requests, strict=True)),
    )
    for name, value in zip(("p50", "p95", "p99"), histogram.quantiles(sums.durations, (0.5, 0.95, 0.99)), strict=False):
        setattr(row, f"duration_{name}_ms", value)
    return row
