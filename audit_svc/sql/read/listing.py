"""What all listings share in SQL: conditions, and order by key.

Pages go by key, (created_at, position), never by offset: an index on created_at has its rows in this order.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from audit_svc.ledger.query import Filter
from audit_svc.ledger.tables import TOOL_CALL_COLUMNS
from audit_svc.sql.database import Database, Dialect

FEW_SESSIONS = 200
"""As many sessions with a label are looked up one by one; more are met soon enough on the way through all rows."""

SOME_SESSIONS = 3_000
"""As many sessions with a label are read at once, in a millisecond or two, where it is quicker then to look at rows."""

Labels = Sequence[tuple[str, str]]

RECEIPT = ("position", "recorded_by", "recorded_at")
"""What the ledger says of a session."""
ROW_RECEIPT = (*RECEIPT, "erased")
"""What the ledger says of any other row."""
CALL_NAMES = [*ROW_RECEIPT, *(column.name for column in TOOL_CALL_COLUMNS)]
"""What is read of a tool call."""
CALL_COLUMNS = ", ".join(CALL_NAMES)


class Condition(NamedTuple):
    """A part of a WHERE clause."""

    sql: str
    arguments: tuple[int | str | None, ...] = ()


class Statement(NamedTuple):
    """SQL and its arguments."""

    sql: str
    arguments: list[int | str | None]


def is_set(column: str, wanted: bool | None) -> list[Condition]:
    """That a column is not null, or that it is; nothing where neither is wanted."""
    return [] if wanted is None else [Condition(f"{column} IS {'NOT ' if wanted else ''}NULL")]


def any_of(wanted: Filter, prefix: str = "") -> dict[str, Condition]:
    """That a column has one of the filter's values, by the column's name. prefix: what comes before the names."""
    found = {}
    for name, values in wanted.any_of.items():
        known = tuple(value for value in values if value is not None)
        parts = [f"{prefix}{name} IN ({', '.join('?' * len(known))})"] if known else []
        parts += [f"{prefix}{name} IS NULL"] if None in values else []
        found[name] = Condition(f"({' OR '.join(parts)})", known)
    return found


def contains(column: str, text: str) -> list[Condition]:
    """That a column has a text, whatever the case of its ASCII letters; nothing where there is no text."""
    # Not LIKE, which ends at a NUL: what a summary has behind one would be hidden.
    return [Condition(f"instr(lower({column}), ?) > 0", (lower(text),))] if text else []


def lower(text: str) -> str:
    """In lower case as the databases have it: ASCII alone."""
    return text.encode().lower().decode()


def time_range(wanted: Filter) -> list[Condition]:
    """That a row began within the filter's range."""
    conditions = [] if wanted.from_ms is None else [Condition("created_at >= ?", (wanted.from_ms,))]
    return conditions + ([] if wanted.before_ms is None else [Condition("created_at < ?", (wanted.before_ms,))])


def updated_range(wanted: Filter) -> list[Condition]:
    """That a session's last revision is of the filter's range."""
    conditions = [] if wanted.updated_from_ms is None else [Condition("updated_at >= ?", (wanted.updated_from_ms,))]
    before = wanted.updated_before_ms
    return conditions + ([] if before is None else [Condition("updated_at < ?", (before,))])


def has_labels(labels: Labels, session: str, recorded_by: str, database: Database | None = None) -> list[Condition]:
    """That the session of (session, recorded_by), columns' names, has all of labels.

    database: where many rows are looked at, which may be quicker there with the sessions of a label read before.
    """
    if database is not None and (among := database.dialect.among):
        return [
            Condition(among.format(f"({session}, {recorded_by})", _OF_LABEL), label)
            if _sessions_with(database, label, SOME_SESSIONS) <= SOME_SESSIONS
            else has_labels([label], session, recorded_by)[0]
            for label in labels
        ]
    # A value and no EXISTS, which SQLite may make the outer loop of a join, in another order than the listing's.
    of_session = f"l.session_id = {session} AND l.recorded_by = {recorded_by}"
    sql = f"(SELECT l.value FROM session_labels l WHERE {of_session} AND l.key = ?) = ?"  # noqa: S608 - names of ours
    return [Condition(sql, label) for label in labels]


def with_rare_label(database: Database, labels: Labels, session: str) -> Condition | None:
    """A condition that looks up the few sessions with the rarest of labels, or None when each has many.

    It lets the rows of all who recorded such a session's id through: has_labels() says whose the labels are.
    """
    found = [(_sessions_with(database, label, FEW_SESSIONS), label) for label in labels]
    sessions, label = min(found, default=(FEW_SESSIONS + 1, ("", "")))
    if sessions > FEW_SESSIONS:
        return None
    sql = "(SELECT session_id FROM session_labels INDEXED BY idx_session_labels_label WHERE key = ? AND value = ?)"
    return Condition(database.dialect.in_few.format(session, sql), label)


_OF_LABEL = "SELECT session_id, recorded_by FROM session_labels WHERE key = ? AND value = ?"


def _sessions_with(database: Database, label: tuple[str, str], most: int) -> int:
    """How many sessions have a label; of more than most, one more."""
    some = "SELECT 1 FROM session_labels INDEXED BY idx_session_labels_label WHERE key = ? AND value = ? LIMIT ?"
    ((count,),) = database.execute(f"SELECT count(*) FROM ({some}) AS found", (*label, most + 1))  # noqa: S608 - ours
    return int(count)


def after_key(key: Sequence[int | str] | None, *, ascending: bool = False, row: str = "position") -> list[Condition]:
    """That a row comes after key, (created_at, position), in the order of the listing; nothing where there is no key.

    row: the column of the position.
    """
    sign = ">" if ascending else "<"
    return [] if key is None else [Condition(f"(created_at, {row}) {sign} (?, ?)", tuple(key))]


def select(what: str, conditions: Iterable[Condition]) -> Statement:
    """A SELECT with all of conditions."""
    parts = list(conditions)
    where = " AND ".join(part.sql for part in parts)
    return Statement(f"{what}{' WHERE ' if where else ''}{where}", [x for part in parts for x in part.arguments])


def merged(dialect: Dialect, parts: Sequence[Statement], order: str, limit: int) -> Statement:
    """The first rows of all parts in an order: none is read further than they need."""
    whole = f" ORDER BY {order} LIMIT {limit}"
    arguments = [argument for part in parts for argument in part.arguments]
    if len(parts) == 1:
        return Statement(parts[0].sql + whole, arguments)
    sql = " UNION ALL ".join(dialect.one_of_walks.format(part.sql, order, limit) for part in parts)
    return Statement(sql + whole, arguments)


def first(statement: Statement, order: str, size: int) -> Statement:
    """The first rows of a statement in an order: size of them, and one that tells whether a page follows."""
    return Statement(f"{statement.sql} ORDER BY {order} LIMIT {size + 1}", statement.arguments)
