"""Acks from the writer's thread, when whoever asked may have gone."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import pytest
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import DiskFull
from audit_svc.sqlite.write.acks import Acks

STORED = audit_pb2.RecordResponse(sequence=1, stored=2)


def from_a_thread(acks: Acks, ack: Callable[[], None]) -> None:
    thread = threading.Thread(target=acks.call, args=[ack])
    thread.start()
    thread.join()


async def test_a_response_is_set_by_the_loop_and_not_by_the_thread_that_has_it():
    acks = Acks()
    stored: Future[audit_pb2.RecordResponse] = Future()
    response = acks.expect(lambda: stored)
    from_a_thread(acks, partial(stored.set_result, STORED))
    assert not stored.done()
    assert await response == STORED


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("cancels", [False, True])
async def test_nobody_hears_of_an_ack_whose_caller_has_gone(caplog, fails, cancels):
    async def ask_and_go() -> None:
        acks = Acks()
        stored: Future[audit_pb2.RecordResponse] = Future()
        response = acks.expect(lambda: stored)
        if cancels:
            response.cancel()
        failing, succeeding = partial(stored.set_exception, DiskFull("full")), partial(stored.set_result, STORED)
        from_a_thread(acks, failing if fails else succeeding)
        await asyncio.sleep(0.01)
        assert response.done()

    with caplog.at_level(logging.WARNING):
        await ask_and_go()
        gc.collect()
        await asyncio.sleep(0)
    assert caplog.records == []


def test_an_ack_to_a_loop_that_has_ended_is_dropped():
    acks = Acks()
    stored: Future[audit_pb2.RecordResponse] = Future()

    async def ask() -> None:
        acks.expect(lambda: stored)

    asyncio.run(ask())
    from_a_thread(acks, partial(stored.set_result, STORED))
    assert not stored.done()


async def test_what_cannot_be_recorded_is_raised_at_once():
    def record() -> Future[audit_pb2.RecordResponse]:
        raise DiskFull("full")

    with pytest.raises(DiskFull):
        Acks().expect(record)
