"""What the tests of listings list: rows, and what is asked for of them."""

import itertools
import random
from typing import Any

from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger.batch import read_batch
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc.samples import NOW_MS, audit_row, batch, record_request, session_row

Request = questions_pb2.ListToolCallsRequest
RANDOM = random.Random(7)
ROWS = [
    audit_row(
        session_id=f"s{n % 5}",
        engine=("ollama", "openai")[n % 2],
        tool_name=("read", "bash", "webfetch")[n % 3],
        model=("small", "large")[n // 100],
        outcome=common_pb2.OUTCOME_FAILED if n % 4 == 0 else common_pb2.OUTCOME_SUCCEEDED,
        error="broken" if n % 4 == 0 else None,
        shadow=n % 7 == 0,
        args_summary=f'{{"path":"Notes_{n % 9}%.txt"}}',
        # Several rows of one millisecond, in no order of their ids.
        created_at_ms=NOW_MS - RANDOM.randrange(40),
    )
    for n in range(200)
]
SESSIONS = [
    session_row(
        id=f"s{n}",
        engine=("ollama", "openai")[n % 2],
        model=("small", "large")[n // 25],
        status=common_pb2.SESSION_STATUS_RUNNING if n % 5 == 0 else common_pb2.SESSION_STATUS_IDLE,
        created_at_ms=NOW_MS - n // 3,
        labels={"n": str(n), "half": str(n // 25)},
    )
    for n in range(50)
]


def fill(writer: Writer) -> None:
    writer.record(batch(*ROWS)).result()
    writer.record(read_batch(record_request(sessions=SESSIONS), NOW_MS)).result()


SETTINGS: dict[str, Any] = {
    "session_id": "s1",
    "engine": "ollama",
    "tool_name": "bash",
    "model": "small",
    "has_error": True,
    "outcomes": [common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_TIMED_OUT],
    "labels": {"n": "1"},
    "args_contain": "notes_1%",
    "created_from_ms": NOW_MS - 30,
    "created_before_ms": NOW_MS - 5,
}
FILTERS = [
    dict(chosen) for size in (0, 1, 2, len(SETTINGS)) for chosen in itertools.combinations(SETTINGS.items(), size)
]
FILTERS += [{"outcomes": [common_pb2.OUTCOME_SUCCEEDED]}, {"outcomes": [0]}, {"labels": {"n": "1", "half": "0"}}]
FILTERS += [
    {"has_error": False},
    {"shadow": True},
    {"shadow": False},
    {"clock_suspect": True},
    {"clock_suspect": False},
]
FILTERS += [{"session_id": "s1", "labels": {"n": "2"}}, {"tool_name": "nothing"}, {"args_contain": "_1%.TXT"}]
SESSION_SETTINGS: dict[str, Any] = {
    "engine": "openai",
    "model": "large",
    "statuses": [common_pb2.SESSION_STATUS_RUNNING],
    "labels": {"half": "1"},
    "created_from_ms": NOW_MS - 15,
    "created_before_ms": NOW_MS - 2,
}
SESSION_FILTERS = [
    dict(chosen)
    for size in range(len(SESSION_SETTINGS) + 1)
    for chosen in itertools.combinations(SESSION_SETTINGS.items(), size)
]
SEVERAL = [common_pb2.SESSION_STATUS_IDLE, common_pb2.SESSION_STATUS_RUNNING]
SESSION_FILTERS += [{"statuses": SEVERAL}, {"statuses": SEVERAL, "model": "large"}, {"statuses": [0]}]
SESSION_FILTERS += [{"id": "s7"}, {"id": "s5", "statuses": SEVERAL}]
IDS = ["s7", "s3", "s7", "s1", "none"]
SESSION_FILTERS += [{"ids": IDS}, {"ids": IDS, "id": "s3"}, {"ids": IDS, "statuses": SEVERAL, "model": "large"}]
SESSION_FILTERS += [{"statuses": SEVERAL, "labels": {"half": "1"}, "created_from_ms": NOW_MS - 15}]
