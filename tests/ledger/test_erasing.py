"""Erasing texts: what goes, what stays, and that nothing brings a text back."""

from typing import Any

import pytest
from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2

from audit_svc.errors import AmbiguousId, InvalidRequest, NotFound
from audit_svc.ledger.erased import ERASED
from audit_svc.ledger.erasing import ErasedCounts, Erasure, erasure_of
from audit_svc.ledger.holds import Act
from audit_svc.ledger.protocol import Ledger
from audit_svc.ledger.query import query_of
from audit_svc.ledger.steps import DAY_MS
from audit_svc.postgres.store import PostgresLedger
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question, row_of, session_row
from tests.ledger.asking import all_records, record, timeline

SECRET = "patient 4711"
DECISION = {"source": 1, "verdict": 2, "decided_by": "ada", "reason": f"{SECRET} agreed"}
CALL = audit_row(id="call", args_summary=f"path: {SECRET}", error=f"no {SECRET}", decision=DECISION)
OTHERS = [audit_row(id=f"other-{n}", session_id="other", args_summary=SECRET, error=SECRET) for n in range(3)]
COSTS = [cost_row(id="cost", error=f"too long: {SECRET}"), cost_row(id="fine"), cost_row(id="x", session_id="other")]
SESSIONS = [session_row(), session_row(id="other", labels={"user": "eve", "team": "engines"})]
CONTROL = audit_pb2.ControlRow(id="stop", kind=audit_pb2.CONTROL_KIND_STOP, scope="all", reason=SECRET, at_ms=NOW_MS)


@pytest.fixture
async def filled(ledger: Ledger) -> Ledger:
    await record(ledger, tool_calls=[CALL, *OTHERS], model_requests=COSTS, sessions=SESSIONS, controls=[CONTROL])
    return ledger


async def erase(ledger: Ledger, **which: Any) -> ErasedCounts:
    wanted = Erasure("ada", "asked to", **which)
    counted = await ledger.count_erasable(wanted)
    told = [progress async for progress in ledger.erase(wanted)]
    assert [progress.done for progress in told] == [False] * (len(told) - 1) + [True]
    assert told[-1].erased == counted.erased
    # What it writes ahead, PostgreSQL keeps as long as it likes.
    assert told[-1].left_in_wal == (isinstance(ledger, PostgresLedger) and told[-1].erased.rows > 0)
    return told[-1].erased


async def calls(ledger: Ledger, **filters: Any) -> list[Any]:
    request = questions_pb2.ListToolCallsRequest(filter=questions_pb2.ToolCallFilter(**filters))
    return await all_records(ledger.list_tool_calls, request)


async def test_a_row_without_its_texts_has_all_else_and_says_so(filled):
    assert await erase(filled, row_id="call") == ErasedCounts(tool_calls=1)
    (found,) = await calls(filled, session_id="session-1")
    wanted = audit_pb2.AuditRow()
    wanted.CopyFrom(CALL)
    wanted.args_summary = wanted.error = wanted.decision.reason = ERASED
    assert (row_of(found), found.receipt.erased) == (wanted, True)
    assert [one.receipt.erased for one in await calls(filled, session_id="other")] == [False] * 3
    assert await erase(filled, row_id="call") == ErasedCounts()


async def test_an_erased_text_is_not_found_and_an_error_stays_one(filled):
    before = await filled.summarize_usage(query_of(questions_pb2.SummarizeUsageRequest()))
    assert len(await calls(filled, args_contain=SECRET)) == 4
    await erase(filled, session_id="other")
    assert [row_of(one).id for one in await calls(filled, args_contain=SECRET)] == ["call"]
    assert len(await calls(filled, has_error=True)) == 4
    after = await filled.summarize_usage(query_of(questions_pb2.SummarizeUsageRequest()))
    assert after.rows == before.rows


async def test_all_of_a_session_and_of_sessions_with_labels(filled):
    assert await erase(filled, session_id="session-1") == ErasedCounts(tool_calls=1, model_requests=1)
    _, entries = await timeline(filled, "session-1")
    by_id = {entry.model_request.model_request.id or entry.tool_call.tool_call.id: entry for entry in entries}
    assert by_id["cost"].model_request.model_request.error == ERASED
    assert by_id["cost"].model_request.receipt.erased
    assert not by_id["fine"].model_request.receipt.erased  # it had none
    assert await erase(filled, labels=(("team", "engines"), ("user", "eve"))) == ErasedCounts(tool_calls=3)
    assert await erase(filled, labels=(("team", "engines"),)) == ErasedCounts()
    assert await erase(filled, labels=(("team", "nobody"),)) == ErasedCounts()


async def test_an_act_of_control_loses_its_reason(filled):
    assert await erase(filled, row_id="stop") == ErasedCounts(controls=1)
    by_id = question(questions_pb2.ListControlsRequest, id="stop")
    (found,) = await all_records(filled.list_controls, by_id)
    other = question(questions_pb2.ListControlsRequest, id="other")
    assert await all_records(filled.list_controls, other) == []
    assert (found.control.reason, found.control.scope, found.receipt.erased) == (ERASED, "all", True)
    again = await record(filled, controls=[CONTROL])
    assert (again.stored, again.duplicates) == (0, 1)


async def test_a_row_that_is_sent_again_is_a_duplicate_and_its_text_does_not_come_back(filled):
    await erase(filled, row_id="call")
    await erase(filled, session_id="session-1")
    again = await record(filled, tool_calls=[CALL, OTHERS[0]], model_requests=COSTS)
    assert (again.stored, again.duplicates, len(again.rejections)) == (0, 5, 0)
    under_a_name = await record(filled, by="gateway", tool_calls=[CALL, OTHERS[0]], model_requests=COSTS)
    assert (under_a_name.stored, under_a_name.duplicates) == (0, 5)
    assert [row_of(one).args_summary for one in await calls(filled, session_id="session-1")] == [ERASED]
    other = audit_row(**{name.name: value for name, value in CALL.ListFields() if name.name != "duration_ms"})
    other.duration_ms = CALL.duration_ms + 1
    refused = await record(filled, tool_calls=[other])
    assert [one.code for one in refused.rejections] == [audit_pb2.REJECTION_CODE_CONFLICT]


async def test_what_is_not_there_or_is_of_several_is_refused(filled):
    with pytest.raises(NotFound):
        await erase(filled, row_id="nobody")
    with pytest.raises(NotFound):
        await erase(filled, session_id="nobody")
    await record(filled, by="one", tool_calls=[audit_row(id="call", session_id="theirs")])
    with pytest.raises(AmbiguousId):
        await erase(filled, row_id="call")
    assert await erase(filled, row_id="call", recorded_by="one") == ErasedCounts(tool_calls=1)
    assert len(await calls(filled, args_contain=SECRET)) == 4


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reason": "x"}, "target"),
        ({"row": {"id": "call"}}, "reason"),
        ({"row": {"id": "call"}, "reason": "x" * 257}, "reason"),
        ({"row": {"id": "call"}, "reason": "a\nb"}, "reason"),
        ({"row": {}, "reason": "x"}, "row.id"),
        ({"session": {}, "reason": "x"}, "session.id"),
        ({"labels": {}, "reason": "x"}, "labels.labels"),
    ],
)
def test_a_request_that_names_no_rows_or_no_reason_is_refused(fields, field):
    with pytest.raises(InvalidRequest) as refused:
        erasure_of(administration_pb2.EraseRequest(**fields), "ada")
    assert refused.value.field == field


async def test_texts_are_erased_for_their_age_whenever_their_rows_came(ledger):
    old, older = NOW_MS - 40 * DAY_MS, NOW_MS - 60 * DAY_MS

    async def by_age(days: int) -> ErasedCounts:
        return await erase(ledger, before_ms=NOW_MS - days * DAY_MS)

    first = [audit_row(id="older", created_at_ms=older), audit_row(id="old", created_at_ms=old), audit_row(id="new")]
    control = audit_pb2.ControlRow(id="stop", kind=audit_pb2.CONTROL_KIND_STOP, reason=SECRET, at_ms=older)
    costs = [cost_row(id="c", error="x", created_at_ms=older), cost_row(id="fine", created_at_ms=older)]
    await record(ledger, tool_calls=first, model_requests=costs, controls=[control])
    assert await by_age(50) == ErasedCounts(tool_calls=1, model_requests=1, controls=1)
    assert await by_age(50) == ErasedCounts()
    await record(ledger, tool_calls=[audit_row(id="late", created_at_ms=older)])
    assert await by_age(30) == ErasedCounts(tool_calls=2)
    assert {row_of(one).id: one.receipt.erased for one in await calls(ledger)} == {
        "older": True, "late": True, "old": True, "new": False
    }  # fmt: skip
    assert await erase(ledger) == ErasedCounts()


async def test_what_is_held_keeps_its_texts_however_old_it_is_until_the_hold_is_lifted(ledger):
    old = [audit_row(id=name, session_id=name, created_at_ms=NOW_MS - 40 * DAY_MS) for name in ("held", "free")]
    await record(ledger, tool_calls=old)
    held = administration_pb2.HoldFilter(calls=questions_pb2.ToolCallFilter(session_id="held"))
    await ledger.act_on_hold(Act("case", "ada", "x", held))
    wanted = Erasure("retention", "older", before_ms=NOW_MS - 30 * DAY_MS)
    *_, done = [one async for one in ledger.erase(wanted)]
    assert done.erased == ErasedCounts(tool_calls=1)
    assert {row_of(one).id: one.receipt.erased for one in await calls(ledger)} == {"held": False, "free": True}
    await ledger.act_on_hold(Act("case", "ada", "settled"))
    *_, done = [one async for one in ledger.erase(wanted)]
    assert done.erased == ErasedCounts(tool_calls=1)
