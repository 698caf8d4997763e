"""Whoever else calls the ledger has turns while a large batch is read."""

import asyncio

from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import MAX_ROWS, batch_in_steps, read_batch
from audit_svc.servicer import FEW_ROWS, _admit
from tests.audit_svc.samples import audit_row
from tests.support.others import count_ways_given, each_look_takes

NOW_MS = 1_800_000_000_000


def request(rows: int, **changed: object) -> audit_pb2.RecordRequest:
    return audit_pb2.RecordRequest(row_version=1, tool_calls=[audit_row(**changed) for _ in range(rows)])


def test_no_step_is_of_many_rows():
    for changed in ({}, {"tool_name": ""}):  # good rows, and such as are refused one by one
        steps = sum(1 for _ in batch_in_steps(request(MAX_ROWS, **changed), NOW_MS))
        assert steps >= MAX_ROWS // 25  # each row is looked at twice: see batch_in_steps()


async def test_they_have_some_however_large_it_is(monkeypatch):
    each_look_takes(monkeypatch, 0.3)
    large, turns = request(1_000), 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    batch = await _admit(large)
    other.cancel()
    assert turns >= 10
    assert batch.tool_calls == read_batch(large, NOW_MS).tool_calls


async def test_few_rows_give_nobody_way(monkeypatch):
    each_look_takes(monkeypatch, 2)
    given = count_ways_given(monkeypatch)
    assert len(await _admit(request(FEW_ROWS))) == FEW_ROWS
    assert not given
    await _admit(request(FEW_ROWS + 1))
    assert given
