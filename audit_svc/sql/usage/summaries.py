"""Usage in groups: from the rollups if they can answer, else from the rows.

A time range is summed up from the periods that lie in it and the rows at its ends, so that the answer is exact. What is
asked by session or label is in the sums of sessions, unless tools, outcomes or times are asked for with it. Nothing is
summed up by errors, shadows, texts and suspect times: what is asked by them is counted from the rows.
"""

import operator
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger import histogram
from audit_svc.ledger.columns import MAX_INT64
from audit_svc.ledger.groups import LABEL, PERIODS, WHO, group_name
from audit_svc.ledger.pages import Page
from audit_svc.ledger.query import Filter, Query
from audit_svc.ledger.ranges import cut
from audit_svc.ledger.steps import STEPS
from audit_svc.sql.database import Database
from audit_svc.sql.marks import ambiguous_session, pruned_before, recorders_of
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import Condition
from audit_svc.sql.usage.group_pages import Group, Part, columns_of, page_of
from audit_svc.sql.usage.named_usage import named_of, named_parts
from audit_svc.sql.usage.session_usage import is_short, session_parts
from audit_svc.sql.usage.usage_tables import AT_CALLS, AT_COST, CALLS, REQUESTS, Table, usage_tables
from service_kit.bounds import saturated
from service_kit.paging import MAX_PAGE_BYTES

_OF_CALLS = ("tool_calls", "tool_call_errors", *CALLS[2:])
_OF_USAGE = ("requests", *REQUESTS[2:-2], "known_cost_micros", "unpriced_requests")
"""The fields of UsageGroup and of its Usage, in the order of CALLS, and of REQUESTS without the errors."""

_SUMMED = {"session_id", "recorded_by", "engine", "model", "tool_name"}
"""The columns that sums are kept by."""

_NO_CALLS, _NO_REQUESTS = (0,) * len(CALLS), (0,) * len(REQUESTS)


@dataclass
class _Sums:
    """Of one group, as far as they are read."""

    calls: Sequence[int] = _NO_CALLS
    requests: Sequence[int] = _NO_REQUESTS
    durations: list[tuple[Table, Any, Any]] = field(default_factory=list)
    """What the histogram is made of, for the groups of a page alone."""

    def add(self, table: Table, values: Sequence[Any]) -> None:
        """Adds what a row of table says."""
        if table.durations is None:
            values = values if table.sign > 0 else list(map(operator.neg, values))
            self.requests = values if self.requests is _NO_REQUESTS else list(map(operator.add, self.requests, values))
            return
        *sums, which, what = values
        sums = sums if table.sign > 0 else list(map(operator.neg, sums))
        self.calls = sums if self.calls is _NO_CALLS else list(map(operator.add, self.calls, sums))
        self.durations.append((table, which, what))

    @property
    def is_used(self) -> bool:
        """Whether there was any call or request."""
        return bool(self.calls[0] or self.requests[0])

    def histogram(self) -> int:
        """Of the calls' durations."""
        merged = (
            (table.sign, table.durations.merge(which, what)) for table, which, what in self.durations if table.durations
        )
        return sum(sign * durations for sign, durations in merged)


def summarize_usage(database: Database, query: Query) -> Page[questions_pb2.UsageGroup]:
    """A page of groups: see ReadableLedger.

    Raises:
        InvalidRequest: there are more groups than page_of() looks through.
    """
    groups, found = query.group_by, defaultdict[Group, _Sums](_Sums)
    page: list[Group] = [()]
    with database.moment():  # a row that comes between two reads would be in both, or in neither
        _refuse_ambiguous(database, query)
        parts: Sequence[Part] = list(_parts(database, query.filter, groups))
        if groups:
            page, parts = page_of(database, query, parts)
        for table, conditions in parts:
            for group, values in _read(database, table, groups, conditions):
                found[group].add(table, values)
    rows, size_bytes = list[questions_pb2.UsageGroup](), 0
    for at, group in enumerate(page):
        if at == query.size or size_bytes > MAX_PAGE_BYTES:
            last = found[page[at - 1]]
            key = (saturated(last.requests[AT_COST]), saturated(last.calls[AT_CALLS])) if query.by_cost else ()
            return Page(rows, (*key, *_names(groups, page[at - 1])))
        if not groups or found[group].is_used:
            rows.append(_row(_names(groups, group), found[group]))
            size_bytes += rows[-1].ByteSize()
    return Page(rows)


def _refuse_ambiguous(database: Database, query: Query) -> None:
    """Refuses to sum up the rows of sessions that several callers recorded under one id."""
    session_id = query.filter.equal.get("session_id", "")
    is_told_apart = "recorded_by" in query.filter.equal or "recorded_by" in query.group_by
    if not session_id or is_told_apart or len(recorders_of(database)) < 2:
        return
    found = database.execute("SELECT recorded_by FROM sessions WHERE id = ?", (session_id,))
    names = [str(name) for (name,) in found]
    if len(names) > 1:
        raise ambiguous_session(session_id, names)


def _parts(database: Database, wanted: Filter, groups: Sequence[str]) -> Iterator[Part]:
    """What is to be read of calls and requests, each from the tables that know them."""
    filters = _filters(database, wanted)
    # What is from before the mark counts as gone: a prune that is under way has removed rows before their rollups, and
    # one that has ended may have left a row.
    begin = max(wanted.from_ms or 0, pruned_before(database))
    end = MAX_INT64 if wanted.before_ms is None else wanted.before_ms
    if begin >= end:
        return
    name = named_of(wanted, groups)
    named = None if name is None else named_parts(database, name, wanted, groups, begin, end, filters)
    if named is not None:
        yield from named
        return
    only_calls = wanted.is_of_calls
    # What no sum is kept by.
    of_rows = bool(wanted.contains) or (wanted.has_error, wanted.shadow, wanted.clock_suspect) != (None, None, None)
    of_rows = of_rows or bool(wanted.any_of or wanted.equal.keys() - _SUMMED or set(WHO) & set(groups))
    by_session = bool({"session_id", "recorded_by"} & set(wanted.equal) or wanted.labels) or any(
        name in ("session", "recorded_by") or name.startswith(LABEL) for name in groups
    )
    if by_session and not only_calls and not of_rows and not {"tool", "outcome", *PERIODS} & set(groups):
        until = None if end == MAX_INT64 else end
        if not is_short(database, begin, until):
            for kind in usage_tables(database.dialect).kinds:
                for table, within in session_parts(database, kind, begin, until):
                    yield table, [*within, *filters]
            return
    tables = usage_tables(database.dialect)
    longest = min([PERIODS[name][0] for name in groups if name in PERIODS], default=MAX_INT64)
    steps = [step for step in STEPS if step.ms <= longest and not by_session and not of_rows]
    pieces = list(cut(begin, end, steps))
    kinds = [(tables.call_rows, tables.call_rollup), (tables.request_rows, tables.request_rollup)]
    for rows, rollup in kinds[: 1 if only_calls else 2]:
        for step, first, last in pieces:
            table = rollup(step) if step else rows
            within = [Condition(f"{table.time} >= ?", (first,))] if first else []
            within += [Condition(f"{table.time} < ?", (last,))] if last < MAX_INT64 else []
            yield table, [*within, *filters]


def _filters(database: Database, wanted: Filter) -> list[Condition]:
    conditions = [Condition(f"r.{name} = ?", (value,)) for name, value in wanted.equal.items()]
    if wanted.outcomes:
        outcomes = tuple(name or "" for name in wanted.outcomes)
        conditions.append(Condition(f"coalesce(r.outcome, '') IN ({', '.join('?' * len(outcomes))})", outcomes))
    conditions += [Condition("r.shadow = ?", (int(wanted.shadow),))] if wanted.shadow is not None else []
    conditions += listing.is_set("r.error", wanted.has_error)
    conditions += listing.is_set("r.clock_suspect", wanted.clock_suspect)
    conditions += listing.contains("r.args_summary", wanted.contains)
    conditions += listing.any_of(wanted, "r.").values()
    rare = listing.with_rare_label(database, wanted.labels, "r.session_id")
    labels = listing.has_labels(wanted.labels, "r.session_id", "r.recorded_by", None if rare else database)
    return [*conditions, *([rare] if rare else []), *labels]


def _read(
    database: Database, table: Table, groups: Sequence[str], conditions: Sequence[Condition]
) -> Iterator[tuple[Group, Sequence[Any]]]:
    """The sums of each group; of calls what its histogram is made of besides."""
    columns, joins, keys = columns_of(table, groups)
    sql, arguments = table.statement(columns, joins, conditions)
    for row in database.execute(sql, [*keys, *arguments]):
        # Without any row, the sums of no group are null.
        if None not in row:
            yield tuple(row[: len(groups)]), row[len(groups) :]


def _names(groups: Sequence[str], group: Group) -> list[str]:
    return [group_name(*part) for part in zip(groups, group, strict=True)]


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
