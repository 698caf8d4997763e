"""The listings of sessions and of queries, and a session's timeline."""

import heapq
from collections.abc import Iterator, Sequence

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import InvalidRequest, NotFound
from audit_svc.ledger.batch import (
    COST_COLUMNS,
    SESSION_COLUMNS,
    TOOL_CALL_COLUMNS,
    Values,
    cost_row,
    session_row,
    tool_call_row,
)
from audit_svc.ledger.columns import enum_names
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import Condition, Statement

_STATUSES = enum_names("SESSION_STATUS_", audit_pb2.SessionStatus.items())
_SESSION_NAMES = [column.name for column in SESSION_COLUMNS]
_SESSIONS = f"SELECT {', '.join(_SESSION_NAMES)} FROM sessions"  # noqa: S608 - names of ours
_LABELS = "json((SELECT json_group_object(key, value) FROM session_labels WHERE session_id = id))"
_QUERY_NAMES = ["id", "caller", "method", "filters", "rows", "duration_ms", "status", "created_at"]
_QUERIES = f"SELECT {', '.join(_QUERY_NAMES)} FROM query_log"  # noqa: S608 - names of ours
_TIMELINE = {
    "tool_call_log": (TOOL_CALL_COLUMNS, "idx_tool_call_log_session"),
    "cost_log": (COST_COLUMNS, "idx_cost_log_session"),
}


def list_sessions(
    connection: apsw.Connection, request: audit_pb2.ListSessionsRequest
) -> audit_pb2.ListSessionsResponse:
    """One page of sessions.

    Raises:
        InvalidPage, InvalidRequest: see audit.proto.
    """
    rows, token = listing.take_page(
        _fetch_sessions(connection, sessions_statement(connection, request)),
        _session,
        request,
        lambda row: (row.created_at_ms, row.id),
    )
    return audit_pb2.ListSessionsResponse(sessions=rows, next_page_token=token)


def sessions_statement(connection: apsw.Connection, request: audit_pb2.ListSessionsRequest) -> Statement:
    """The query behind list_sessions."""
    if request.status not in _STATUSES:
        raise InvalidRequest("status has a value that this ledger does not know", "status")
    conditions = {
        "idx_sessions_model": [Condition("model = ?", (request.model,))] if request.model else [],
        "idx_sessions_status": [Condition("status = ?", (str(_STATUSES[request.status]),))] if request.status else [],
        "idx_sessions_engine": [Condition("engine = ?", (request.engine,))] if request.engine else [],
    }
    label = listing.with_rare_label(connection, request.labels, "id")
    by_filter = next((name for name, parts in conditions.items() if parts), "idx_sessions_created")
    index = "sqlite_autoindex_sessions_1" if label else by_filter
    position = listing.position_of(request)
    statement = listing.select(
        f"{_SESSIONS} INDEXED BY {index}",
        [
            *([label] if label else []),
            *(part for parts in conditions.values() for part in parts),
            *listing.time_range(request),
            *([listing.beyond(position)] if position else []),
            *listing.has_labels(request.labels, "sessions.id"),
        ],
    )
    return listing.one_page(statement, "created_at DESC, id DESC", request)


def get_session(connection: apsw.Connection, request: audit_pb2.GetSessionRequest) -> audit_pb2.GetSessionResponse:
    """One session and a page of its timeline.

    Raises:
        InvalidRequest: its id is empty.
        NotFound: the ledger does not know it.
        InvalidPage: the page is none of this session's.
    """
    if not request.session_id:
        raise InvalidRequest("session_id is empty", "session_id")
    sessions = _fetch_sessions(connection, Statement(f"{_SESSIONS} WHERE id = ?", [request.session_id]))
    if not sessions:
        raise NotFound("the ledger has no session with this id")
    position = listing.position_of(request)
    entries, token = listing.take_page(
        heapq.merge(
            *(_timeline(connection, table, request, position) for table in _TIMELINE),
            key=lambda found: tuple(found[1:]),
        ),
        _entry,
        request,
        _entry_key,
    )
    return audit_pb2.GetSessionResponse(session=_session(sessions[0]), timeline=entries, next_page_token=token)


def list_queries(connection: apsw.Connection, request: audit_pb2.ListQueriesRequest) -> audit_pb2.ListQueriesResponse:
    """One page of the queries that were put to the ledger.

    Raises:
        InvalidPage, InvalidRequest: see audit.proto.
    """
    position = listing.position_of(request, (int, int))
    statement = listing.select(
        f"{_QUERIES} INDEXED BY idx_query_log_created",
        [
            *listing.time_range(request),
            *([listing.beyond(position)] if position else []),
            *([Condition("caller = ?", (request.caller,))] if request.caller else []),
            *([Condition("method = ?", (request.method,))] if request.method else []),
        ],
    )
    statement = listing.one_page(statement, "created_at DESC, id DESC", request)
    found = listing.fetch(connection, _QUERY_NAMES, statement)
    rows, token = listing.take_page(found, _query, request, lambda row: (row.created_at_ms, row.id))
    return audit_pb2.ListQueriesResponse(queries=rows, next_page_token=token)


def _timeline(
    connection: apsw.Connection,
    table: str,
    request: audit_pb2.GetSessionRequest,
    position: Sequence[int | str] | None,
) -> Iterator[Values]:
    """A page of a session's rows of one table in their order: the table, the time, the id, the row."""
    columns, index = _TIMELINE[table]
    names = [column.name for column in columns]
    after = [listing.beyond(position, ascending=True)] if position else []
    statement = listing.select(
        f"SELECT {', '.join(names)} FROM {table} INDEXED BY {index}",  # noqa: S608 - names of ours
        [Condition("session_id = ?", (request.session_id,)), *after],
    )
    time_at = names.index("created_at")
    for row in listing.fetch(connection, names, listing.one_page(statement, "created_at, id", request)):
        yield table, row[time_at], row[0], row


def _entry(found: Values) -> audit_pb2.TimelineEntry:
    if found[0] == "cost_log":
        return audit_pb2.TimelineEntry(model_request=cost_row(found[3]))
    return audit_pb2.TimelineEntry(tool_call=tool_call_row(found[3]))


def _entry_key(entry: audit_pb2.TimelineEntry) -> tuple[int, str]:
    row = entry.model_request if entry.HasField("model_request") else entry.tool_call
    return row.created_at_ms, row.id


def _query(values: Values) -> audit_pb2.QueryRow:
    names = ("id", "caller", "method", "filters", "rows", "duration_ms", "status", "created_at_ms")
    return audit_pb2.QueryRow(**dict(zip(names, values, strict=True)))


def _fetch_sessions(connection: apsw.Connection, statement: Statement) -> list[Values]:
    return listing.fetch(connection, [*_SESSION_NAMES, _LABELS], statement)


def _session(values: Values) -> audit_pb2.SessionRow:
    *row, labels = values
    return session_row(row, labels)
