"""onrecord.audit.v1.QuestionService on a ledger: each question leaves a row in the log of queries."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc

from audit_svc.errors import InvalidRequest, QueueFull, StoreClosed, TailBehind
from audit_svc.ledger.pages import call_key, request_key
from audit_svc.ledger.protocol import ReadableLedger, Tail
from audit_svc.ledger.query import Filter, query_of, session_query_of
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
        self._calls = _Log(ledger.export_tool_calls, ledger.last_position, ledger.tool_calls_after, call_key)
        self._requests = _Log(
            ledger.export_model_requests, ledger.last_request_position, ledger.model_requests_after, request_key
        )
        self._tails = 0
        self._ending = asyncio.Event()

    async def ListToolCalls(  # noqa: N802 - named by the proto
        self, request: questions_pb2.ListToolCallsRequest, context: Context
    ) -> questions_pb2.ListToolCallsResponse:
        """One page of tool calls."""
        rows, token = await self._query_log.page(self._ledger.list_tool_calls, request)
        return questions_pb2.ListToolCallsResponse(tool_calls=rows, next_page_token=token)

    async def ListModelRequests(  # noqa: N802 - named by the proto
        self, request: questions_pb2.ListModelRequestsRequest, context: Context
    ) -> questions_pb2.ListModelRequestsResponse:
        """One page of model requests."""
        rows, token = await self._query_log.page(self._ledger.list_model_requests, request)
        return questions_pb2.ListModelRequestsResponse(model_requests=rows, next_page_token=token)

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

    async def ListProducers(  # noqa: N802 - named by the proto
        self, request: questions_pb2.ListProducersRequest, context: Context
    ) -> questions_pb2.ListProducersResponse:
        """One page of producers."""
        rows, token = await self._query_log.page(self._ledger.list_producers, request, (str, str))
        return questions_pb2.ListProducersResponse(producers=rows, next_page_token=token)

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
        """All tool calls that were there when it began."""
        async with contextlib.aclosing(self._export(self._calls, request)) as parts:
            async for rows, token in parts:
                yield questions_pb2.ExportToolCallsResponse(tool_calls=rows, resume_token=token)

    async def ExportModelRequests(  # noqa: N802 - named by the proto
        self, request: questions_pb2.ExportModelRequestsRequest, context: Context
    ) -> AsyncIterator[questions_pb2.ExportModelRequestsResponse]:
        """All model requests that were there when it began."""
        async with contextlib.aclosing(self._export(self._requests, request)) as parts:
            async for rows, token in parts:
                yield questions_pb2.ExportModelRequestsResponse(model_requests=rows, resume_token=token)

    async def TailToolCalls(  # noqa: N802 - named by the proto
        self, request: questions_pb2.TailToolCallsRequest, context: Context
    ) -> AsyncIterator[questions_pb2.TailToolCallsResponse]:
        """Tool calls as they are committed."""
        async with contextlib.aclosing(self._tail(self._calls, request)) as looks:
            async for rows, fields in looks:
                yield questions_pb2.TailToolCallsResponse(tool_calls=rows, **fields)

    async def TailModelRequests(  # noqa: N802 - named by the proto
        self, request: questions_pb2.TailModelRequestsRequest, context: Context
    ) -> AsyncIterator[questions_pb2.TailModelRequestsResponse]:
        """Model requests as they are committed."""
        async with contextlib.aclosing(self._tail(self._requests, request)) as looks:
            async for rows, fields in looks:
                yield questions_pb2.TailModelRequestsResponse(model_requests=rows, **fields)

    def begin_drain(self) -> None:
        """Has all tails end with StoreClosed."""
        self._ending.set()

    async def _export(self, log: "_Log", request: Any) -> AsyncGenerator[tuple[list[Any], str], None]:
        """Rows read piece by piece, each piece with the token to go on after it, empty at the end."""
        with self._query_log.logged(request) as logged:
            query = query_of(request, (int, int, int))
            last_position, *key = query.after or (await log.last_position(),)
            after: Position | None = tuple(key) or None
            is_last = False
            while not is_last:
                rows = await log.export(query.filter, after, int(last_position), EXPORT_ROWS)
                is_last = len(rows) < EXPORT_ROWS
                for part in list(in_parts(rows)) or [[]]:
                    after = log.key(part[-1]) if part else None
                    is_end = is_last and (not part or part[-1] is rows[-1])
                    yield part, "" if is_end or after is None else query.token((last_position, *after))
                logged.rows += len(rows)

    async def _tail(self, log: "_Log", request: Any) -> AsyncGenerator[tuple[list[Any], dict[str, Any]], None]:
        """Rows as they are committed, with the other fields of a response.

        They are read from the database, so that no client can make the writer wait.
        """
        with self._query_log.logged(request) as logged:
            if self._tails >= MAX_TAILS:
                raise QueueFull(f"{MAX_TAILS} tails are open already: end one of them")
            self._tails += 1
            try:
                async with contextlib.aclosing(self._follow(log, request)) as looks:
                    async for rows, fields in looks:
                        logged.rows += len(rows)
                        yield rows, fields
            finally:
                self._tails -= 1

    async def _follow(self, log: "_Log", request: Any) -> AsyncGenerator[tuple[list[Any], dict[str, Any]], None]:
        query = query_of(request, (int,))
        if request.after_position < 0:
            raise InvalidRequest("after_position is negative: positions begin at 1", "after_position")
        last = at = await log.last_position()
        # What is said may be from before a restore, and so beyond all rows.
        if request.HasField("after_position"):
            at = min(request.after_position, last)
        elif query.after:
            at = min(int(query.after[0]), last)
        # So that a client knows from where on it sees everything, also while there is nothing to see.
        yield [], {"resume_token": query.token((at,)), "position": at}
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
            tail = await log.after(query.filter, at)
            at, last = tail.position, tail.last_position
            is_live = is_live or at == last
            if tail.rows or skipped or time.monotonic() - told > ALIVE_SECONDS:
                yield tail.rows, {"resume_token": query.token((at,)), "position": at, "skipped": skipped}
                told = time.monotonic()
            if is_live:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), TAIL_SECONDS)
        raise StoreClosed("the ledger is shutting down")


@dataclass(frozen=True)
class _Log:
    """What happened once, tool calls or model requests: how the ledger is asked for it (see ReadableLedger)."""

    export: Callable[[Filter, Position | None, int, int], Awaitable[list[Any]]]
    last_position: Callable[[], Awaitable[int]]
    after: Callable[[Filter, int], Awaitable[Tail[Any]]]
    key: Callable[[Any], Position]
