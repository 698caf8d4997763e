"""What becomes of each row that is recorded, whatever the store."""

import asyncio
from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.errors import StoreClosed
from audit_svc.ledger.protocol import Ledger
from tests.audit_svc.samples import NOW_MS, audit_row, batch, cost_row, session_row
from tests.ledger.asking import all_pages, record, timeline


async def rows_of(ledger: Ledger) -> list[Any]:
    return await all_pages(ledger.list_tool_calls, questions_pb2.ListToolCallsRequest())


async def test_each_row_is_stored_a_duplicate_a_conflict_or_rejected_and_none_costs_its_neighbours(ledger):
    known = audit_row(id="known")
    assert (await record(ledger, rows=[known])).stored == 1
    sent = [
        audit_row(id="first"),
        audit_row(id=""),
        known,
        audit_row(id="known", tool_name="other"),
        audit_row(id="late", created_at_ms=1),
        audit_row(id="last"),
    ]
    response = await record(ledger, rows=sent, producer_id="p", sequence=9)
    assert (response.sequence, response.stored, response.duplicates) == (9, 2, 1)
    codes = [(refused.id, refused.code) for refused in response.rejections]
    assert codes == [
        ("", audit_pb2.REJECTION_CODE_INVALID),
        ("known", audit_pb2.REJECTION_CODE_CONFLICT),
        ("late", audit_pb2.REJECTION_CODE_INVALID),
    ]
    assert {row.id: row for row in await rows_of(ledger)} == {"known": known, "first": sent[0], "last": sent[5]}


async def test_a_batch_that_is_sent_again_stores_nothing(ledger):
    sent: dict[str, Any] = {"rows": [audit_row(), audit_row()], "costs": [cost_row()], "sessions": [session_row()]}
    assert (await record(ledger, **sent)).stored == 4
    again = await record(ledger, **sent)
    assert (again.stored, again.duplicates, len(again.rejections)) == (0, 4, 0)


async def test_of_an_id_that_comes_twice_in_a_batch_the_first_row_stands(ledger):
    first, same, other = audit_row(id="a"), audit_row(id="a"), audit_row(id="a", error="broken")
    response = await record(ledger, rows=[first, same, other], costs=[cost_row(id="a")])
    assert (response.stored, response.duplicates, len(response.rejections)) == (2, 1, 1)
    assert await rows_of(ledger) == [first]


async def test_every_field_comes_back_as_it_was_sent(ledger):
    """Also what is null in a table: an exit code of 0 is another thing than none."""
    call = audit_row(
        exit_code=0, http_status=503, error="broke", result_truncated=True, times_observed=True, shadow=True,
        trace_id="0" * 32, args_summary="ü" * 2048, session_id="s",
    )  # fmt: skip
    bare = audit_pb2.AuditRow(id="bare", tool_name="t", created_at_ms=NOW_MS, session_id="s", engine="e")
    cost = cost_row(session_id="s", cost_micros=0, error="broke", usage_incomplete=True, context_exceeded=True)
    unpriced = audit_pb2.CostRow(id="bare", created_at_ms=NOW_MS, session_id="s", engine="e")
    session = session_row(id="s", cost_micros=2**62, labels={"": "", "ключ": "значение"} | {"user": "ada"})
    assert (await record(ledger, rows=[call, bare], costs=[cost, unpriced], sessions=[session])).stored == 5
    found, entries = await timeline(ledger, "s")
    assert found == session
    assert {row.tool_call.id: row.tool_call for row in entries if row.HasField("tool_call")} == {
        call.id: call,
        "bare": bare,
    }
    assert {row.model_request.id: row.model_request for row in entries if row.HasField("model_request")} == {
        cost.id: cost,
        "bare": unpriced,
    }


async def test_the_highest_revision_of_a_session_stands_with_its_labels(ledger):
    revisions = [session_row(revision=n, turns=n, labels={"n": str(n), f"only-{n}": "x"}) for n in range(1, 5)]
    stored = [(await record(ledger, sessions=[revisions[n]])).stored for n in (1, 0, 1, 3, 2)]
    assert stored == [1, 0, 0, 1, 0]
    assert (await timeline(ledger, "session-1"))[0] == revisions[3]


async def test_a_session_belongs_to_the_caller_that_recorded_it_first(ledger):
    assert (await record(ledger, by="a", sessions=[session_row()])).stored == 1
    other = await record(ledger, by="b", sessions=[session_row(revision=2, turns=99)])
    assert [refused.code for refused in other.rejections] == [audit_pb2.REJECTION_CODE_CONFLICT]
    assert (await record(ledger, by="a", sessions=[session_row(revision=3, turns=3)])).stored == 1
    assert (await timeline(ledger, "session-1"))[0].turns == 3


@pytest.mark.parametrize(
    ("ranges", "gaps"),
    [
        ([(1, 3), (4, 4)], []),
        ([(1, 3), (7, 9)], [("p", 4, 6)]),
        ([(1, 3), (7, 9), (5, 5)], [("p", 4, 4), ("p", 6, 6)]),
        ([(1, 3), (7, 9), (2, 8)], []),
        ([(5, 5)], [("p", 1, 4)]),
        ([(3, 3), (1, 1), (9, 12), (7, 10)], [("p", 2, 2), ("p", 4, 6)]),
    ],
)
async def test_the_numbers_of_a_producer_that_never_came_are_its_gaps(ledger, store, ranges, gaps):
    for first, last in ranges:
        await record(ledger, rows=[audit_row()], producer_id="p", first_sequence=first, sequence=last)
    await record(ledger, rows=[audit_row()], producer_id="q", sequence=1)
    await record(ledger, rows=[audit_row()])
    assert await store.gaps(ledger) == gaps


async def test_batches_of_many_callers_at_once_are_each_answered_for_themselves(ledger):
    sent = [batch(*(audit_row(id=f"{n}-{each}") for each in range(n % 7)), sequence=n + 1) for n in range(100)]
    answers = await asyncio.gather(*map(ledger.record, sent))
    assert [(answer.sequence, answer.stored) for answer in answers] == [(n + 1, n % 7) for n in range(100)]
    assert await ledger.why_no_commit() == ""


async def test_a_closed_ledger_refuses_rows_at_once(store, tmp_path):
    ledger = store.open(tmp_path)
    await record(ledger, rows=[audit_row()])
    await ledger.close()
    with pytest.raises(StoreClosed):
        ledger.record(batch(audit_row()))


async def test_rows_that_were_refused_are_on_the_record_summed_up(ledger, store):
    """By producer and reason, so that nobody fills the disk with refusals."""
    bad = [audit_row(id=""), audit_row(tool_name="x" * 129)]
    for number in range(1, 51):
        await record(ledger, rows=[*bad, audit_row()], producer_id="p", sequence=number)
    await record(ledger, rows=bad[:1])
    found = await store.refusals(ledger)
    # In two, where a minute has ended meanwhile.
    assert len(found) <= 6
    sums: dict[tuple[str, str], int] = {}
    for producer, code, rows, first, last in found:
        sums[producer, code] = sums.get((producer, code), 0) + rows
        assert (first, last) == (0, 0) if not producer else 1 <= first <= last <= 50
    assert sums == {("p", "invalid"): 50, ("p", "too_large"): 50, ("", "invalid"): 1}
