"""Queries and a busy writer: what they take of the machine is bounded, and so is how long they wait."""

import asyncio
import time

from audit_svc.store import throttle
from audit_svc.store.throttle import Throttle


async def busy() -> Throttle:
    """A throttle that has seen the writer do nothing but commit."""
    made = Throttle(time.monotonic)
    await asyncio.sleep(throttle._WINDOW_SECONDS)
    return made


async def test_queries_take_their_share_and_no_more_while_the_writer_is_busy() -> None:
    door = await busy()
    began, spent = time.monotonic(), 0.0

    async def read() -> None:
        nonlocal spent
        while time.monotonic() < began + 1:
            await door.wait()
            door.spent(0.01)
            spent += 0.01

    await asyncio.gather(*(read() for _ in range(4)))
    most = throttle.SHARE * (time.monotonic() - began) + throttle.BURST_SECONDS + 4 * 0.01
    assert throttle.BURST_SECONDS < spent <= most


async def test_nobody_waits_while_the_writer_has_time() -> None:
    door = Throttle(lambda: 0.4 * time.monotonic())
    await asyncio.sleep(throttle._WINDOW_SECONDS)
    for _ in range(100):
        assert await door.wait() == 0
        door.spent(1.0)


async def test_nobody_waits_once_the_writer_is_done() -> None:
    committed = time.monotonic()
    door = Throttle(lambda: committed)
    await asyncio.sleep(throttle._WINDOW_SECONDS)
    committed += 10
    await door.wait()
    assert door._is_busy
    for _ in range(1000):
        door.spent(1.0)
    await door.wait()
    assert not door._is_busy
    assert await door.wait() == 0


async def test_they_begin_in_the_order_in_which_they_came() -> None:
    door = await busy()
    await door.wait()
    begun: list[int] = []

    async def read(number: int) -> None:
        await door.wait()
        begun.append(number)
        door.spent(0.01)

    door.spent(0.1)
    await asyncio.gather(*map(read, range(10)))
    assert begun == list(range(10))


async def test_none_waits_longer_than_a_second_however_many_ask() -> None:
    door = await busy()
    await door.wait()
    for _ in range(1000):
        door.spent(100.0)
    waited = await asyncio.wait_for(asyncio.gather(*(door.wait() for _ in range(100))), 30)
    assert min(waited) >= throttle.MAX_WAIT_SECONDS


async def test_one_that_is_cancelled_keeps_nobody_waiting() -> None:
    door = await busy()
    await door.wait()
    for _ in range(3):
        door.spent(0.1)
    first, second = asyncio.create_task(door.wait()), asyncio.create_task(door.wait())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait_for(second, 30)
    assert first.cancelled()
