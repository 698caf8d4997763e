"""Which groups come on a page of usage: found, sorted and cut by the database, so that a page takes what it shows."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.groups import LABEL, PERIODS, group_value
from audit_svc.ledger.query import Query
from audit_svc.sql.database import Database
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import Condition
from audit_svc.sql.usage.usage_tables import AT_CALLS, AT_COST, SESSION_USAGE, Table
from service_kit.bounds import saturated

Group = tuple[int | str, ...]
Part = tuple[Table, list[Condition]]
"""Where a part of the answer is: r is the table's name in the conditions."""

MAX_FOUND = 100_000
"""Groups of one answer, over all its pages: beyond it to find them takes minutes, and a WAL grows meanwhile."""

_IN_ORDER = (("session",), ("session", "recorded_by"))
"""Groups that the index of SESSION_USAGE has in order: any number can be paged through."""


def page_of(database: Database, query: Query, parts: Sequence[Part]) -> tuple[list[Group], Sequence[Part]]:
    """The groups of a page and one more if there is one, and the parts with the rows of these groups alone.

    Raises:
        InvalidRequest: there are more than MAX_FOUND groups.
    """
    if query.by_cost:
        return _costliest(database, query, parts)
    groups: set[Group] = set()
    # The sums of calls and those of requests have the same groups.
    for table, conditions in {
        (table.name, tuple(conditions)): (table, conditions) for table, conditions in parts if table.sign > 0
    }.values():
        groups |= set(_first_groups(database, query, table, conditions))
    page = sorted(groups)[: query.size + 1]
    if query.after is None and len(page) == len(groups) <= query.size:  # it has them all: no row need be compared
        return page, parts
    within = []
    for table, conditions in parts if page else ():
        columns, _, _ = columns_of(table, query.group_by)
        group = f"({', '.join(columns)})"
        ends = [
            Condition(f"{group} {sign} ({_places(columns)})", end) for sign, end in ((">=", page[0]), ("<=", page[-1]))
        ]
        within.append((table, [*conditions, *ends]))
    return page, within


def _costliest(database: Database, query: Query, parts: Sequence[Part]) -> tuple[list[Group], Sequence[Part]]:
    """As page_of(), those that cost most first: of all groups it reads what they cost, and how many calls they have."""
    found = defaultdict[Group, list[int]](lambda: [0, 0])
    shared = defaultdict[tuple[str, int, tuple[Condition, ...]], list[Table]](list)
    for table, conditions in parts:  # the sums of calls and those of requests are in the same rows
        shared[table.name, table.sign, tuple(conditions)].append(table)
    for (_, sign, within), tables in shared.items():
        columns, joins, keys = columns_of(tables[0], query.group_by)
        sums = [table.sums[AT_CALLS if table.durations else AT_COST] for table in tables]
        sql, arguments = replace(tables[0], sums=sums, durations=None).statement(columns, joins, within)
        for row in database.execute(f"{sql} LIMIT {MAX_FOUND + 1}", [*keys, *arguments]):
            of_group = found[tuple(row[: len(columns)])]
            for table, total in zip(tables, row[len(columns) :], strict=True):
                of_group[1 if table.durations else 0] += sign * total
            if len(found) > MAX_FOUND:
                raise _too_many()
    order = sorted((-saturated(cost), -saturated(calls), *group) for group, (cost, calls) in found.items())
    if query.after is not None:
        cost, calls, *names = query.after
        order = [key for key in order if key > (-int(cost), -int(calls), *_values(query.group_by, names))]
    page: list[Group] = [tuple(group) for _, _, *group in order[: query.size + 1]]
    if len(page) == len(found) <= query.size:
        return page, parts
    of_page = []
    for table, conditions in parts if page else ():
        columns, _, _ = columns_of(table, query.group_by)
        values = tuple(value for group in page for value in group)
        one = f"({_places(columns)})"
        among = _places(values) if len(columns) == 1 else f"VALUES {', '.join([one] * len(page))}"
        of_page.append((table, [*conditions, Condition(f"({', '.join(columns)}) IN ({among})", values)]))
    return page, of_page


def _first_groups(database: Database, query: Query, table: Table, conditions: Sequence[Condition]) -> Iterator[Group]:
    """The first groups of a table after the last page."""
    columns, joins, keys = columns_of(table, query.group_by)
    last = _values(query.group_by, query.after) if query.after else ()
    after = [Condition(f"({', '.join(columns)}) > ({_places(columns)})", last)] if last else []
    sql, arguments = listing.select(
        f"SELECT DISTINCT {', '.join(columns)} FROM {table.name} r{joins}",  # noqa: S608 - names of ours
        [*conditions, *after],
    )
    order = f"ORDER BY {', '.join(str(at + 1) for at in range(len(columns)))} LIMIT {query.size + 1}"
    if table.name == SESSION_USAGE and query.group_by in _IN_ORDER:  # by the index, so that it ends with the page
        yield from database.execute(f"{sql} {order}", [*keys, *arguments])
        return
    sql = (
        f"WITH found AS MATERIALIZED ({sql} LIMIT {MAX_FOUND + 1}) "  # noqa: S608 - names of ours
        f"SELECT *, (SELECT count(*) FROM found) FROM found {order}"
    )
    for *group, count in database.execute(sql, [*keys, *arguments]):
        if count > MAX_FOUND:
            raise _too_many()
        yield tuple(group)


def _too_many() -> InvalidRequest:
    return InvalidRequest(
        f"there are more than {MAX_FOUND:,} groups: ask for a shorter time, for fewer sessions by a filter, or by less",
        "group_by",
    )


def _values(groups: Sequence[str], names: Sequence[int | str]) -> Group:
    return tuple(group_value(name, str(value)) for name, value in zip(groups, names, strict=True))


def _places(of: Sequence[int | str]) -> str:
    return ", ".join("?" * len(of))


def columns_of(table: Table, groups: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """The expressions of groups, the joins that they need, and the arguments of the joins."""
    joins: list[str] = []
    keys: list[str] = []
    columns: list[str] = []
    for at, name in enumerate(groups):
        if name in table.columns:
            columns.append(table.columns[name])
        elif name.startswith(LABEL):
            of_session = f"l{at}.session_id = r.session_id AND l{at}.recorded_by = r.recorded_by"
            joins.append(f" LEFT JOIN session_labels l{at} ON {of_session} AND l{at}.key = ?")
            keys.append(name.removeprefix(LABEL))
            columns.append(f"coalesce(l{at}.value, '')")
        else:
            columns.append(f"{table.time} - {table.time} % {PERIODS[name][0]}")
    return columns, "".join(joins), keys
