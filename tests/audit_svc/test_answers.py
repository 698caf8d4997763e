"""Answers from the writer's thread, when whoever asked may have gone."""

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
from audit_svc.store.answers import Answers

STORED = audit_pb2.RecordResponse(sequence=1, stored=2)


def from_a_thread(answers: Answers, answer: Callable[[], None]) -> None:
    thread = threading.Thread(target=answers.call, args=[answer])
    thread.start()
    thread.join()


async def test_a_response_is_set_by_the_loop_and_not_by_the_thread_that_has_it():
    answers = Answers()
    stored: Future[audit_pb2.RecordResponse] = Future()
    response = answers.expect(lambda: stored)
    from_a_thread(answers, partial(stored.set_result, STORED))
    assert not stored.done()
    assert await response == STORED


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("cancels", [False, True])
async def test_nobody_hears_of_an_answer_whose_caller_has_gone(caplog, fails, cancels):
    async def ask_and_go() -> None:
        answers = Answers()
        stored: Future[audit_pb2.RecordResponse] = Future()
        response = answers.expect(lambda: stored)
        if cancels:
            response.cancel()
        failing, succeeding = partial(stored.set_exception, DiskFull("full")), partial(stored.set_result, STORED)
        from_a_thread(answers, failing if fails else succeeding)
        await asyncio.sleep(0.01)
        assert response.done()

    with caplog.at_level(logging.WARNING):
        await ask_and_go()
        gc.collect()
        await asyncio.sleep(0)
    assert caplog.records == []


def test_an_answer_to_a_loop_that_has_ended_is_dropped():
    answers = Answers()
    stored: Future[audit_pb2.RecordResponse] = Future()

    async def ask() -> None:
        answers.expect(lambda: stored)

    asyncio.run(ask())
    from_a_thread(answers, partial(stored.set_result, STORED))
    assert not stored.done()


async def test_what_cannot_be_recorded_is_raised_at_once():
    def record() -> Future[audit_pb2.RecordResponse]:
        raise DiskFull("full")

    with pytest.raises(DiskFull):
        Answers().expect(record)
