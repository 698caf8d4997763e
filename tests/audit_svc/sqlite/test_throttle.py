"""Queries and a busy writer: what they take of the machine is bounded, and so is how long they wait."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw
import pytest
from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.load import WINDOW_SECONDS, Load
from audit_svc.sqlite.read import throttle
from audit_svc.sqlite.read.throttle import Throttle
from audit_svc.sqlite.store import SqliteLedger


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a whole second."""
    monkeypatch.setattr(throttle, "MAX_WAIT_SECONDS", 0.2)


async def busy() -> Throttle:
    """A throttle that has seen the writer do nothing but commit."""
    made = Throttle(Load(time.monotonic))
    await asyncio.sleep(WINDOW_SECONDS)
    return made


@pytest.mark.long
async def test_queries_take_their_share_and_no_more_while_the_writer_is_busy() -> None:
    door = await busy()
    began, spent = time.monotonic(), 0.0

    async def read() -> None:
        nonlocal spent
        while spent < 2 * throttle.BURST_SECONDS:
            await door.wait()
            door.spent(0.01)
            spent += 0.01

    await asyncio.wait_for(asyncio.gather(*(read() for _ in range(4))), 30)
    assert spent <= throttle.SHARE * (time.monotonic() - began) + throttle.BURST_SECONDS + 4 * 0.01


async def test_nobody_waits_while_the_writer_has_time() -> None:
    door = Throttle(Load(lambda: 0.4 * time.monotonic()))
    await asyncio.sleep(WINDOW_SECONDS)
    for _ in range(100):
        assert await door.wait() == 0
        door.spent(1.0)


async def test_nobody_waits_once_the_writer_is_done() -> None:
    committed = time.monotonic()
    door = Throttle(Load(lambda: committed))
    await asyncio.sleep(WINDOW_SECONDS)
    committed += 10
    await door.wait()
    # What it found, since another look a tenth of a second later finds that no commit came.
    assert door._load._is_busy
    for _ in range(1000):
        door.spent(1.0)
    await door.wait()
    assert not door._load.is_busy()
    assert await door.wait() == 0


@pytest.mark.usefixtures("hasty")
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


@pytest.mark.usefixtures("hasty")
async def test_none_waits_longer_than_the_limit_however_many_ask() -> None:
    door = await busy()
    await door.wait()
    for _ in range(1000):
        door.spent(100.0)
    waited = await asyncio.wait_for(asyncio.gather(*(door.wait() for _ in range(100))), 30)
    assert min(waited) >= throttle.MAX_WAIT_SECONDS


@pytest.mark.usefixtures("hasty")
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


class Observer:
    """Adds up what queries waited."""

    waited = 0.0

    def committed(self, responses: Sequence[audit_pb2.RecordResponse], seconds: float) -> None: ...

    def commit_failed(self) -> None: ...

    def queried(self, seconds: float) -> None: ...

    def throttled(self, seconds: float) -> None:
        self.waited += seconds


def count_far(connection: apsw.Connection) -> object:
    far = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100000) SELECT count(*) FROM n"
    return connection.execute(far).fetchall()


@pytest.mark.long
async def test_the_queries_of_a_ledger_wait_for_its_own_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_ledger: Callable[..., SqliteLedger]
) -> None:
    # A process that is given less of the machine than their share never takes more.
    monkeypatch.setattr(throttle, "SHARE", 1e-6)
    observer = Observer()
    store = open_ledger(tmp_path / "audit.db", queue_rows=100, observer=observer)
    for _ in range(20):
        await store._reader.ask(count_far)
    assert observer.waited == 0, "the writer does nothing"
    async with asyncio.timeout(30):
        while not observer.waited:
            store._writer.committing_seconds = 10 * time.monotonic()
            await store._reader.ask(count_far)
    await store.close()
