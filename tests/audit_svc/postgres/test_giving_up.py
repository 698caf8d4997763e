"""What ends waits for no server that stands still: neither in a call, nor where it is connecting, for however long."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from audit_svc.errors import StoreUnavailable
from audit_svc.postgres.open import writership as leases
from audit_svc.postgres.open.writership import Writership
from audit_svc.postgres.store import PostgresLedger
from audit_svc.postgres.write.writer import Writer
from audit_svc.seal.reader import SealReader
from audit_svc.sealing import process
from audit_svc.sealing.places import PostgresPlace
from audit_svc.sealing.process import SealProcess
from audit_svc.settings import AuditSettings
from demo.postgres import PostgresServer
from tests.audit_svc.samples import audit_row, batch
from tests.support.postgres import standing_still

pytestmark = [pytest.mark.postgres, pytest.mark.usefixtures("migrated")]

FAR_TOO_LONG_SECONDS = 60
FOR_EVER = "connect_timeout=100000"
BEGUN_SECONDS = 0.1
"""After so long what was begun waits for the server, as a rule; if it does not yet, the test shows less."""
CONNECTED = pytest.mark.parametrize("is_connected", [True, False])


@CONNECTED
async def test_a_writer_that_gives_up_fails_what_waits_and_connects_no_more(
    postgres_server: PostgresServer, postgres_database: str, is_connected: bool
) -> None:
    writer = Writer(f"{postgres_database}?{FOR_EVER}", 1000)
    if is_connected:
        writer.record(batch(audit_row())).result()
    try:
        with standing_still(postgres_server):
            waiting = [writer.record(batch(audit_row()))]
            await asyncio.sleep(BEGUN_SECONDS)
            waiting.append(writer.record(batch(audit_row())))
            writer.give_up()
            async with asyncio.timeout(FAR_TOO_LONG_SECONDS):
                for each in map(asyncio.wrap_future, waiting):
                    with pytest.raises(StoreUnavailable):
                        await each
    finally:
        await asyncio.to_thread(writer.close)


@CONNECTED
async def test_a_ledger_ends_whatever_waits(
    postgres_server: PostgresServer, postgres_database: str, is_connected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit_svc.postgres.store.CLOSE_SECONDS", 0.1)
    ledger = PostgresLedger.open(f"{postgres_database}?{FOR_EVER}", queue_rows=1000)
    if is_connected:
        await ledger.record(batch(audit_row()))
        await ledger.last_position()
    with standing_still(postgres_server):
        asked = ledger.record(batch(audit_row())), ledger.last_position(), ledger.count_prunable(0)
        waiting = [*map(asyncio.ensure_future, asked)]
        await asyncio.sleep(BEGUN_SECONDS)
        async with asyncio.timeout(FAR_TOO_LONG_SECONDS):
            await ledger.close()
            for each in waiting:
                with pytest.raises(StoreUnavailable):
                    await each


@CONNECTED
async def test_who_answers_of_the_seal_ends(
    postgres_server: PostgresServer, postgres_database: str, is_connected: bool
) -> None:
    place = PostgresPlace(f"{postgres_database}?{FOR_EVER}")
    reader = SealReader(place.open_ledger, place.open_log())
    if is_connected:
        await reader.ask(SealReader.key)
    with standing_still(postgres_server):
        waiting = asyncio.ensure_future(reader.ask(SealReader.key))
        await asyncio.sleep(BEGUN_SECONDS)
        place.give_up()
        async with asyncio.timeout(FAR_TOO_LONG_SECONDS):
            with pytest.raises(StoreUnavailable):
                await waiting
            reader.close()
            await asyncio.to_thread(reader._thread.shutdown)


async def test_no_last_round_is_waited_for_where_the_replica_writes_no_more(
    postgres_server: PostgresServer, postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LAST_ROUND_SECONDS", 100_000)
    settings = AuditSettings(seal_seconds=0.05, seal_key_file=tmp_path / "key")
    writes = [True]
    seal = SealProcess(settings.model_copy(update={"db": postgres_database}), lambda: bool(writes))
    async with asyncio.timeout(FAR_TOO_LONG_SECONDS), AsyncExitStack() as running:
        await running.enter_async_context(seal.running())
        await until(lambda: seal._key != "")
        with standing_still(postgres_server):
            asyncio.get_running_loop().call_later(BEGUN_SECONDS, writes.clear)
            await running.aclose()


async def test_who_follows_the_writer_ends_where_it_is_connecting(
    postgres_server: PostgresServer, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LAPSE_SECONDS", 0.6)
    writership = Writership(f"{postgres_database}?{FOR_EVER}")
    async with asyncio.timeout(FAR_TOO_LONG_SECONDS), AsyncExitStack() as running:
        await running.enter_async_context(writership.running())
        await until(lambda: writership.epoch != 0)
        monkeypatch.setattr(leases, "CALL_SECONDS", 0.1)
        monkeypatch.setattr(leases, "CONNECT_SECONDS", 100_000)
        with standing_still(postgres_server):
            await until(lambda: writership.trouble != "" and writership.epoch == 0)
            await asyncio.sleep(leases.LOOK_SECONDS)
            await running.aclose()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.02)
