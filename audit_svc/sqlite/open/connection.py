"""Connections to the database file. All reasons not to serve it are found here, before anything is written."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from audit_svc.errors import DiskFull, FileDamaged, NoFile, StoreRefused
from audit_svc.sqlite.open.room import lengthen_in_chunks, take_room
from audit_svc.sqlite.open.served import refuse_vanished

Connection = apsw.Connection

_CACHE_KIB = 16 * 1024
"""Of each connection, the writer's too: in a database of less than 1 GiB, SQLite looks at every page of its cache after
nearly every commit (`pcache1TruncateUnsafe`), which took 0.35 ms with 256 MiB."""
_PAGE_BYTES = 8192
_CHECKPOINT_PAGES = 5000
WAL_BYTES = 64 * 2**20
"""The WAL is cut to this length when it begins anew: a reader that stays long makes it as long as it stays."""
BUSY_MS = 5000
# The most that apsw allows: a statement is forgotten when as many others have run since.
_CACHED_STATEMENTS = 512


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Translates SQLite's errors in its body into the ledger's own.

    Raises:
        FileDamaged: the file at path is damaged.
        StoreRefused: it cannot be used.
        DiskFull: a disk has no room.
    """
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise FileDamaged(f"{path} is damaged ({error}): restore a backup") from None
    except apsw.FullError:
        raise DiskFull("the disk is full") from None
    except apsw.Error as error:
        raise StoreRefused(f"{path} cannot be used ({error}): check the disk and the rights") from None


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """A transaction: committed at the end of the body, rolled back when the body or the commit raises.

    What it commits has its room in the database, so that the WAL can be emptied whatever else fills the disk.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        take_room(connection)
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors of the disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def leave_out_memory_statistics() -> None:
    """Turns off SQLite's memory statistics, whose process-wide lock slows ingest.

    Before any connection is opened.
    """
    apsw.shutdown()
    apsw.config(apsw.SQLITE_CONFIG_MEMSTATUS, False)
    apsw.initialize()


def open_for_writing(path: Path, *, create: bool = False, check: bool = True) -> Connection:
    """A connection for the writer or a migration. The caller holds the FileLock. A database that is not there is made.

    create: make it also where one was served before. check: look at the whole file first, see refuse_damage().

    Raises:
        DatabaseVanished: a database was served here, and is missing.
        StoreRefused: this SQLite, the file system or the file is not fit for a ledger.
    """
    refuse_wal_reset_bug(apsw.sqlite_lib_version())
    if not create:
        refuse_vanished(path)
    # SQLite gives its -wal and -shm files the mode of the database.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise StoreRefused(f"{path} cannot be opened for writing ({error.strerror}): see AUDIT_DB") from None
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=_CACHED_STATEMENTS)
        connection.set_busy_timeout(BUSY_MS)
        # Both are kept by a file that is new; an old one gets the second by `audit-svc vacuum`.
        connection.pragma("page_size", _PAGE_BYTES)
        connection.pragma("auto_vacuum", "incremental")
        enter_wal(connection)
        lengthen_in_chunks(connection)
        connection.pragma("synchronous", "FULL")
        connection.pragma("cache_size", -_CACHE_KIB)
        connection.wal_autocheckpoint(_CHECKPOINT_PAGES)
        # What SQLite moves within pages leaves no copies behind, which no erasure would find.
        connection.pragma("secure_delete", "fast")
        connection.pragma("journal_size_limit", WAL_BYTES)
        if check:
            refuse_damage(path)
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise StoreRefused(f"{path} is damaged or not an SQLite database ({error}): restore a backup") from None
    except apsw.Error as error:
        raise StoreRefused(f"{path} cannot be opened for writing ({error}): check the disk and the rights") from None
    return connection


def open_for_reading(path: Path, uri: str = "", *, private_wal: bool = False) -> Connection:
    """A connection that cannot write.

    uri: how SQLite is told of path, where not by its name.
    private_wal: without locks and shared memory, for a database that no process has open: it reads the WAL as it is
        found, and never writes it back.

    Raises:
        StoreRefused: the file is not there, or cannot be read.
    """
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI * bool(uri)
    try:
        connection = apsw.Connection(uri or str(path), flags=flags, vfs="unix-none" if private_wal else None)
        connection.set_busy_timeout(BUSY_MS)
        if private_wal:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.pragma("locking_mode", "exclusive")  # before the first read: the WAL's index is in the heap
        connection.pragma("query_only", True)
        connection.pragma("cache_size", -_CACHE_KIB)
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise StoreRefused(f"{path} is damaged or not an SQLite database ({error}): restore a backup") from None
    except apsw.Error as error:
        if not path.exists():
            raise NoFile(path) from None
        raise StoreRefused(f"{path} cannot be opened for reading ({error}): look at its disk and its rights") from None
    return connection


def refuse_wal_reset_bug(version: str) -> None:
    """Refuses SQLite 3.7.0 to 3.51.2, which can lose committed rows when a commit and a checkpoint meet.

    Raises:
        StoreRefused: version is one of them. Source: https://sqlite.org/wal.html#walresetbug
    """
    if (3, 7, 0) <= tuple(map(int, version.split(".")))[:3] <= (3, 51, 2):
        raise StoreRefused(
            f"SQLite {version} has the WAL-reset bug, which can lose committed rows: install apsw 3.51.3 or later"
        )


def enter_wal(connection: Connection) -> None:
    """Puts the database into WAL mode.

    Raises:
        StoreRefused: it stays in another.
    """
    try:
        mode = connection.pragma("journal_mode", "wal")
    except (apsw.IOError, apsw.CantOpenError) as error:
        mode = str(error)
    if mode != "wal":
        raise StoreRefused(
            f"SQLite cannot use WAL here ({mode}): put the database on a local file system that supports shared memory"
        )


def refuse_damage(path: Path) -> None:
    """Checks the structure of the whole database.

    Raises:
        StoreRefused: it is damaged.
    """
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        if damage := why_damaged(connection):
            raise StoreRefused(damage)


def why_damaged(connection: Connection) -> str:
    """What PRAGMA quick_check finds wrong, and what to do; empty if nothing is.

    What FTS5 keeps in the database is checked by `audit-svc check` alone: that takes 6 µs a row.
    """
    connection.drop_modules(None)
    try:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchall()[0]
    except (apsw.NotADBError, apsw.CorruptError) as error:
        answer = error
    if answer == "ok":
        return ""
    problem = " ".join(str(answer).split())
    return f"the database is damaged ({problem}): restore a backup, or save what sqlite3's .recover gives"
