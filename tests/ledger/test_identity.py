"""A row is known by its id and by who recorded it: nobody unmakes another's, whatever they say."""

import asyncio
import contextlib
import copy
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.errors import AmbiguousId, NotFound
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question, session_row
from tests.ledger.asking import all_records, entry_row, record, timeline
from tests.ledger.conftest import STORES
from tests.support.examples import examples

CONFLICT = audit_pb2.REJECTION_CODE_CONFLICT
Calls, Sessions = questions_pb2.ListToolCallsRequest, questions_pb2.ListSessionRecordsRequest


async def calls(ledger: Any, **filters: Any) -> dict[tuple[str, str], Any]:
    """The tool calls, by (id, recorded_by)."""
    found = await all_records(ledger.list_tool_calls, question(Calls, page_size=2, **filters))
    by_key = {(one.tool_call.id, one.receipt.recorded_by): one.tool_call for one in found}
    assert len(by_key) == len(found)
    return by_key


async def sessions(ledger: Any) -> dict[tuple[str, str], Any]:
    """The sessions, by (id, recorded_by)."""
    found = await all_records(ledger.list_sessions, Sessions(page_size=2))
    return {(one.session.id, one.receipt.recorded_by): one.session for one in found}


async def test_a_row_under_anothers_id_stands_beside_it(ledger):
    forged, true = audit_row(id="x", tool_name="read", session_id="nobody"), audit_row(id="x", tool_name="bash")
    assert (await record(ledger, by="mallory", tool_calls=[forged])).stored == 1
    answer = await record(ledger, by="gateway", tool_calls=[true], model_requests=[cost_row(id="x")])
    assert (answer.stored, len(answer.rejections)) == (2, 0)
    assert await calls(ledger) == {("x", "mallory"): forged, ("x", "gateway"): true}
    assert await calls(ledger, recorded_by="gateway") == {("x", "gateway"): true}


async def test_a_receipt_tells_who_recorded_a_row_and_when_and_where_it_stands(ledger):
    for name in ("a", "b"):
        rows = {"tool_calls": [audit_row(id="c")], "model_requests": [cost_row(id="m")], "sessions": [session_row()]}
        await record(ledger, by=name, **rows)
    session, entries = await timeline(ledger, "session-1", recorded_by="b")
    receipts = [(entry.tool_call if entry.HasField("tool_call") else entry.model_request).receipt for entry in entries]
    for receipt in (*receipts, session.receipt):
        assert receipt.recorded_by == "b"
        assert receipt.position > 1
        assert receipt.recorded_at_ms > NOW_MS


async def test_a_session_that_two_recorded_must_be_asked_for_with_its_recorder(ledger):
    mine, other = session_row(turns=1, labels={"user": "ada"}), session_row(turns=9, labels={"user": "mallory"})
    assert (await record(ledger, by="a", sessions=[mine], tool_calls=[audit_row()])).stored == 2
    assert (await record(ledger, by="b", sessions=[other], tool_calls=[audit_row()])).stored == 2
    with pytest.raises(AmbiguousId) as refused:
        await timeline(ledger, "session-1")
    assert refused.value.metadata == {"recorded_by": "'a', 'b'"}
    assert (await timeline(ledger, "session-1", recorded_by="a"))[0].session == mine
    with pytest.raises(NotFound):
        await timeline(ledger, "session-1", recorded_by="")
    usage = questions_pb2.SummarizeUsageRequest
    with pytest.raises(AmbiguousId):
        await all_records(ledger.summarize_usage, question(usage, session_id="session-1"), (str,))
    grouped = question(usage, session_id="session-1", group_by=["recorded_by"])
    assert len(await all_records(ledger.summarize_usage, grouped, (str,))) == 2
    by_user = await all_records(
        ledger.summarize_usage, question(usage, group_by=["label:user", "recorded_by"]), (str, str)
    )
    assert [(list(group.values), group.tool_calls) for group in by_user] == [(["ada", "a"], 1), (["mallory", "b"], 1)]
    for name in ("a", "b"):
        wanted = question(usage, session_id="session-1", recorded_by=name)
        assert [group.tool_calls for group in await all_records(ledger.summarize_usage, wanted, ())] == [1]


async def test_a_timeline_has_what_all_recorded_in_the_session_unless_one_is_asked_for(ledger):
    """An application may record its calls in the session of a gateway; each entry tells by whom it is."""
    await record(ledger, by="gateway", sessions=[session_row()], tool_calls=[audit_row(id="a")])
    await record(ledger, by="application", tool_calls=[audit_row(id="b")], model_requests=[cost_row(id="c")])
    _, entries = await timeline(ledger, "session-1", size=2)
    assert {entry_row(entry).id for entry in entries} == {"a", "b", "c"}
    _, entries = await timeline(ledger, "session-1", recorded_by="gateway")
    assert [entry_row(entry).id for entry in entries] == ["a"]
    usage = question(questions_pb2.SummarizeUsageRequest, session_id="session-1")
    assert [group.tool_calls for group in await all_records(ledger.summarize_usage, usage, ())] == [2]


async def test_a_session_from_before_there_were_names_belongs_to_nobody_new(ledger):
    old = session_row(turns=1)
    await record(ledger, sessions=[old])
    assert (await record(ledger, by="b", sessions=[session_row(revision=9, turns=9)])).stored == 1
    assert (await sessions(ledger))["session-1", ""] == old


async def test_rows_on_their_way_when_a_list_is_turned_on_are_stored_once(ledger):
    sent: dict[str, Any] = {
        "tool_calls": [audit_row(id="a"), audit_row(id="b")],
        "model_requests": [cost_row(id="a")],
        "sessions": [session_row(labels={"user": "ada"})],
        "producer_id": "p",
        "first": 1,
        "last": 4,
    }
    assert (await record(ledger, **sent)).stored == 4
    again = await record(ledger, by="gateway", **sent)
    assert (again.stored, again.duplicates, len(again.rejections)) == (0, 4, 0)
    off = await record(ledger, by="gateway", tool_calls=[audit_row(id="c")])
    off = await record(ledger, tool_calls=[audit_row(id="c")])
    assert (off.stored, off.duplicates) == (0, 1)


async def test_a_producer_that_gets_a_name_goes_on_with_its_numbers(ledger, store):
    await record(ledger, producer_id="p", first=1, last=3)
    await record(ledger, by="gateway", producer_id="p", first=4, last=5)
    assert await store.gaps(ledger) == []


async def test_anothers_numbers_neither_make_nor_fill_a_gap(ledger, store):
    await record(ledger, by="gateway", producer_id="p", first=1, last=2)
    await record(ledger, by="gateway", producer_id="p", first=5, last=6)
    await record(ledger, by="mallory", producer_id="p", first=1, last=10)
    assert await store.gaps(ledger) == [("p", 3, 4)]
    await record(ledger, by="gateway", producer_id="p", first=7, last=7)
    assert await store.gaps(ledger) == [("p", 3, 4)]


async def test_a_session_with_a_known_revision_and_other_content_is_a_conflict(ledger):
    """An ack for what is not there would be a lie; only an earlier state of the same session is acked."""
    first, second = session_row(turns=1), session_row(revision=2, turns=2)
    await record(ledger, by="a", sessions=[second])
    assert (await record(ledger, by="a", sessions=[first])).duplicates == 1
    assert (await record(ledger, by="a", sessions=[second])).duplicates == 1
    others = [
        session_row(revision=2, turns=3),
        session_row(revision=2, turns=2, labels={"user": "mallory"}),
        session_row(revision=1, created_at_ms=NOW_MS - 999_999),
    ]
    answer = await record(ledger, by="a", sessions=others)
    assert [refused.code for refused in answer.rejections] == [CONFLICT] * 3
    assert (await timeline(ledger, "session-1"))[0].session == second


NAMES = ["", "a", "b", "c", "d"]
IDS = st.sampled_from(["x", "y"])
TIMES = st.integers(NOW_MS - 10_000, NOW_MS)
LABELS = st.dictionaries(st.sampled_from(["user", "team"]), st.sampled_from(["ada", "bob"]))
CALL = st.builds(audit_row, id=IDS, session_id=IDS, tool_name=st.sampled_from(["bash", "read"]), created_at_ms=TIMES)
REQUEST = st.builds(cost_row, id=IDS, session_id=IDS, input_tokens=st.integers(0, 2**40), created_at_ms=TIMES)
SESSION = st.builds(
    session_row,
    id=IDS,
    revision=st.integers(1, 3),
    turns=st.integers(0, 9),
    labels=LABELS,
    created_at_ms=TIMES,
    updated_at_ms=TIMES,
)
SAID = st.fixed_dictionaries(
    {
        "by": st.sampled_from(NAMES),
        "tool_calls": st.lists(CALL, max_size=3),
        "model_requests": st.lists(REQUEST, max_size=2),
        "sessions": st.lists(SESSION, max_size=2),
    },
    optional={"numbers": st.tuples(st.sampled_from(["p", "q"]), st.integers(1, 9), st.integers(0, 4))},
)


async def _holds(ledger: Any, prefix: str, rounds: list[dict[str, Any]]) -> None:
    acked: dict[tuple[str, str, str], Any] = {}
    for said in rounds:
        if numbers := said.pop("numbers", None):
            producer, first, more = numbers
            said |= {"producer_id": prefix + producer, "first": first, "last": first + more}
        for name in ("tool_calls", "model_requests", "sessions"):
            said[name] = [_prefixed(row, prefix) for row in said[name]]
        answer = await record(ledger, **said)
        refused = {(one.kind, one.index) for one in answer.rejections}
        for kind, name in enumerate(("tool_calls", "model_requests", "sessions"), 1):
            for place, row in enumerate(said[name]):
                key = (name, row.id, said["by"])
                if (kind, place) in refused:
                    assert key in acked, "a row was refused though its caller had recorded none of its id"
                elif name != "sessions" or key not in acked or acked[key].revision < row.revision:
                    acked[key] = row
    kept = dict[str, dict[tuple[str, str], Any]](tool_calls={}, model_requests={}, sessions={})
    for session_id in (prefix + "x", prefix + "y"):
        kept["tool_calls"] |= await calls(ledger, session_id=session_id)
        for by in NAMES:
            with contextlib.suppress(NotFound):
                session, entries = await timeline(ledger, session_id, recorded_by=by)
                kept["sessions"][session_id, by] = session.session
                requests = [entry_row(entry) for entry in entries if entry.HasField("model_request")]
                kept["model_requests"] |= {(row.id, by): row for row in requests}
    for (name, id_, by), row in acked.items():
        # Model requests are read by session: of those whose session is there under each name that they may stand under.
        if name == "model_requests" and not all((row.session_id, one) in kept["sessions"] for one in _names(by)):
            continue
        assert any(_is(kept[name].get((id_, one)), row) for one in _names(by))


def _is(found: Any, row: Any) -> bool:
    """Whether a row was found, or, of a session that stood without a name already, what it became since."""
    if found == row or not isinstance(row, audit_pb2.SessionRow):
        return bool(found == row)
    return found is not None and bool(found.revision > row.revision)


def _prefixed(row: Any, prefix: str) -> Any:
    row.id = prefix + row.id
    if "session_id" in row.DESCRIPTOR.fields_by_name:
        row.session_id = prefix + row.session_id
    return row


def _names(by: str) -> list[str]:
    """The names under which a row may stand: its caller's, or, alike, from before or after there was a list."""
    return [by, ""] if by else NAMES


@pytest.mark.long
@pytest.mark.parametrize("name", STORES)
def test_what_a_caller_had_acked_is_read_back_as_theirs_whatever_others_say(name, tmp_path):
    """Some 10,000 batches of five callers, one of them without a name, that use each other's ids and numbers."""
    number = itertools.count()
    with asyncio.Runner() as runner:
        ledger = STORES[name].open(tmp_path)

        @settings(max_examples=examples(80 if name == "lists" else 800), deadline=None)
        @given(rounds=st.lists(SAID, min_size=5, max_size=20))
        def holds(rounds: list[dict[str, Any]]) -> None:
            runner.run(_holds(ledger, f"{next(number)}-", copy.deepcopy(rounds)))

        try:
            holds()
        finally:
            runner.run(ledger.close())
