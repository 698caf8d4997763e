"""onrecord.audit.v1.QuestionService on a ledger: each question leaves a row in the log of queries."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator

from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc

from audit_svc.errors import InvalidRequest, QueueFull, StoreClosed, TailBehind
from audit_svc.ledger.pages import call_key
from audit_svc.ledger.protocol import ReadableLedger
from audit_svc.ledger.query import query_of, session_query_of
from audit_svc.query_log import QueryLog
from service_kit.errors import Context
from service_kit.paging import Position, in_parts

EXPORT_ROWS = 500
TAIL_SECONDS = 0.1
"""The pause of a tail after each read, which bounds its load to 10,000 rows a second."""
MAX_TAILS = 100
MAX_BEHIND = 100_000
"""A tail that is further behind what is committed ends, or goes on at its end if it has asked to skip."""
ALIVE_SECONDS = 14.0
"""A tail without rows sends a response each 15 seconds, the time of a look included."""


class QuestionServicer(questions_pb2_grpc.QuestionServiceServicer):
    """The RPCs of onrecord.audit.v1.QuestionService."""

    def __init__(self, ledger: ReadableLedger, query_log: QueryLog) -> None:
        self._ledger = ledger
        self._query_log = query_log
        self._tails = 0
        self._ending = asyncio.Event()

    async def ListToolCalls(  # noqa: N802 - named by the proto
        self, request: questions_pb2.ListToolCallsRequest, context: Context
    ) -> questions_pb2.ListToolCallsResponse:
        """One page of tool calls."""
        rows, token = await self._query_log.page(self._ledger.list_tool_calls, request)
        return questions_pb2.ListToolCallsResponse(tool_calls=rows, next_page_token=token)

    async def ListSessionRecords(  # noqa: N802 - named by the proto
        self, request: questions_pb2.ListSessionRecordsRequest, context: Context
    ) -> questions_pb2.ListSessionRecordsResponse:
        """One page of sessions."""
        rows, token = await self._query_log.page(self._ledger.list_sessions, request)
        return questions_pb2.ListSessionRecordsResponse(sessions=rows, next_page_token=token)

    async def ListControls(  # noqa: N802 - named by the proto
        self, request: questions_pb2.ListControlsRequest, context: Context
    ) -> questions_pb2.ListControlsResponse:
        """One page of acts of control."""
        rows, token = await self._query_log.page(self._ledger.list_controls, request)
        return questions_pb2.ListControlsResponse(controls=rows, next_page_token=token)

    async def GetSessionRecord(  # noqa: N802 - named by the proto
        self, request: questions_pb2.GetSessionRecordRequest, context: Context
    ) -> questions_pb2.GetSessionRecordResponse:
        """One session and a page of its timeline."""
        with self._query_log.logged(request) as logged:
            query = session_query_of(request)
            session, page = await self._ledger.get_session(query)
            logged.rows = len(page.rows)
            token = query.token(page.next)
            return questions_pb2.GetSessionRecordResponse(session=session, entries=page.rows, next_page_token=token)

    async def SummarizeUsage(  # noqa: N802 - named by the proto
        self, request: questions_pb2.SummarizeUsageRequest, context: Context
    ) -> questions_pb2.SummarizeUsageResponse:
        """One page of groups."""
        rows, token = await self._query_log.page(self._ledger.summarize_usage, request)
        return questions_pb2.SummarizeUsageResponse(groups=rows, next_page_token=token)

    async def ExportToolCalls(  # noqa: N802 - named by the proto
        self, request: questions_pb2.ExportToolCallsRequest, context: Context
    ) -> AsyncIterator[questions_pb2.ExportToolCallsResponse]:
        """All rows that were there when it began, read piece by piece."""
        with self._query_log.logged(request) as logged:
            query = query_of(request, (int, int, int))
            last_position, *key = query.after or (await self._ledger.last_position(),)
            after: Position | None = tuple(key) or None
            is_last = False
            while not is_last:
                rows = await self._ledger.export_tool_calls(query.filter, after, int(last_position), EXPORT_ROWS)
                is_last = len(rows) < EXPORT_ROWS
                for part in list(in_parts(rows)) or [[]]:
                    after = call_key(part[-1]) if part else None
                    is_end = is_last and (not part or part[-1] is rows[-1])
                    token = "" if is_end or after is None else query.token((last_position, *after))
                    yield questions_pb2.ExportToolCallsResponse(tool_calls=part, resume_token=token)
                logged.rows += len(rows)

    async def TailToolCalls(  # noqa: N802 - named by the proto
        self, request: questions_pb2.TailToolCallsRequest, context: Context
    ) -> AsyncIterator[questions_pb2.TailToolCallsResponse]:
        """Rows as they are committed, read from the database, so that no client can make the writer wait."""
        with self._query_log.logged(request) as logged:
            if self._tails >= MAX_TAILS:
                raise QueueFull(f"{MAX_TAILS} tails are open already: end one of them")
            self._tails += 1
            try:
                async with contextlib.aclosing(self._tail(request)) as responses:
                    async for response in responses:
                        logged.rows += len(response.tool_calls)
                        yield response
            finally:
                self._tails -= 1

    def begin_drain(self) -> None:
        """Has all tails end with StoreClosed."""
        self._ending.set()

    async def _tail(
        self, request: questions_pb2.TailToolCallsRequest
    ) -> AsyncGenerator[questions_pb2.TailToolCallsResponse, None]:
        query = query_of(request, (int,))
        if request.after_position < 0:
            raise InvalidRequest("after_position is negative: positions begin at 1", "after_position")
        last = at = await self._ledger.last_position()
        # What is said may be from before a restore, and so beyond all rows.
        if request.HasField("after_position"):
            at = min(request.after_position, last)
        elif query.after:
            at = min(int(query.after[0]), last)
        # So that a client knows from where on it sees everything, also while there is nothing to see.
        yield questions_pb2.TailToolCallsResponse(resume_token=query.token((at,)), position=at)
        told = time.monotonic()
        is_live = False
        while not self._ending.is_set():
            skipped = None
            if is_live and last - at > MAX_BEHIND:
                if not request.skip_when_behind:
                    raise TailBehind(
                        f"the tail is {last - at} rows behind: go on from the last resume_token, read faster, "
                        "or set skip_when_behind",
                        query.token((at,)),
                    )
                skipped, at = questions_pb2.PositionRange(first=at + 1, last=last), last
            tail = await self._ledger.tool_calls_after(query.filter, at)
            at, last = tail.position, tail.last_position
            is_live = is_live or at == last
            if tail.rows or skipped or time.monotonic() - told > ALIVE_SECONDS:
                yield questions_pb2.TailToolCallsResponse(
                    tool_calls=tail.rows, resume_token=query.token((at,)), position=at, skipped=skipped
                )
                told = time.monotonic()
            if is_live:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), TAIL_SECONDS)
        raise StoreClosed("the ledger is shutting down")
