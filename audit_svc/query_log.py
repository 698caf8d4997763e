"""The log of queries: each query is recorded in the background, and what is asked again within a minute in one line."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from onrecord.audit.v1 import administration_pb2, questions_pb2

from audit_svc.errors import AuditError
from audit_svc.ledger.pages import Page
from audit_svc.ledger.protocol import ReadableLedger
from audit_svc.ledger.query import Query, query_of
from recording.upkeep import attempt
from service_kit.access.callers import caller_name

MAX_FILTERS_BYTES = 2048
MAX_WAITING = 1000
GATHER_SECONDS = 0.5
CLOSE_SECONDS = 2.0
"""How long the last rows may wait for their commit: a store that stands still keeps no service from its end."""
REPEAT_SECONDS = 60.0
"""The same caller's same question is one row for so long after the first: a page that polls must not fill the disk."""
MAX_REPEATED = 1000
"""Questions that are remembered to be counted. Others have a row each time."""

_IDS = {"id", "session_id", "turn_id", "parent_turn_id"}

Row = TypeVar("Row", bound=Message)

log = structlog.get_logger(__name__)


class QueryLog:
    """Gathers rows for half a second, and writes them with the store's next commit."""

    def __init__(self, ledger: ReadableLedger, statuses: Mapping[type[Exception], grpc.StatusCode]) -> None:
        self._ledger = ledger
        self._statuses = statuses
        self._waiting: list[administration_pb2.QueryRow] = []
        self._asked: dict[tuple[str, ...], _Repeated] = {}
        self._lost = 0
        self._writing: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def logged(self, request: Message) -> Iterator[administration_pb2.QueryRow]:
        """Logs the query that the block answers, however it ends. The block sets the number of rows that it sent."""
        row = administration_pb2.QueryRow(
            caller=caller_name(),
            method=request.DESCRIPTOR.name.removesuffix("Request"),
            status="OK",
            times=1,
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
            self._add_or_count(row, request)

    async def page(
        self,
        ask: Callable[[Query], Awaitable[Page[Row]]],
        request: Any,
        key: tuple[type[int] | type[str], ...] = (int, int),
    ) -> tuple[list[Row], str]:
        """Answers a request for a page, and logs it: the rows, and the token of the next page.

        key: the types of the key in its page tokens.
        """
        with self.logged(request) as logged:
            query = query_of(request, key)
            page = await ask(query)
            logged.rows = len(page.rows)
            return page.rows, query.token(page.next)

    async def close(self) -> None:
        """Writes the rows that still wait, and what was counted."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        self._end_repeated(float("inf"))
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._write()
        except TimeoutError:
            log.warning("queries.not_logged", reason=f"the store has written nothing for {CLOSE_SECONDS:g} s")

    def _add_or_count(self, row: administration_pb2.QueryRow, request: Message) -> None:
        self._end_repeated(time.monotonic())
        question = row.caller, row.method, row.status, filters_of(request, with_times=False)
        repeated = self._asked.get(question)
        if repeated is None or repeated.row is None:
            row.filters = filters_of(request, is_met=row.rows > 0)
        if repeated is not None:
            repeated.add(row)
            return
        if len(self._asked) < MAX_REPEATED:
            self._asked[question] = _Repeated(time.monotonic() + REPEAT_SECONDS)
        self._add(row)

    def _end_repeated(self, now: float) -> None:
        # In the order in which they were asked first.
        for question, repeated in list(self._asked.items()):
            if repeated.until > now:
                return
            del self._asked[question]
            if repeated.row is not None:
                self._add(repeated.row)

    def _add(self, row: administration_pb2.QueryRow) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(row)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    async def _write_soon(self) -> None:
        while self._waiting or self._asked:
            await asyncio.sleep(GATHER_SECONDS)
            with attempt("the log of queries"):
                self._end_repeated(time.monotonic())
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


@dataclass
class _Repeated:
    """What a caller asked again until a time by the monotonic clock."""

    until: float
    row: administration_pb2.QueryRow | None = None

    def add(self, row: administration_pb2.QueryRow) -> None:
        if self.row is None:
            self.row = row
            return
        self.row.times += row.times
        self.row.rows += row.rows
        self.row.duration_ms += row.duration_ms


def filters_of(request: Message, *, with_times: bool = True, is_met: bool = True) -> str:
    """A request as JSON without its tokens. Of a text that was searched for only the length: it may be a secret. So may
    what was searched for as an id or a session's label and is none.

    with_times: whether with the times between which rows began, which are others each time that a page is loaded.
    is_met: whether a row was found.
    """
    copy = type(request)()
    copy.CopyFrom(request)
    fields = copy.DESCRIPTOR.fields_by_name
    for name in {"page_token", "resume_token"} & set(fields):
        copy.ClearField(name)
    filters: Any = getattr(copy, "filter", copy)
    if not with_times:
        for name in {"created_from_ms", "created_before_ms"} & set(filters.DESCRIPTOR.fields_by_name):
            filters.ClearField(name)
    if text := getattr(filters, "args_contain", ""):
        filters.args_contain = _length(text)
    if not is_met and filters is not copy:
        for name in _IDS & set(filters.DESCRIPTOR.fields_by_name):
            if text := getattr(filters, name):
                setattr(filters, name, _length(text))
    if not is_met and isinstance(filters, questions_pb2.SessionFilter):
        filters.ids[:] = map(_length, filters.ids)
        for key, value in filters.labels.items():
            filters.labels[key] = _length(value)
    encoded = MessageToJson(copy, indent=None, preserving_proto_field_name=True).encode()
    return encoded[:MAX_FILTERS_BYTES].decode(errors="ignore")


def _length(text: str) -> str:
    return f"({len(text)} characters)"
