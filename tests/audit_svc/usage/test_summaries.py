"""SummarizeUsage says what the rows say, whichever of rollups and rows it reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import questions_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.clock import SeenClock
from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from audit_svc.ledger.usage import Usage
from audit_svc.sql.usage import group_pages, named_usage, session_usage, summaries
from audit_svc.sql.usage.named_recount import named_differences, trait_differences
from audit_svc.sql.usage.named_usage import is_relabelling, move_relabelled
from audit_svc.sqlite.care.prune import Prune
from audit_svc.sqlite.read.database import BLOBS_AT_ONCE, SQLITE
from audit_svc.sqlite.usage import session_sums
from audit_svc.sqlite.usage.session_sums import session_differences
from audit_svc.sqlite.write.inserts import Inserts
from service_kit.paging import InvalidPage
from tests.audit_svc.asking import summarize_usage
from tests.audit_svc.empty import empty_in_memory
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question, record_request, session_row
from tests.audit_svc.usage import counted
from tests.audit_svc.usage.counted import (
    HOURS,
    MIDNIGHT,
    SESSIONS,
    SUMMED_ROWS,
    calls,
    expected,
    questions,
    requests,
)
from tests.support.examples import examples
from tests.support.pages import pages


@pytest.fixture(scope="module")
def empty() -> Iterator[apsw.Connection]:
    """A ledger without rows."""
    connection = empty_in_memory()
    yield connection
    connection.close()


@contextmanager
def holding(
    connection: apsw.Connection, rows: list[Any], costs: list[Any], summed: tuple[int, int] = (0, 0)
) -> Iterator[Inserts]:
    """Has the writer's statements write rows, which are gone afterwards: one half of them after the other.

    summed: how many calls and requests are added to the sums of sessions.
    """
    sessions = [session_row(id=name, labels=labels) for name, labels in SESSIONS.items()]
    inserts = Inserts(connection)
    connection.execute("BEGIN")
    try:
        for half in range(2):
            sent = record_request(tool_calls=rows[half::2], model_requests=costs[half::2], sessions=sessions)
            batch = read_batch(sent, NOW_MS)
            inserts.write([(batch, Usage(batch.tool_calls, batch.model_requests))], NOW_MS)
        add_to_sums(connection, summed)
        yield inserts
    finally:
        connection.execute("ROLLBACK")


def add_to_sums(connection: apsw.Connection, rows: tuple[int, int]) -> None:
    """Adds so many calls and requests to the sums of sessions, a few at a time."""
    for kind, count in zip(session_sums.KINDS, rows, strict=True):
        for some in (count // 2, count - count // 2):
            session_usage.sum_some(connection, kind, some)


@pytest.fixture(scope="module", autouse=True)
def sums_are_read() -> Iterator[None]:
    """However few rows there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summaries, "is_short", lambda *_: False)
        yield


@pytest.mark.long
@settings(max_examples=examples(80), deadline=None)
@given(
    rows=st.lists(calls, max_size=25),
    costs=st.lists(requests, max_size=10),
    summed=SUMMED_ROWS,
    asked=st.lists(questions, min_size=4, max_size=8),
)
def test_usage_is_what_the_rows_say_for_any_groups_filters_and_range(empty, rows, costs, summed, asked):
    with holding(empty, rows, costs, summed):
        for one in asked:
            assert list(summarize_usage(empty, one).groups) == expected(one, rows, costs)


def take_away(connection: apsw.Connection, before_ms: int, steps: int = 100) -> None:
    """Prunes within the open transaction: all of it, or the first steps."""
    prune = Prune(before_ms, "ada", SeenClock(None))
    for _ in range(steps):
        if prune.step(connection).done:
            break


@pytest.mark.long
@settings(max_examples=examples(60), deadline=None)
@given(
    rows=st.lists(calls, max_size=25),
    costs=st.lists(requests, max_size=10),
    before=HOURS,
    late=st.lists(calls, max_size=25),
    summed=SUMMED_ROWS,
    late_summed=SUMMED_ROWS,
    asked=st.lists(questions, min_size=4, max_size=8),
)
def test_usage_is_what_the_rows_say_that_a_prune_left_and_those_that_came_late(
    empty, rows, costs, before, late, summed, late_summed, asked
):
    # The call that came last stays, however old it is.
    rows = [*rows, audit_row(session_id="s4", tool_name="read", engine="ollama", model="")]
    with holding(empty, rows, costs, summed) as inserts:
        take_away(empty, before)
        inserts.read_mark()
        batch = read_batch(record_request(tool_calls=late), NOW_MS)
        inserts.write([(batch, Usage(batch.tool_calls, batch.model_requests))], NOW_MS)
        add_to_sums(empty, late_summed)
        assert session_differences(empty) == 0
        assert named_differences(empty, SQLITE) == trait_differences(empty, SQLITE) == 0
        left = [row for row in [*rows, *late] if row.created_at_ms >= before]
        costs = [row for row in costs if row.created_at_ms >= before]
        for one in asked:
            assert list(summarize_usage(empty, one).groups) == expected(one, left, costs)


@pytest.mark.parametrize("steps", [2, 100])
def test_what_a_prune_left_in_the_rows_or_in_the_rollups_alone_counts_as_gone(empty, steps: int):
    """In its middle the rollups still have what is gone from the rows, and after it the last row is in no rollup."""
    rows = [audit_row(created_at_ms=MIDNIGHT + minutes * 60_000) for minutes in (65, 5, 35, 50)]
    with holding(empty, rows, []):
        take_away(empty, MIDNIGHT + HOUR_MS, steps)
        for begin, end, calls in ((10, 75, 1), (40, 66, 1), (61, 75, 1), (66, 75, 0), (-60, 55, 0), (-60, 20, 0)):
            asked = question(
                questions_pb2.SummarizeUsageRequest,
                created_from_ms=MIDNIGHT + begin * 60_000,
                created_before_ms=MIDNIGHT + end * 60_000,
            )
            assert summarize_usage(empty, asked).groups[0].tool_calls == calls


@pytest.mark.long
def test_a_group_of_more_histograms_than_fit_in_a_value_is_whole(empty):
    rows = [audit_row(model=f"model-{number}", duration_ms=10**6 + number) for number in range(2 * BLOBS_AT_ONCE + 1)]
    limit = empty.limit(apsw.SQLITE_LIMIT_LENGTH, BLOBS_AT_ONCE * 1500)
    with holding(empty, rows, []):
        for asked in (questions_pb2.SummarizeUsageRequest(), questions_pb2.SummarizeUsageRequest(group_by=["tool"])):
            assert list(summarize_usage(empty, asked).groups) == expected(asked, rows, [])
    empty.limit(apsw.SQLITE_LIMIT_LENGTH, limit)


def test_a_question_is_answered_of_one_moment_while_rows_come_in(writer, database, reading):
    """Else a row that came in between would be in the rows that are read last, and not in the hours before."""
    asked = question(
        questions_pb2.SummarizeUsageRequest, created_from_ms=MIDNIGHT, created_before_ms=MIDNIGHT + HOUR_MS + 60_000
    )
    written = 0

    def record_one(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        nonlocal written
        if "tool_call" in sql and written < 5:
            written += 1
            rows = [audit_row(created_at_ms=MIDNIGHT), audit_row(created_at_ms=MIDNIGHT + HOUR_MS)]
            writer.record(read_batch(record_request(tool_calls=rows), NOW_MS)).result()
        return True

    reading.exec_trace = record_one
    assert summarize_usage(reading, asked).groups[0].tool_calls == 0
    assert written > 1


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 6])
def test_rows_that_no_sum_of_a_session_has_yet_are_counted(empty, rows):
    calls = [audit_row(session_id=f"s{1 + number % 3}", created_at_ms=MIDNIGHT + number) for number in range(6)]
    asked = questions_pb2.SummarizeUsageRequest(group_by=["label:user"])
    with holding(empty, calls, [], (rows, 0)):
        assert list(summarize_usage(empty, asked).groups) == expected(asked, calls, [])


@pytest.mark.long
def test_rows_that_are_summed_go_with_the_labels_that_their_session_gets(empty, monkeypatch):
    """They are moved some at a time, and until then nothing is answered from sums that have the old ones."""
    monkeypatch.setattr(named_usage, "ROWS_MOVED", 2)
    calls = [audit_row(session_id=f"s{1 + n % 3}", created_at_ms=MIDNIGHT + n * HOUR_MS // 3) for n in range(9)]
    costs = [cost_row(session_id="s1", created_at_ms=MIDNIGHT + HOUR_MS + n) for n in range(5)]
    asked = [
        question(
            questions_pb2.SummarizeUsageRequest,
            group_by=[f"label:{name}", *periods],
            created_from_ms=MIDNIGHT,
            created_before_ms=MIDNIGHT + DAY_MS,
        )
        for name in ("user", "team")
        for periods in ([], ["hour"])
    ]
    with holding(empty, calls, costs, (6, 5)) as inserts:
        changed = {"s1": {"user": "bob"}, "s2": {"user": "ada", "team": "blue"}, "s3": {"team": "red"}}
        for revision, labels in ((2, {"user": "eve"}), (3, None)):
            sessions = [
                session_row(id=name, revision=revision, labels=changed[name] if labels is None else labels)
                for name in changed
            ]
            batch = read_batch(record_request(sessions=sessions), NOW_MS)
            inserts.write([(batch, Usage(batch.tool_calls, batch.model_requests))], NOW_MS)
        assert is_relabelling(empty)
        monkeypatch.setattr(counted, "SESSIONS", SESSIONS | changed)
        while move_relabelled(empty, session_sums.KINDS):
            for one in asked:
                assert list(summarize_usage(empty, one).groups) == expected(one, calls, costs)
        add_to_sums(empty, (9, 9))
        for one in asked:
            assert list(summarize_usage(empty, one).groups) == expected(one, calls, costs)
        assert named_differences(empty, SQLITE) == 0


def test_what_sessions_without_a_label_used_is_not_read_from_the_sums_of_each_value(empty):
    """There may be thousands of them in each day."""
    calls = [audit_row(session_id=f"s{1 + n % 4}", created_at_ms=MIDNIGHT + n, duration_ms=n) for n in range(8)]
    costs = [cost_row(session_id=f"s{1 + n % 4}", created_at_ms=MIDNIGHT + n) for n in range(8)]
    with holding(empty, calls, costs, (8, 8)):
        empty.execute("DELETE FROM named_usage WHERE name = 'label:user'")
        for order in questions_pb2.UsageOrder.values():
            asked = question(
                questions_pb2.SummarizeUsageRequest,
                group_by=["label:user"],
                order=order,
                created_from_ms=MIDNIGHT,
                created_before_ms=MIDNIGHT + DAY_MS,
            )
            not_set = [group for group in expected(asked, calls, costs) if group.values == [""]]
            assert list(summarize_usage(empty, asked).groups) == not_set


def test_a_table_whose_rows_are_all_gone_begins_again_and_its_new_rows_are_counted(empty):
    """SQLite gives their numbers again, and sums of those that had them have gone with them."""
    asked = questions_pb2.SummarizeUsageRequest(group_by=["session"])
    with holding(empty, [], [cost_row(created_at_ms=MIDNIGHT - DAY_MS) for _ in range(3)], (0, 3)) as inserts:
        take_away(empty, MIDNIGHT)
        inserts.read_mark()
        new = [cost_row(created_at_ms=MIDNIGHT)]
        batch = read_batch(record_request(model_requests=new), NOW_MS)
        inserts.write([(batch, Usage(batch.tool_calls, batch.model_requests))], NOW_MS)
        assert list(summarize_usage(empty, asked).groups) == expected(asked, [], new)
        add_to_sums(empty, (9, 9))
        assert list(summarize_usage(empty, asked).groups) == expected(asked, [], new)


@pytest.mark.long
@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(calls, max_size=25),
    costs=st.lists(requests, max_size=10),
    summed=SUMMED_ROWS,
    asked=questions,
    size=st.integers(1, 4),
)
def test_pages_of_usage_hold_every_group_once_in_order(empty, rows, costs, summed, asked, size):
    with holding(empty, rows, costs, summed):
        asked.page_size = size
        found = [group for page in pages(partial(summarize_usage, empty), asked) for group in page.groups]
        assert found == expected(asked, rows, costs)


def test_a_question_of_too_many_groups_is_refused_with_what_to_do(empty, monkeypatch):
    """Those that an index has in order are paged through, however many there are."""
    monkeypatch.setattr(group_pages, "MAX_FOUND", 3)
    with holding(empty, [audit_row(id=f"r{number}", session_id=f"s{number}") for number in range(5)], [], (5, 0)):

        def ask(*groups: str, **fields: Any) -> list[list[str]]:
            request = question(questions_pb2.SummarizeUsageRequest, group_by=groups, page_size=2, **fields)
            return [list(group.values) for group in summarize_usage(empty, request).groups]

        by_cost = questions_pb2.USAGE_ORDER_COST
        for groups, order in ((["session", "tool"], None), (["session", "hour"], None), (["session"], by_cost)):
            with pytest.raises(InvalidRequest, match="more than 3 groups: ask for a shorter time") as refused:
                ask(*groups, order=order)
            assert refused.value.field == "group_by"
        assert ask("session") == [["s0"], ["s1"]]
        assert ask("session", "tool", session_id="s3") == [["s3", "bash"]]
        assert ask("tool") == [["bash"]]


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"group_by": ["colour"]}, "label:KEY"),
        ({"group_by": ["label:"]}, "label:KEY"),
        ({"group_by": ["tool", "tool"]}, "twice"),
        ({"group_by": [f"label:{n}" for n in range(9)]}, "more than 8"),
        ({"outcomes": [99]}, "does not know"),
        ({"order": 99}, "does not know"),
        ({"created_from_ms": 9, "created_before_ms": 3}, "no time is in the range"),
    ],
)
def test_what_cannot_be_summed_up_is_refused(empty, filters: dict[str, Any], said: str):
    with pytest.raises(InvalidRequest, match=said):
        summarize_usage(empty, question(questions_pb2.SummarizeUsageRequest, **filters))


def test_a_token_of_other_groups_is_refused(empty):
    rows = [audit_row(tool_name="bash"), audit_row(tool_name="read")]
    with holding(empty, rows, []):
        asked = questions_pb2.SummarizeUsageRequest(group_by=["engine", "tool"], page_size=1)
        token = summarize_usage(empty, asked).next_page_token
        with pytest.raises(InvalidPage):
            summarize_usage(empty, questions_pb2.SummarizeUsageRequest(group_by=["tool"], page_token=token))
