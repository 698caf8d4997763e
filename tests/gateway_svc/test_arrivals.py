"""Turns that arrive together are all accepted before they work."""

import asyncio
from contextlib import suppress

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.turns import arrivals
from gateway_svc.turns.arrivals import BURST, MOST_SECONDS, Arrivals
from gateway_svc.turns.turn import Turn
from tests.gateway_svc.scripted_turns import House, Runner

TURNS = 60
ROUNDS_BETWEEN = 6
"""As gRPC hands over calls: some rounds of the loop after one another, however many wait."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def arrive(arriving: Arrivals) -> None:
    for _ in range(BURST):
        arriving.note()


def goes_on(arriving: Arrivals) -> bool:
    """Whether a turn goes on without any wait."""
    waiting = arriving.over()
    with suppress(StopIteration):
        waiting.send(None)
        waiting.close()
        return False
    return True


async def test_a_burst_is_accepted_whole_before_its_turns_work(tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "BURST_SECONDS", 60.0)  # on a machine however slow
    arrived, at_work = 0, []

    async def work(_turn: Turn) -> None:
        at_work.append(arrived)

    house = House(tmp_path, Runner(work=work))
    running = []
    for _ in range(TURNS):
        running.append(asyncio.create_task(house.run(input="hi")))
        for _ in range(ROUNDS_BETWEEN):
            await asyncio.sleep(0)
        arrived += 1
    ended = await asyncio.gather(*running)
    assert {events[-1].turn_finished.stop_reason for events in ended} == {pb.STOP_REASON_COMPLETED}
    assert len(at_work) == TURNS
    assert [seen for seen in at_work if seen < TURNS][BURST:] == []


async def test_turns_that_come_one_by_one_wait_for_nobody():
    clock = Clock()
    arriving = Arrivals(clock)
    for _ in range(10 * BURST):
        arriving.note()
        clock.now += 0.05
        assert goes_on(arriving)


async def test_an_endless_burst_lets_turns_work_for_as_long_as_it_held_them_up():
    clock = Clock()
    arriving = Arrivals(clock)
    arrive(arriving)
    assert not goes_on(arriving)
    waiting = asyncio.create_task(arriving.over())
    while not waiting.done():
        arriving.note()
        clock.now += 0.1
        await asyncio.sleep(0)
    assert clock.now >= MOST_SECONDS
    let_go = clock.now
    arrive(arriving)
    assert goes_on(arriving)
    clock.now += let_go + 1
    arrive(arriving)
    assert not goes_on(arriving)


async def test_a_turn_that_is_cancelled_in_a_burst_costs_no_other():
    arriving = Arrivals(Clock())
    arrive(arriving)
    cancelled, other = (asyncio.create_task(arriving.over()) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await other
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert goes_on(arriving)
