"""Tails: tool calls in the order of their commits, whatever their times."""

from typing import Any

import pytest
from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger.pages import MAX_PAGE_BYTES
from audit_svc.ledger.protocol import TAIL_ROWS, Ledger
from audit_svc.ledger.query import Filter, filter_of
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row
from tests.ledger.asking import record

ALL = filter_of(questions_pb2.TailToolCallsRequest())


async def follow(ledger: Ledger, wanted: Filter = ALL, position: int = 0) -> list[Any]:
    """All rows behind a position, each look's size checked."""
    found: list[Any] = []
    while True:
        tail = await ledger.tool_calls_after(wanted, position)
        assert len(tail.rows) <= TAIL_ROWS
        assert sum(row.ByteSize() for row in tail.rows[:-1]) <= MAX_PAGE_BYTES
        assert tail.last_position == await ledger.last_position()
        found += tail.rows
        if tail.position == tail.last_position:
            return found
        assert tail.position > position
        position = tail.position


async def test_rows_come_in_the_order_of_their_commits_and_not_of_their_times(ledger):
    assert await ledger.last_position() == 0
    assert await follow(ledger) == []
    rows = [audit_row(created_at_ms=NOW_MS - n) for n in range(20)]
    for row in rows:
        await record(ledger, rows=[row], costs=[cost_row()])
    assert await follow(ledger) == rows


async def test_a_tail_goes_on_where_it_was(ledger):
    await record(ledger, rows=[audit_row() for _ in range(5)])
    position = await ledger.last_position()
    assert await follow(ledger, position=position) == []
    new = [audit_row() for _ in range(5)]
    await record(ledger, rows=new)
    assert await ledger.last_position() > position
    assert await follow(ledger, position=position) == new


@pytest.mark.parametrize(
    "filters",
    [
        {"session_id": "s1"},
        {"engine": "ollama"},
        {"tool_name": "bash"},
        {"model": "large"},
        {"errors_only": True},
        {"outcomes": [common_pb2.OUTCOME_FAILED]},
        {"outcomes": [0], "session_id": "s1"},
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
            outcome=(common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_SUCCEEDED, 0)[n % 3],
        )
        for n in range(40)
    ]
    await record(ledger, rows=rows)
    texts = {name: value for name, value in filters.items() if isinstance(value, str)}
    wanted = [
        row
        for row in rows
        if all(getattr(row, name) == value for name, value in texts.items())
        and (not filters.get("errors_only") or row.HasField("error"))
        and row.outcome in filters.get("outcomes", [row.outcome])
    ]
    assert await follow(ledger, filter_of(questions_pb2.TailToolCallsRequest(**filters))) == wanted


async def test_one_look_is_bounded_in_rows_and_in_bytes(ledger):
    many = [audit_row() for _ in range(2 * TAIL_ROWS + 10)]
    large = [audit_row(args_summary="x" * 4096, error="y" * 2048) for _ in range(TAIL_ROWS)]
    await record(ledger, rows=many)
    await record(ledger, rows=large)
    assert await follow(ledger) == [*many, *large]
