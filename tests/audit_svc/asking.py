"""The RPCs of the ledger on a connection to SQLite: requests in, responses out, with no server between."""

from typing import Any

import apsw
from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.query import query_of, session_query_of
from audit_svc.sql.read import model_requests, queries, tool_calls
from audit_svc.sql.usage import summaries
from audit_svc.sqlite.read.database import SqliteDatabase


def list_tool_calls(connection: apsw.Connection, request: Any) -> questions_pb2.ListToolCallsResponse:
    query = query_of(request)
    page = tool_calls.list_tool_calls(SqliteDatabase(connection), query)
    return questions_pb2.ListToolCallsResponse(tool_calls=page.rows, next_page_token=query.token(page.next))


def list_model_requests(connection: apsw.Connection, request: Any) -> questions_pb2.ListModelRequestsResponse:
    query = query_of(request)
    page = model_requests.list_model_requests(SqliteDatabase(connection), query)
    return questions_pb2.ListModelRequestsResponse(model_requests=page.rows, next_page_token=query.token(page.next))


def list_sessions(connection: apsw.Connection, request: Any) -> questions_pb2.ListSessionRecordsResponse:
    query = query_of(request)
    page = queries.list_sessions(SqliteDatabase(connection), query)
    return questions_pb2.ListSessionRecordsResponse(sessions=page.rows, next_page_token=query.token(page.next))


def get_session(connection: apsw.Connection, request: Any) -> questions_pb2.GetSessionRecordResponse:
    query = session_query_of(request)
    session, page = queries.get_session(SqliteDatabase(connection), query)
    return questions_pb2.GetSessionRecordResponse(
        session=session, entries=page.rows, next_page_token=query.token(page.next)
    )


def summarize_usage(connection: apsw.Connection, request: Any) -> questions_pb2.SummarizeUsageResponse:
    query = query_of(request)
    page = summaries.summarize_usage(SqliteDatabase(connection), query)
    return questions_pb2.SummarizeUsageResponse(groups=page.rows, next_page_token=query.token(page.next))
