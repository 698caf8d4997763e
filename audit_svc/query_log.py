"""The log of queries: each query is recorded in the background."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import structlog
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import AuditError
from audit_svc.ledger.protocol import ReadableLedger
from service_kit.access.callers import caller_name
from service_kit.errors import Context

MAX_FILTERS_BYTES = 2048
MAX_WAITING = 1000
GATHER_SECONDS = 0.5

log = structlog.get_logger(__name__)


class QueryLog:
    """Gathers rows for half a second, and writes them with the store's next commit."""

    def __init__(self, ledger: ReadableLedger, statuses: Mapping[type[Exception], grpc.StatusCode]) -> None:
        self._ledger = ledger
        self._statuses = statuses
        self._waiting: list[audit_pb2.QueryRow] = []
        self._lost = 0
        self._writing: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def logged(self, request: Message, context: Context) -> Iterator[audit_pb2.QueryRow]:
        """Logs the query that the block answers, however it ends. The block sets the number of rows that it sent."""
        row = audit_pb2.QueryRow(
            caller=caller_name(context)[:128],  # now: a call that its client has left can no longer be asked
            method=request.DESCRIPTOR.name.removesuffix("Request"),
            filters=filters_of(request),
            status="OK",
            created_at_ms=time.time_ns() // 1_000_000,
        )
        started = time.monotonic()
        try:
            yield row
        except (asyncio.CancelledError, GeneratorExit):
            row.status = grpc.StatusCode.CANCELLED.name
            raise
        except Exception as error:
            code = next((self._statuses[cls] for cls in type(error).__mro__ if cls in self._statuses), None)
            row.status = (code or grpc.StatusCode.INTERNAL).name
            raise
        finally:
            row.duration_ms = round((time.monotonic() - started) * 1000)
            self._add(row)

    async def close(self) -> None:
        """Writes the rows that still wait."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        await self._write()

    def _add(self, row: audit_pb2.QueryRow) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(row)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    async def _write_soon(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_SECONDS)
            await self._write()

    async def _write(self) -> None:
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        try:
            await self._ledger.log_queries(rows)
        except AuditError as error:
            self._lost += len(rows)
            log.warning("queries.not_logged", queries=self._lost, reason=str(error))
        else:
            if self._lost:
                log.warning("queries.not_logged", queries=self._lost, reason="more came than could be written")
            self._lost = 0


def filters_of(request: Message) -> str:
    """A request as JSON without its page token. Of a text that was searched for only the length: it may be a secret."""
    copy = type(request)()
    copy.CopyFrom(request)
    fields = copy.DESCRIPTOR.fields_by_name
    if "page_token" in fields:
        copy.ClearField("page_token")
    filters: Any = getattr(copy, "filter", copy)
    if text := getattr(filters, "args_contain", ""):
        filters.args_contain = f"({len(text)} characters)"
    encoded = MessageToJson(copy, indent=None, preserving_proto_field_name=True).encode()
    return encoded[:MAX_FILTERS_BYTES].decode(errors="ignore")
