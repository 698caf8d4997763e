"""What was used under a name: by a person, an agent, a source, an MCP server, or sessions with a label.

named_usage (migration 0023) has the sums of each hour and each day by (name, value), so that usage by one of them is
answered without the rows or the sessions. They are made with the sums of sessions, up to the same positions: an answer
counts the rows after them, and those at the two ends of its range, so it is exact at any time. Where many rows wait to
be summed, or a session's labels have just changed, the answer comes from elsewhere.
"""

import json
import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from audit_svc.ledger import histogram
from audit_svc.ledger.columns import MAX_INT64
from audit_svc.ledger.groups import LABEL, PERIODS, WHO
from audit_svc.ledger.query import Filter
from audit_svc.ledger.ranges import cut
from audit_svc.ledger.steps import HOUR_MS, STEPS
from audit_svc.ledger.usage import MAX_SUMMED
from audit_svc.sql import writing
from audit_svc.sql.database import Connection, Database
from audit_svc.sql.marks import pruned_before
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import Condition
from audit_svc.sql.usage.kept_sums import KeptSums, rows_of
from audit_svc.sql.usage.rollups import HAS_NO_DURATION
from audit_svc.sql.usage.usage_tables import CALLS, REQUESTS, Kind, Table, usage_tables
from service_kit.bounds import saturated

ALL = ""
"""The name under which all rows are summed, with the value ''."""
LABELLED = "labelled:"
"""Before a label's key: the name under which the rows of all sessions with the label are summed, with the value ''."""
KEPT = STEPS[:2]
"""The steps that sums are kept by."""
MOST_LATER = 20_000
"""Rows that an answer counts besides at most: with more that no sum has yet, other tables are quicker."""
ROWS_MOVED = 1000
"""Rows of a session that one step moves to its new labels."""

Key = tuple[str, int, int, str]
"""(name, step, begins_at, value)."""

_SUMS = (*CALLS, "durations", *REQUESTS)
_AT_DURATIONS = len(CALLS)
_EMPTY = (*(0,) * len(CALLS), histogram.to_blob(0), *(0,) * len(REQUESTS))
_KEY = "name = ? AND step = ? AND begins_at = ? AND value = ?"
_KEPT = KeptSums("named_usage", ("name", "step", "begins_at", "value"), _SUMS)
_FORGET_EMPTY = f"DELETE FROM named_usage WHERE {_KEY} AND calls = 0 AND requests = 0"  # noqa: S608 - names of ours
_FORGET = (
    "DELETE FROM named_usage WHERE (name, step, begins_at, value) IN (SELECT name, step, begins_at, value "
    "FROM named_usage WHERE name = ? AND step = ? AND begins_at < ? LIMIT ?)"
)
_MOVE = (
    "SELECT id, session_id, recorded_by, removed, added, kind, until_position, after_at, after_position "
    "FROM relabelled ORDER BY id LIMIT 1"
)


def _capped(name: str) -> str:
    return f"CASE WHEN r.{name} > {MAX_SUMMED} THEN {MAX_SUMMED} ELSE r.{name} END"


_FAILED = "CASE WHEN r.error IS NULL THEN 0 ELSE 1 END"
_VALUES = {
    "tool_calls": (
        *(f"coalesce(r.{name}, '')" for name in WHO),
        "1",
        _FAILED,
        "CASE WHEN coalesce(r.exit_code, 0) = 0 THEN 0 ELSE 1 END",
        "CASE WHEN coalesce(r.http_status, 0) < 400 THEN 0 ELSE 1 END",
        f"coalesce({_capped('result_bytes')}, 0)",
        f"CASE WHEN r.{HAS_NO_DURATION} THEN NULL ELSE r.duration_ms END",
    ),
    "model_requests": (
        *(f"coalesce(r.{name}, '')" if name != "mcp_server" else "''" for name in WHO),
        "1",
        _FAILED,
        *(_capped(name) for name in REQUESTS[2:6]),
        f"coalesce({_capped('cost_micros')}, 0)",
        "CASE WHEN r.cost_micros IS NULL THEN 1 ELSE 0 END",
    ),
}
"""By Kind.summed: what a row has under the names of WHO, what it adds, and of a call its duration or null."""
_WHERE = ("r.created_at", "r.session_id", "r.recorded_by")


class Change(NamedTuple):
    """What is added to a row of the table; the sums of calls, then their histogram, or those of requests."""

    sums: Sequence[int]
    durations: int


# --- Questions


def named_of(wanted: Filter, groups: Sequence[str]) -> str | None:
    """The name by which sums are kept that answer a question; None where they do not."""
    columns = dict(wanted.equal)
    names = {name for name in groups if name not in PERIODS}
    names |= {name for name in ("principal", "agent", "mcp_server") if columns.pop(name, None) is not None}
    names |= {LABEL + key for key, _ in wanted.labels}
    is_simple = not (columns or wanted.outcomes or wanted.contains or wanted.any_of) and (
        (wanted.has_error, wanted.shadow, wanted.clock_suspect) == (None, None, None)
    )
    if not is_simple or len(names) > 1 or not (names or groups) or len(wanted.labels) > 1:
        return None
    name = names.pop() if names else ALL
    return name if name in (ALL, *WHO) or name.startswith(LABEL) else None


def named_parts(
    database: Database, name: str, wanted: Filter, groups: Sequence[str], begin: int, end: int, filters: list[Condition]
) -> list[tuple[Table, list[Condition]]] | None:
    """Where the usage of a range under a name is, exactly; None where other tables answer sooner.

    end: MAX_INT64 for a range without one. filters: the conditions on rows.
    """
    longest = min([PERIODS[group][0] for group in groups if group in PERIODS], default=MAX_INT64)
    pieces = list(cut(begin, end, [step for step in KEPT if step.ms <= longest]))
    whole = [piece for piece in pieces if piece.step]
    if not whole or (name.startswith(LABEL) and is_relabelling(database)):
        return None
    tables = usage_tables(database.dialect)
    kinds = tables.kinds[: 1 if wanted.is_of_calls else 2]
    lasts = [_summed(database, kind) for kind in kinds]
    if any(_last(database, kind) - last > MOST_LATER for kind, last in zip(kinds, lasts, strict=True)):
        return None
    values = [
        *wanted.labels,
        *((key, wanted.equal[key]) for key in ("principal", "agent", "mcp_server") if key in wanted.equal),
    ]
    of_value = [Condition("r.value = ?", (value,)) for _, value in values]
    found: list[tuple[Table, list[Condition]]] = []
    for kind, last, table in zip(kinds, lasts, (tables.named_calls, tables.named_requests), strict=False):
        for piece in pieces:
            within = _within(kind.rows.time if piece.step is None else "r.begins_at", piece.begin, piece.end)
            if piece.step is None:
                found.append((kind.rows, [*within, *filters]))
                continue
            for kept, of_name, more in _kept(table, name, groups, of_value):
                of_step = Condition("r.name = ? AND r.step = ?", (of_name, piece.step.ms))
                found.append((kept, [of_step, *within, *more]))
        hint = database.dialect.without_index
        within = _within(f"{hint}{kind.rows.time}", whole[0].begin, whole[-1].end)
        found.append((kind.later, [Condition("r.position > ?", (last,)), *within, *filters]))
    return found


def _kept(
    table: Table, name: str, groups: Sequence[str], of_value: list[Condition]
) -> Iterator[tuple[Table, str, list[Condition]]]:
    """The sums of a name, each with the name that it is kept by, and what else must hold."""
    yield table.named(name, "r.value"), name, of_value
    if name.startswith(LABEL) and not of_value:  # what sessions without the label used is the rest of all
        yield table.named(name, "''"), ALL, []
        yield table.named(name, "''", sign=-1), LABELLED + name.removeprefix(LABEL), []


def _within(time: str, begin: int, end: int) -> list[Condition]:
    conditions = [Condition(f"{time} >= ?", (begin,))] if begin else []
    return conditions + ([Condition(f"{time} < ?", (end,))] if end < MAX_INT64 else [])


def is_relabelling(database: Connection) -> bool:
    """Whether sums still have rows under labels that their session had before."""
    return bool(database.execute("SELECT 1 FROM relabelled LIMIT 1").fetchall())


def _summed(connection: Connection, kind: Kind) -> int:
    ((last,),) = connection.execute(f"SELECT {kind.summed} FROM session_usage_summed")  # noqa: S608 - a name of ours
    return int(last)


def _last(connection: Connection, kind: Kind) -> int:
    ((last,),) = connection.execute(f"SELECT coalesce(max(position), 0) FROM {kind.rows.name}")  # noqa: S608 - a name of ours
    return int(last)


# --- Sums


def sum_named(connection: Connection, kind: Kind, first: int, last: int) -> None:
    """Adds the rows behind the position first, up to last, in the open transaction."""
    within = [Condition("r.position > ?", (first,)), Condition("r.position <= ?", (last,))]
    within += [Condition("r.created_at >= ?", (pruned_before(connection),))]
    _write(connection, kind, named_sums(connection, kind, "NOT INDEXED", within))


def named_sums(connection: Connection, kind: Kind, along: str, within: list[Condition]) -> dict[Key, Change]:
    """What rows add to the sums of each name. along: INDEXED BY an index, or NOT INDEXED."""
    by_session = list(_counted(connection, kind, along, within))
    labels = _labels_of(connection, {(session, recorded_by) for (_, session, recorded_by, *_), _ in by_session})
    counted: dict[Key, Change] = {}
    for (hour, session, recorded_by, *who), change in by_session:
        _add(counted, [(ALL, ""), *zip(WHO, who, strict=True), *labels[session, recorded_by]], hour, change)
    return counted


def _labels_of(
    connection: Connection, sessions: set[tuple[str, str]]
) -> defaultdict[tuple[str, str], list[tuple[str, str]]]:
    """The names that the rows of sessions with labels are summed by, and their values."""
    of_session, columns = ("session_id", "recorded_by"), ("session_id", "recorded_by", "key", "value")
    labels = defaultdict[tuple[str, str], list[tuple[str, str]]](list)
    for session, recorded_by, key, value in rows_of(
        connection, "session_labels", of_session, columns, sorted(sessions)
    ):
        labels[session, recorded_by] += _of_label(key, value)
    return labels


def _of_label(key: str, value: str) -> list[tuple[str, str]]:
    return [(LABEL + key, value), (LABELLED + key, "")]


def move_relabelled(connection: Connection, kinds: Sequence[Kind]) -> bool:
    """Moves some rows from labels that their session had to those that it got; False where there are none to move."""
    found = connection.execute(_MOVE).fetchone()
    if found is None:
        return False
    entry, session, recorded_by, removed, added, of_kind, until, at, position = found
    kind = next(kind for kind in kinds if kind.summed == of_kind)
    rows = connection.execute(
        f"SELECT created_at, position FROM {kind.rows.name} r {_by_session(kind)} "  # noqa: S608 - names of ours
        "WHERE r.session_id = ? AND r.created_at >= ? AND (r.created_at, r.position) > (?, ?) "
        "ORDER BY r.created_at, r.position LIMIT ?",
        (session, at, at, position, ROWS_MOVED),
    ).fetchall()
    if rows:
        within = [
            Condition("r.session_id = ? AND r.recorded_by = ?", (session, recorded_by)),
            Condition("r.created_at >= ? AND r.created_at <= ?", (at, rows[-1][0])),
            Condition("(r.created_at, r.position) > (?, ?)", (at, position)),
            Condition("(r.created_at, r.position) <= (?, ?)", tuple(rows[-1])),
            Condition("r.position <= ?", (until,)),
            Condition("r.created_at >= ?", (pruned_before(connection),)),
        ]
        changes: dict[Key, Change] = {}
        lost, got = (
            [name for label in json.loads(labels).items() for name in _of_label(*label)] for labels in (removed, added)
        )
        for (hour, *_), change in _counted(connection, kind, _by_session(kind), within):
            _add(changes, got, hour, change)
            less = Change([-one for one in change.sums], -change.durations)
            _add(changes, lost, hour, less)
        _write(connection, kind, changes)
    if len(rows) < ROWS_MOVED:
        connection.execute("DELETE FROM relabelled WHERE id = ?", (entry,))
    else:
        connection.execute("UPDATE relabelled SET after_at = ?, after_position = ? WHERE id = ?", (*rows[-1], entry))
    return True


def note_labels(
    connection: Connection, session: str, recorded_by: str, before: Mapping[str, str], labels: Mapping[str, str]
) -> None:
    """Has the sums of a session's rows move from the labels of before, in the transaction that changes them."""
    removed, added = (dict(one.items() - other.items()) for one, other in ((before, labels), (labels, before)))
    if not (removed or added):
        return
    of_session = (session, recorded_by)
    known = "SELECT 1 FROM session_usage WHERE session_id = ? AND recorded_by = ? LIMIT 1"
    if not connection.execute(known, of_session).fetchall():
        return
    for kind in ("tool_calls", "model_requests"):
        connection.execute(
            "INSERT INTO relabelled (id, session_id, recorded_by, removed, added, kind, until_position) "  # noqa: S608 - names of ours
            f"SELECT coalesce((SELECT max(id) FROM relabelled), 0) + 1, ?, ?, ?, ?, ?, {kind} "
            "FROM session_usage_summed",
            (*of_session, json.dumps(removed), json.dumps(added), kind),
        )


def forget_named(connection: writing.Connection, before_ms: int, limit: int) -> bool:
    """Forgets, in the open transaction, some sums of before a time; False when none is left.

    At most limit of them, and at the end makes those of the day that it cuts anew, of its later hours.
    """
    hourly, daily = KEPT
    ((name,),) = connection.execute("SELECT min(name) FROM named_usage")
    while name is not None:
        for step in KEPT:
            connection.execute(_FORGET, (name, step.ms, before_ms, limit))
            limit -= connection.changes()
            if limit <= 0:
                return True
        ((name,),) = connection.execute("SELECT min(name) FROM named_usage WHERE name > ?", (name,))
    day = before_ms - before_ms % daily.ms
    if day == before_ms:
        return False
    sums: dict[Key, list[Any]] = {}
    rows = connection.execute(
        f"SELECT name, value, {', '.join(_SUMS)} FROM named_usage WHERE step = ? AND begins_at >= ? AND begins_at < ?",  # noqa: S608 - names of ours
        (hourly.ms, before_ms, day + daily.ms),
    ).fetchall()
    for name, value, *values in rows:
        values[_AT_DURATIONS] = histogram.from_blob(values[_AT_DURATIONS])
        key = (name, daily.ms, day, value)
        sums[key] = list(map(operator.add, sums[key], values)) if key in sums else values
    for values in sums.values():
        values[_AT_DURATIONS] = histogram.to_blob(values[_AT_DURATIONS])
    _KEPT.write(
        connection,
        [
            (*key, *(one if isinstance(one, bytes) else saturated(one) for one in values))
            for key, values in sums.items()
        ],
    )
    return False


def _counted(
    connection: Connection, kind: Kind, along: str, within: list[Condition]
) -> Iterator[tuple[tuple[Any, ...], Change]]:
    """What rows add, by (hour, session, recorded_by, the values of WHO): these are few, and the names share them."""
    what = ", ".join((*_WHERE, *_VALUES[kind.summed]))
    sql, arguments = listing.select(f"SELECT {what} FROM {kind.rows.name} r {along}", within)  # noqa: S608 - names of ours
    width = 3 + len(WHO)
    rows: dict[tuple[Any, ...], list[Sequence[int]]] = defaultdict(list)
    for at_ms, *values in connection.execute(sql, arguments):
        rows[at_ms - at_ms % HOUR_MS, *values[: width - 1]].append(values[width - 1 :])
    for key, alike in rows.items():
        columns = list(zip(*alike, strict=True))
        took = columns.pop() if kind.rows.durations else ()
        known = [one for one in took if one is not None]
        yield key, Change([sum(column) for column in columns], histogram.count(known))


def _by_session(kind: Kind) -> str:
    return f"INDEXED BY idx_{kind.rows.name}_session"


def _add(counted: dict[Key, Change], named: Sequence[tuple[str, str]], hour: int, change: Change) -> None:
    for step in KEPT:
        begins_at = hour - hour % step.ms
        for name, value in named:
            key = (name, step.ms, begins_at, value)
            had = counted.get(key)
            counted[key] = change if had is None else _sum_of(had, change)


def _sum_of(one: Change, other: Change) -> Change:
    return Change(list(map(operator.add, one.sums, other.sums)), one.durations + other.durations)


def _write(connection: Connection, kind: Kind, counted: Mapping[Key, Change]) -> None:
    first = 0 if kind.rows.durations else _AT_DURATIONS + 1
    keys = sorted(counted)  # in the order of the table's index
    known, rows = _KEPT.read(connection, keys), list[tuple[Any, ...]]()
    for key in keys:
        change, values = counted[key], known.get(key) or list(_EMPTY)
        at = slice(first, first + len(change.sums))
        values[at] = [saturated(max(0, total)) for total in map(operator.add, values[at], change.sums)]
        if kind.rows.durations:
            had = histogram.from_blob(values[_AT_DURATIONS])
            values[_AT_DURATIONS] = histogram.to_blob(max(0, had + change.durations))
        rows.append((*key, *values))
    _KEPT.write(connection, rows)
    for key in keys:
        if counted[key].sums[0] < 0:
            connection.execute(_FORGET_EMPTY, key)
