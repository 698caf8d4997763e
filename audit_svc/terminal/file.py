"""A database or a backup that a command reads by itself, without a service."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.pages import Page, call_key, request_key
from audit_svc.ledger.query import Query, query_of, session_query_of
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.at_rest import FoundDatabase
from audit_svc.sqlite.open.connection import Connection, translated
from audit_svc.sqlite.read.database import SqliteDatabase
from audit_svc.sqlite.read.failures import failures_are_errors
from audit_svc.terminal.running import say_unseen

EXPORT_ROWS = 500
_INTERRUPT_STEPS = 100_000
"""SQLite asks after so many instructions, some milliseconds, whether it shall end: who waits may press Ctrl-C."""

_List = tuple[Callable[[SqliteDatabase, Query], Page[Any]], type[Message], str]
"""What answers an RPC that lists rows, its response, and the field of the rows."""


class File:
    """Answers as a service does, from a connection that only reads."""

    def __init__(self, connection: Connection) -> None:
        self._database = SqliteDatabase(connection)

    def call(self, rpc: str, request: Any, timeout: float | None = None) -> Any:
        """Answers an RPC, see Client. A file has no timeout.

        Raises:
            AuditError: there is no such row, or the file cannot be read.
        """
        if rpc in ("ExportToolCalls", "ExportModelRequests"):
            return self._export(rpc, request)
        with failures_are_errors():
            if rpc == "GetSessionRecord":
                from audit_svc.sql.read import queries  # as in _list_of

                query = session_query_of(request)
                session, page = queries.get_session(self._database, query)
                token = query.token(page.next)
                return questions_pb2.GetSessionRecordResponse(session=session, entries=page.rows, next_page_token=token)
            listing, response, rows = _list_of(rpc)
            query = query_of(request)
            page = listing(self._database, query)
            return response(**{rows: page.rows, "next_page_token": query.token(page.next)})

    def _export(self, rpc: str, request: Any) -> Iterator[Any]:
        """All rows that were there when it began. The last response is empty, and alone without a resume token."""
        from audit_svc.sql.read import model_requests, tool_calls  # as in _list_of

        is_of_calls = rpc == "ExportToolCalls"
        last_of = tool_calls.last_position if is_of_calls else model_requests.last_position
        export: Any = tool_calls.export_tool_calls if is_of_calls else model_requests.export_model_requests
        key: Any = call_key if is_of_calls else request_key
        response: Any = (
            questions_pb2.ExportToolCallsResponse if is_of_calls else questions_pb2.ExportModelRequestsResponse
        )
        field = "tool_calls" if is_of_calls else "model_requests"
        with failures_are_errors():
            wanted, after = query_of(request).filter, None
            last_position = last_of(self._database)
            while rows := export(self._database, wanted, after, last_position, EXPORT_ROWS):
                after = key(rows[-1])
                yield response(**{field: rows, "resume_token": "goes on"})
        yield response()


def _list_of(rpc: str) -> _List:
    """Loads what an RPC needs, and nothing that others do."""
    match rpc:
        case "SummarizeUsage":
            from audit_svc.sql.usage.summaries import summarize_usage

            return summarize_usage, questions_pb2.SummarizeUsageResponse, "groups"
        case "ListToolCalls":
            from audit_svc.sql.read.tool_calls import list_tool_calls

            return list_tool_calls, questions_pb2.ListToolCallsResponse, "tool_calls"
        case "ListModelRequests":
            from audit_svc.sql.read.model_requests import list_model_requests

            return list_model_requests, questions_pb2.ListModelRequestsResponse, "model_requests"
        case "ListSessionRecords":
            from audit_svc.sql.read.queries import list_sessions

            return list_sessions, questions_pb2.ListSessionRecordsResponse, "sessions"
        case "ListControls":
            from audit_svc.sql.read.queries import list_controls

            return list_controls, questions_pb2.ListControlsResponse, "controls"
        case _:
            from onrecord.audit.v1 import administration_pb2

            from audit_svc.sql.read.queries import list_queries

            return list_queries, administration_pb2.ListQueriesResponse, "queries"


@contextmanager
def open_file(path: Path) -> Iterator[File]:
    """A client of the database at path, which it leaves as it is, and its folder too.

    Raises:
        StoreRefused: it cannot be read, its schema is not what this version knows, or it was changed meanwhile.
    """
    found = FoundDatabase(path)
    if found.unseen:
        say_unseen(found.unseen)
    with found.unchanged(), closing(found.connect()) as connection:
        with translated(path):
            migrate.refuse_older(connection, path)
        connection.set_progress_handler(lambda: False, _INTERRUPT_STEPS)
        yield File(connection)
