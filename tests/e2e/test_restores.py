"""A ledger that is restored from an older backup: every producer tells it, and what they kept comes back once."""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from demo.processes import Service, run_command, start_service
from recording.delivery.connection import Target
from recording.logger import AuditRefused
from recording.record import Record, open_record
from recording.witness.view import View, ViewFile
from tests.recording.samples import intent, tool_call
from tests.support.ports import own_port

pytestmark = pytest.mark.long

PATIENCE_SECONDS = 60
BEFORE, AFTER = 100, 2000
"""Rows of a producer before the backup, and after it."""


class Ledger:
    """A real service, whose disk a test puts back."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder / "ledger"
        self.folder.mkdir()
        self.address = f"127.0.0.1:{port}"
        self.database = self.folder / "audit.db"
        self._backup = folder / "backup"

    def serve(self, **env: str) -> Service:
        settings = {"AUDIT_DB": str(self.database), "AUDIT_LISTEN": self.address, "AUDIT_SEAL_SECONDS": "0.05"}
        return start_service("audit_svc", settings | env, "serve")

    def command(self, *args: str) -> subprocess.CompletedProcess[str]:
        return run_command("audit_svc", {"AUDIT_DB": str(self.database)}, *args)

    def back_up(self) -> None:
        """A copy of the stopped service's disk."""
        shutil.copytree(self.folder, self._backup)

    def restore(self, *, with_seal: bool) -> None:
        """The database of the backup, and its seal too or not."""
        for path in self.folder.glob("audit.db*"):
            if path.is_file():
                path.unlink()
        shutil.copy(self._backup / "audit.db", self.database)
        if with_seal:
            shutil.rmtree(self.folder / "audit.db.seal")
            shutil.copytree(self._backup / "audit.db.seal", self.folder / "audit.db.seal")

    def read(self, statement: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return connection.execute(statement).fetchall()


class Producers:
    """Producers with a state directory each."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder, self._ledger = folder, ledger
        self._stack = AsyncExitStack()
        self.records: dict[str, Record] = {}
        self.recorded: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Producers"]:
        try:
            yield self
        finally:
            for name in list(self.records):
                await self.end(name)

    def begin(self, name: str, **options: object) -> Record:
        record = open_record(
            self._folder / name,
            Target(self._ledger.address),
            mode="strict",
            witness_seconds=0.2,
            **options,  # type: ignore[arg-type]
        )
        record.start()
        self.records[name] = record
        return record

    async def end(self, name: str) -> None:
        await self.records.pop(name).aclose()

    async def record(self, name: str, rows: int) -> None:
        """Records rows, and waits for their acks."""
        record, first = self.records[name], self.recorded[name]
        for number in range(first, first + rows):
            record.logger.record(tool_call(number, id=f"{name}-{number}", session_id=name))
            if not number % 100:
                await asyncio.sleep(0)
        self.recorded[name] += rows
        await until(lambda: record.spool.depth == 0)

    def view(self, name: str) -> View:
        return ViewFile(self._folder / name / "witness").load()


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def is_refused(record: Record) -> bool:
    try:
        record.logger.intend(intent(10**9))
    except AuditRefused:
        return True
    return False


@pytest.mark.parametrize("with_seal", [False, True], ids=["its database alone", "its seal with it"])
async def test_a_restore_is_told_by_every_producer_and_what_they_kept_comes_back_once(
    tmp_path: Path, with_seal: bool
) -> None:
    with own_port() as port:
        await restore(tmp_path, Ledger(tmp_path, port), with_seal=with_seal)


async def restore(tmp_path: Path, ledger: Ledger, *, with_seal: bool) -> None:
    """The campaign."""
    async with Producers(tmp_path, ledger).running() as producers:
        with ledger.serve() as service:
            for name in ("a", "b", "gone"):
                producers.begin(name)
            producers.begin("short", max_bytes=2**20, keep_acked_bytes=0)
            for name in list(producers.records):
                await producers.record(name, BEFORE)
            await until(lambda: all(producers.view(name).note for name in producers.records))
            assert await asyncio.to_thread(service.terminate) == 0
        ledger.back_up()
        with ledger.serve() as service:
            producers.begin("late")
            for name in list(producers.records):
                await producers.record(name, AFTER)
            await until(lambda: all(record.witnessed_leaves > 4 * AFTER for record in producers.records.values()))
            for record in producers.records.values():
                assert not record.is_doubted()
                assert record.trouble() == ""
            gone = producers.records["gone"].spool.id
            short = producers.records["short"].spool
            await until(lambda: len(list((tmp_path / "short" / "spool" / short.id).glob("*.segment"))) == 1)
            await producers.end("gone")
            shutil.rmtree(tmp_path / "gone")
            assert await asyncio.to_thread(service.terminate) == 0
        ledger.restore(with_seal=with_seal)
        with ledger.serve() as service:
            await until(lambda: all(record.is_doubted() for record in producers.records.values()))
            for record in producers.records.values():
                assert is_refused(record)
                assert "not what it was" in record.trouble()
                assert "not what it was" in record.detail()
                assert record.counters.doubts == 1
            whole = {f"{name}-{number}" for name in ("a", "b", "late") for number in range(producers.recorded[name])}
            await until(lambda: {str(id_) for (id_,) in ledger.read("SELECT id FROM tool_call_log")} >= whole)
            # what is gone for good is named: of one that lives by its hole, of one that is gone by the entry
            await until(lambda: not any(producers.view(name).resend for name in producers.records))
            (hole,) = ledger.read("SELECT producer_id, first_sequence, last_sequence FROM producer_gaps")
            assert hole[:2] == (short.id, BEFORE + 1)
            accepted = await asyncio.to_thread(ledger.command, "seal", "accept-restore", "--reason", "a broken disk")
            assert accepted.returncode == 0, accepted.stderr
            if not with_seal:
                assert f"{gone}: numbers {BEFORE + 1} to {BEFORE + AFTER}" in accepted.stdout
                status = json.loads((await asyncio.to_thread(ledger.command, "seal", "status", "--json")).stdout)
                assert status["lost"] == {gone: [[BEFORE + 1, BEFORE + AFTER]]}
            await until(lambda: not any(record.is_doubted() for record in producers.records.values()))
            for name, record in producers.records.items():
                assert not is_refused(record)
                await producers.record(name, 10)
                assert record.counters.doubts == 1
            told = "SELECT kind, count(*), count(DISTINCT id) FROM control_log GROUP BY kind"
            await until(lambda: {kind: rows for kind, rows, _ in ledger.read(told)}.get("ledger_accepted") == 4)
            assert ledger.read(told) == [("ledger_accepted", 4, 4), ("ledger_doubted", 4, 4)]
            ((rows, ids),) = ledger.read("SELECT count(*), count(DISTINCT id) FROM tool_call_log")
            assert rows == ids
            assert ledger.read("SELECT producer_id, first_sequence, last_sequence FROM producer_gaps") == [hole]
            assert await asyncio.to_thread(service.terminate) == 0
    verified = ledger.command("verify", "--json")
    assert verified.returncode == 0, verified.stdout
