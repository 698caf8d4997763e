"""Tails: tool calls in the order of their commits, whatever their times."""

from typing import Any

import pytest
from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger.protocol import TAIL_ROWS, Ledger
from audit_svc.ledger.query import Filter, filter_of
from service_kit.paging import MAX_PAGE_BYTES
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question, row_of, session_row
from tests.ledger.asking import record

ALL = filter_of(questions_pb2.TailToolCallsRequest())


async def follow(ledger: Ledger, wanted: Filter = ALL, position: int = 0) -> list[Any]:
    """All rows behind a position, each look's size and each row's position checked."""
    found: list[Any] = []
    while True:
        tail = await ledger.tool_calls_after(wanted, position)
        assert len(tail.rows) <= TAIL_ROWS
        assert sum(row.ByteSize() for row in tail.rows[:-1]) <= MAX_PAGE_BYTES
        assert tail.last_position == await ledger.last_position()
        positions = [record.receipt.position for record in tail.rows]
        assert positions == sorted({*positions}) == [at for at in positions if position < at <= tail.position]
        found += map(row_of, tail.rows)
        if tail.position == tail.last_position:
            return found
        assert tail.position > position
        position = tail.position


async def test_rows_come_in_the_order_of_their_commits_and_not_of_their_times(ledger):
    assert await ledger.last_position() == 0
    assert await follow(ledger) == []
    rows = [audit_row(created_at_ms=NOW_MS - n) for n in range(20)]
    for row in rows:
        await record(ledger, tool_calls=[row], model_requests=[cost_row()])
    assert await follow(ledger) == rows


async def test_a_tail_goes_on_where_it_was(ledger):
    await record(ledger, tool_calls=[audit_row() for _ in range(5)])
    position = await ledger.last_position()
    assert await follow(ledger, position=position) == []
    new = [audit_row() for _ in range(5)]
    await record(ledger, tool_calls=new)
    assert await ledger.last_position() > position
    assert await follow(ledger, position=position) == new


@pytest.mark.parametrize(
    "filters",
    [
        {"session_id": "s1"},
        {"engine": "ollama"},
        {"tool_name": "bash"},
        {"model": "large"},
        {"has_error": True},
        {"outcomes": [common_pb2.OUTCOME_FAILED]},
        {"outcomes": [common_pb2.OUTCOME_DENIED], "session_id": "s1"},
        {"has_error": False},
        {"shadow": True},
        {"shadow": False, "args_contain": "NOTES"},
        {"labels": {"user": "ada"}},
        {"created_from_ms": NOW_MS - 30, "created_before_ms": NOW_MS - 3},
        {"clock_suspect": True},
        {"clock_suspect": False},
        {"session_id": "nothing"},
    ],
    ids="+".join,
)
async def test_a_filtered_tail_passes_over_the_rows_that_it_does_not_show(ledger, filters):
    rows = [
        audit_row(
            session_id=f"s{n % 3}",
            engine=("ollama", "openai")[n % 2],
            tool_name=("read", "bash")[n % 2],
            model=("small", "large")[n // 20],
            error="broken" if n % 5 == 0 else None,
            outcome=(common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_DENIED)[n % 3],
            shadow=n % 4 == 0,
            args_summary=("notes", "other")[n % 2],
            created_at_ms=NOW_MS - n,
        )
        for n in range(40)
    ]
    await record(ledger, tool_calls=rows, sessions=[session_row(id="s1", labels={"user": "ada"})])
    texts = {name: value for name, value in filters.items() if name in ("session_id", "engine", "tool_name", "model")}
    wanted = [
        row
        for row in rows
        if all(getattr(row, name) == value for name, value in texts.items())
        and row.HasField("error") == filters.get("has_error", row.HasField("error"))
        and row.outcome in filters.get("outcomes", [row.outcome])
        and row.shadow == filters.get("shadow", row.shadow)
        and filters.get("args_contain", "").lower() in row.args_summary
        and ("labels" not in filters or row.session_id == "s1")
        and filters.get("created_from_ms", 0) <= row.created_at_ms < filters.get("created_before_ms", 2**62)
        and not filters.get("clock_suspect")
    ]
    assert await follow(ledger, filter_of(question(questions_pb2.TailToolCallsRequest, **filters))) == wanted


async def test_a_tail_of_model_requests_goes_on_where_it_was_and_passes_over_what_it_does_not_show(ledger):
    assert await ledger.last_request_position() == 0
    rows = [
        cost_row(created_at_ms=NOW_MS - n, engine=("openai", "ollama")[n % 2], error="broken" if n % 3 == 0 else None)
        for n in range(20)
    ]
    for row in rows:
        await record(ledger, tool_calls=[audit_row()], model_requests=[row])
    wanted = filter_of(question(questions_pb2.TailModelRequestsRequest, engine="ollama", has_error=True))
    tail = await ledger.model_requests_after(wanted, 0)
    last = await ledger.last_request_position()
    assert (tail.position, tail.last_position) == (last, last)
    assert list(map(row_of, tail.rows)) == [row for row in rows if row.engine == "ollama" and row.HasField("error")]
    new = cost_row(created_at_ms=NOW_MS - 100)
    await record(ledger, model_requests=[new])
    tail = await ledger.model_requests_after(filter_of(questions_pb2.TailModelRequestsRequest()), last)
    assert (list(map(row_of, tail.rows)), tail.position > last) == ([new], True)


async def test_one_look_is_bounded_in_rows_and_in_bytes(ledger):
    many = [audit_row() for _ in range(2 * TAIL_ROWS + 10)]
    large = [audit_row(args_summary="x" * 4096, error="y" * 2048) for _ in range(TAIL_ROWS)]
    await record(ledger, tool_calls=many)
    await record(ledger, tool_calls=large)
    assert await follow(ledger) == [*many, *large]
