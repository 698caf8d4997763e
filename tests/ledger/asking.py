"""Requests put to a ledger page by page."""

from typing import Any

from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.protocol import Ledger
from audit_svc.ledger.query import query_of, session_query_of
from service_kit.paging import MAX_PAGE_BYTES
from tests.audit_svc.samples import NOW_MS, record_request, row_of


async def record(ledger: Ledger, *, by: str = "", **fields: Any) -> audit_pb2.RecordResponse:
    """Records a request of these fields, of the caller `by`."""
    return await ledger.record(read_batch(record_request(**fields), NOW_MS, by))


async def all_pages(ask: Any, request: Any, key: tuple[type, ...] = (int, int)) -> list[Any]:
    """The producers' rows of all pages, whose tokens travel as a client's do."""
    return list(map(row_of, await all_records(ask, request, key)))


async def all_records(ask: Any, request: Any, key: tuple[type, ...] = (int, int)) -> list[Any]:
    """What all pages hold."""
    found: list[Any] = []
    while True:
        query = query_of(request, key)
        page = await ask(query)
        assert len(page.rows) <= query.size
        assert sum(row.ByteSize() for row in page.rows[:-1]) <= MAX_PAGE_BYTES
        found += page.rows
        request.page_token = query.token(page.next)
        if not request.page_token:
            return found


async def timeline(
    ledger: Ledger, session_id: str, size: int = 100, recorded_by: str | None = None
) -> tuple[questions_pb2.SessionRecord, list[questions_pb2.Entry]]:
    """A session and all pages of its timeline."""
    key = questions_pb2.RowKey(recorded_by=recorded_by, id=session_id)
    request = questions_pb2.GetSessionRecordRequest(session=key, page_size=size)
    found: list[questions_pb2.Entry] = []
    while True:
        query = session_query_of(request)
        session, page = await ledger.get_session(query)
        found += page.rows
        request.page_token = query.token(page.next)
        if not request.page_token:
            return session, found


def entry_row(entry: questions_pb2.Entry) -> Any:
    """The producer's row of an entry."""
    return row_of(entry.model_request if entry.HasField("model_request") else entry.tool_call)
