"""The listings of sessions and of queries, and a session's timeline."""

import heapq
from collections.abc import Iterator

from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2

from audit_svc.errors import NotFound
from audit_svc.ledger.batch import (
    COST_COLUMNS,
    SESSION_COLUMNS,
    TOOL_CALL_COLUMNS,
    Values,
    cost_row,
    session_row,
    tool_call_row,
)
from audit_svc.ledger.pages import Page, by_time, take_page
from audit_svc.ledger.query import Query
from audit_svc.sqlite.open.connection import Connection
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import Condition, Statement
from service_kit.paging import Position

_SESSION_NAMES = [column.name for column in SESSION_COLUMNS]
_SESSIONS = f"SELECT {', '.join(_SESSION_NAMES)} FROM sessions"  # noqa: S608 - names of ours
_LABELS = "json((SELECT json_group_object(key, value) FROM session_labels WHERE session_id = id))"
_QUERY_NAMES = ["id", "caller", "method", "filters", "rows", "duration_ms", "status", "times", "created_at"]
_QUERIES = f"SELECT {', '.join(_QUERY_NAMES)} FROM query_log"  # noqa: S608 - names of ours
_TIMELINE = {
    "tool_call_log": (TOOL_CALL_COLUMNS, "idx_tool_call_log_session"),
    "cost_log": (COST_COLUMNS, "idx_cost_log_session"),
}


def list_sessions(connection: Connection, query: Query) -> Page[audit_pb2.SessionRow]:
    """A page of sessions."""
    found = _fetch_sessions(connection, sessions_statement(connection, query))
    return take_page(found, _session, query.size, by_time)


def sessions_statement(connection: Connection, query: Query) -> Statement:
    """The statement behind list_sessions."""
    wanted = query.filter
    label = listing.with_rare_label(connection, wanted.labels, "id")
    by_filter = next((name for name in ("model", "status", "engine") if name in wanted.equal), "created")
    index = "sqlite_autoindex_sessions_1" if label else f"idx_sessions_{by_filter}"
    statement = listing.select(
        f"{_SESSIONS} INDEXED BY {index}",
        [
            *([label] if label else []),
            *(Condition(f"{name} = ?", (value,)) for name, value in wanted.equal.items()),
            *listing.time_range(wanted),
            *listing.after_key(query.after),
            *listing.has_labels(wanted.labels, "sessions.id"),
        ],
    )
    return listing.first(statement, "created_at DESC, id DESC", query.size)


def get_session(connection: Connection, query: Query) -> tuple[audit_pb2.SessionRow, Page[questions_pb2.Entry]]:
    """A session and a page of its timeline.

    Raises:
        NotFound: the ledger does not know it.
    """
    session_id = query.filter.equal["session_id"]
    sessions = _fetch_sessions(connection, Statement(f"{_SESSIONS} WHERE id = ?", [session_id]))
    if not sessions:
        raise NotFound("the ledger has no session with this id")
    found = heapq.merge(
        *(_timeline(connection, table, session_id, query) for table in _TIMELINE), key=lambda entry: tuple(entry[1:])
    )
    return _session(sessions[0]), take_page(found, _entry, query.size, _entry_key)


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
    """A page of a session's rows of one table in their order: the table, the time, the id, the row."""
    columns, index = _TIMELINE[table]
    names = [column.name for column in columns]
    statement = listing.select(
        f"SELECT {', '.join(names)} FROM {table} INDEXED BY {index}",  # noqa: S608 - names of ours
        [Condition("session_id = ?", (session_id,)), *listing.after_key(query.after, ascending=True)],
    )
    time_at = names.index("created_at")
    for row in listing.fetch(connection, names, listing.first(statement, "created_at, id", query.size)):
        yield table, row[time_at], row[0], row


def _entry(found: Values) -> questions_pb2.Entry:
    if found[0] == "cost_log":
        return questions_pb2.Entry(model_request=cost_row(found[3]))
    return questions_pb2.Entry(tool_call=tool_call_row(found[3]))


def _entry_key(entry: questions_pb2.Entry) -> Position:
    return by_time(entry.model_request if entry.HasField("model_request") else entry.tool_call)


def _query(values: Values) -> administration_pb2.QueryRow:
    names = ("id", "caller", "method", "filters", "rows", "duration_ms", "status", "times", "created_at_ms")
    return administration_pb2.QueryRow(**dict(zip(names, values, strict=True)))


def _fetch_sessions(connection: Connection, statement: Statement) -> list[Values]:
    return listing.fetch(connection, [*_SESSION_NAMES, _LABELS], statement)


def _session(values: Values) -> audit_pb2.SessionRow:
    *row, labels = values
    return session_row(row, labels)
