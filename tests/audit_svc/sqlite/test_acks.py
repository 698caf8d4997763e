"""Acks from the writer's thread to the event loop, when whoever asked may have gone."""

import asyncio
import gc
import logging
from typing import Any

import pytest

from audit_svc.errors import StoreClosed, StoreUnavailable
from tests.audit_svc.samples import audit_row, batch
from tests.audit_svc.sqlite.test_writer import count, held


async def test_all_batches_of_a_commit_are_answered_by_one_call_to_the_loop(writer, database, monkeypatch):
    loop = asyncio.get_running_loop()
    calls: list[object] = []
    call_soon = loop.call_soon_threadsafe

    def counting(*call: Any) -> asyncio.Handle:
        calls.append(call)
        return call_soon(*call)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
    with held(database):
        responses = [writer.record_async(batch(audit_row())) for _ in range(20)]
    assert [response.stored for response in await asyncio.gather(*responses)] == [1] * 20
    # The first may have been taken before the others came; those then went together.
    assert len(calls) <= 2


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("cancels", [False, True])
async def test_nobody_hears_of_an_ack_whose_caller_has_gone(writer, connection, database, caplog, fails, cancels):
    connection.set_busy_timeout(10 if fails else 5000)

    async def ask_and_go() -> None:
        with held(database):
            response, next_one = (writer.record_async(batch(audit_row())) for _ in range(2))
            if cancels:
                response.cancel()
            if fails:
                await asyncio.wait([next_one])
        await asyncio.wait([next_one])
        assert response.done()

    with caplog.at_level(logging.WARNING, "asyncio"):
        await ask_and_go()
        gc.collect()
        await asyncio.sleep(0)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_a_batch_that_cannot_be_stored_is_told_to_who_waits(writer, connection, database):
    connection.set_busy_timeout(10)
    with held(database), pytest.raises(StoreUnavailable):
        await writer.record_async(batch(audit_row()))


def test_an_ack_to_a_loop_that_has_ended_is_dropped_and_the_row_stored(writer, database, reading):
    async def ask() -> None:
        writer.record_async(batch(audit_row()))

    with held(database):
        asyncio.run(ask())
    writer.close()
    assert count(reading) == 1


async def test_what_cannot_be_recorded_is_raised_at_once(writer):
    writer.close()
    with pytest.raises(StoreClosed):
        writer.record_async(batch(audit_row()))
