"""Backups: of one moment while others write, checked, private, never over something else, nothing left of a failure."""

import asyncio
import hashlib
import stat
from pathlib import Path
from typing import Any

import apsw
import pytest
from onrecord.audit.v1 import administration_pb2, administration_pb2_grpc

from audit_svc.errors import DiskFull, StoreRefused
from audit_svc.sqlite.care import backup
from audit_svc.sqlite.care.backup import back_up
from audit_svc.sqlite.care.check import check
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.write.checkpoints import empty_wal
from audit_svc.terminal import remote
from service_kit.server import build_server
from tests.audit_svc.aged import make_ledger
from tests.audit_svc.samples import audit_row, batch, record_request
from tests.support.grpc_server import started


def silent(done: int, total: int) -> None:
    """Whom nobody needs to tell."""


def states(path: Path) -> set[str]:
    return {finding.state for finding in check(path, silent)}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def calls(path: Path) -> int:
    connection = open_for_reading(path)
    ((count,),) = connection.execute("SELECT count(*) FROM tool_call_log")
    connection.close()
    return int(count)


@pytest.mark.long
def test_a_backup_is_one_private_sound_file_that_needs_no_other(database, tmp_path):
    make_ledger(database, hours=4)
    copy = back_up(database, tmp_path / "kept" / "copy.db", silent)
    assert copy.rows["tool_call_log"] == 40
    assert copy.size_bytes == copy.path.stat().st_size
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.path.parent.stat().st_mode) == 0o700
    assert names(copy.path.parent) == ["copy.db"]
    assert states(copy.path) == {"ok"}
    # Nothing beside it is made to read it.
    assert names(copy.path.parent) == ["copy.db"]


@pytest.mark.long
async def test_the_wal_can_be_emptied_while_the_copy_is_checked(database, monkeypatch, open_ledger):
    """A check takes longer than the copy, and commits go on meanwhile."""
    make_ledger(database, hours=2)
    ledger = open_ledger(database)
    emptied, refuse_difference = [], backup._refuse_difference

    def empty_and_look(*arguments: Any) -> None:
        emptied.append(empty_wal(database))
        refuse_difference(*arguments)

    monkeypatch.setattr(backup, "_refuse_difference", empty_and_look)
    await ledger.record(batch(audit_row()))
    file, _ = await ledger.back_up()
    file.close()
    assert emptied == [True]


@pytest.mark.long
async def test_commits_while_it_is_made_neither_show_in_it_nor_start_it_anew(
    database, tmp_path, monkeypatch, open_ledger
):
    monkeypatch.setattr(backup, "STEP_PAGES", 5)
    make_ledger(database, hours=20, calls=100)
    store = open_ledger(database, queue_rows=50_000)
    steps: list[int] = []

    def commit_meanwhile(done: int, total: int) -> None:
        if total:
            steps.append(done)
            store._writer.record(batch(audit_row())).result()

    copy = back_up(database, tmp_path / "copy.db", commit_meanwhile)
    await store.close()
    assert len(steps) > 20
    assert steps == sorted(steps)
    assert copy.rows["tool_call_log"] == calls(copy.path) == 2000
    assert states(copy.path) == {"ok"}
    assert calls(database) == 2000 + len(steps)


def test_nothing_is_overwritten(database, tmp_path):
    make_ledger(database, hours=1)
    target = tmp_path / "copy.db"
    target.write_text("dear")
    with pytest.raises(StoreRefused, match="is there already"):
        back_up(database, target, silent)
    assert target.read_text() == "dear"
    with pytest.raises(StoreRefused, match="is there already"):
        back_up(database, database, silent)


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(database, tmp_path):
    make_ledger(database, hours=1)
    target = tmp_path / "copy.db"
    with pytest.raises(StoreRefused, match="is there already"):
        back_up(database, target, lambda *_: None if target.exists() else target.write_text("dear") and None)
    assert target.read_text() == "dear"


def test_a_backup_that_is_given_up_leaves_nothing(database, tmp_path):
    make_ledger(database, hours=1)

    def give_up(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(database, tmp_path / "kept" / "copy.db", give_up)
    assert names(tmp_path / "kept") == []


@pytest.mark.long
def test_a_full_disk_is_told_and_nothing_is_left(database, small_disk):
    make_ledger(database, hours=20, calls=1500)
    assert database.stat().st_size > 6 * 2**20
    with pytest.raises(DiskFull, match=r"disk is full|No space"):
        back_up(database, small_disk / "copy.db", silent)
    assert names(small_disk) == []


def test_an_older_schema_can_be_kept_before_it_is_migrated(database, tmp_path):
    connection = open_for_writing(database)
    migrate.up(connection, migrate.load_migrations()[:4])
    connection.close()
    assert back_up(database, tmp_path / "copy.db", silent).rows["tool_call_log"] == 0


def damage(path: Path) -> None:
    """Writes over pages in the middle, and keeps the head."""
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        for place in range(4096 * 3, size - 4096, 4096 * 4):
            file.seek(place)
            file.write(b"\xa5" * 4096)


@pytest.mark.long
def test_a_damaged_ledger_makes_no_backup(database, tmp_path):
    make_ledger(database, hours=20, calls=100)
    damage(database)
    with pytest.raises(StoreRefused, match=rf"^{database} is damaged|not sound"):
        back_up(database, tmp_path / "kept" / "copy.db", silent)
    assert names(tmp_path / "kept") == []


async def test_the_rpc_sends_parts_a_size_and_a_hash_and_leaves_nothing_behind(ledger, database):
    await ledger.RecordBatch(record_request(tool_calls=[audit_row(args_summary="x" * 4000) for _ in range(1000)]))
    parts = [part async for part in ledger.Backup(administration_pb2.BackupRequest())]
    data = b"".join(part.data for part in parts)
    assert len(parts) > 4
    assert max(len(part.data) for part in parts) <= 2**20
    assert [part.total_bytes for part in parts] == [len(data)] + [0] * (len(parts) - 1)
    assert [part.sha256 for part in parts] == [""] * (len(parts) - 1) + [hashlib.sha256(data).hexdigest()]
    assert not list(database.parent.glob(".*"))
    copy = apsw.Connection(":memory:")
    copy.deserialize("main", data)
    assert copy.execute("SELECT count(*) FROM tool_call_log").fetchall() == [(1000,)]


def test_what_a_service_that_died_left_of_a_copy_is_removed_at_the_next_start(database, open_ledger):
    make_ledger(database, hours=1)
    leftovers = [database.with_name(f".{database.name}.0123abcd.copy{end}") for end in ("", "-journal")]
    other = database.with_name(".other.db.0123abcd.copy")
    for path in (*leftovers, other):
        path.touch()
    store = open_ledger(database, queue_rows=50_000)
    store._reader.close()
    store._writer.close()
    store._lock.release()
    assert [path.exists() for path in (*leftovers, other)] == [False, False, True]


class Liar(administration_pb2_grpc.AdministrationServiceServicer):
    """Sends other bytes than it names."""

    async def Backup(self, request, context):  # noqa: N802
        yield administration_pb2.BackupResponse(data=b"one", total_bytes=6)
        yield administration_pb2.BackupResponse(data=b"two", sha256=hashlib.sha256(b"onetwO").hexdigest())


async def test_a_copy_that_was_changed_on_the_way_is_not_kept(tmp_path):
    server = build_server([])
    administration_pb2_grpc.add_AdministrationServiceServicer_to_server(Liar(), server)  # type: ignore[abstract]
    async with started(server) as address:
        with pytest.raises(remote.TransferFailed, match="not what it sent"):
            await asyncio.to_thread(remote.back_up, address, tmp_path / "kept" / "copy.db", silent)
    assert names(tmp_path / "kept") == []
