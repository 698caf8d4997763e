"""Usage in groups: from the rollups if they can answer, else from the rows.

A time range is summed up from the periods that lie in it and the rows at its ends, so that the answer is exact. What is
asked by session or label is in the sums of sessions, unless tools, outcomes or times are asked for with it. Nothing is
summed up by errors, shadows, texts and suspect times: what is asked by them is counted from the rows.
"""

import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger import histogram
from audit_svc.ledger.columns import MAX_INT64
from audit_svc.ledger.groups import LABEL, PERIODS, group_name
from audit_svc.ledger.pages import Page
from audit_svc.ledger.query import Filter, Query
from audit_svc.ledger.ranges import cut
from audit_svc.ledger.steps import STEPS
from audit_svc.sqlite.care.pruned import pruned_before
from audit_svc.sqlite.open.connection import Connection
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import Condition
from audit_svc.sqlite.read.queries import ambiguous_session
from audit_svc.sqlite.usage.session_usage import KINDS, SESSION_USAGE, is_short, session_parts
from audit_svc.sqlite.usage.usage_tables import (
    CALL_ROWS,
    CALLS,
    REQUEST_ROWS,
    REQUESTS,
    Table,
    call_rollup,
    request_rollup,
)
from audit_svc.sqlite.write.recorders import recorders_of
from service_kit.bounds import saturated

Group = tuple[int | str, ...]
Part = tuple[Table, list[Condition]]
"""Where a part of the answer is: r is the table's name in the conditions."""

_OF_CALLS = ("tool_calls", "tool_call_errors", *CALLS[2:])
_OF_USAGE = ("requests", *REQUESTS[2:-2], "known_cost_micros", "unpriced_requests")
"""The fields of UsageGroup and of its Usage, in the order of CALLS, and of REQUESTS without the errors."""

_OF_SESSION = ("tool_call_log", "cost_log")

_NO_CALLS, _NO_REQUESTS = (0,) * len(CALLS), (0,) * len(REQUESTS)


@dataclass
class _Sums:
    calls: Sequence[int] = _NO_CALLS
    requests: Sequence[int] = _NO_REQUESTS
    durations: list[tuple[Table, Any, Any]] = field(default_factory=list)
    """What the histogram is made of, for the groups of a page alone."""

    def add(self, table: Table, values: Sequence[Any]) -> None:
        """Adds what a row of table says."""
        if table.durations is None:
            self.requests = values if self.requests is _NO_REQUESTS else list(map(operator.add, self.requests, values))
            return
        *sums, which, what = values
        self.calls = sums if self.calls is _NO_CALLS else list(map(operator.add, self.calls, sums))
        self.durations.append((table, which, what))

    def histogram(self) -> int:
        """Of the calls' durations."""
        return sum(table.durations.merge(which, what) for table, which, what in self.durations if table.durations)


def summarize_usage(connection: Connection, query: Query) -> Page[questions_pb2.UsageGroup]:
    """A page of groups: see ReadableLedger."""
    groups = query.group_by
    found = _found(connection, query)
    if not groups:
        return Page([_row([], found.get((), _Sums()))])
    after = None if query.after is None else list(map(str, query.after))
    named = (([group_name(*part) for part in zip(groups, group, strict=True)], sums) for group, sums in found.items())
    rest = sorted((entry for entry in named if after is None or entry[0] > after), key=operator.itemgetter(0))
    page = [_row(group, sums) for group, sums in rest[: query.size]]
    return Page(page, tuple(page[-1].values) if len(rest) > query.size else None)


def _found(connection: Connection, query: Query) -> dict[Group, _Sums]:
    """The sums of each group, of one moment: a row that comes between two reads would be in both, or in neither.

    Of sessions and labels, which may be many, those of the page and one more at least.
    """
    groups = query.group_by
    found = defaultdict[Group, _Sums](_Sums)
    with connection:
        _refuse_ambiguous(connection, query.filter.equal)
        parts = list(_parts(connection, query.filter, groups))
        if groups and any(table.name == SESSION_USAGE for table, _ in parts):
            parts = list(_of_page(connection, query, parts))
        for table, conditions in parts:
            for group, values in _read(connection, table, groups, conditions):
                found[group].add(table, values)
    return {group: sums for group, sums in found.items() if sums.calls[0] or sums.requests[0]}


def _refuse_ambiguous(connection: Connection, equal: Mapping[str, str]) -> None:
    """Refuses to sum up the rows that several callers recorded under one session id."""
    session_id = equal.get("session_id", "")
    if not session_id or "recorded_by" in equal or len(recorders_of(connection)) < 2:
        return
    tables = " UNION ".join(f"SELECT recorded_by FROM {name} WHERE session_id = ?1" for name in _OF_SESSION)  # noqa: S608 - names of ours
    names = [str(name) for (name,) in connection.execute(tables, (session_id,))]
    if len(names) > 1:
        raise ambiguous_session(session_id, names)


def _of_page(connection: Connection, query: Query, parts: Sequence[Part]) -> Iterator[Part]:
    """The parts with their groups alone that come on the page, and the next."""
    groups: set[Group] = set()
    # The sums of calls and those of requests have the same groups.
    for table, conditions in {
        (table.name, tuple(conditions)): (table, conditions) for table, conditions in parts
    }.values():
        columns, joins, keys = _columns(table, query.group_by)
        after = [Condition(f"({', '.join(columns)}) > ({_places(columns)})", query.after)] if query.after else []
        sql, arguments = listing.select(
            f"SELECT DISTINCT {', '.join(columns)} FROM {table.name} r{joins}",  # noqa: S608 - names of ours
            [*conditions, *after],
        )
        order = ", ".join(map(str, range(1, len(columns) + 1)))
        groups |= set(connection.execute(f"{sql} ORDER BY {order} LIMIT {query.size + 1}", [*keys, *arguments]))
    if query.after is None and len(groups) <= query.size:  # the page has them all: no row need be compared
        yield from parts
        return
    page = sorted(groups)[: query.size + 1]
    for table, conditions in parts if page else ():
        columns, _, _ = _columns(table, query.group_by)
        group = f"({', '.join(columns)})"
        ends = [
            Condition(f"{group} {sign} ({_places(columns)})", end) for sign, end in ((">=", page[0]), ("<=", page[-1]))
        ]
        yield table, [*conditions, *ends]


def _places(columns: Sequence[str]) -> str:
    return ", ".join("?" * len(columns))


def _parts(connection: Connection, wanted: Filter, groups: Sequence[str]) -> Iterator[Part]:
    """What is to be read of calls and requests, each from the tables that know them."""
    filters = _filters(connection, wanted)
    # What is from before the mark counts as gone: a prune that is under way has removed rows before their rollups, and
    # one that has ended may have left a row.
    begin = max(wanted.from_ms or 0, pruned_before(connection))
    end = MAX_INT64 if wanted.before_ms is None else wanted.before_ms
    if begin >= end:
        return
    only_calls = wanted.is_of_calls
    # What no sum is kept by.
    of_rows = bool(wanted.contains) or (wanted.has_error, wanted.shadow, wanted.clock_suspect) != (None, None, None)
    by_session = bool({"session_id", "recorded_by"} & set(wanted.equal) or wanted.labels) or any(
        name in ("session", "recorded_by") or name.startswith(LABEL) for name in groups
    )
    if by_session and not only_calls and not of_rows and not {"tool", "outcome", *PERIODS} & set(groups):
        until = None if end == MAX_INT64 else end
        if not is_short(connection, begin, until):
            for kind in KINDS:
                for table, within in session_parts(connection, kind, begin, until):
                    yield table, [*within, *filters]
            return
    longest = min([PERIODS[name][0] for name in groups if name in PERIODS], default=MAX_INT64)
    steps = [step for step in STEPS if step.ms <= longest and not by_session and not of_rows]
    pieces = list(cut(begin, end, steps))
    for rows, rollup in [(CALL_ROWS, call_rollup), (REQUEST_ROWS, request_rollup)][: 1 if only_calls else 2]:
        for step, first, last in pieces:
            table = rollup(step) if step else rows
            within = [Condition(f"{table.time} >= ?", (first,))] if first else []
            within += [Condition(f"{table.time} < ?", (last,))] if last < MAX_INT64 else []
            yield table, [*within, *filters]


def _filters(connection: Connection, wanted: Filter) -> list[Condition]:
    conditions = [Condition(f"r.{name} = ?", (value,)) for name, value in wanted.equal.items()]
    if wanted.outcomes:
        outcomes = tuple(name or "" for name in wanted.outcomes)
        conditions.append(Condition(f"coalesce(r.outcome, '') IN ({', '.join('?' * len(outcomes))})", outcomes))
    conditions += [Condition("r.shadow = ?", (int(wanted.shadow),))] if wanted.shadow is not None else []
    conditions += listing.is_set("r.error", wanted.has_error)
    conditions += listing.is_set("r.clock_suspect", wanted.clock_suspect)
    conditions += listing.contains("r.args_summary", wanted.contains)
    rare = listing.with_rare_label(connection, wanted.labels, "r.session_id")
    return [*conditions, *([rare] if rare else []), *listing.has_labels(wanted.labels, "r.session_id", "r.recorded_by")]


def _read(
    connection: Connection, table: Table, groups: Sequence[str], conditions: Sequence[Condition]
) -> Iterator[tuple[Group, Sequence[Any]]]:
    """The sums of each group; of calls what its histogram is made of besides."""
    columns, joins, keys = _columns(table, groups)
    sql, arguments = table.statement(columns, joins, conditions)
    for row in connection.execute(sql, [*keys, *arguments]):
        # Without any row, the sums of no group are null.
        if None not in row:
            yield tuple(row[: len(groups)]), row[len(groups) :]


def _columns(table: Table, groups: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """The expressions of groups, the joins that they need, and the arguments of the joins."""
    joins: list[str] = []
    keys: list[str] = []
    columns: list[str] = []
    for at, name in enumerate(groups):
        if name.startswith(LABEL):
            of_session = f"l{at}.session_id = r.session_id AND l{at}.recorded_by = r.recorded_by"
            joins.append(f" LEFT JOIN session_labels l{at} ON {of_session} AND l{at}.key = ?")
            keys.append(name.removeprefix(LABEL))
            columns.append(f"coalesce(l{at}.value, '')")
        elif name in PERIODS:
            columns.append(f"{table.time} - {table.time} % {PERIODS[name][0]}")
        else:
            columns.append(table.columns[name])
    return columns, "".join(joins), keys


def _row(group: Sequence[str], sums: _Sums) -> questions_pb2.UsageGroup:
    row = questions_pb2.UsageGroup(
        values=group,
        usage=common_pb2.Usage(
            **dict(zip(_OF_USAGE, map(saturated, (sums.requests[0], *sums.requests[2:])), strict=True))
        ),
        model_request_errors=sums.requests[1],
        **dict(zip(_OF_CALLS, map(saturated, sums.calls), strict=True)),
    )
    for name, value in zip(
        ("p50", "p95", "p99"), histogram.quantiles(sums.histogram(), (0.5, 0.95, 0.99)), strict=False
    ):
        setattr(row, f"duration_{name}_ms", value)
    return row
