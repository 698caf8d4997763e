"""Sessions of agents that send no session rows: the ledger knows them by their calls and requests."""

from itertools import permutations
from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import NotFound
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, session_row
from tests.ledger.asking import all_pages, entry_row, record, timeline

OTLP, HOOK, OWN = common_pb2.SOURCE_OTLP, common_pb2.SOURCE_HOOK, common_pb2.SOURCE_OWN_LOOP
CALL = audit_row(id="call", session_id="s", engine="claude", model="", source=OTLP, created_at_ms=NOW_MS + 10)
REQUEST = cost_row(id="r-1", session_id="s", engine="claude", source=OTLP, created_at_ms=NOW_MS, duration_ms=5)
UNPRICED = cost_row(
    id="r-2", session_id="s", engine="claude", model="big", source=HOOK, created_at_ms=NOW_MS + 50, cost_micros=None
)
SENT: dict[str, dict[str, Any]] = {
    "call": {"tool_calls": [CALL]},
    "r-1": {"model_requests": [REQUEST, REQUEST]},
    "r-2": {"model_requests": [UNPRICED]},
}


async def sessions(ledger: Any) -> list[Any]:
    return await all_pages(ledger.list_sessions, questions_pb2.ListSessionRecordsRequest())


@pytest.mark.parametrize("order", [*permutations(SENT)])
async def test_each_row_counts_once_in_its_session_in_whatever_order_it_comes_and_however_often(ledger, order):
    for _ in range(2):
        for row_id in order:
            await record(ledger, **SENT[row_id])
    (session,) = await sessions(ledger)
    assert (session.id, session.revision, session.engine, session.model) == ("s", 0, "claude", "big")
    assert (session.status, session.turns, session.tool_calls) == (common_pb2.SESSION_STATUS_UNSPECIFIED, 0, 1)
    assert session.usage == common_pb2.Usage(
        requests=2, input_tokens=200, output_tokens=40, known_cost_micros=42, unpriced_requests=1
    )
    assert (session.created_at_ms, session.updated_at_ms) == (NOW_MS, NOW_MS + 950)
    shown, entries = await timeline(ledger, "s")
    assert shown.session == session
    assert {entry_row(entry).id for entry in entries} == {"call", "r-1", "r-2"}


async def test_a_session_that_its_producer_keeps_is_the_producers_word_alone(ledger):
    await record(ledger, tool_calls=[audit_row(session_id="own", source=OWN), audit_row(session_id="old")])
    with pytest.raises(NotFound):
        await timeline(ledger, "own")
    await record(ledger, tool_calls=[audit_row(session_id="kept", source=OTLP)])
    kept = session_row(id="kept", tool_calls=7)
    assert (await record(ledger, sessions=[kept])).stored == 1
    await record(ledger, tool_calls=[audit_row(session_id="kept", source=OTLP)])
    assert await sessions(ledger) == [kept]


def told(labels: dict[str, str], at_ms: int = 0, **more: Any) -> audit_pb2.SessionRow:
    """What a producer that keeps no sessions says of one."""
    at = {"created_at_ms": NOW_MS + at_ms, "updated_at_ms": NOW_MS + at_ms}
    return audit_pb2.SessionRow(id="s", engine="claude", labels=labels, **{**at, **more})


@pytest.mark.parametrize("is_first", [True, False])
async def test_labels_come_before_the_rows_or_after_them_and_change_no_sum(ledger, is_first):
    labels: dict[str, Any] = {"sessions": [told({"repository": "r", "branch": "main"}, tool_calls=9, turns=7)]}
    for fields in (labels, SENT["call"]) if is_first else (SENT["call"], labels):
        assert (await record(ledger, **fields)).stored == 1
    again = await record(ledger, **labels)
    assert (again.stored, again.duplicates) == (0, 1)
    (session,) = await sessions(ledger)
    assert dict(session.labels) == {"repository": "r", "branch": "main"}
    assert (session.tool_calls, session.turns, session.revision, session.engine) == (1, 0, 0, "claude")
    assert session.status == common_pb2.SESSION_STATUS_UNSPECIFIED


async def test_of_two_values_of_a_label_the_later_one_stands_in_whatever_order_they_come(ledger):
    first, later = told({"branch": "main", "repository": "r"}), told({"branch": "topic"}, 5)
    for row in (later, first, later, first):
        await record(ledger, sessions=[row])
    (session,) = await sessions(ledger)
    assert dict(session.labels) == {"branch": "topic", "repository": "r"}


async def test_labels_change_no_session_that_its_producer_keeps_and_are_bounded(ledger):
    kept = session_row(id="s", labels={"user": "ada"})
    await record(ledger, sessions=[kept])
    assert (await record(ledger, sessions=[told({"branch": "main"})])).stored == 0
    assert await sessions(ledger) == [kept]
    for start in (0, 20):
        await record(ledger, by="other", sessions=[told({str(n): "x" for n in range(start, start + 20)})])
    assert sorted(len(session.labels) for session in await sessions(ledger)) == [1, 32]


async def test_rows_without_a_session_make_none_and_other_callers_one_of_their_own(ledger):
    rows = [audit_row(session_id="", source=OTLP), audit_row(session_id="s", source=OTLP)]
    await record(ledger, tool_calls=rows, by="one")
    await record(ledger, tool_calls=[audit_row(session_id="s", source=OTLP) for _ in range(2)], by="two")
    assert sorted(session.tool_calls for session in await sessions(ledger)) == [1, 2]


async def test_the_largest_numbers_that_rows_can_have_cost_no_row(ledger):
    most = {"input_tokens": 2**63 - 1, "cost_micros": 2**63 - 1, "duration_ms": 2**63 - 1}
    rows = [cost_row(session_id="s", source=OTLP, created_at_ms=253_402_300_799_999, **most) for _ in range(3)]
    for row in rows:
        assert (await record(ledger, model_requests=[row])).stored == 1
    (session,) = await sessions(ledger)
    assert session.usage.requests == 3
