"""The read-only RPCs of onrecord.audit.v1.AuditService, each of which leaves a row in the log of queries."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc

from audit_svc.errors import QueueFull, StoreClosed
from audit_svc.ledger.pages import Page, by_time, in_parts
from audit_svc.ledger.protocol import ReadableLedger
from audit_svc.ledger.query import Query, filter_of, query_of, session_query_of
from audit_svc.query_log import QueryLog
from service_kit.errors import Context

EXPORT_ROWS = 500
TAIL_SECONDS = 0.1
"""The pause of a tail after each read, which bounds its load to 10,000 rows a second."""
MAX_TAILS = 100
MAX_BEHIND = 100_000
"""A tail that is further behind skips to the end, and reports how much it missed."""

Row = TypeVar("Row", bound=Message)


class QuestionRpcs(audit_pb2_grpc.AuditServiceServicer):
    """ListToolCalls, ListSessions, GetSession, SummarizeUsage, TailToolCalls, ExportToolCalls and ListQueries."""

    def __init__(self, ledger: ReadableLedger, query_log: QueryLog) -> None:
        self._readable = ledger
        self._query_log = query_log
        self._tails = 0
        self._ending = asyncio.Event()

    async def ListToolCalls(  # noqa: N802 - named by the proto
        self, request: audit_pb2.ListToolCallsRequest, context: Context
    ) -> audit_pb2.ListToolCallsResponse:
        """One page of audit rows."""
        rows, token = await self._page(self._readable.list_tool_calls, request, context)
        return audit_pb2.ListToolCallsResponse(rows=rows, next_page_token=token)

    async def ListSessions(  # noqa: N802 - named by the proto
        self, request: audit_pb2.ListSessionsRequest, context: Context
    ) -> audit_pb2.ListSessionsResponse:
        """One page of sessions."""
        rows, token = await self._page(self._readable.list_sessions, request, context)
        return audit_pb2.ListSessionsResponse(sessions=rows, next_page_token=token)

    async def GetSession(  # noqa: N802 - named by the proto
        self, request: audit_pb2.GetSessionRequest, context: Context
    ) -> audit_pb2.GetSessionResponse:
        """One session and a page of its timeline."""
        with self._query_log.logged(request, context) as logged:
            query = session_query_of(request)
            session, page = await self._readable.get_session(query)
            logged.rows = len(page.rows)
            token = query.token(page.next)
            return audit_pb2.GetSessionResponse(session=session, timeline=page.rows, next_page_token=token)

    async def SummarizeUsage(  # noqa: N802 - named by the proto
        self, request: audit_pb2.SummarizeUsageRequest, context: Context
    ) -> audit_pb2.SummarizeUsageResponse:
        """One page of groups."""
        rows, token = await self._page(self._readable.summarize_usage, request, context)
        return audit_pb2.SummarizeUsageResponse(rows=rows, next_page_token=token)

    async def ListQueries(  # noqa: N802 - named by the proto
        self, request: audit_pb2.ListQueriesRequest, context: Context
    ) -> audit_pb2.ListQueriesResponse:
        """One page of the log of queries."""
        rows, token = await self._page(self._readable.list_queries, request, context, (int, int))
        return audit_pb2.ListQueriesResponse(queries=rows, next_page_token=token)

    async def ExportToolCalls(  # noqa: N802 - named by the proto
        self, request: audit_pb2.ExportToolCallsRequest, context: Context
    ) -> AsyncIterator[audit_pb2.ExportToolCallsResponse]:
        """All rows that were there when it began, read piece by piece."""
        with self._query_log.logged(request, context) as logged:
            wanted, last_position, after = filter_of(request.filter), await self._readable.last_position(), None
            while True:
                rows = await self._readable.export_tool_calls(wanted, after, last_position, EXPORT_ROWS)
                for part in in_parts(rows):
                    yield audit_pb2.ExportToolCallsResponse(rows=part)
                logged.rows += len(rows)
                if len(rows) < EXPORT_ROWS:
                    return
                after = by_time(rows[-1])

    async def TailToolCalls(  # noqa: N802 - named by the proto
        self, request: audit_pb2.TailToolCallsRequest, context: Context
    ) -> AsyncIterator[audit_pb2.TailToolCallsResponse]:
        """Rows as they are committed, read from the database, so that no client can make the writer wait."""
        with self._query_log.logged(request, context) as logged:
            if self._tails >= MAX_TAILS:
                raise QueueFull(f"{MAX_TAILS} tails are open already: end one of them")
            self._tails += 1
            try:
                async with contextlib.aclosing(self._tail(query_of(request, (int,)))) as responses:
                    async for response in responses:
                        logged.rows += len(response.rows)
                        yield response
            finally:
                self._tails -= 1

    def end_tails(self) -> None:
        """Has all tails end with StoreClosed."""
        self._ending.set()

    async def _tail(self, query: Query) -> AsyncGenerator[audit_pb2.TailToolCallsResponse, None]:
        last = await self._readable.last_position()
        # A token from before a restore may be beyond all rows.
        at = min(int(query.after[0]), last) if query.after else last
        # So that a client knows from where on it sees everything, also while there is nothing to see.
        yield audit_pb2.TailToolCallsResponse(page_token=query.token((at,)))
        is_live = False
        while not self._ending.is_set():
            missed = 0
            if is_live and last - at > MAX_BEHIND:
                missed, at = last - at, last
            tail = await self._readable.tool_calls_after(query.filter, at)
            at, last = tail.position, tail.last_position
            is_live = is_live or at == last
            if tail.rows or missed:
                token = query.token((at,))
                yield audit_pb2.TailToolCallsResponse(rows=tail.rows, missed=missed, page_token=token)
            if is_live:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), TAIL_SECONDS)
        raise StoreClosed("the ledger is shutting down")

    async def _page(
        self,
        ask: Callable[[Query], Awaitable[Page[Row]]],
        request: Any,
        context: Context,
        key: tuple[type[int] | type[str], ...] = (int, str),
    ) -> tuple[list[Row], str]:
        with self._query_log.logged(request, context) as logged:
            query = query_of(request, key)
            page = await ask(query)
            logged.rows = len(page.rows)
            return page.rows, query.token(page.next)
