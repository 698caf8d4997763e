"""The listings of sessions and of queries, and a session's timeline."""

import heapq
from collections.abc import Iterator
from typing import Any

from onrecord.audit.v1 import administration_pb2, questions_pb2

from audit_svc.errors import NotFound
from audit_svc.ledger.batch import COST_COLUMNS, SESSION_COLUMNS, TOOL_CALL_COLUMNS, Values
from audit_svc.ledger.pages import Page, by_time, entry_key, session_key, take_page
from audit_svc.ledger.query import Query
from audit_svc.ledger.records import model_request_record, session_record, tool_call_record
from audit_svc.sqlite.open.connection import Connection
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import Condition, Statement

_SESSION_NAMES = [*(column.name for column in SESSION_COLUMNS), "recorded_by"]
_SESSIONS = f"SELECT {', '.join(_SESSION_NAMES)} FROM sessions"  # noqa: S608 - names of ours
_LABELS = "json((SELECT json_group_object(key, value) FROM session_labels WHERE session_id = id))"
_QUERY_NAMES = ["id", "caller", "method", "filters", "rows", "duration_ms", "status", "times", "created_at"]
_QUERIES = f"SELECT {', '.join(_QUERY_NAMES)} FROM query_log"  # noqa: S608 - names of ours
_TIMELINE = {
    "tool_call_log": (TOOL_CALL_COLUMNS, "idx_tool_call_log_session"),
    "cost_log": (COST_COLUMNS, "idx_cost_log_session"),
}


def list_sessions(connection: Connection, query: Query) -> Page[questions_pb2.SessionRecord]:
    """A page of sessions."""
    found = _fetch_sessions(connection, sessions_statement(connection, query))
    return take_page(found, _session, query.size, session_key)


def sessions_statement(connection: Connection, query: Query) -> Statement:
    """The statement behind list_sessions."""
    wanted = query.filter
    label = listing.with_rare_label(connection, wanted.labels, "id")
    conditions = [
        *([label] if label else []),
        *(Condition(f"{name} = ?", (value,)) for name, value in wanted.equal.items()),
        *listing.time_range(wanted),
        *listing.after_key(query.after),
        *listing.has_labels(wanted.labels, "sessions.id"),
    ]
    by_filter = next((name for name in ("model", "engine") if name in wanted.equal), "created")
    walks = [("sqlite_autoindex_sessions_1" if label else f"idx_sessions_{by_filter}", conditions)]
    if wanted.statuses:
        # "IS" finds null by the index too.
        each = [Condition("status IS ?", (status,)) for status in wanted.statuses]
        if label or "model" in wanted.equal:
            any_of = f"({' OR '.join(sql for sql, _ in each)})"
            conditions.append(Condition(any_of, tuple(status for _, (status,) in each)))
        else:
            walks = [("idx_sessions_status", [status, *conditions]) for status in each]
    parts = [listing.select(f"{_SESSIONS} INDEXED BY {index}", walk) for index, walk in walks]
    arguments = [argument for part in parts for argument in part.arguments]
    statement = Statement(" UNION ALL ".join(part.sql for part in parts), arguments)
    return listing.first(statement, "created_at DESC, id DESC", query.size)


def get_session(connection: Connection, query: Query) -> tuple[questions_pb2.SessionRecord, Page[questions_pb2.Entry]]:
    """A session and a page of its timeline.

    Raises:
        NotFound: the ledger does not know it.
    """
    session_id, recorded_by = query.filter.equal["session_id"], query.filter.equal.get("recorded_by")
    conditions = [Condition("id = ?", (session_id,))]
    conditions += [Condition("recorded_by = ?", (recorded_by,))] if recorded_by else []
    sessions = _fetch_sessions(connection, listing.select(_SESSIONS, conditions))
    if not sessions:
        raise NotFound(
            "the ledger has no session with this id" + " of this caller" * bool(recorded_by), "session", session_id
        )
    found = heapq.merge(
        *(_timeline(connection, table, session_id, query) for table in _TIMELINE), key=lambda entry: tuple(entry[1:])
    )
    return _session(sessions[0]), take_page(found, _entry, query.size, entry_key)


def list_queries(connection: Connection, query: Query) -> Page[administration_pb2.QueryRow]:
    """A page of the queries that were put to the ledger."""
    statement = listing.select(
        f"{_QUERIES} INDEXED BY idx_query_log_created",
        [
            *listing.time_range(query.filter),
            *listing.after_key(query.after),
            *(Condition(f"{name} = ?", (value,)) for name, value in query.filter.equal.items()),
        ],
    )
    statement = listing.first(statement, "created_at DESC, id DESC", query.size)
    return take_page(listing.fetch(connection, _QUERY_NAMES, statement), _query, query.size, by_time)


def _timeline(connection: Connection, table: str, session_id: str, query: Query) -> Iterator[Values]:
    """A page of a session's rows of one table in their order: the table, the time, the id, the position and the row."""
    columns, index = _TIMELINE[table]
    names = ["position", *(column.name for column in columns)]
    statement = listing.select(
        f"SELECT rowid AS {', '.join(names)} FROM {table} INDEXED BY {index}",  # noqa: S608 - names of ours
        [Condition("session_id = ?", (session_id,)), *listing.after_key(query.after, ascending=True)],
    )
    time_at = names.index("created_at")
    for row in listing.fetch(connection, names, listing.first(statement, "created_at, id", query.size)):
        yield table, row[time_at], row[1], row


def _entry(found: Values) -> questions_pb2.Entry:
    table, at_ms, _, (position, *values) = found
    entry = questions_pb2.Entry(at_ms=at_ms)
    if table == "cost_log":
        entry.model_request.CopyFrom(model_request_record(values))
        row: Any = entry.model_request.model_request
    else:
        entry.tool_call.CopyFrom(tool_call_record(position, values))
        row = entry.tool_call.tool_call
    entry.session_id, entry.turn_id = row.session_id, row.turn_id
    return entry


def _query(values: Values) -> administration_pb2.QueryRow:
    names = ("id", "caller", "method", "filters", "rows", "duration_ms", "status", "times", "created_at_ms")
    return administration_pb2.QueryRow(**dict(zip(names, values, strict=True)))


def _fetch_sessions(connection: Connection, statement: Statement) -> list[Values]:
    return listing.fetch(connection, [*_SESSION_NAMES, _LABELS], statement)


def _session(values: Values) -> questions_pb2.SessionRecord:
    *row, recorded_by, labels = values
    return session_record(row, labels, recorded_by)
