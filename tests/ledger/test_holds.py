"""Legal holds: what they keep from a prune and an erasure, and until when."""

from typing import Any

import pytest
from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import AlreadyExists, Held, InvalidRequest, NotFound, Overloaded
from audit_svc.ledger.erasing import Erasure
from audit_svc.ledger.holds import MAX_HOLDS, Act, Scope, filter_message, filter_text, placing_of
from audit_svc.ledger.protocol import Ledger
from audit_svc.ledger.pruning import Progress
from audit_svc.ledger.steps import HOUR_MS
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, session_row
from tests.ledger.asking import all_pages, record

MARK = NOW_MS // HOUR_MS * HOUR_MS - 5 * HOUR_MS
OLD = MARK - HOUR_MS
CALLS = [
    audit_row(id="a-1", session_id="a", principal="eve", tool_name="bash", created_at_ms=OLD),
    audit_row(id="a-2", session_id="a", tool_name="webfetch", created_at_ms=OLD + 1),
    audit_row(id="b-1", session_id="b", agent=common_pb2.Software(name="coder"), created_at_ms=OLD + 2),
    audit_row(id="new", session_id="c"),
]
COSTS = [
    cost_row(id="a-cost", session_id="a", principal="eve", error="x", created_at_ms=OLD),
    cost_row(id="b-cost", session_id="b", created_at_ms=OLD),
    cost_row(id="new", session_id="c"),
]
SESSIONS = [
    session_row(id="a", labels={"case": "4711"}, created_at_ms=OLD, updated_at_ms=OLD + 9),
    session_row(id="b", labels={}, created_at_ms=OLD, updated_at_ms=OLD + 9),
    session_row(id="empty", labels={"case": "4711"}, created_at_ms=OLD, updated_at_ms=OLD + 9),
]
CONTROL = audit_pb2.ControlRow(
    id="stop", kind=audit_pb2.CONTROL_KIND_STOP, principal="eve", scope="all", reason="x", at_ms=OLD
)


@pytest.fixture
async def aged(ledger: Ledger) -> Ledger:
    await record(ledger, tool_calls=CALLS, model_requests=COSTS, sessions=SESSIONS, controls=[CONTROL])
    return ledger


def calls(**fields: Any) -> administration_pb2.HoldFilter:
    return administration_pb2.HoldFilter(calls=questions_pb2.ToolCallFilter(**fields))


async def place(
    ledger: Ledger, held: administration_pb2.HoldFilter, name: str = "case 4711"
) -> administration_pb2.Hold:
    return await ledger.act_on_hold(Act(name, "ada", "a court asks", held))


async def prune(ledger: Ledger) -> Progress:
    counted = await ledger.count_prunable(MARK)
    *_, last = [progress async for progress in ledger.prune(MARK, "tests")]
    assert (last.removed, last.held) == (counted.removed, counted.held)
    return last


async def left(ledger: Ledger) -> tuple[set[str], set[str], set[str]]:
    found = await all_pages(ledger.list_tool_calls, questions_pb2.ListToolCallsRequest())
    requests = await all_pages(ledger.list_model_requests, questions_pb2.ListModelRequestsRequest())
    sessions = await all_pages(ledger.list_sessions, questions_pb2.ListSessionRecordsRequest())
    return tuple({row.id for row in rows} for rows in (found, requests, sessions))  # type: ignore[return-value]


HOLDS: list[tuple[administration_pb2.HoldFilter, set[str], set[str], set[str]]] = [
    (calls(session_id="a"), {"a-1", "a-2"}, {"a-cost"}, {"a"}),
    (calls(labels={"case": "4711"}), {"a-1", "a-2"}, {"a-cost"}, {"a", "empty"}),
    (calls(principal="eve"), {"a-1"}, {"a-cost"}, {"a"}),
    (calls(agent=common_pb2.Software(name="coder")), {"b-1"}, set(), {"b"}),
    (calls(tool_name="bash", session_id="a"), {"a-1"}, set(), {"a"}),
    (calls(outcomes=[common_pb2.OUTCOME_SUCCEEDED], session_id="b"), {"b-1"}, set(), {"b"}),
    (administration_pb2.HoldFilter(tool_glob="web*"), {"a-2"}, set(), {"a"}),
    (calls(created_from_ms=OLD + 1, created_before_ms=OLD + 3), {"a-2", "b-1"}, set(), {"a", "b"}),
    (calls(engine="openai"), set(), {"a-cost", "b-cost"}, {"a", "b"}),
    (calls(), {"a-1", "a-2", "b-1"}, {"a-cost", "b-cost"}, {"a", "b", "empty"}),
    (calls(session_id="nobody"), set(), set(), set()),
]


@pytest.mark.parametrize(("held", "kept_calls", "kept_requests", "kept_sessions"), HOLDS)
async def test_a_prune_leaves_what_is_held_and_tells_how_much(aged, held, kept_calls, kept_requests, kept_sessions):
    await place(aged, held)
    done = await prune(aged)
    found = await left(aged)
    assert (found[0] - {"new"}, found[1] - {"new"}, found[2]) == (kept_calls, kept_requests, kept_sessions)
    by_itself = kept_sessions if Scope.read(held).is_of_sessions else set()
    rows: list[Any] = [*CALLS, *COSTS]
    with_rows = {row.session_id for row in rows if row.id in kept_calls | kept_requests}
    assert done.held == len(kept_calls) + len(kept_requests) + len(by_itself - with_rows)
    await aged.act_on_hold(Act("case 4711", "bob", "it is settled"))
    again = await prune(aged)
    assert again.held == 0
    assert await left(aged) == ({"new"}, {"new"}, set())
    assert done.removed.tool_calls + again.removed.tool_calls == 3


async def test_what_is_held_is_not_erased_and_the_refusal_names_the_hold(aged):
    await place(aged, calls(principal="eve"))
    for which in ({"row_id": "a-1"}, {"session_id": "a"}, {"labels": (("case", "4711"),)}, {"row_id": "stop"}):
        wanted = Erasure("ada", "asked to", **which)
        with pytest.raises(Held, match="case 4711") as refused:
            _ = [one async for one in aged.erase(wanted)]
        assert refused.value.metadata == {"hold": "case 4711"}
        with pytest.raises(Held):
            await aged.count_erasable(wanted)
    *_, done = [one async for one in aged.erase(Erasure("ada", "asked to", row_id="a-2"))]
    assert done.erased.tool_calls == 1
    await aged.act_on_hold(Act("case 4711", "bob", "it is settled"))
    *_, done = [one async for one in aged.erase(Erasure("ada", "asked to", session_id="a"))]
    assert (done.erased.tool_calls, done.erased.model_requests) == (1, 1)


async def test_a_hold_is_on_the_record_with_who_placed_and_lifted_it_and_why(aged):
    placed = await place(aged, calls(session_id="a"))
    assert (placed.name, placed.placed_by, placed.reason, placed.filter) == (
        "case 4711", "ada", "a court asks", calls(session_id="a")
    )  # fmt: skip
    assert placed.placed_at_ms >= NOW_MS
    with pytest.raises(AlreadyExists):
        await place(aged, calls())
    assert await aged.list_holds(with_lifted=False) == [placed]
    lifted = await aged.act_on_hold(Act("case 4711", "bob", "it is settled"))
    assert (lifted.lifted_by, lifted.lift_reason, lifted.placed_by) == ("bob", "it is settled", "ada")
    with pytest.raises(NotFound):
        await aged.act_on_hold(Act("case 4711", "bob", "again"))
    assert await aged.list_holds(with_lifted=False) == []
    again = await place(aged, calls(session_id="b"))
    assert await aged.list_holds(with_lifted=True) == [lifted, again]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reason": "x"}, "name"),
        ({"name": "x" * 129, "reason": "x"}, "name"),
        ({"name": "x"}, "reason"),
        ({"name": "x", "reason": "x", "filter": calls(args_contain="x")}, "filter.calls.args_contain"),
        ({"name": "x", "reason": "x", "filter": calls(created_from_ms=-1)}, "filter.calls.created_from_ms"),
        ({"name": "x", "reason": "x", "filter": administration_pb2.HoldFilter(tool_glob="[a]")}, "filter.tool_glob"),
    ],
)
def test_a_hold_that_cannot_be_is_refused(fields, field):
    with pytest.raises(InvalidRequest) as refused:
        placing_of(administration_pb2.PlaceHoldRequest(**fields), "ada")
    assert refused.value.field == field


async def test_a_hold_beyond_their_number_can_be_placed_once_another_is_lifted(ledger):
    for number in range(MAX_HOLDS):
        await place(ledger, calls(), f"case {number}")
    with pytest.raises(Overloaded, match="lift one first"):
        await place(ledger, calls(), "one more")
    await ledger.act_on_hold(Act("case 0", "ada", "closed"))
    await place(ledger, calls(), "one more")


@pytest.mark.parametrize("held", [hold for hold, *_ in HOLDS])
def test_what_stands_on_record_of_a_filter_is_the_filter(held):
    assert filter_message(filter_text(held)) == held
