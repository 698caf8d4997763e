"""Who has sent rows, what never came of it, and what was refused: the same of every store."""

from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.ledger.query import query_of
from service_kit.paging import InvalidPage
from tests.audit_svc.samples import audit_row, question
from tests.ledger.asking import all_records, record

KEY = (str, str)


async def listed(ledger: Any, **conditions: Any) -> list[tuple[str, str, int, int, int]]:
    request = question(questions_pb2.ListProducersRequest, page_size=2, **conditions)
    found = await all_records(ledger.list_producers, request, KEY)
    return [(row.id, row.recorded_by, row.highest_sequence, row.missing, row.refused_rows) for row in found]


async def test_producers_are_listed_with_what_is_missing_and_refused(ledger):
    await record(ledger, producer_id="a", first=1, last=4)
    await record(ledger, producer_id="b", first=3, last=5, by="x")
    await record(ledger, producer_id="b", first=9, last=9, by="x")
    await record(ledger, producer_id="b", first=1, last=1, by="gw")
    await record(ledger, producer_id="c", first=1, last=1, tool_calls=[audit_row(tool_name="")])
    await record(ledger, tool_calls=[audit_row(id="")], by="gw")
    whole = [("a", "", 4, 0, 0), ("b", "gw", 1, 0, 0)]
    others = [("", "gw", 0, 0, 1), ("b", "x", 9, 5, 0), ("c", "", 1, 0, 1)]
    assert await listed(ledger) == sorted([*whole, *others])
    assert await listed(ledger, is_whole=True) == whole
    assert await listed(ledger, is_whole=False) == others
    assert await listed(ledger, recorded_by="gw") == [("", "gw", 0, 0, 1), ("b", "gw", 1, 0, 0)]
    assert await listed(ledger, recorded_by="", is_whole=False) == [("c", "", 1, 0, 1)]


async def test_of_what_agents_number_in_their_sessions_that_with_holes_is_listed(ledger):
    def numbers(session: str, first: int, last: int) -> audit_pb2.SessionNumbers:
        return audit_pb2.SessionNumbers(session_id=session, stream="events", first=first, last=last)

    await record(ledger, session_numbers=[numbers("s", 1, 3), numbers("t%", 1, 2), numbers("t%", 5, 6)])
    holes = [("session/t%/events", "", 6, 2, 0)]
    assert await listed(ledger) == holes
    assert await listed(ledger, session_id="t%") == holes
    assert await listed(ledger, session_id="t") == []
    await record(ledger, session_numbers=[numbers("t%", 3, 4)])
    assert await listed(ledger) == []


async def test_a_store_without_producers_lists_none(ledger):
    assert await listed(ledger) == []


def test_a_page_token_of_other_conditions_is_refused():
    request = question(questions_pb2.ListProducersRequest, is_whole=False)
    token = query_of(request, KEY).token(("a", ""))
    with pytest.raises(InvalidPage):
        query_of(question(questions_pb2.ListProducersRequest, is_whole=True, page_token=token), KEY)
