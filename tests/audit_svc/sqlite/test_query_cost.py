"""What an answer costs depends on its size and not on the ledger's, counted in steps of SQLite's machine."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import apsw
import pytest
from google.protobuf.message import Message
from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.query import fingerprint_of
from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from audit_svc.ledger.usage import Usage
from audit_svc.sqlite.write.inserts import Inserts
from service_kit.paging import encode_token
from tests.audit_svc import asking
from tests.audit_svc.asking import summarize_usage
from tests.audit_svc.cost import machine_steps
from tests.audit_svc.empty import empty_in_memory
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question, record_request, session_row

pytestmark = pytest.mark.long

Ask = Callable[[apsw.Connection, Any], Message]
END = NOW_MS // DAY_MS * DAY_MS
FEW, MANY = 2_000, 20_000


def ledger(rows: int) -> apsw.Connection:
    """Two days of calls by 20 each session."""
    connection = empty_in_memory()
    inserts = Inserts(connection)
    for first in range(0, rows, 2_000):
        numbers = range(first, first + 2_000)
        times = [END - 2 * DAY_MS + number * 2 * DAY_MS // rows for number in numbers]
        calls = [
            audit_row(
                id=f"{number:08}",
                session_id=f"s{number // 20}",
                engine=f"engine-{number % 3}",
                tool_name="rare" if number % 100 == 0 else f"tool-{number % 3}",
                model=f"model-{number % 3}",
                outcome=2 if number % 4 == 0 else 1,
                error="broken" if number % 4 == 0 else None,
                created_at_ms=time,
            )
            for number, time in zip(numbers, times, strict=True)
        ]
        requests = [
            cost_row(
                id=row.id,
                session_id=row.session_id,
                engine=f"engine-{at % 3}",
                model=f"model-{at % 3}",
                error="engine_rejected" if at % 4 == 0 else None,
                created_at_ms=row.created_at_ms,
            )
            for at, row in enumerate(calls[::4])
        ]
        sessions = [
            session_row(id=row.session_id, labels={"user": f"u{number // 40}"}, created_at_ms=row.created_at_ms)
            for number, row in zip(numbers, calls, strict=True)
            if number % 20 == 0
        ]
        batch = read_batch(record_request(tool_calls=calls, model_requests=requests, sessions=sessions), NOW_MS)
        assert not batch.rejections
        inserts.write([(batch, Usage(batch.tool_calls, batch.model_requests))], NOW_MS)
    return connection


@pytest.fixture(scope="module")
def ledgers() -> Iterator[tuple[apsw.Connection, apsw.Connection]]:
    """One of FEW rows and one of MANY."""
    few, many = ledger(FEW), ledger(MANY)
    yield few, many
    few.close()
    many.close()


def deep(request: Any) -> Any:
    """The page that begins a day ago."""
    request.page_token = encode_token((END - DAY_MS, 0), fingerprint_of(request))
    return request


CALLS: list[dict[str, Any]] = [
    {},
    {"session_id": "s7"},
    {"engine": "engine-1"},
    {"tool_name": "tool-1"},
    {"tool_name": "rare"},
    {"engine": "engine-0", "tool_name": "tool-0"},
    {"model": "model-2"},
    {"has_error": True},
    {"outcomes": [common_pb2.OUTCOME_FAILED]},
    {"labels": {"user": "u2"}},
]
REQUESTS: list[dict[str, Any]] = [
    {},
    {"session_id": "s7"},
    {"engine": "engine-1"},
    {"model": "model-2"},
    {"has_error": True},
    {"has_error": True, "created_before_ms": END - DAY_MS},
    {"labels": {"user": "u2"}},
]
QUESTIONS: list[tuple[str, Ask, Message]] = [
    *(
        (f"calls by {'+'.join(filters) or 'nothing'}, {name} page", asking.list_tool_calls, page)
        for filters in CALLS
        for name, page in (
            ("first", question(questions_pb2.ListToolCallsRequest, page_size=10, **filters)),
            ("deep", deep(question(questions_pb2.ListToolCallsRequest, page_size=10, **filters))),
        )
    ),
    *(
        (f"requests by {'+'.join(filters) or 'nothing'}, {name} page", asking.list_model_requests, page)
        for filters in REQUESTS
        for name, page in (
            ("first", question(questions_pb2.ListModelRequestsRequest, page_size=10, **filters)),
            ("deep", deep(question(questions_pb2.ListModelRequestsRequest, page_size=10, **filters))),
        )
    ),
    ("timeline", asking.get_session, questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="s9"))),
    ("sessions", asking.list_sessions, questions_pb2.ListSessionRecordsRequest(page_size=10)),
    (
        "sessions by engine",
        asking.list_sessions,
        question(questions_pb2.ListSessionRecordsRequest, page_size=10, engine="ollama", labels={"team": "engines"}),
    ),
    (
        "sessions by label",
        asking.list_sessions,
        question(questions_pb2.ListSessionRecordsRequest, labels={"user": "u2"}),
    ),
    (
        "usage of whole hours",
        summarize_usage,
        question(
            questions_pb2.SummarizeUsageRequest, group_by=["engine", "tool"], created_from_ms=END - DAY_MS - 3 * HOUR_MS
        ),
    ),
    ("usage of all time", summarize_usage, questions_pb2.SummarizeUsageRequest(group_by=["engine", "tool"])),
    (
        "usage of a session",
        summarize_usage,
        question(questions_pb2.SummarizeUsageRequest, group_by=["tool"], session_id="s9"),
    ),
    (
        "usage of a label",
        summarize_usage,
        question(questions_pb2.SummarizeUsageRequest, group_by=["tool", "session"], labels={"user": "u2"}),
    ),
]


@pytest.mark.parametrize(
    ("ask", "request_"), [question[1:] for question in QUESTIONS], ids=[question[0] for question in QUESTIONS]
)
def test_ten_times_the_rows_cost_an_answer_of_one_size_no_more(ledgers, ask, request_):
    few, many = (machine_steps(ledger, partial(ask, ledger, request_)) for ledger in ledgers)
    assert many <= 1.5 * few + 200, f"{few} steps with {FEW} rows, {many} with {MANY}"
