"""Sessions of agents that send no session rows: the ledger knows them by their calls and requests."""

from itertools import permutations
from typing import Any

import pytest
from onrecord.audit.v1 import questions_pb2
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
