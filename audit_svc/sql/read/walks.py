"""Listings of a log: rows along the indexes that know a request's filters, and how far.

A walk goes along an index in the order of the listing. Filters that the index does not know are looked at row by row,
in windows that grow; a page whose walk takes too long ends early, and its token says where to go on.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from audit_svc.ledger.pages import Page, take_page
from audit_svc.ledger.protocol import TAIL_ROWS, Tail
from audit_svc.ledger.query import Filter, Query
from audit_svc.ledger.valid_rows import Values
from audit_svc.sql.database import Database, Dialect
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import Condition, Statement
from service_kit.paging import MAX_PAGE_BYTES, Position

MAX_PAIRS = 50
"""Walks along an index of a pair of columns and created_at at once, for filters on one of the two."""

FIRST_WINDOW = 5_000
LAST_WINDOW = 160_000
LEAST_WINDOW = 1_000
PATIENCE_SECONDS = 0.25
"""After so long a page is not gone on with. A window is as large as there is likely to be time for."""
IN_VAIN_SECONDS = 0.1
"""So long at least a page is gone on with after another way that has found nothing in its time."""
LONG_WALK = 25_000
"""Rows. A page that is likely to need more is better looked for in another way, where there is one."""

OtherWay = Callable[[Position, int, float], tuple[list[Values], Position | None]]
"""Of (where to go on, rows wanted, when to give up by the monotonic clock): the rows, and where to go on after them."""


@dataclass(frozen=True)
class Log:
    """A table of what happened once: tool calls, or model requests."""

    table: str
    names: Sequence[str]
    """What is read of a row, the receipt first."""
    read: Callable[[Values], Any]
    """A record of the values of names."""
    key: Callable[[Any], Position]
    """A record's (created_at_ms, position)."""

    def select(self, index: str, conditions: Sequence[Condition]) -> Statement:
        """The rows for which conditions hold. index: INDEXED BY one, or NOT INDEXED."""
        return listing.select(f"SELECT {', '.join(self.names)} FROM {self.table} {index}", conditions)  # noqa: S608 - names of ours


@dataclass(frozen=True)
class Walk:
    """Along one index."""

    index: str
    conditions: list[Condition] = field(default_factory=list)
    """What the index knows."""


@dataclass(frozen=True)
class Plan:
    """How the rows of a request are found."""

    dialect: Dialect
    log: Log
    walks: list[Walk]
    others: list[Condition]
    """What is looked at row by row."""
    is_short: bool = False
    """Whether the walks meet few rows, and not in the order of the listing: windows begin as small as a page."""

    def statement(self, conditions: Sequence[Condition], limit: int, *, ascending: bool = False) -> Statement:
        """The first rows, at most limit, of the listing for which conditions hold too."""
        parts = [
            self.log.select(f"INDEXED BY {walk.index}", [*walk.conditions, *conditions, *self.others])
            for walk in self.walks
        ]
        order = "ASC" if ascending else "DESC"
        return listing.merged(self.dialect, parts, f"created_at {order}, position {order}", limit)


@dataclass(frozen=True)
class Planner:
    """Makes the plan of a request from what is asked for."""

    dialect: Dialect
    log: Log
    others: Mapping[str, list[Condition]]
    """Conditions by the name of what they ask for."""

    def by(self, walks: list[Walk], *known: str, is_short: bool = False) -> Plan:
        """A plan along walks, whose indexes know what is asked for by the names of known."""
        rest = [part for name, parts in self.others.items() if name not in known for part in parts]
        return Plan(self.dialect, self.log, walks, rest, is_short)

    def shortest(self, database: Database, wanted: Filter) -> Plan | None:
        """A plan along few rows of any log: those of an id, of a session, of a rare label, or of suspect times."""
        session = f"idx_{self.log.table}_session"
        if "id" in wanted.equal:
            return self.by([Walk(f"sqlite_autoindex_{self.log.table}_1", self.others["id"])], "id", is_short=True)
        if "session_id" in wanted.equal:
            return self.by([Walk(session, self.others["session_id"])], "session_id", is_short=True)
        if label := listing.with_rare_label(database, wanted.labels, "session_id"):
            return self.by([Walk(session, [label])], is_short=True)
        if wanted.clock_suspect:
            return self.by([Walk(f"idx_{self.log.table}_suspect", self.others["suspect"])], "suspect")
        return None

    def along_pairs(self, database: Database, wanted: Filter, index: str, pair: tuple[str, str]) -> Plan | None:
        """A plan along an index of a pair of columns, for a filter on one or both; None where it would be too many."""
        first, second = pair
        values = wanted.equal
        if first in values and second in values:
            return self.by([Walk(index, [*self.others[first], *self.others[second]])], *pair)
        if first not in values and second not in values:
            return None
        if first in values:
            found = self._distinct(database, index, second, [Condition(f"{first} = ?", (values[first],))])
            pairs = [(values[first], name) for name in found]
        else:
            found = self._distinct(database, index, first, [])
            pairs = [(name, values[second]) for name in found]
        if len(pairs) > MAX_PAIRS:
            return None
        nothing = (values.get(first, ""), values.get(second, ""))
        walks = [Walk(index, [Condition(f"{first} = ? AND {second} = ?", one)]) for one in pairs or [nothing]]
        return self.by(walks, *pair)

    def _distinct(self, database: Database, index: str, column: str, within: Sequence[Condition]) -> list[str]:
        """The values of a column of index, one more than can be walked at most, by a look at it each."""
        values: list[str] = []
        what = f"SELECT {column} FROM {self.log.table} INDEXED BY {index}"  # noqa: S608 - names of ours
        while len(values) <= MAX_PAIRS + 1:
            # One column at a time: of a comparison of pairs, SQLite would use the index for the first alone.
            after = [Condition(f"{column} > ?", (values[-1],))] if values else []
            sql, arguments = listing.select(what, [*within, *after])
            found = database.execute(f"{sql} ORDER BY {column} LIMIT 1", arguments).fetchone()
            if found is None:
                break
            values.append(str(found[0]))
        return values


def conditions_of(wanted: Filter, table: str, database: Database | None = None) -> dict[str, list[Condition]]:
    """What a filter asks of a row of any log, by the name of what it asks for; its times are not among them.

    database: see listing.has_labels().
    """
    return {
        **{name: [Condition(f"{name} = ?", (value,))] for name, value in wanted.equal.items()},
        **{name: [condition] for name, condition in listing.any_of(wanted).items()},
        "suspect": listing.is_set("clock_suspect", wanted.clock_suspect),
        "error": listing.is_set("error", wanted.has_error),
        "shadow": [] if wanted.shadow is None else [Condition("shadow = ?", (int(wanted.shadow),))],
        "labels": listing.has_labels(wanted.labels, f"{table}.session_id", f"{table}.recorded_by", database),
    }


def list_rows(database: Database, query: Query, plan: Plan, other_way: OtherWay | None = None) -> Page[Any]:
    """A page of a log. It may be short, though another follows. other_way: for a walk that turns out to be long."""
    log = plan.log
    if plan.others:
        found, stopped_at = _search(database, query, plan, other_way)
    else:
        conditions = [*listing.time_range(query.filter), *listing.after_key(query.after)]
        found, stopped_at = database.fetch(log.names, plan.statement(conditions, query.size + 1)), None
    page = take_page(found, log.read, query.size, log.key)
    return page if page.next else Page(page.rows, stopped_at)


def export_rows(
    database: Database, plan: Plan, wanted: Filter, after: Position | None, last_position: int, size: int
) -> list[Any]:
    """The next rows of an export, the oldest first: see ReadableLedger."""
    conditions = [
        *listing.time_range(wanted),
        Condition(f"{database.dialect.without_index}position <= ?", (last_position,)),
    ]
    conditions += listing.after_key(after, ascending=True)
    statement = plan.statement(conditions, size, ascending=True)
    return list(map(plan.log.read, database.fetch(plan.log.names, statement)))


def last_position(database: Database, log: Log) -> int:
    """The position of a log's last row; 0 when there is none."""
    ((position,),) = database.execute(f"SELECT coalesce(max(position), 0) FROM {log.table}")  # noqa: S608 - a name of ours
    return int(position)


def rows_after(database: Database, log: Log, conditions: Sequence[Condition], position: int) -> Tail[Any]:
    """The rows after position: up to TAIL_ROWS of them are read, or as many as fit in one message."""
    last = last_position(database, log)
    upto = min(last, position + TAIL_ROWS)
    if upto <= position:
        return Tail([], position, last)
    within = Condition("position > ? AND position <= ?", (position, upto))
    # No index may take the walk away from the order of the commits.
    sql, arguments = log.select("NOT INDEXED", [within, *conditions])
    statement = Statement(f"{sql} ORDER BY position LIMIT {TAIL_ROWS}", arguments)
    tail: Tail[Any] = Tail([], upto, last)
    size_bytes = 0
    for found in database.fetch(log.names, statement):
        tail.rows.append(log.read(found))
        size_bytes += tail.rows[-1].ByteSize()
        if size_bytes > MAX_PAGE_BYTES:
            return Tail(tail.rows, tail.rows[-1].receipt.position, last)
    return tail


def _search(
    database: Database, query: Query, plan: Plan, other_way: OtherWay | None
) -> tuple[list[Values], Position | None]:
    """Rows window by window, until there are enough or time is up; then also where to go on, else None.

    Once what is asked for turns out to be rare, the rest is looked for in the other way.
    """
    ends, position, size = listing.time_range(query.filter), query.after, query.size + 1
    rows: list[Values] = []
    window = size if plan.is_short else FIRST_WINDOW
    passed = 0
    began = time.monotonic()
    give_up = began + PATIENCE_SECONDS
    while True:
        begin = _window_begin(database, plan, ends, position, window)
        within = [Condition("created_at >= ?", (begin,))] if begin is not None else []
        statement = plan.statement([*ends, *listing.after_key(position), *within], size - len(rows))
        rows += database.fetch(plan.log.names, statement)
        if len(rows) == size or begin is None:
            return rows, None
        position = (begin, 0)
        now = time.monotonic()
        if now > give_up:
            return rows, position
        passed += window
        likely = passed * (give_up - now) / max(now - began, 1e-6)
        window = min(2 * window, LAST_WINDOW, max(LEAST_WINDOW, int(likely)))
        if other_way and not plan.is_short and passed * (size - len(rows)) > LONG_WALK * max(1, len(rows)):
            more, rest = other_way(position, size - len(rows), give_up)
            other_way = None
            rows += more
            if rest is None or len(rows) == size:
                return rows, None
            began += time.monotonic() - now
            if rest == position:
                give_up = max(give_up, time.monotonic() + IN_VAIN_SECONDS)
            position = rest


def _window_begin(
    database: Database,
    plan: Plan,
    ends: Sequence[Condition],
    position: Sequence[int | str] | None,
    window: int,
) -> int | None:
    """The time down to which the walks meet about window rows; None when there are fewer. Looks at indexes alone."""
    after = []
    if position:
        after = [Condition("created_at <= ?" if position[1] else "created_at < ?", (position[0],))]
    begins: list[int] = []
    for walk in plan.walks:
        sql, arguments = listing.select(
            f"SELECT created_at FROM {plan.log.table} INDEXED BY {walk.index}",  # noqa: S608 - names of ours
            [*walk.conditions, *ends, *after],
        )
        rows = window // len(plan.walks)
        found = database.execute(f"{sql} ORDER BY created_at DESC LIMIT 1 OFFSET {rows}", arguments).fetchone()
        begins += [int(found[0])] if found else []
    return max(begins, default=None)
