"""Connections to the ledger's database, and what its errors mean.

Hosts, TLS and credentials come by libpq's usual means: the URL, PGPASSFILE, PGSSLROOTCERT and the like. No password is
in a message or in the log: what libpq says of a URL that it cannot read is not told, since it quotes the URL.
"""

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8Dumper

from audit_svc.errors import AuditError, DiskFull, StoreRefused, StoreUnavailable, WrongSetting
from audit_svc.postgres.open.cancelling import CancelToken
from audit_svc.postgres.open.spelling import spelled

OLDEST = 150_000
"""The oldest server, as libpq tells its version: 15."""

IDLE_SECONDS = "5s"
"""A transaction that writes, and whose client says nothing for so long, is ended by the server: others wait for it."""

_DEFAULTS = {
    "application_name": "audit-svc",
    "connect_timeout": "5",
    # A peer that is gone without a word is noticed after so long, and not after the system's quarter of an hour.
    "tcp_user_timeout": "20000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
_REFUSED = {
    "28000": "refuses this user: look at the user's name, and at the server's pg_hba.conf",
    "28P01": "refuses the password: put the right one into PGPASSFILE, or into the URL",
    "3D000": "has no such database: create it first, empty",
}


class _Whole(Loader):
    """Sums are numeric, and whole."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data))


class Connection:
    """A connection that takes the SQL that both stores share: see spelling.

    Each statement is a transaction of its own outside transaction(). One thread at a time.
    """

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw
        self._is_cut = False
        self.version = 0
        """See data_version()."""
        self._cursor: psycopg.RawCursor[Any] = psycopg.RawCursor(raw)

    def execute(self, sql: str, arguments: Sequence[Any] = ()) -> psycopg.RawCursor[Any]:
        """Runs a statement; its rows are those of the cursor, which fetchone(), fetchall() or a loop gives."""
        self._cursor = psycopg.RawCursor(self.raw)
        return self._cursor.execute(spelled(sql).encode(), arguments or None)

    def executemany(self, sql: str, arguments: Iterable[Sequence[Any]]) -> None:
        """Runs a statement for each of arguments, without waiting for one before the next is sent."""
        self._cursor = psycopg.RawCursor(self.raw)
        if many := list(arguments):
            self._cursor.executemany(spelled(sql).encode(), many)

    def copy(self, sql: str) -> AbstractContextManager[psycopg.Copy]:
        """COPY to or from the server, in the body."""
        return self.raw.cursor().copy(sql.encode())

    def data_version(self) -> int:
        """Of what the connection's owner knows of the database by heart: another number when that may be wrong."""
        return self.version

    def changes(self) -> int:
        """How many rows the last statement has written or removed."""
        return max(self._cursor.rowcount, 0)

    def close(self) -> None:
        """Closes the connection, whatever it is doing."""
        self.raw.close()

    def cut(self) -> None:
        """Ends the connection under a call that waits, which fails. From any thread."""
        self._is_cut = True
        cut(self.raw)

    @property
    def is_lost(self) -> bool:
        """Whether it was closed, by this process or by the server."""
        return self._is_cut or self.raw.closed


def cut(raw: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Ends a connection, whatever it waits for: a network that swallows all, too. From any thread."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(raw.pgconn.socket)) as ours:
        ours.shutdown(socket.SHUT_RDWR)


def said_in(url: str) -> dict[str, Any]:
    """The parameters of a URL, or of a connection string, by libpq's names. Raises WrongSetting."""
    try:
        return conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise WrongSetting(
            "AUDIT_DB or --db: libpq cannot read it: must be postgresql://user@host:5432/database"
        ) from None


def connect(
    url: str, *, writes: bool = False, statement_seconds: float | None = None, token: CancelToken | None = None
) -> Connection:
    """A connection to the database at a URL as libpq takes it.

    writes: only to a server that takes writes, of several hosts; its commits are synced, whatever the server's default.
    statement_seconds: the longest time of a statement, where the URL's options or the role's settings say no other.
    token: gives the connection up when it is cancelled, and this call too.

    Raises:
        StoreRefused: the URL, the user, the password, or the server's version is not what is needed.
        StoreUnavailable: there is no connection now.
    """
    defaults = _DEFAULTS | ({"target_session_attrs": "read-write"} if writes else {})
    said = said_in(url)
    try:
        conninfo = make_conninfo("", **(defaults | said))
        raw: psycopg.Connection[Any]
        if token is None:
            raw = psycopg.connect(conninfo, autocommit=True)
        else:
            raw = token.open(lambda: psycopg.connect(conninfo, autocommit=True), cut)
    except psycopg.OperationalError as error:
        raise _why_no_connection(error, said) from None
    try:
        _refuse_unfit(raw)
        if writes:
            raw.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, false)", (IDLE_SECONDS,))
        if writes and raw.execute("SHOW synchronous_commit").fetchall() in ([("off",)], [("local",)]):
            raw.execute("SET synchronous_commit = on")
        if statement_seconds and raw.execute("SHOW statement_timeout").fetchone() == ("0",):
            raw.execute("SELECT set_config('statement_timeout', %s, false)", (f"{statement_seconds}s",))
    except psycopg.Error as error:
        raw.close()
        raise translate(error) from None
    except BaseException:
        raw.close()
        raise
    raw.adapters.register_dumper(int, Int8Dumper)
    raw.adapters.register_loader("numeric", _Whole)
    return Connection(raw)


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """A transaction: committed at the end of the body, rolled back when the body or the commit raises."""
    with connection.raw.transaction():
        yield


@contextmanager
def translated() -> Iterator[None]:
    """Translates PostgreSQL's errors in its body into the ledger's own, as translate() does."""
    try:
        yield
    except psycopg.Error as error:
        if (reason := translate(error)) is error:
            raise
        raise reason from None


def translate(error: Exception) -> Exception:
    """What an error means for who waits: what passes is an AuditError; what the values are at fault for stays as it is.

    Who is told that nothing was stored may find, when it sends again, that it was: then it is a duplicate.
    """
    if not isinstance(error, psycopg.Error):
        return error
    if error.sqlstate == "53100":
        return DiskFull("the disk of the ledger's database is full")
    if isinstance(error, (psycopg.IntegrityError, psycopg.DataError)):
        return error
    if error.sqlstate == "25006":
        return StoreUnavailable("the ledger's database takes no writes now: another server of it does, or soon will")
    if error.sqlstate == "42501":
        return StoreUnavailable("the ledger's database refuses the service's user a right; its log says which")
    if error.sqlstate is None or error.sqlstate[:2] in ("08", "57", "53"):
        return StoreUnavailable("the ledger's database cannot be reached now; the log says why")
    return StoreUnavailable("the ledger's database cannot be used now; its log says why")


def detail_of(error: Exception) -> str:
    """What may be logged of an error: its code, and of one without a code, which the server did not make, its text.

    What the server says may quote values.
    """
    if isinstance(error, AuditError):
        return str(error)
    if not isinstance(error, psycopg.Error):
        return ""
    return error.sqlstate or " ".join(str(error).split())


def _why_no_connection(error: psycopg.OperationalError, url: dict[str, Any]) -> AuditError:
    # The server's code is not there when a connection failed, only its text.
    text = " ".join(str(error).split())
    if password := url.get("password"):
        text = text.replace(str(password), "***")
    for code, what in _REFUSED.items():
        if error.sqlstate == code or any(said in text for said in _SAID[code]):
            return StoreRefused(f"the ledger's database {what}")
    return StoreUnavailable(f"the ledger's database cannot be reached now: {text}")


_SAID = {
    "28000": ("no pg_hba.conf entry", 'role "'),
    "28P01": ("password authentication failed", "no password supplied"),
    "3D000": ('" does not exist',),
}


def _refuse_unfit(raw: psycopg.Connection[Any]) -> None:
    if raw.info.server_version < OLDEST:
        major = raw.info.server_version // 10_000
        raise StoreRefused(f"the ledger's database is PostgreSQL {major}: 15 or later is needed")
    if (encoding := raw.info.parameter_status("server_encoding")) != "UTF8":
        raise StoreRefused(f"the ledger's database has the encoding {encoding}: create it with UTF8")
