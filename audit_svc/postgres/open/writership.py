"""Which of several replicas writes: a lease in the database, fenced by a number.

The row of `ledger_lease` says who writes, its epoch, and how often it has said so since. The writer says so every
BEAT_SECONDS; another replica that sees no new beat in MISSED_LOOKS looks one after the other takes over with a new
epoch. Looks are counted, and no time is compared: a replica that was paused, or a database that stood still, has not
looked. Where the database has advisory locks the writer holds one under its epoch, which goes with its connection, so
that the end of its process is noticed at once.

None of this is what keeps two writers apart: every transaction that writes changes the row of `ledger_writer` where it
still has the epoch of who writes, and a successor begins by giving it another (docs/decisions/postgres.md).
"""

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg.conninfo import make_conninfo

from audit_svc.postgres.open.connection import cut, said_in

log = structlog.get_logger(__name__)

BEAT_SECONDS = 0.5
LOOK_SECONDS = 0.25
MISSED_LOOKS = 12
SLOW_LOOK_SECONDS = 1.0
"""A look that took longer shows a database that stands still, in which the writer cannot have said anything."""
LAPSE_SECONDS = 2.5
"""A writer whose last beat is as old writes no more until there is another."""
CALL_SECONDS = 1.5
"""A statement that takes longer is cut, with its connection."""
CONNECT_SECONDS = 3.0
LOCK_MILLISECONDS = 400
"""How long a successor waits for a transaction of the last writer before it ends that one's session."""

_LOCK_CLASS = 0x6F6E7265
"""The first half of our advisory locks' keys; the second is the epoch's."""
_EPOCH_STEP = 2**20
"""An epoch is above the last one by a number that is drawn: a database that comes back from an earlier moment, as a
replica of it that was behind does, gives none out again that somebody still has."""

_KEEPALIVES = {
    "connect_timeout": 2,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 3000,
    "target_session_attrs": "read-write",
}
_SERVER_SETTINGS = {
    # The server must notice as well that this side has gone: a lock is held until it has.
    "tcp_keepalives_idle": "1",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "3000",
    "client_connection_check_interval": "1000",
    "idle_in_transaction_session_timeout": "2000",
    "statement_timeout": "1500",
}

_HELD = """
    EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND classid = %(lock_class)s AND objid = ({epoch} %% 2147483647)::integer::oid AND {whose}
    )
"""
_HELD_HERE = _HELD.format(epoch="%(epoch)s", whose="pid = pg_backend_pid()")
_HELD_BY_ANY = _HELD.format(
    epoch="epoch", whose="database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
# Looked at and not tried: behind a pooler both replicas may be the same session, which would get it.
_LOOK = f"""
    SELECT epoch, beats, holder, address, is_present AND NOT {_HELD_BY_ANY} AS is_gone FROM ledger_lease WHERE id = 1
"""  # noqa: S608 - texts of this module
_LOOK_WITHOUT_LOCKS = "SELECT epoch, beats, holder, address, false AS is_gone FROM ledger_lease WHERE id = 1"
_LOCK = "SELECT pg_try_advisory_lock(%(lock_class)s, (%(epoch)s %% 2147483647)::integer)"
_BEAT = "UPDATE ledger_lease SET beats = beats + 1, is_present = {} WHERE id = 1 AND epoch = %(epoch)s"
_STUCK = """
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE relation = 'ledger_writer'::regclass AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes, as the database says."""

    epoch: int
    address: str
    """Where its gRPC server is reached, in gRPC's form; empty where it has told none."""


class _Lease(NamedTuple):
    epoch: int
    beats: int
    holder: str
    address: str
    is_gone: bool


class Writership:
    """One replica's part in it, followed by a task of its own, on a connection of its own."""

    def __init__(self, conninfo: str, address: str = "") -> None:
        """Takes a libpq connection string of a migrated database, and where the others reach this replica."""
        given = {name: value for name, value in said_in(conninfo).items() if value}
        self._conninfo = make_conninfo("", **{**_KEEPALIVES, **given})
        self._address = address
        self._changed: Callable[[], object] = lambda: None
        self._name = uuid.uuid4().hex
        self._epoch = 0
        self._valid_until = 0.0
        self._told: tuple[int, Holder | None] = (0, None)
        self._holder: Holder | None = None
        self._has_locks = True
        self._trouble = ""
        self._first_look = asyncio.Event()
        self._is_connecting = False
        self._ending = asyncio.Event()

    @property
    def epoch(self) -> int:
        """Under which this replica may write now; 0 while it may not. From any thread."""
        return self._epoch if time.monotonic() < self._valid_until else 0

    @property
    def holder(self) -> Holder | None:
        """The other replica that writes, as far as this one knows; None where it writes itself, or nobody does."""
        return None if self.epoch else self._holder

    @property
    def trouble(self) -> str:
        """Why it cannot be known who writes; empty where it is."""
        return self._trouble

    @asynccontextmanager
    async def running(self, changed: Callable[[], object] = lambda: None) -> AsyncIterator[None]:
        """Follows the lease while the body runs, from the first look on, and gives it back after it.

        changed: called when this replica began or ended to write, and when another did.
        """
        self._changed = changed
        following = asyncio.create_task(self._run(), name="writership")
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._first_look.wait()
            yield
        finally:
            # Cancelled in no call: the driver would ask the server to cancel that, and wait for it.
            self._ending.set()
            if self._is_connecting:
                following.cancel()
            await asyncio.wait([following])
            await self._give_back()

    async def _run(self) -> None:
        while not self._ending.is_set():
            try:
                async with self._connected() as connection:
                    await self._follow(connection)
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._say_trouble(type(error).__name__)
            self._tell()
            await self._pause(LOOK_SECONDS)

    async def _follow(self, connection: psycopg.AsyncConnection[Any]) -> None:
        if self._epoch:
            await self._keep_lock(connection)
        last, unchanged = None, 0
        while not self._ending.is_set():
            if self._epoch:
                await self._beat(connection)
                wait = BEAT_SECONDS
            else:
                began = time.monotonic()
                lease = await self._look(connection)
                is_slow = time.monotonic() - began > SLOW_LOOK_SECONDS
                is_same = last is not None and lease[:3] == last[:3] and not is_slow
                last, unchanged = lease, unchanged + 1 if is_same else 0
                self._holder = Holder(lease.epoch, lease.address) if lease.holder else None
                if not lease.holder or lease.is_gone or unchanged >= MISSED_LOOKS:
                    await self._take_over(connection, lease)  # tried again at the next look, where it was in vain
                wait = LOOK_SECONDS
            self._say_trouble("")
            self._tell()
            self._first_look.set()
            await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    async def _look(self, connection: psycopg.AsyncConnection[Any]) -> _Lease:
        if self._has_locks:
            with self._finding_locks():
                return _Lease(*await _one(connection, _LOOK, lock_class=_LOCK_CLASS))
        return _Lease(*await _one(connection, _LOOK_WITHOUT_LOCKS))

    async def _beat(self, connection: psycopg.AsyncConnection[Any]) -> None:
        began = time.monotonic()
        with _cut_after(connection, CALL_SECONDS):
            beat = _BEAT.format(_HELD_HERE if self._has_locks else "false")
            cursor = await connection.execute(beat, {"epoch": self._epoch, "lock_class": _LOCK_CLASS})
        if cursor.rowcount == 1:
            self._valid_until = began + LAPSE_SECONDS
        else:
            self._epoch, self._valid_until = 0, 0.0

    async def _keep_lock(self, connection: psycopg.AsyncConnection[Any]) -> None:
        if self._has_locks:
            with self._finding_locks():
                await _one(connection, _LOCK, lock_class=_LOCK_CLASS, epoch=self._epoch)

    @contextmanager
    def _finding_locks(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable, psycopg.errors.FeatureNotSupported):
            self._has_locks = False
            log.info("writership.no_advisory_locks", hint="the end of a writer is noticed by its lease alone")

    async def _take_over(self, connection: psycopg.AsyncConnection[Any], seen: _Lease) -> None:
        """Begins a new epoch, unless somebody did or the writer has said something since seen."""
        epoch = seen.epoch + 1 + secrets.randbelow(_EPOCH_STEP)
        began = time.monotonic()
        try:
            with _cut_after(connection, CALL_SECONDS):
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
                    cursor = await connection.execute(
                        "UPDATE ledger_lease SET epoch = %s, beats = beats + 1, holder = %s, address = %s,"
                        " is_present = false WHERE id = 1 AND epoch = %s AND beats = %s",
                        (epoch, self._name, self._address, seen.epoch, seen.beats),
                    )
                    if cursor.rowcount != 1:
                        return
                    await connection.execute("UPDATE ledger_writer SET epoch = %s WHERE id = 1", (epoch,))
        except psycopg.errors.LockNotAvailable:
            # A transaction of the last writer holds the row, and its client may be paused. It was not acknowledged.
            # Where this role may not end sessions, the server does (idle_in_transaction_session_timeout).
            with _cut_after(connection, CALL_SECONDS), suppress(psycopg.errors.InsufficientPrivilege):
                cursor = await connection.execute(_STUCK)
                log.warning("writership.ended_sessions", sessions=cursor.rowcount)
            return
        self._epoch, self._valid_until = epoch, began + LAPSE_SECONDS
        await self._keep_lock(connection)

    async def _give_back(self) -> None:
        """Has another replica take over at once. One that cannot be told finds out, as where this one has lapsed."""
        if not self.epoch:
            return
        epoch, self._epoch, self._valid_until = self._epoch, 0, 0.0
        with suppress(psycopg.Error, OSError, TimeoutError):
            async with self._connected() as connection:
                with _cut_after(connection, CALL_SECONDS):
                    await connection.execute(
                        "UPDATE ledger_lease SET holder = '' WHERE id = 1 AND epoch = %s", (epoch,)
                    )
        self._tell()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        self._is_connecting = True
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        finally:
            self._is_connecting = False
        try:
            for name, value in _SERVER_SETTINGS.items():
                with _cut_after(connection, CALL_SECONDS), suppress(psycopg.errors.DatabaseError):
                    await connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            yield connection
        finally:
            await connection.close()

    def _tell(self) -> None:
        now = (self.epoch, self.holder)
        if now == self._told:
            return
        (was, _), self._told = self._told, now
        if now[0]:
            log.info("writership.began", epoch=now[0])
        elif was:
            log.warning("writership.ended", epoch=was)
        elif now[1]:
            log.info("writership.standby", writer=now[1].address, epoch=now[1].epoch)
        self._changed()

    def _say_trouble(self, trouble: str) -> None:
        # The error's type alone: libpq's messages may quote what it was given.
        if trouble != self._trouble:
            if trouble:
                log.warning("writership.trouble", error=trouble)
            else:
                log.info("writership.goes_on")
        self._trouble = trouble


async def _one(connection: psycopg.AsyncConnection[Any], statement: str, **values: Any) -> Any:
    with _cut_after(connection, CALL_SECONDS):
        cursor = await connection.execute(statement, values)
        row = await cursor.fetchone()
    if row is None:
        raise psycopg.DataError("the row of ledger_lease is missing")
    return row


@contextmanager
def _cut_after(connection: psycopg.AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Ends the connection where the body takes longer. A call that is cancelled would wait for the server instead."""
    handle = asyncio.get_running_loop().call_later(seconds, cut, connection)
    try:
        yield
    finally:
        handle.cancel()
