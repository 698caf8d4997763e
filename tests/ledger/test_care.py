"""Pruning, and what a store may lack."""

import hashlib

import grpc
import pytest
from onrecord.audit.v1 import administration_pb2, administration_pb2_grpc, audit_pb2, questions_pb2

from audit_svc.errors import AlreadyRunning, Unsupported
from audit_svc.ledger.protocol import Ledger
from audit_svc.ledger.pruning import Progress
from audit_svc.ledger.query import filter_of, query_of
from audit_svc.ledger.steps import HOUR_MS
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, row_of, session_row
from tests.audit_svc.serving import serving
from tests.ledger.asking import all_pages, record

MARK = NOW_MS // HOUR_MS * HOUR_MS - 5 * HOUR_MS
OLD = [audit_row(session_id="old", created_at_ms=MARK - n, error=None if n % 3 else "broken") for n in range(1, 31)]
NEW = [audit_row(session_id="long", created_at_ms=MARK + n) for n in range(20)]
COSTS = [cost_row(session_id="old", created_at_ms=MARK - 1), cost_row(session_id="long", created_at_ms=MARK)]
SESSIONS = [
    session_row(id="old", created_at_ms=MARK - HOUR_MS, updated_at_ms=MARK - 1),
    session_row(id="long", created_at_ms=MARK - HOUR_MS, updated_at_ms=MARK - 1),
    session_row(id="new", created_at_ms=MARK, updated_at_ms=MARK),
]


@pytest.fixture
async def aged(ledger):
    await record(ledger, tool_calls=[*OLD, *NEW], model_requests=COSTS, sessions=SESSIONS)
    await ledger.log_queries(
        [
            administration_pb2.QueryRow(method="Backup", filters="{}", status="OK", created_at_ms=at)
            for at in (MARK - 1, MARK)
        ]
    )
    return ledger


async def prune(ledger: Ledger) -> Progress:
    progresses = [progress async for progress in ledger.prune(MARK, "tests")]
    assert [progress.done for progress in progresses] == [False] * (len(progresses) - 1) + [True]
    return progresses[-1]


async def test_a_prune_removes_what_it_counted_and_nothing_else(aged):
    counted = await aged.count_prunable(MARK)
    assert (counted.removed.tool_calls, counted.removed.errors) == (30, 10)
    assert (counted.removed.model_requests, counted.removed.sessions) == (1, 1)
    assert (await prune(aged)).removed == counted.removed
    assert await aged.unfinished_prune() is None
    left = await all_pages(aged.list_tool_calls, questions_pb2.ListToolCallsRequest())
    assert left == NEW[::-1]
    sessions = await all_pages(aged.list_sessions, questions_pb2.ListSessionRecordsRequest())
    assert [row.id for row in sessions] == ["new", "long"]
    assert len(await all_pages(aged.list_queries, administration_pb2.ListQueriesRequest(), (int, int))) == 1
    assert (await aged.count_prunable(MARK)).removed.tool_calls == 0


async def test_usage_forgets_what_was_pruned(aged):
    await prune(aged)
    page = await aged.summarize_usage(query_of(questions_pb2.SummarizeUsageRequest()))
    assert (page.rows[0].tool_calls, page.rows[0].usage.requests, page.rows[0].tool_call_errors) == (20, 1, 0)


async def test_what_was_pruned_does_not_come_back_and_a_session_that_is_there_goes_on(aged):
    await prune(aged)
    again = await record(
        aged, tool_calls=[OLD[0], NEW[0], audit_row()], model_requests=COSTS[:1], sessions=SESSIONS[:1]
    )
    assert (again.stored, again.duplicates) == (1, 1)
    assert [refused.code for refused in again.rejections] == [audit_pb2.REJECTION_CODE_TOO_OLD] * 3
    goes_on = session_row(id="long", revision=2, created_at_ms=MARK - HOUR_MS, updated_at_ms=MARK - 1)
    assert (await record(aged, sessions=[goes_on])).stored == 1


async def test_one_prune_at_a_time(aged):
    first = aged.prune(MARK, "tests")
    await anext(first)
    with pytest.raises(AlreadyRunning):
        await anext(aged.prune(MARK, "tests"))
    async for _ in first:
        pass
    assert (await prune(aged)).removed.tool_calls == 0


async def test_a_tail_misses_nothing_that_is_committed_after_a_prune(aged):
    await prune(aged)
    position = await aged.last_position()
    new = [audit_row() for _ in range(3)]
    await record(aged, tool_calls=new)
    tail = await aged.tool_calls_after(filter_of(questions_pb2.TailToolCallsRequest()), position)
    assert list(map(row_of, tail.rows)) == new


async def test_a_backup_is_sent_whole_or_refused_as_unimplemented_with_a_sentence(aged):
    async with serving(aged) as (address, _), grpc.aio.insecure_channel(address) as channel:
        parts, refusal = [], None
        try:
            stub = administration_pb2_grpc.AdministrationServiceStub(channel)
            async for part in stub.Backup(administration_pb2.BackupRequest()):
                parts.append(part)
        except grpc.aio.AioRpcError as error:
            refusal = error
        if refusal is None:
            data = b"".join(part.data for part in parts)
            assert len(data) == parts[0].total_bytes
            assert hashlib.sha256(data).hexdigest() == parts[-1].sha256
        else:
            assert refusal.code() is grpc.StatusCode.UNIMPLEMENTED
            assert len(refusal.details() or "") > 20
            with pytest.raises(Unsupported):
                await aged.back_up()
