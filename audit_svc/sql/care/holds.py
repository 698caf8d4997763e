"""Legal holds: a table that is only added to, and what the holds in place hold."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from onrecord.audit.v1 import administration_pb2

from audit_svc.errors import AlreadyExists, NotFound, Overloaded
from audit_svc.ledger.clock import wall_ms
from audit_svc.ledger.holds import MAX_HOLDS, MAX_LISTED, Act, Scope, filter_message, filter_text
from audit_svc.sql.database import Connection
from audit_svc.sql.read import listing, tool_calls, walks
from audit_svc.sql.read.listing import Condition

TABLES = {
    "tool_call": "tool_call_log",
    "model_request": "cost_log",
    "control": "control_log",
    "session": "sessions",
}
"""Those with rows that a hold may hold, by their kind."""
NEVER = Condition("(false)")
_LAST_PLACED = "position = (SELECT max(position) FROM hold_log l WHERE l.name = h.name) AND act = 'placed'"


def perform(connection: Connection, act: Act) -> administration_pb2.Hold:
    """Places or lifts a hold in the open transaction.

    Raises:
        AlreadyExists: a hold of that name is in place.
        NotFound: none is.
        Overloaded: as many are in place as may be.
    """
    found: Any = connection.execute(
        f"SELECT filter FROM hold_log h WHERE name = ? AND {_LAST_PLACED}",  # noqa: S608 - a text of ours
        (act.name,),
    ).fetchone()
    if act.filter is None:
        if found is None:
            raise NotFound("no hold of that name is in place", "hold", act.name)
        said, text = "lifted", str(found[0])
    else:
        if found is not None:
            raise AlreadyExists("a hold of that name is in place", "hold", act.name)
        if len(_in_place(connection)) >= MAX_HOLDS:
            raise Overloaded(f"{MAX_HOLDS} holds are in place, and no more may be: lift one first")
        said, text = "placed", filter_text(act.filter)
    connection.execute(
        "INSERT INTO hold_log (act, name, filter, acted_by, reason, recorded_at) VALUES (?, ?, ?, ?, ?, ?)",
        (said, act.name, text, act.by, act.reason, wall_ms()),
    )
    return next(hold for hold in reversed(list_holds(connection, with_lifted=True)) if hold.name == act.name)


def list_holds(connection: Connection, *, with_lifted: bool) -> list[administration_pb2.Hold]:
    """The holds in place, or the last MAX_LISTED that ever were, in the order in which they were placed."""
    holds: list[administration_pb2.Hold] = []
    in_place: dict[str, administration_pb2.Hold] = {}
    acts: Any = connection.execute(
        "SELECT act, name, filter, acted_by, reason, recorded_at FROM hold_log ORDER BY position"
    )
    for act, name, text, by, reason, at_ms in acts:
        if act == "placed":
            in_place[name] = administration_pb2.Hold(
                name=name, filter=filter_message(text), placed_by=by, placed_at_ms=at_ms, reason=reason
            )
            holds.append(in_place[name])
        elif hold := in_place.pop(name, None):
            hold.lifted_by, hold.lifted_at_ms, hold.lift_reason = by, at_ms, reason
    return [hold for hold in holds if with_lifted or not hold.lifted_at_ms][-MAX_LISTED:]


def held(connection: Connection, kind: str, positions: Collection[int]) -> dict[int, str]:
    """Those of the rows that a hold in place holds, each with the name of one that does."""
    if not positions:
        return {}
    found: dict[int, str] = {}
    for name, condition in _conditions(connection, kind):
        sql = f"SELECT position FROM {TABLES[kind]} WHERE position IN (SELECT value FROM json_each(?)) AND "  # noqa: S608 - names of ours
        rows = connection.execute(sql + condition.sql, (json.dumps([*positions]), *condition.arguments))
        found.update((int(position), name) for (position,) in rows)
    return found


def is_held(connection: Connection, kind: str) -> Condition:
    """That a hold in place holds a row; never, where none is."""
    conditions = [condition for _, condition in _conditions(connection, kind)]
    if not conditions:
        return NEVER
    sql = " OR ".join(condition.sql for condition in conditions)
    # what is not set is not what is asked for, and null would be neither
    arguments = tuple(argument for condition in conditions for argument in condition.arguments)
    return Condition(f"coalesce({sql}, false)", arguments)


def _in_place(connection: Connection) -> Sequence[tuple[str, str]]:
    found: list[Any] = connection.execute(
        f"SELECT name, filter FROM hold_log h WHERE {_LAST_PLACED} ORDER BY position"  # noqa: S608 - a text of ours
    ).fetchall()
    return found


def _conditions(connection: Connection, kind: str) -> Iterator[tuple[str, Condition]]:
    """Of each hold in place that rows of a kind can meet, what it asks of them."""
    for name, text in _in_place(connection):
        scope = Scope.read(filter_message(text))
        if (parts := _of_kind(scope, kind)) is not None:
            parts = [*parts, *listing.time_range(scope.filter)]
            sql = " AND ".join(part.sql for part in parts) or "true"
            yield name, Condition(f"({sql})", tuple(argument for part in parts for argument in part.arguments))


def _of_kind(scope: Scope, kind: str) -> list[Condition] | None:
    table, wanted = TABLES[kind], scope.filter
    if kind == "tool_call":
        glob = [Condition("tool_name GLOB ?", (scope.tool_glob,))] if scope.tool_glob else []
        return [*glob, *_all(tool_calls.conditions_of(wanted))]
    if kind == "model_request":
        return _all(walks.conditions_of(wanted, table)) if scope.is_of_requests else None
    if kind == "control":
        return _all(walks.conditions_of(wanted, table)) if scope.is_of_controls else None
    if not scope.is_of_sessions:
        return None
    equal = {"id" if name == "session_id" else name: value for name, value in wanted.equal.items()}
    labels = listing.has_labels(wanted.labels, "sessions.id", "sessions.recorded_by")
    return [*_all(walks.conditions_of(replace(wanted, equal=equal, labels=()), table)), *labels]


def _all(conditions: dict[str, list[Condition]]) -> list[Condition]:
    return [part for parts in conditions.values() for part in parts]
