"""The queries behind the listings. Each walks an index in the order of the listing, so that a page costs what it holds.

Pages go by key, (created_at, id) descending, never by offset. An index gives the order by created_at, and SQLite sorts
rows of one millisecond among themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import apsw
from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import NotFound
from audit_svc.store.rows import SESSION_COLUMNS, TOOL_CALL_COLUMNS, Values, session_row, tool_call_row
from service_kit.paging import decode_token, encode_token, page_size

MAX_PAGE_BYTES = 3 * 2**20
"""A page ends early beyond this: gRPC clients take messages of 4 MiB unless told otherwise."""

ListRequest = audit_pb2.ListToolCallsRequest | audit_pb2.ListSessionsRequest
Row = TypeVar("Row", audit_pb2.AuditRow, audit_pb2.SessionRow)

_TOOL_CALLS = f"SELECT {', '.join(column.name for column in TOOL_CALL_COLUMNS)} FROM tool_call_log"  # noqa: S608 - names of ours
_SESSIONS = f"SELECT {', '.join(column.name for column in SESSION_COLUMNS)} FROM sessions"  # noqa: S608 - names of ours


def list_tool_calls(
    connection: apsw.Connection, request: audit_pb2.ListToolCallsRequest
) -> audit_pb2.ListToolCallsResponse:
    """One page of audit rows. Raises InvalidPage."""
    sql, arguments = tool_calls_query(request)
    rows, token = _page(connection.execute(sql, arguments), tool_call_row, request)
    return audit_pb2.ListToolCallsResponse(rows=rows, next_page_token=token)


def list_sessions(
    connection: apsw.Connection, request: audit_pb2.ListSessionsRequest
) -> audit_pb2.ListSessionsResponse:
    """One page of sessions. Raises InvalidPage."""
    sql, arguments = sessions_query(request)
    sessions, token = _page(connection.execute(sql, arguments), lambda row: _session(connection, row), request)
    return audit_pb2.ListSessionsResponse(sessions=sessions, next_page_token=token)


def get_session(connection: apsw.Connection, session_id: str) -> audit_pb2.SessionRow:
    """One session. Raises NotFound."""
    values = connection.execute(f"{_SESSIONS} WHERE id = ?", (session_id,)).fetchone()
    if values is None:
        raise NotFound("the ledger has no session with this id")
    return _session(connection, values)


def tool_calls_query(request: audit_pb2.ListToolCallsRequest) -> tuple[str, list[int | str]]:
    """The SQL and its arguments for a listing of audit rows. Raises InvalidPage."""
    # A unary plus keeps a filter from choosing an index whose order is not the listing's: only a session, or an engine
    # and a tool together, have an index that is.
    by_tool = request.engine and request.tool_name and not request.session_id
    column = "{}" if by_tool else "+{}"
    conditions: list[tuple[str, list[int | str]]] = []
    if request.session_id:
        conditions.append(("session_id = ?", [request.session_id]))
    if request.engine:
        conditions.append((f"{column.format('engine')} = ?", [request.engine]))
    if request.tool_name:
        conditions.append((f"{column.format('tool_name')} = ?", [request.tool_name]))
    if request.errors_only:
        conditions.append(("error IS NOT NULL", []))
    return _ordered(_TOOL_CALLS, [*conditions, *_range(request)])


def sessions_query(request: audit_pb2.ListSessionsRequest) -> tuple[str, list[int | str]]:
    """The SQL and its arguments for a listing of sessions. Raises InvalidPage."""
    conditions: list[tuple[str, list[int | str]]] = [("engine = ?", [request.engine])] if request.engine else []
    return _ordered(_SESSIONS, [*conditions, *_range(request)])


def _range(request: ListRequest) -> list[tuple[str, list[int | str]]]:
    conditions: list[tuple[str, list[int | str]]] = []
    if request.HasField("created_from_ms"):
        conditions.append(("created_at >= ?", [request.created_from_ms]))
    if request.HasField("created_before_ms"):
        conditions.append(("created_at < ?", [request.created_before_ms]))
    if request.page_token:
        position = decode_token(request.page_token, _filters(request), (int, str))
        conditions.append(("(created_at, id) < (?, ?)", list(position)))
    return conditions


def _ordered(select: str, conditions: Sequence[tuple[str, list[int | str]]]) -> tuple[str, list[int | str]]:
    where = " AND ".join(condition for condition, _ in conditions)
    sql = f"{select}{' WHERE ' if where else ''}{where} ORDER BY created_at DESC, id DESC"
    return sql, [argument for _, arguments in conditions for argument in arguments]


def _page(found: Iterable[Values], read: Callable[[Values], Row], request: ListRequest) -> tuple[list[Row], str]:
    size = page_size(request.page_size)
    rows: list[Row] = []
    size_bytes = 0
    for values in found:
        if len(rows) == size or size_bytes > MAX_PAGE_BYTES:
            return rows, encode_token((rows[-1].created_at_ms, rows[-1].id), _filters(request))
        rows.append(read(values))
        size_bytes += rows[-1].ByteSize()
    return rows, ""


def _filters(request: ListRequest) -> bytes:
    """What a page token is bound to: the method, and the request but for its page."""
    filters: Message = type(request)()
    filters.CopyFrom(request)
    filters.ClearField("page_size")
    filters.ClearField("page_token")
    return type(request).__name__.encode() + filters.SerializeToString(deterministic=True)


def _session(connection: apsw.Connection, values: Values) -> audit_pb2.SessionRow:
    labels = connection.execute("SELECT key, value FROM session_labels WHERE session_id = ?", (values[0],))
    return session_row(values, dict(labels))
