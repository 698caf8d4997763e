"""The questions of onrecord.audit.v1.AuditService: read-only RPCs, each of which leaves a row in the log of queries."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc

from audit_svc.errors import QueueFull, StoreClosed
from audit_svc.query_log import QueryLog
from audit_svc.sqlite import ReadStore
from audit_svc.sqlite.read import listing, queries, tail, tool_calls
from audit_svc.sqlite.usage.summaries import summarize_usage
from service_kit.errors import Context
from service_kit.paging import decode_token, encode_token

EXPORT_ROWS = 500
TAIL_SECONDS = 0.1
"""How long a tail rests after each look, so that what it takes from the writer is bounded: 10,000 rows a second."""
MAX_TAILS = 100
MAX_BEHIND = 100_000
"""A tail that is further behind what is committed goes on at its end, and is told how much it missed."""

Asked = TypeVar("Asked", bound=Message)
Answer = TypeVar("Answer", bound=Message)


class QuestionRpcs(audit_pb2_grpc.AuditServiceServicer):
    """ListToolCalls, ListSessions, GetSession, SummarizeUsage, TailToolCalls, ExportToolCalls and ListQueries."""

    def __init__(self, store: ReadStore, query_log: QueryLog) -> None:
        self._questions = store
        self._query_log = query_log
        self._tails = 0
        self._ending = asyncio.Event()

    async def ListToolCalls(  # noqa: N802 - named by the proto
        self, request: audit_pb2.ListToolCallsRequest, context: Context
    ) -> audit_pb2.ListToolCallsResponse:
        """One page of audit rows."""
        return await self._answer(tool_calls.list_tool_calls, request, context, lambda response: response.rows)

    async def ListSessions(  # noqa: N802 - named by the proto
        self, request: audit_pb2.ListSessionsRequest, context: Context
    ) -> audit_pb2.ListSessionsResponse:
        """One page of sessions."""
        return await self._answer(queries.list_sessions, request, context, lambda response: response.sessions)

    async def GetSession(  # noqa: N802 - named by the proto
        self, request: audit_pb2.GetSessionRequest, context: Context
    ) -> audit_pb2.GetSessionResponse:
        """One session and a page of its timeline."""
        return await self._answer(queries.get_session, request, context, lambda response: response.timeline)

    async def SummarizeUsage(  # noqa: N802 - named by the proto
        self, request: audit_pb2.SummarizeUsageRequest, context: Context
    ) -> audit_pb2.SummarizeUsageResponse:
        """One page of groups."""
        return await self._answer(summarize_usage, request, context, lambda response: response.rows, heavy=True)

    async def ListQueries(  # noqa: N802 - named by the proto
        self, request: audit_pb2.ListQueriesRequest, context: Context
    ) -> audit_pb2.ListQueriesResponse:
        """One page of the log of queries."""
        return await self._answer(queries.list_queries, request, context, lambda response: response.queries)

    async def ExportToolCalls(  # noqa: N802 - named by the proto
        self, request: audit_pb2.ExportToolCallsRequest, context: Context
    ) -> AsyncIterator[audit_pb2.ExportToolCallsResponse]:
        """All rows that were there when it began, read piece by piece."""
        with self._query_log.entry(request, context) as entry:
            last_row = await self._questions.ask(tail.last_row, None)
            after = None
            while True:
                part = (request.filter, after, last_row, EXPORT_ROWS)
                rows = await self._questions.ask(tool_calls.export_tool_calls, part, heavy=True)
                for message in _messages(rows):
                    yield message
                entry.rows += len(rows)
                if len(rows) < EXPORT_ROWS:
                    return
                after = rows[-1].created_at_ms, rows[-1].id

    async def TailToolCalls(  # noqa: N802 - named by the proto
        self, request: audit_pb2.TailToolCallsRequest, context: Context
    ) -> AsyncIterator[audit_pb2.TailToolCallsResponse]:
        """Rows as they are committed. The database is what they wait in, so that no client can make the writer wait."""
        with self._query_log.entry(request, context) as entry:
            if self._tails >= MAX_TAILS:
                raise QueueFull(f"{MAX_TAILS} tails are open already: end one of them")
            self._tails += 1
            try:
                async with contextlib.aclosing(self._tail(request)) as responses:
                    async for response in responses:
                        entry.rows += len(response.rows)
                        yield response
            finally:
                self._tails -= 1

    def end_tails(self) -> None:
        """Has all tails end with StoreClosed."""
        self._ending.set()

    async def _tail(
        self, request: audit_pb2.TailToolCallsRequest
    ) -> AsyncGenerator[audit_pb2.TailToolCallsResponse, None]:
        filters = listing.filters(request)
        last = await self._questions.ask(tail.last_row, None)
        # A token from before a restore may be beyond all rows.
        at = min(int(decode_token(request.page_token, filters, (int,))[0]), last) if request.page_token else last
        # So that a client knows from where on it sees everything, also while there is nothing to see.
        yield audit_pb2.TailToolCallsResponse(page_token=encode_token((at,), filters))
        is_live = False
        while not self._ending.is_set():
            missed = 0
            if is_live and last - at > MAX_BEHIND:
                missed, at = last - at, last
            rows, at, last = await self._questions.ask(tail.rows_after, (request, at))
            is_live = is_live or at == last
            if rows or missed:
                yield audit_pb2.TailToolCallsResponse(rows=rows, missed=missed, page_token=encode_token((at,), filters))
            if is_live:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), TAIL_SECONDS)
        raise StoreClosed("the ledger is shutting down")

    async def _answer(
        self,
        question: Callable[[Any, Asked], Answer],
        request: Asked,
        context: Context,
        rows: Callable[[Answer], Any],
        *,
        heavy: bool = False,
    ) -> Answer:
        with self._query_log.entry(request, context) as entry:
            response = await self._questions.ask(question, request, heavy=heavy)
            entry.rows = len(rows(response))
            return response


def _messages(rows: list[audit_pb2.AuditRow]) -> list[audit_pb2.ExportToolCallsResponse]:
    """Rows in as many messages as keep each below what clients take."""
    messages: list[audit_pb2.ExportToolCallsResponse] = []
    some: list[audit_pb2.AuditRow] = []
    size = 0
    for row in rows:
        size += row.ByteSize()
        if some and size > listing.MAX_PAGE_BYTES:
            messages.append(audit_pb2.ExportToolCallsResponse(rows=some))
            some, size = [], row.ByteSize()
        some.append(row)
    return [*messages, audit_pb2.ExportToolCallsResponse(rows=some)] if some else messages
