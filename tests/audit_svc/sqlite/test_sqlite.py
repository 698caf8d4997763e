"""Opening the database: what is refused before anything is written, and what the sentence says to do."""

import os
import sqlite3
import stat
from pathlib import Path

import apsw
import pytest

from audit_svc.errors import MigrationRefused, StoreRefused
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import (
    enter_wal,
    open_for_reading,
    open_for_writing,
    refuse_wal_reset_bug,
)
from audit_svc.sqlite.open.lock import FileLock
from tests.audit_svc.damaged import damage
from tests.audit_svc.samples import audit_row, batch
from tests.support.small_disk import hog, mounted_at


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.51.2"])
def test_sqlite_with_the_wal_reset_bug_is_refused(version):
    with pytest.raises(StoreRefused, match=f"SQLite {version} has the WAL-reset bug.*install apsw"):
        refuse_wal_reset_bug(version)


@pytest.mark.parametrize("version", ["3.6.23", "3.51.3", "3.52.0", "3.100.0", "4.0.0", apsw.sqlite_lib_version()])
def test_sqlite_without_the_bug_is_accepted(version):
    refuse_wal_reset_bug(version)


def test_the_database_syncs_every_commit_of_its_wal(connection):
    assert connection.pragma("journal_mode") == "wal"
    full = 2
    assert connection.pragma("synchronous") == full


def test_a_place_where_wal_cannot_work_is_refused(tmp_path):
    # A file system without shared memory: SQLite's dot-file VFS has none either.
    connection = apsw.Connection(str(tmp_path / "a.db"), vfs="unix-dotfile")
    with pytest.raises(StoreRefused, match=r"cannot use WAL here \(delete\): put the database on a local file system"):
        enter_wal(connection)
    connection.close()


def test_a_database_that_is_held_is_refused_and_free_again_after_it(database):
    lock = FileLock(database)
    with pytest.raises(StoreRefused, match=f"process {os.getpid()} has the database .*: stop it first"):
        FileLock(database)
    lock.release()
    FileLock(database).release()


async def test_a_store_holds_its_database_until_it_is_closed(database, open_ledger):
    store = open_ledger(database, queue_rows=10_000)
    with pytest.raises(StoreRefused, match="has the database"):
        open_ledger(database, queue_rows=10_000)
    await store.close()
    await open_ledger(database, queue_rows=10_000).close()


async def test_a_store_that_refuses_lets_its_database_go(database, open_ledger):
    with pytest.raises(MigrationRefused):
        open_ledger(database, queue_rows=10_000, apply_migrations=False)
    await open_ledger(database, queue_rows=10_000).close()


async def test_without_migrating_a_schema_that_is_not_complete_is_refused(database, open_ledger):
    with pytest.raises(MigrationRefused, match=r"schema \(0001_sessions, .* not applied\): run `audit-svc migrate"):
        open_ledger(database, queue_rows=10_000, apply_migrations=False)
    await open_ledger(database, queue_rows=10_000).close()
    await open_ledger(database, queue_rows=10_000, apply_migrations=False).close()


def test_a_dirty_database_is_refused_with_and_without_migrating(database, open_ledger):
    connection = open_for_writing(database)
    migrate.up(connection, migrate.load_migrations())
    connection.execute("DROP INDEX idx_tool_call_log_error")
    connection.close()
    for apply in (True, False):
        with pytest.raises(MigrationRefused, match="dirty"):
            open_ledger(database, queue_rows=10_000, apply_migrations=apply)


async def test_files_are_readable_by_their_owner_alone(tmp_path, open_ledger):
    database = tmp_path / "new" / "folder" / "audit.db"
    before = os.umask(0)
    try:
        store = open_ledger(database, queue_rows=10_000)
        await store.record(batch(audit_row()))
        names = {path.name: mode(path) for path in database.parent.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert set(names) == {"audit.db", "audit.db-wal", "audit.db-shm", "audit.db.lock", "audit.db.served"}
    assert set(names.values()) == {0o600}
    assert mode(database.parent) == 0o700


def test_a_database_that_others_could_read_is_closed_to_them(database):
    sqlite3.connect(database).close()
    database.touch()
    database.chmod(0o644)
    open_for_writing(database).close()
    assert mode(database) == 0o600


def test_a_file_that_is_no_database_is_refused(database):
    database.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(StoreRefused, match=r"damaged or not an SQLite database.*: restore a backup"):
        open_for_writing(database)


def test_a_damaged_database_is_refused(database):
    damage(database)
    with pytest.raises(StoreRefused, match=r"damaged .*: restore a backup"):
        open_for_writing(database)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreRefused, match="see AUDIT_DB"):
        FileLock(tmp_path / "file" / "audit.db")


def test_a_disk_that_is_full_is_told_by_the_name_of_the_file(tmp_path):
    with mounted_at(tmp_path / "disk") as disk:
        hog(disk)
        with pytest.raises(StoreRefused, match=r"audit\.db\.lock cannot be written: No space left on device"):
            FileLock(disk / "audit.db")


def test_a_link_to_a_database_is_the_same_database(tmp_path):
    lock = FileLock(tmp_path / "audit.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "audit.db")
    with pytest.raises(StoreRefused, match="has the database"):
        FileLock(tmp_path / "link.db")
    lock.release()


async def test_a_store_that_was_closed_is_one_file(database, open_ledger):
    store = open_ledger(database, queue_rows=10_000)
    await store.record(batch(audit_row()))
    await store.close()
    beside = {"audit.db.checked", "audit.db.lock", "audit.db.served"}
    assert {path.name for path in database.parent.iterdir()} == {"audit.db", *beside}


def test_reading_a_database_that_is_not_there_is_refused(database):
    with pytest.raises(StoreRefused, match="there is no file"):
        open_for_reading(database)
