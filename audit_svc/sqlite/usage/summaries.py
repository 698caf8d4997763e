"""Usage in groups: from the rollups where they know what is asked, else from the rows.

A time range is summed up from the periods of several steps and the rows of those that its ends cut, so that the answer
is exact.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger import histogram
from audit_svc.ledger.columns import MAX_INT64
from audit_svc.ledger.groups import LABEL, PERIODS, group_name
from audit_svc.ledger.pages import Page
from audit_svc.ledger.query import Filter, Query
from audit_svc.ledger.ranges import cut
from audit_svc.ledger.steps import STEPS
from audit_svc.sqlite.care.pruned import pruned_before
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import Condition
from audit_svc.sqlite.usage.rollups import folded_before
from audit_svc.sqlite.usage.usage_tables import (
    CALL_ROWS,
    CALLS,
    REQUEST_ROWS,
    REQUESTS,
    Table,
    call_rollup,
    request_rollup,
)

Group = tuple[int | str, ...]


@dataclass(order=True)
class _Sums:
    calls: list[int] = field(default_factory=lambda: [0] * len(CALLS))
    durations: int = 0
    """A histogram."""
    requests: list[int] = field(default_factory=lambda: [0] * len(REQUESTS))

    def add(self, table: Table, values: Sequence[Any], sign: int) -> None:
        """Adds what a row of table says, or takes it off."""
        if table.durations is None:
            self.requests = [a + sign * b for a, b in zip(self.requests, values, strict=True)]
            return
        *sums, which, what = values
        self.calls = [a + sign * b for a, b in zip(self.calls, sums, strict=True)]
        self.durations += sign * table.durations.merge(which, what)


def summarize_usage(connection: apsw.Connection, query: Query) -> Page[audit_pb2.UsageRow]:
    """A page of groups: see ReadableLedger."""
    groups = query.group_by
    found = _found(connection, query.filter, groups)
    if not groups:
        return Page([_row([], found.get((), _Sums()))])
    after = None if query.after is None else list(map(str, query.after))
    named = sorted(
        ([group_name(*part) for part in zip(groups, group, strict=True)], sums) for group, sums in found.items()
    )
    rest = [entry for entry in named if after is None or entry[0] > after]
    page = [_row(group, sums) for group, sums in rest[: query.size]]
    return Page(page, tuple(page[-1].group) if len(rest) > query.size else None)


def _found(connection: apsw.Connection, wanted: Filter, groups: Sequence[str]) -> dict[Group, _Sums]:
    """The sums of each group, of one moment: what is taken off must be in what it is taken off from."""
    found = defaultdict[Group, _Sums](_Sums)
    with connection:
        for table, sign, conditions in _parts(connection, wanted, groups):
            for group, values in _read(connection, table, groups, conditions):
                found[group].add(table, values, sign)
    return {group: sums for group, sums in found.items() if sums.calls[0] or sums.requests[0]}


def _parts(
    connection: apsw.Connection, wanted: Filter, groups: Sequence[str]
) -> Iterator[tuple[Table, int, list[Condition]]]:
    """What is to be read of calls and requests, each from the tables that know them; 1 to add it, -1 to take it off."""
    filters = _filters(connection, wanted)
    by_session = bool("session_id" in wanted.equal or wanted.labels) or any(
        name == "session" or name.startswith(LABEL) for name in groups
    )
    # What is from before the mark counts as gone: a prune that is under way has removed rows before their rollups, and
    # one that has ended may have left a row.
    begin = max(wanted.from_ms or 0, pruned_before(connection))
    end = MAX_INT64 if wanted.before_ms is None else wanted.before_ms
    longest = min([PERIODS[name][0] for name in groups if name in PERIODS], default=MAX_INT64)
    steps = [step for step in STEPS if step.ms <= longest and not by_session]
    kinds = [(CALL_ROWS, call_rollup)]
    if not ("tool_name" in wanted.equal or wanted.outcomes):
        kinds.append((REQUEST_ROWS, request_rollup))
    pieces = list(cut(begin, end, steps, folded_before(connection)))
    for rows, rollup in kinds:
        for step, first, last, sign in pieces:
            table = rollup(step) if step else rows
            within = [Condition(f"{table.time} >= ?", (first,))] if first else []
            within += [Condition(f"{table.time} < ?", (last,))] if last < MAX_INT64 else []
            yield table, sign, [*within, *filters]


def _filters(connection: apsw.Connection, wanted: Filter) -> list[Condition]:
    conditions = [Condition(f"r.{name} = ?", (value,)) for name, value in wanted.equal.items()]
    if wanted.outcomes:
        outcomes = tuple(name or "" for name in wanted.outcomes)
        conditions.append(Condition(f"coalesce(r.outcome, '') IN ({', '.join('?' * len(outcomes))})", outcomes))
    rare = listing.with_rare_label(connection, wanted.labels, "r.session_id")
    return [*conditions, *([rare] if rare else []), *listing.has_labels(wanted.labels, "r.session_id")]


def _read(
    connection: apsw.Connection, table: Table, groups: Sequence[str], conditions: Sequence[Condition]
) -> Iterator[tuple[Group, Sequence[Any]]]:
    """The sums of each group; of calls what its histogram is made of besides."""
    joins: list[str] = []
    keys: list[str] = []
    columns: list[str] = []
    for at, name in enumerate(groups):
        if name.startswith(LABEL):
            joins.append(f" LEFT JOIN session_labels l{at} ON l{at}.session_id = r.session_id AND l{at}.key = ?")
            keys.append(name.removeprefix(LABEL))
            columns.append(f"coalesce(l{at}.value, '')")
        elif name in PERIODS:
            columns.append(f"{table.time} - {table.time} % {PERIODS[name][0]}")
        else:
            columns.append(table.columns[name])
    sql, arguments = table.statement(columns, "".join(joins), conditions)
    for row in connection.execute(sql, [*keys, *arguments]):
        # Without any row, the sums of no group are null.
        if None not in row:
            yield tuple(row[: len(groups)]), row[len(groups) :]


def _row(group: Sequence[str], sums: _Sums) -> audit_pb2.UsageRow:
    row = audit_pb2.UsageRow(
        group=group,
        **dict(zip(CALLS, sums.calls, strict=True)),
        **dict(zip(REQUESTS, sums.requests, strict=True)),
    )
    for name, value in zip(("p50", "p95", "p99"), histogram.quantiles(sums.durations, (0.5, 0.95, 0.99)), strict=False):
        setattr(row, f"duration_{name}_ms", value)
    return row
