"""Connections to the database of conversations, and what their errors mean.

Hosts, TLS and credentials come by libpq's usual means: the URL, PGPASSFILE, PGSSLROOTCERT and the like. No message has
the URL or a password.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from gateway_svc.conversations.encryption import Keys
from gateway_svc.conversations.postgres.migrate import migrate
from gateway_svc.conversations.postgres.noted_keys import note_keys
from gateway_svc.errors import DiskFull, SettingsError, StoreUnavailable
from service_kit.paging import KEY_BYTES, use_key

OLDEST = 150_000
"""The oldest server, as libpq tells its version: 15."""
CONNECTIONS = 10


class Patience(NamedTuple):
    """How long a server is waited for."""

    away_seconds: float
    """That is away, as during its restart."""
    answer_seconds: float
    """That says nothing, as one that stands still."""


CALLER = Patience(2.0, 5.0)
"""Of what a caller waits for, who is to hear soon that it cannot be had now."""
TURN = Patience(20.0, 30.0)
"""Of a turn that runs: it outlasts a restart, or a failover."""
ONCE = Patience(0.0, 5.0)
"""Of what is done again later."""

END_SECONDS = 3.0
"""How long a server may say nothing to a gateway that ends. Then it is asked nothing more."""
_AGAIN_SECONDS = 0.1
_CONNECTED_SECONDS = 1.0
"""How long a connection of the pool is waited for at once: while none can be had it does not try again by itself."""
_DEFAULTS = {
    "application_name": "gateway-svc",
    "connect_timeout": "5",
    "target_session_attrs": "read-write",
    # A server that is gone without a word is noticed after so long, and not after the system's quarter of an hour.
    "tcp_user_timeout": "10000",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    # And so is a gateway, by the server.
    "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3 "
    "-c tcp_user_timeout=10000",
}
_LOOK_FOR_CLIENT = "SET client_connection_check_interval = '500ms'"
"""So the server ends a statement whose connection was closed, such as one that waits for a lock."""
_REFUSED = (
    ("no pg_hba.conf entry", "refuses this user: look at its pg_hba.conf, and at the user's name"),
    ("password authentication failed", "refuses the password: put the right one into PGPASSFILE, or into the URL"),
    ("does not exist", "or its user is not there: create both first"),
)

T = TypeVar("T")
log = structlog.get_logger(__name__)
logging.getLogger("psycopg").setLevel(logging.ERROR)  # each attempt to connect; what counts of it is told here


class Connection(psycopg.AsyncConnection[Any]):
    """A connection that is closed where a statement of it is given up."""

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - the driver's own parameter
        """Closes it: the driver calls this when a task that waits is cancelled.

        Not by a request to cancel the statement: before libpq 17 that stops the whole process until the server answers.
        """
        self.pgconn.finish()


async def _prepare(connection: Connection) -> None:
    with suppress(psycopg.DatabaseError):  # which not every server has, or its system
        await connection.execute(_LOOK_FOR_CLIENT)


class Database:
    """A database. It belongs to the loop that uses it first, until it is closed."""

    def __init__(self, url: str, keys: Keys) -> None:
        """Looks whether it can be used, and makes its tables; where it cannot be reached, that is done later.

        keys: those that its sessions are encrypted by.

        Raises:
            SettingsError: it is not what is needed.
        """
        try:
            said = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise SettingsError(
                "GATEWAY_SESSIONS: libpq cannot read it: must be postgresql://user@host:5432/database"
            ) from None
        if options := said.get("options"):
            said["options"] = f"{_DEFAULTS['options']} {options}"
        self.conninfo = make_conninfo("", **(_DEFAULTS | said))
        self._password = str(said.get("password") or "")
        self._keys = keys
        self._is_fit = False
        self._fitting = asyncio.Lock()
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._asking = set[asyncio.Future[Any]]()
        self._is_hurried = False
        self._is_silent = False
        """Whether it has said nothing for END_SECONDS since hurry()."""
        try:
            self._fit()
        except psycopg.Error as error:
            log.warning("sessions.database_away", reason=self.why(error))

    def _fit(self) -> None:
        try:
            connection = psycopg.connect(self.conninfo, autocommit=True)
        except psycopg.OperationalError as error:
            text = str(error)
            for said, what in _REFUSED:
                if said in text:
                    raise SettingsError(f"GATEWAY_SESSIONS: the database {what}") from None
            raise
        with connection:
            if connection.info.server_version < OLDEST:
                major = connection.info.server_version // 10_000
                raise SettingsError(f"GATEWAY_SESSIONS: the database is PostgreSQL {major}: 15 or later is needed")
            if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
                raise SettingsError(f"GATEWAY_SESSIONS: the database has the encoding {encoding}: create it with UTF8")
            try:
                migrate(connection)
                note_keys(connection, self._keys)
                use_key(_page_key(connection))
            except psycopg.errors.InsufficientPrivilege:
                raise SettingsError(
                    "GATEWAY_SESSIONS: the user may not make tables there: make it the database's owner"
                ) from None
        self._is_fit = True

    async def fit(self) -> None:
        """Looks whether it can be used, if that could not be done before.

        Raises:
            SettingsError, psycopg.Error: it cannot.
        """
        if not self._is_fit:
            async with self._fitting:
                if not self._is_fit:
                    await asyncio.to_thread(self._fit)

    async def ask(
        self, statement: str, values: Mapping[str, Any] | None = None, patience: Patience = CALLER
    ) -> list[Any]:
        """The rows of a statement, a transaction of its own. It may have run when its answer is lost, and runs again.

        Raises:
            StoreUnavailable: the database cannot be used now.
        """

        async def once() -> list[Any]:
            await self.fit()
            async with (await self._opened()).connection(_CONNECTED_SECONDS) as connection:
                cursor = await connection.execute(statement, values)
                return await cursor.fetchall() if cursor.description else [(cursor.rowcount,)]

        return await self.patiently(lambda: self._within(patience.answer_seconds, once()), patience.away_seconds)

    async def patiently(self, work: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Returns what work returns, which is done again while the database is away.

        Raises:
            StoreUnavailable: it is away for too long, or cannot be used.
        """
        deadline = time.monotonic() + seconds
        while True:
            if self._is_silent:
                raise self.unavailable(_no_answer())
            try:
                return await work()
            except (psycopg.Error, SettingsError, OSError) as error:
                if not _passes(error) or self._is_hurried or time.monotonic() > deadline:
                    raise self.unavailable(error) from error
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _opened(self) -> "AsyncConnectionPool[Connection]":
        if self._pool is None:
            self._pool = AsyncConnectionPool(
                self.conninfo,
                connection_class=Connection,
                configure=_prepare,
                kwargs={"autocommit": True},
                min_size=1,
                max_size=CONNECTIONS,
                open=False,
                reconnect_timeout=_CONNECTED_SECONDS,
            )
            await self._pool.open()
        return self._pool

    def hurry(self) -> None:
        """The process ends: a server that says nothing, or is away, is waited for no longer than END_SECONDS.

        What was not saved then is as after a kill.
        """
        self._is_hurried = True
        asyncio.get_running_loop().call_later(END_SECONDS, self._end, tuple(self._asking))

    def _end(self, asking: Sequence["asyncio.Future[Any]"]) -> None:
        for task in asking:
            if not task.done():
                self._is_silent = True
                task.cancel()

    async def _within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Returns what work returns, or leaves it to its end.

        Raises:
            OSError: it did not return in time.
        """
        if self._is_hurried:
            seconds = min(seconds, END_SECONDS)
        task = asyncio.ensure_future(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        try:
            await asyncio.wait([task], timeout=seconds)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task], timeout=seconds)
            raise
        if task.cancelled():
            raise _no_answer()
        if task.done():
            return task.result()
        self._is_silent = self._is_hurried
        task.cancel()
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # else asyncio tells it
        raise _no_answer()

    async def aclose(self) -> None:
        """Closes the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close(_CONNECTED_SECONDS)

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """What an error of the database means to a caller."""
        if isinstance(error, psycopg.errors.DiskFull):
            return DiskFull("the disk of the sessions' database is full")
        return StoreUnavailable(f"the sessions' database cannot be used now: {self.why(error)}")

    def why(self, error: Exception) -> str:
        """What may be told of an error: its code, and of one that the server did not make its text, without secrets."""
        if isinstance(error, PoolTimeout):
            return "it does not answer"
        if isinstance(error, psycopg.Error) and error.sqlstate:
            return f"PostgreSQL answers {error.sqlstate} ({type(error).__name__})"
        text = " ".join(str(error).split())
        return text.replace(self._password, "***") if self._password else text


def _no_answer() -> OSError:
    return OSError("it does not answer")


def _page_key(connection: psycopg.Connection[Any]) -> bytes:
    """The key of page tokens, so that the next page may be asked for at another gateway."""
    connection.execute("INSERT INTO gateway_keys VALUES ('page', %s) ON CONFLICT DO NOTHING", (os.urandom(KEY_BYTES),))
    row = connection.execute("SELECT key FROM gateway_keys WHERE name = 'page'").fetchone()
    return bytes(row[0]) if row else b""


def _passes(error: Exception) -> bool:
    """Whether an error is of a connection, or of a server that starts, ends or has changed its role."""
    if isinstance(error, OSError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate[:2] in ("08", "57", "40") or error.sqlstate in ("25006", "53300")
