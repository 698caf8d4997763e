"""What becomes of each row that is recorded, whatever the store."""

import asyncio
from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import StoreClosed
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.protocol import Ledger
from audit_svc.ledger.query import query_of
from recording.row_version import ROW_VERSION
from tests.audit_svc.samples import NOW_MS, audit_row, batch, cost_row, session_row
from tests.ledger.asking import all_pages, entry_row, record, timeline


async def rows_of(ledger: Ledger) -> list[Any]:
    return await all_pages(ledger.list_tool_calls, questions_pb2.ListToolCallsRequest())


async def test_rows_with_and_without_messages_stand_side_by_side_and_a_message_is_content_like_any_field(ledger):
    """A batch leaves out the columns of messages that none of its rows sets: that must not hide a difference."""
    agent = common_pb2.Software(name="coder", version="2")
    decision = audit_row(id="decided").decision
    decision.CopyFrom(common_pb2.Decision(verdict=common_pb2.VERDICT_ALLOWED, rule="reads"))
    bare = audit_row(id="bare")
    for field in ("agent", "mcp_server", "args_digest", "decision"):
        bare.ClearField(field)
    other = audit_row(id="other")
    other.CopyFrom(bare)
    other.MergeFrom(audit_pb2.AuditRow(id="other", agent=agent, mcp_server=agent, decision=decision))
    assert (await record(ledger, tool_calls=[bare])).stored == 1
    assert (await record(ledger, tool_calls=[other])).stored == 1
    assert {row.id: row for row in await rows_of(ledger)} == {"bare": bare, "other": other}
    bare_again = audit_pb2.AuditRow()
    bare_again.CopyFrom(bare)
    bare_again.agent.CopyFrom(agent)
    other_again = audit_pb2.AuditRow()
    other_again.CopyFrom(bare)
    other_again.id = "other"
    for known in (bare, other):
        assert (await record(ledger, tool_calls=[known])).duplicates == 1
    for changed in (bare_again, other_again):
        (refused,) = (await record(ledger, tool_calls=[changed])).rejections
        assert (refused.id, refused.code) == (changed.id, audit_pb2.REJECTION_CODE_CONFLICT)


async def test_each_row_is_stored_a_duplicate_a_conflict_or_rejected_and_none_costs_its_neighbours(ledger):
    known = audit_row(id="known")
    assert (await record(ledger, tool_calls=[known])).stored == 1
    sent = [
        audit_row(id="first"),
        audit_row(id=""),
        known,
        audit_row(id="known", tool_name="other"),
        audit_row(id="late", created_at_ms=1),
        audit_row(id="last"),
    ]
    response = await record(ledger, tool_calls=sent, producer_id="p", last=9)
    assert (response.range.last, response.stored, response.duplicates) == (9, 2, 1)
    codes = [(refused.index, refused.id, refused.code, refused.field) for refused in response.rejections]
    assert codes == [
        (1, "", audit_pb2.REJECTION_CODE_INVALID, "id"),
        (3, "known", audit_pb2.REJECTION_CODE_CONFLICT, ""),
        (4, "late", audit_pb2.REJECTION_CODE_INVALID, "created_at_ms"),
    ]
    assert {row.id: row for row in await rows_of(ledger)} == {"known": known, "first": sent[0], "last": sent[5]}


async def test_a_batch_that_is_sent_again_stores_nothing(ledger):
    sent: dict[str, Any] = {
        "tool_calls": [audit_row(), audit_row()],
        "model_requests": [cost_row()],
        "sessions": [session_row()],
    }
    assert (await record(ledger, **sent)).stored == 4
    again = await record(ledger, **sent)
    assert (again.stored, again.duplicates, len(again.rejections)) == (0, 4, 0)


async def test_of_an_id_that_comes_twice_in_a_batch_the_first_row_stands(ledger):
    first, same, other = audit_row(id="a"), audit_row(id="a"), audit_row(id="a", error="broken")
    response = await record(ledger, tool_calls=[first, same, other], model_requests=[cost_row(id="a")])
    assert (response.stored, response.duplicates, len(response.rejections)) == (2, 1, 1)
    assert await rows_of(ledger) == [first]


async def test_every_field_comes_back_as_it_was_sent(ledger):
    """Also what is null in a table: an exit code of 0 is another thing than none."""
    call = audit_row(
        exit_code=0, http_status=503, error="broke", result_truncated=True, times_observed=True, shadow=True,
        trace_id="0" * 32, args_summary="ü" * 2048, session_id="s",
    )  # fmt: skip
    outcome = common_pb2.OUTCOME_INTERRUPTED
    bare = audit_pb2.AuditRow(
        id="bare", tool_name="t", created_at_ms=NOW_MS, session_id="s", engine="e", outcome=outcome
    )
    cost = cost_row(
        session_id="s", cost_micros=0, error="broke", usage_incomplete=True, context_exceeded=True, cost_reported=True
    )
    unpriced = audit_pb2.CostRow(id="bare", created_at_ms=NOW_MS, session_id="s", engine="e")
    numbers = {field.name: 2**62 - n for n, field in enumerate(common_pb2.Usage.DESCRIPTOR.fields)}
    session = session_row(id="s", usage=numbers, labels={"": "", "ключ": "значение"} | {"user": "ada"})
    assert (
        await record(ledger, tool_calls=[call, bare], model_requests=[cost, unpriced], sessions=[session])
    ).stored == 5
    found, entries = await timeline(ledger, "s")
    assert found.session == session
    calls, requests = ([entry for entry in entries if entry.HasField(kind)] for kind in ("tool_call", "model_request"))
    assert {entry_row(entry).id: entry_row(entry) for entry in calls} == {call.id: call, "bare": bare}
    assert {entry_row(entry).id: entry_row(entry) for entry in requests} == {cost.id: cost, "bare": unpriced}
    for entry in entries:
        row = entry_row(entry)
        assert (entry.at_ms, entry.session_id, entry.turn_id) == (row.created_at_ms, "s", row.turn_id)


async def test_the_highest_revision_of_a_session_stands_with_its_labels(ledger):
    revisions = [session_row(revision=n, turns=n, labels={"n": str(n), f"only-{n}": "x"}) for n in range(1, 5)]
    stored = [(await record(ledger, sessions=[revisions[n]])).stored for n in (1, 0, 1, 3, 2)]
    assert stored == [1, 0, 0, 1, 0]
    assert (await timeline(ledger, "session-1"))[0].session == revisions[3]


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
        await record(ledger, tool_calls=[audit_row()], producer_id="p", first=first, last=last)
    await record(ledger, tool_calls=[audit_row()], producer_id="q", last=1)
    await record(ledger, tool_calls=[audit_row()])
    assert await store.gaps(ledger) == gaps


async def test_batches_of_many_callers_at_once_are_each_answered_for_themselves(ledger):
    sent = [batch(*(audit_row(id=f"{n}-{each}") for each in range(n % 7)), last=n + 1) for n in range(100)]
    answers = await asyncio.gather(*map(ledger.record, sent))
    assert [(answer.range.last, answer.stored) for answer in answers] == [(n + 1, n % 7) for n in range(100)]
    assert await ledger.why_no_commit() == ""


async def test_a_closed_ledger_refuses_rows_at_once(store, tmp_path):
    ledger = store.open(tmp_path)
    await record(ledger, tool_calls=[audit_row()])
    await ledger.close()
    with pytest.raises(StoreClosed):
        ledger.record(batch(audit_row()))


async def test_rows_that_were_refused_are_on_the_record_summed_up(ledger, store):
    """By producer and reason, so that nobody fills the disk with refusals."""
    bad = [audit_row(id=""), audit_row(tool_name="x" * 129)]
    for number in range(1, 51):
        await record(ledger, tool_calls=[*bad, audit_row()], producer_id="p", last=number)
    await record(ledger, tool_calls=bad[:1])
    found = await store.refusals(ledger)
    # In two, where a minute has ended meanwhile.
    assert len(found) <= 6
    sums: dict[tuple[str, str], int] = {}
    for producer, code, rows, first, last in found:
        sums[producer, code] = sums.get((producer, code), 0) + rows
        assert (first, last) == (0, 0) if not producer else 1 <= first <= last <= 50
    assert sums == {("p", "invalid"): 50, ("p", "too_large"): 50, ("", "invalid"): 1}


async def test_a_size_that_nobody_told_is_not_0_and_counts_nothing(ledger):
    unknown, empty = audit_row(session_id="s", duration_ms=1), audit_row(session_id="s", result_bytes=0)
    unknown.ClearField("result_bytes")
    assert (await record(ledger, tool_calls=[unknown, empty])).stored == 2
    found = {row.id: row.HasField("result_bytes") for row in await rows_of(ledger)}
    assert found == {unknown.id: False, empty.id: True}
    (group,) = (await ledger.summarize_usage(query_of(questions_pb2.SummarizeUsageRequest()))).rows
    assert (group.tool_calls, group.result_bytes) == (2, 0)


async def test_in_rows_of_before_a_size_that_is_not_there_is_0(ledger):
    row = audit_row(session_id="s")
    row.ClearField("result_bytes")
    for version in (3, 3, ROW_VERSION):
        request = audit_pb2.RecordRequest(row_version=version, tool_calls=[row])
        response = await ledger.record(read_batch(request, NOW_MS))
        row.result_bytes = 0
    assert (response.stored, response.duplicates) == (0, 1)
