"""The listing of tool calls: which index a request's filters walk, and how far.

A walk goes along an index in the order of the listing. Filters that the index does not know are looked at row by row,
in windows that grow; a page whose walk takes too long ends early, and its token says where to go on.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.batch import Values
from audit_svc.ledger.pages import Page, call_key, take_page
from audit_svc.ledger.query import Filter, Query
from audit_svc.ledger.records import tool_call_record
from audit_svc.sqlite.open.connection import Connection
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import CALL_COLUMNS, CALL_NAMES, RECEIPT, Condition, Statement
from audit_svc.sqlite.text.text_index import trigrams_of
from audit_svc.sqlite.text.text_search import TextSearch
from service_kit.paging import Position

MAX_PAIRS = 50
"""Walks along (engine, tool_name, created_at) at once, for filters on one of the two."""

FIRST_WINDOW = 5_000
LAST_WINDOW = 160_000
PATIENCE_SECONDS = 0.25
"""After so long a page is not gone on with: its last window or zone of texts takes about as long at most."""
LONG_WALK = 25_000
"""Rows. When a page is likely to need more, and looks for a text, the index of texts is quicker than the walk."""


@dataclass(frozen=True)
class Walk:
    """Along one index."""

    index: str
    conditions: list[Condition] = field(default_factory=list)
    """What the index knows."""


@dataclass(frozen=True)
class Plan:
    """How the rows of a request are found."""

    walks: list[Walk]
    others: list[Condition]
    """What is looked at row by row."""
    is_short: bool = False
    """Whether the walks meet few rows, and not in the order of the listing: windows begin as small as a page."""
    filters: list[Condition] = field(default_factory=list)
    """All that is asked for, whatever is walked."""
    trigrams: list[str] = field(default_factory=list)
    """Of the text that is asked for, in lower case."""

    def statement(self, conditions: Sequence[Condition], limit: int, *, ascending: bool = False) -> Statement:
        """The first rows, at most limit, of the listing for which conditions hold too."""
        parts = [
            listing.select(
                f"SELECT {CALL_COLUMNS} FROM tool_call_log INDEXED BY {walk.index}",  # noqa: S608 - names of ours
                [*walk.conditions, *conditions, *self.others],
            )
            for walk in self.walks
        ]
        order = "ASC" if ascending else "DESC"
        # SQLite merges the walks: none is read further than the page needs.
        sql = " UNION ALL ".join(part.sql for part in parts)
        sql += f" ORDER BY created_at {order}, position {order} LIMIT {limit}"
        return Statement(sql, [argument for part in parts for argument in part.arguments])


def list_tool_calls(connection: Connection, query: Query) -> Page[questions_pb2.ToolCallRecord]:
    """A page of tool calls. It may be short, though another follows."""
    plan = plan_of(connection, query.filter)
    if plan.others:
        found, stopped_at = _search(connection, query, plan)
    else:
        conditions = [*listing.time_range(query.filter), *listing.after_key(query.after)]
        found, stopped_at = listing.fetch(connection, CALL_NAMES, plan.statement(conditions, query.size + 1)), None
    page = take_page(found, read_call, query.size, call_key)
    return page if page.next else Page(page.rows, stopped_at)


def export_tool_calls(
    connection: Connection, wanted: Filter, after: Position | None, last_position: int, size: int
) -> list[questions_pb2.ToolCallRecord]:
    """The next rows of an export, the oldest first: see ReadableLedger."""
    conditions = [*listing.time_range(wanted), Condition("+position <= ?", (last_position,))]
    conditions += listing.after_key(after, ascending=True)
    statement = plan_of(connection, wanted).statement(conditions, size, ascending=True)
    return list(map(read_call, listing.fetch(connection, CALL_NAMES, statement)))


def plan_of(connection: Connection, wanted: Filter) -> Plan:
    """The walk that meets the fewest rows for a filter."""
    equal = wanted.equal
    others = conditions_of(wanted)

    def by(walks: list[Walk], *known: str, is_short: bool = False) -> Plan:
        rest = [part for name, parts in others.items() if name not in known for part in parts]
        filters = [part for parts in others.values() for part in parts]
        return Plan(walks, rest, is_short, filters, trigrams_of(listing.lower(wanted.contains)))

    if "session_id" in equal:
        return by([Walk("idx_tool_call_log_session", others["session_id"])], "session_id", is_short=True)
    if label := listing.with_rare_label(connection, wanted.labels, "session_id"):
        return by([Walk("idx_tool_call_log_session", [label])], is_short=True)
    if wanted.clock_suspect:
        return by([Walk("idx_tool_call_log_suspect", others["suspect"])], "suspect")
    if unusual := _unusual(wanted):
        return by([Walk("idx_tool_call_log_unusual", [outcome]) for outcome in unusual], "outcomes")
    if wanted.has_error:
        return by([Walk("idx_tool_call_log_failed", others["error"])], "error")
    if "engine" in equal and "tool_name" in equal:
        known = "engine", "tool_name"
        return by([Walk("idx_tool_call_log_tool", [*others["engine"], *others["tool_name"]])], *known)
    if "model" in equal:
        return by([Walk("idx_tool_call_log_model", others["model"])], "model")
    if "engine" in equal or "tool_name" in equal:
        pairs = _pairs(connection, equal.get("engine", ""), equal.get("tool_name", ""))
        if pairs is not None:
            walks = [
                Walk("idx_tool_call_log_tool", [Condition("engine = ? AND tool_name = ?", pair)]) for pair in pairs
            ]
            return by(walks, "engine", "tool_name")
    return by([Walk("idx_tool_call_log_created")])


def conditions_of(wanted: Filter) -> dict[str, list[Condition]]:
    """What a filter asks of a row of tool_call_log, by the name of what it asks for; its times are not among them."""
    return {
        # The text first: few rows have it, and it lies before the other columns.
        "text": listing.contains("args_summary", wanted.contains),
        **{name: [Condition(f"{name} = ?", (value,))] for name, value in wanted.equal.items()},
        **{name: [condition] for name, condition in listing.any_of(wanted).items()},
        "suspect": listing.is_set("clock_suspect", wanted.clock_suspect),
        "error": listing.is_set("error", wanted.has_error),
        "shadow": [] if wanted.shadow is None else [Condition("shadow = ?", (int(wanted.shadow),))],
        "outcomes": _outcomes(wanted),
        "labels": listing.has_labels(wanted.labels, "tool_call_log.session_id", "tool_call_log.recorded_by"),
    }


def read_call(found: Values) -> questions_pb2.ToolCallRecord:
    """A record of the values of CALL_NAMES."""
    return tool_call_record(found[: len(RECEIPT)], found[len(RECEIPT) :])


def _search(connection: Connection, query: Query, plan: Plan) -> tuple[list[Values], Position | None]:
    """Rows window by window, until there are enough or time is up; then also where to go on, else None.

    Once a text turns out to be rare, the rest is looked for by the index of texts.
    """
    ends, position, size = listing.time_range(query.filter), query.after, query.size + 1
    rows: list[Values] = []
    window = size if plan.is_short else FIRST_WINDOW
    passed = 0
    may_use_index = bool(plan.trigrams) and not plan.is_short
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        begin = _window_begin(connection, plan, ends, position, window)
        within = [Condition("created_at >= ?", (begin,))] if begin is not None else []
        statement = plan.statement([*ends, *listing.after_key(position), *within], size - len(rows))
        rows += listing.fetch(connection, CALL_NAMES, statement)
        if len(rows) == size or begin is None:
            return rows, None
        position = (begin, 0)
        if time.monotonic() > give_up:
            return rows, position
        passed += window
        window = min(2 * window, LAST_WINDOW)
        if may_use_index and passed * (size - len(rows)) > LONG_WALK * max(1, len(rows)):
            may_use_index = False
            more, rest = _by_text(connection, query.filter, plan, position, size - len(rows), give_up)
            rows += more
            if rest is None or len(rows) == size:
                return rows, None
            position = rest


def _by_text(
    connection: Connection, wanted: Filter, plan: Plan, position: Position, size: int, give_up: float
) -> tuple[list[Values], Position | None]:
    conditions = [*plan.filters, *listing.time_range(wanted)]
    search = TextSearch(connection, plan.trigrams, conditions, wanted.from_ms or 0, size, give_up)
    return search.rows(position)


def _window_begin(
    connection: Connection,
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
            f"SELECT created_at FROM tool_call_log INDEXED BY {walk.index}",  # noqa: S608 - a name of ours
            [*walk.conditions, *ends, *after],
        )
        rows = window // len(plan.walks)
        found = connection.execute(f"{sql} ORDER BY created_at DESC LIMIT 1 OFFSET {rows}", arguments).fetchone()
        begins += [int(found[0])] if found else []
    return max(begins, default=None)


def _outcomes(wanted: Filter) -> list[Condition]:
    known = tuple(name for name in wanted.outcomes if name is not None)
    parts = [f"outcome IN ({', '.join('?' * len(known))})"] if known else []
    parts += ["outcome IS NULL"] if None in wanted.outcomes else []
    return [Condition(f"({' OR '.join(parts)})", known)] if parts else []


def _unusual(wanted: Filter) -> list[Condition]:
    """A condition for each outcome, where none is the one that most calls have, or none at all."""
    if None in wanted.outcomes or "succeeded" in wanted.outcomes:
        return []
    return [Condition("outcome = ? AND outcome <> 'succeeded'", (str(name),)) for name in wanted.outcomes]


def _pairs(connection: Connection, engine: str, tool_name: str) -> list[tuple[str, str]] | None:
    """The engines and tools that there are for a filter on one of them; None when they are too many to walk at once."""
    if engine:
        found = _distinct(connection, "tool_name", [Condition("engine = ?", (engine,))])
        pairs = [(engine, name) for name in found]
    else:
        found = _distinct(connection, "engine", [])
        pairs = [(name, tool_name) for name in found]
    return None if len(pairs) > MAX_PAIRS else pairs or [(engine, tool_name)]


def _distinct(connection: Connection, column: str, within: Sequence[Condition]) -> list[str]:
    """The values of a column of idx_tool_call_log_tool, one more than can be walked at most, by a look at it each."""
    values = [""]
    while len(values) <= MAX_PAIRS + 1:
        # One column at a time: of a comparison of pairs, SQLite would use the index for the first of the pair alone.
        sql, arguments = listing.select(
            f"SELECT {column} FROM tool_call_log INDEXED BY idx_tool_call_log_tool",  # noqa: S608 - a name of ours
            [*within, Condition(f"{column} > ?", (values[-1],))],
        )
        found = connection.execute(f"{sql} ORDER BY {column} LIMIT 1", arguments).fetchone()
        if found is None:
            break
        values.append(str(found[0]))
    return values[1:]
