"""A ledger in any SQL database: one that is only read, and what is common to those that are written."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Generic, TypeVar

from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2

from audit_svc.errors import AuditError
from audit_svc.ledger.batch import Batch
from audit_svc.ledger.group_commit import GroupCommit
from audit_svc.ledger.pages import Page
from audit_svc.ledger.protocol import Tail
from audit_svc.ledger.query import Filter, Query
from audit_svc.sql.care.online import OnlineCare
from audit_svc.sql.read import model_requests, queries, tool_calls
from audit_svc.sql.read.producers import list_producers
from audit_svc.sql.reader import Reader
from audit_svc.sql.usage.summaries import summarize_usage
from service_kit.paging import Position

C = TypeVar("C")


class ReadableSql:
    """What all SQL databases answer alike."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def list_tool_calls(self, query: Query) -> Page[questions_pb2.ToolCallRecord]:
        return await self._reader.ask(tool_calls.list_tool_calls, query)

    async def list_model_requests(self, query: Query) -> Page[questions_pb2.ModelRequestRecord]:
        return await self._reader.ask(model_requests.list_model_requests, query)

    async def list_sessions(self, query: Query) -> Page[questions_pb2.SessionRecord]:
        return await self._reader.ask(queries.list_sessions, query)

    async def list_controls(self, query: Query) -> Page[questions_pb2.ControlRecord]:
        return await self._reader.ask(queries.list_controls, query)

    async def list_producers(self, query: Query) -> Page[questions_pb2.Producer]:
        return await self._reader.ask(list_producers, query)

    async def get_session(self, query: Query) -> tuple[questions_pb2.SessionRecord, Page[questions_pb2.Entry]]:
        return await self._reader.ask(queries.get_session, query)

    async def list_queries(self, query: Query) -> Page[administration_pb2.QueryRow]:
        return await self._reader.ask(queries.list_queries, query)

    async def summarize_usage(self, query: Query) -> Page[questions_pb2.UsageGroup]:
        return await self._reader.ask(summarize_usage, query, heavy=True)

    async def export_tool_calls(
        self, wanted: Filter, after: Position | None, last_position: int, size: int
    ) -> list[questions_pb2.ToolCallRecord]:
        return await self._reader.ask(tool_calls.export_tool_calls, wanted, after, last_position, size, heavy=True)

    async def last_position(self) -> int:
        return await self._reader.ask(tool_calls.last_position)

    async def tool_calls_after(self, wanted: Filter, position: int) -> Tail[questions_pb2.ToolCallRecord]:
        return await self._reader.ask(tool_calls.tool_calls_after, wanted, position)

    async def export_model_requests(
        self, wanted: Filter, after: Position | None, last_position: int, size: int
    ) -> list[questions_pb2.ModelRequestRecord]:
        ask = model_requests.export_model_requests
        return await self._reader.ask(ask, wanted, after, last_position, size, heavy=True)

    async def last_request_position(self) -> int:
        return await self._reader.ask(model_requests.last_position)

    async def model_requests_after(self, wanted: Filter, position: int) -> Tail[questions_pb2.ModelRequestRecord]:
        return await self._reader.ask(model_requests.model_requests_after, wanted, position)

    async def log_queries(self, queries: Sequence[administration_pb2.QueryRow]) -> None:
        """Forgets them: who can read the database needs no leave."""

    async def close(self) -> None:
        await asyncio.to_thread(self._reader.close)


class WritableSql(ReadableSql, Generic[C]):
    """What all SQL databases of a service do alike (the Ledger protocol). C is a connection of the store."""

    def __init__(self, reader: Reader, writer: GroupCommit[C], care: OnlineCare[C]) -> None:
        super().__init__(reader)
        self._writer = writer
        self.reset_mark = care.reset_mark
        self.prune, self.count_prunable, self.unfinished_prune = care.prune, care.count_prunable, care.unfinished_prune
        self.act_on_hold, self.list_holds = care.act_on_hold, care.list_holds
        self.erase, self.count_erasable = care.erase, care.count_erasable

    @property
    def queued_rows(self) -> int:
        """The number of rows waiting for their commit. Thread-safe."""
        return self._writer.queued_rows

    def record(self, batch: Batch) -> Awaitable[audit_pb2.RecordResponse]:
        return self._writer.record_async(batch)

    async def why_no_commit(self) -> str:
        try:
            await asyncio.wrap_future(self._writer.run(self._touch))
        except AuditError as error:
            return str(error)
        return self._writer.why_failing()

    def _touch(self, connection: C) -> None:
        """Writes something that changes nothing, in a transaction."""
        raise NotImplementedError
