"""The log of queries: what it may ask of a call, and when."""

import asyncio
import contextlib
from typing import Any

from onrecord.audit.v1 import questions_pb2

from audit_svc import query_log
from audit_svc.query_log import QueryLog, filters_of
from service_kit.access.callers import Caller, enter
from service_kit.access.roles import Role
from tests.audit_svc.samples import question


class Kept:
    """Keeps the rows that it is given to store."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    async def log_queries(self, rows: list[Any]) -> None:
        self.rows += rows


async def test_a_query_is_logged_under_the_name_of_who_asked_when_it_ends():
    kept = Kept()
    log = QueryLog(kept, {})  # type: ignore[arg-type] # the one method that it uses
    enter(Caller("ada", frozenset({Role.READER})))
    with log.logged(question(questions_pb2.TailToolCallsRequest, engine="ollama")) as logged:
        logged.rows = 3
    await log.close()
    (row,) = kept.rows
    assert (row.caller, row.method, row.filters, row.rows) == (
        "ada",
        "TailToolCalls",
        '{"filter": {"engine": "ollama"}}',
        3,
    )


def test_of_a_text_that_was_searched_for_the_length_alone_is_kept():
    for request in (
        question(questions_pb2.ListToolCallsRequest, args_contain="hunter2", page_token="abc"),
        question(questions_pb2.ExportToolCallsRequest, args_contain="hunter2", resume_token="abc"),
    ):
        assert "hunter2" not in filters_of(request)
        assert "(7 characters)" in filters_of(request)
        assert "abc" not in filters_of(request)


async def test_of_an_id_or_label_that_nothing_has_the_length_alone_is_kept():
    """A field for searching takes ids, labels and texts alike: what was typed may be a secret."""
    kept = Kept()
    log = QueryLog(kept, {})  # type: ignore[arg-type] # the one method that it uses
    asked = [
        *(
            question(kind, id="hunter2")
            for kind in (
                questions_pb2.ListToolCallsRequest,
                questions_pb2.ListModelRequestsRequest,
                questions_pb2.ListControlsRequest,
                questions_pb2.ListSessionRecordsRequest,
            )
        ),
        question(questions_pb2.ListSessionRecordsRequest, labels={"title": "hunter2"}),
        question(questions_pb2.ListSessionRecordsRequest, ids=["hunter2"]),
        *(
            question(questions_pb2.ListToolCallsRequest, **{name: "hunter2"})
            for name in ("session_id", "turn_id", "parent_turn_id")
        ),
    ]
    for rows in (0, 1):
        for request in asked:
            with log.logged(request) as logged:
                logged.rows = rows
        with contextlib.suppress(OSError), log.logged(asked[0]):
            raise OSError
        log._end_repeated(float("inf"))
    await log.close()
    for row in kept.rows:
        assert ("hunter2" in row.filters) == bool(row.rows), row
        assert ("(7 characters)" in row.filters) == (not row.rows), row
    assert len(kept.rows) >= 2 * len(asked)


async def test_a_question_that_is_asked_again_within_a_minute_is_counted_in_one_row(monkeypatch):
    """As a page asks that is loaded every second: with other times each time."""
    kept = Kept()
    log = QueryLog(kept, {})  # type: ignore[arg-type] # the one method that it uses
    for number in range(100):
        asked = question(questions_pb2.ListToolCallsRequest, engine="ollama", created_from_ms=1000 + number)
        with log.logged(asked) as logged:
            logged.rows = 2
    with log.logged(question(questions_pb2.ListToolCallsRequest, engine="other")):
        pass
    await log.close()
    rows = sorted((row.filters, row.times, row.rows) for row in kept.rows)
    assert rows == [
        ('{"filter": {"engine": "ollama", "created_from_ms": "1000"}}', 1, 2),
        ('{"filter": {"engine": "ollama", "created_from_ms": "1001"}}', 99, 198),
        ('{"filter": {"engine": "other"}}', 1, 0),
    ]


async def test_what_was_asked_again_is_written_when_its_minute_is_over(monkeypatch):
    monkeypatch.setattr(query_log, "REPEAT_SECONDS", 0.2)
    monkeypatch.setattr(query_log, "GATHER_SECONDS", 0.05)
    kept = Kept()
    log = QueryLog(kept, {})  # type: ignore[arg-type] # the one method that it uses
    for _ in range(3):
        with log.logged(questions_pb2.ListToolCallsRequest()):
            pass
    while sum(row.times for row in kept.rows) < 3:
        await asyncio.sleep(0.01)
    assert len(kept.rows) == 2
    await log.close()


async def test_the_last_rows_wait_for_no_store_that_stands_still(monkeypatch):
    class StandingStill:
        async def log_queries(self, rows: list[Any]) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(query_log, "CLOSE_SECONDS", 0.05)
    log = QueryLog(StandingStill(), {})  # type: ignore[arg-type] # the one method that it uses
    with log.logged(question(questions_pb2.TailToolCallsRequest)):
        pass
    async with asyncio.timeout(60):
        await log.close()
