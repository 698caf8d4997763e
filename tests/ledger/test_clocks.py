"""What wrong clocks do: no row is refused for good by the ledger's own, and no prune trusts a single look at it."""

from collections.abc import Callable

import pytest
from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2

from audit_svc.errors import ClockJumped
from audit_svc.ledger import clock
from audit_svc.ledger.protocol import Ledger
from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question, session_row
from tests.ledger.asking import all_pages, record

YEAR_MS = 365 * DAY_MS
MARK = NOW_MS // HOUR_MS * HOUR_MS - 5 * HOUR_MS
TOO_OLD = audit_pb2.REJECTION_CODE_TOO_OLD


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the ledger's clock ahead by so many milliseconds."""
    right = clock.wall_ms

    def set_ahead(ms: int) -> None:
        monkeypatch.setattr(clock, "wall_ms", lambda: right() + ms)

    return set_ahead


async def ids(ledger: Ledger, *, suspect: bool = False) -> set[str]:
    request = question(questions_pb2.ListToolCallsRequest, **({"clock_suspect": True} if suspect else {}))
    return {row.id for row in await all_pages(ledger.list_tool_calls, request)}


async def prune(ledger: Ledger, before_ms: int, *, confirm_clock: bool = False) -> int:
    progresses = [each async for each in ledger.prune(before_ms, "ada", confirm_clock=confirm_clock)]
    return progresses[-1].removed.tool_calls


async def queries(ledger: Ledger) -> list[tuple[str, str]]:
    rows = await all_pages(ledger.list_queries, administration_pb2.ListQueriesRequest(), (int, int))
    return [(row.caller, row.method) for row in rows]


async def test_rows_that_are_ahead_of_the_ledgers_clock_are_stored_and_marked(ledger):
    """As when that clock is two years behind."""
    ahead = NOW_MS + 2 * YEAR_MS
    response = await record(
        ledger,
        tool_calls=[audit_row(id="right"), audit_row(id="ahead", created_at_ms=ahead)],
        model_requests=[cost_row(created_at_ms=ahead)],
        sessions=[session_row(created_at_ms=ahead, updated_at_ms=ahead)],
    )
    assert (response.stored, list(response.rejections)) == (4, [])
    assert await ids(ledger) == {"right", "ahead"}
    assert await ids(ledger, suspect=True) == {"ahead"}


async def test_what_was_pruned_does_not_come_back_and_what_is_new_is_kept_however_old_it_is(ledger):
    """The numbers of the producer decide, not a clock."""
    old = [audit_row(id=f"old-{n}", created_at_ms=MARK - n) for n in range(1, 7)]
    await record(ledger, tool_calls=old[:2], producer_id="p", first=1, last=2)
    await record(ledger, tool_calls=old[3:4], producer_id="p", last=5)
    await record(ledger, tool_calls=[audit_row(id="recent")])
    assert await prune(ledger, MARK) == 3

    async def send(rows: list[audit_pb2.AuditRow], first: int, last: int) -> tuple[int, int, int]:
        answer = await record(ledger, tool_calls=rows, producer_id="p", first=first, last=last)
        assert {refused.code for refused in answer.rejections} <= {TOO_OLD}
        return answer.stored, answer.duplicates, len(answer.rejections)

    assert await send(old[:2], 1, 2) == (0, 0, 2)
    assert await send(old[2:3], 3, 3) == (1, 0, 0), "a number that was missing is new"
    assert await send(old[4:6], 6, 7) == (2, 0, 0)
    assert await send(old[4:6], 6, 7) == (0, 2, 0), "its answer was lost"
    assert await send(old[3:4], 5, 8) == (0, 0, 1), "old numbers together with new ones"
    unnumbered = await record(ledger, tool_calls=old[:1])
    assert [refused.code for refused in unnumbered.rejections] == [TOO_OLD]
    assert await ids(ledger) == {"recent", "old-3", "old-5", "old-6"}
    assert await ids(ledger, suspect=True) == {"old-3", "old-5", "old-6"}


async def test_a_new_row_with_an_old_time_stays_as_long_after_it_came_as_others(ledger):
    await record(ledger, tool_calls=[audit_row(id="pruned", created_at_ms=MARK - 1), audit_row(id="recent")])
    await prune(ledger, MARK)
    late = audit_row(id="late", created_at_ms=MARK - YEAR_MS)
    await record(ledger, tool_calls=[late], producer_id="p", last=1)
    await record(ledger, tool_calls=[audit_row(id="newest")])
    assert await prune(ledger, MARK + HOUR_MS) == 0
    assert await ids(ledger) == {"recent", "late", "newest"}


async def test_a_clock_that_jumped_prunes_nothing_until_it_is_right_or_confirmed(ledger, set_clock):
    await record(ledger, tool_calls=[audit_row(id="a", created_at_ms=MARK - 1), audit_row(id="b")])
    set_clock(10 * YEAR_MS)
    with pytest.raises(ClockJumped, match="--confirm-clock"):
        await prune(ledger, NOW_MS // HOUR_MS * HOUR_MS + 9 * YEAR_MS)
    assert await ids(ledger) == {"a", "b"}
    set_clock(0)
    assert await prune(ledger, MARK) == 1
    set_clock(2 * DAY_MS)
    with pytest.raises(ClockJumped):
        await prune(ledger, MARK)
    assert await queries(ledger) == []
    await prune(ledger, MARK + HOUR_MS, confirm_clock=True)
    assert await queries(ledger) == [("ada", "Prune")]
    await prune(ledger, MARK + HOUR_MS)


async def test_a_clock_that_is_set_back_is_believed(ledger, set_clock):
    await record(ledger, tool_calls=[audit_row(created_at_ms=MARK - 1), audit_row()])
    set_clock(-YEAR_MS)
    assert await prune(ledger, MARK) == 1


async def test_a_mark_that_is_set_back_refuses_no_longer_what_it_did(ledger):
    await record(ledger, tool_calls=[audit_row(created_at_ms=MARK - 1), audit_row(id="recent")])
    await prune(ledger, MARK)
    row = audit_row(id="row", created_at_ms=MARK - HOUR_MS)
    assert [refused.code for refused in (await record(ledger, tool_calls=[row])).rejections] == [TOO_OLD]
    progress = await ledger.reset_mark(MARK - 2 * HOUR_MS, "ada")
    assert (progress.pruned_before, progress.done) == (MARK - 2 * HOUR_MS, True)
    assert (await record(ledger, tool_calls=[row])).stored == 1
    assert await ids(ledger, suspect=True) == set()
    assert await queries(ledger) == [("ada", "Prune")]
