"""A log in tables of the ledger's own database: see seal.log.Log.

No lock is held between rounds, so that no sealer that is paused or cut off keeps another away. A round is a transaction
that begins from the checkpoint that the sealer knows, and is undone where that is no longer the newest.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from audit_svc.errors import StoreUnavailable
from audit_svc.postgres.open.cancelling import CancelToken
from audit_svc.postgres.open.connection import Connection, connect, transaction, translated
from audit_svc.seal.errors import InUse
from audit_svc.seal.folder import CHECKPOINT
from audit_svc.seal.sql_index import SqlIndex

_ROUND_SECONDS = 10
"""A transaction whose client says nothing for so long is ended by the server: it holds the checkpoint's row."""
_BEGUN_ELSEWHERE = "another process seals this ledger, and has gone on with the log: it is looked at again"


class PostgresLog:
    """A connection that is opened when it is needed, and again when it was lost. One thread at a time."""

    def __init__(self, url: str, token: CancelToken | None = None) -> None:
        """token: gives its connection up when it is cancelled."""
        self._url = url
        self._token = token
        self._opened: Connection | None = None
        self._is_changing = False

    def read(self, path: str) -> bytes | None:
        """See log.Files."""
        found = self.all("SELECT data FROM seal_files WHERE path = ?", (path,))
        return bytes(found[0][0]) if found else None

    def read_below(self, folder: str) -> dict[str, bytes]:
        """See log.Files."""
        found = self.all("SELECT path, data FROM seal_files WHERE path >= ? AND path < ? ORDER BY path", below(folder))
        return {path.rpartition("/")[2]: bytes(data) for path, data in found}

    def paths(self, folder: str) -> list[str]:
        """See log.Files."""
        found = self.all("SELECT path FROM seal_files WHERE path >= ? AND path < ? ORDER BY path", below(folder))
        return [str(path) for (path,) in found]

    def write(self, files: Mapping[str, bytes]) -> None:
        """See log.Files."""
        self.run_many(
            "INSERT INTO seal_files VALUES (?, ?) ON CONFLICT (path) DO UPDATE SET data = excluded.data",
            files.items(),
        )

    def remove(self, path: str) -> None:
        """See log.Files."""
        self.run_many("DELETE FROM seal_files WHERE path = ? OR path >= ? AND path < ?", [(path, *below(path))])

    def place(self, path: str = "") -> str:
        """See log.Files."""
        return f"{path} in the table seal_files" if path else "the ledger's database"

    def index(self, *, writable: bool = False) -> "PostgresIndex":
        """It shares this log's connection, and so its transactions."""
        return PostgresIndex(self)

    def has_begun(self) -> bool:
        """Whether there are tiles, or an index."""
        return bool(
            self.all("SELECT 1 FROM seal_files WHERE path >= ? AND path < ? LIMIT 1", below("tile"))
            or self.all("SELECT 1 FROM seal_runs LIMIT 1")
        )

    def locked(self) -> AbstractContextManager[None]:
        """Nobody is kept away: changing() sees who has gone on."""
        return nullcontext()

    @contextmanager
    def changing(self, checkpoint: bytes | None) -> Iterator[None]:
        """A transaction, which holds the checkpoint's row. Raises InUse."""
        with self.transaction():
            self._is_changing = True
            try:
                if checkpoint is None:
                    added = self.all(
                        "INSERT INTO seal_files VALUES (?, '') ON CONFLICT DO NOTHING RETURNING 1", (CHECKPOINT,)
                    )
                    is_newest = bool(added)
                else:
                    found = self.all("SELECT data FROM seal_files WHERE path = ? FOR UPDATE", (CHECKPOINT,))
                    is_newest = bool(found) and bytes(found[0][0]) == checkpoint
                if not is_newest:
                    raise InUse(_BEGUN_ELSEWHERE)
                yield
            finally:
                self._is_changing = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the body, or nothing of it."""
        with translated(), transaction(self._connection):
            yield

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of a statement."""
        with translated():
            return self._connection.execute(sql, values).fetchall()

    def run_many(self, sql: str, many: Iterable[Sequence[Any]]) -> None:
        """Runs a statement for each of many: for all or none."""
        with translated(), transaction(self._connection):
            self._connection.executemany(sql, many)

    def close(self) -> None:
        """Closes the connection."""
        if self._opened:
            self._opened.close()

    @property
    def _connection(self) -> Connection:
        if self._opened is None or self._opened.is_lost:
            if self._is_changing:  # another connection would write outside of the transaction
                raise StoreUnavailable("the connection to the ledger's database was lost in a round of the seal")
            self._opened = connect(self._url, writes=True, token=self._token)
            with translated():
                self._opened.execute(f"SET idle_in_transaction_session_timeout = {_ROUND_SECONDS * 1000}")
        return self._opened


class PostgresIndex(SqlIndex):
    """Which leaf is which row."""

    prefix = "seal_"

    def __init__(self, log: PostgresLog) -> None:
        self._log = log

    def close(self) -> None:
        """The connection is the log's."""

    def transaction(self) -> AbstractContextManager[None]:
        """All of the body, or nothing of it."""
        return self._log.transaction()

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._log.all(sql, values)

    def _write(self, sql: str, many: Iterable[Sequence[Any]]) -> None:
        self._log.run_many(sql, many)


def below(folder: str) -> tuple[str, str]:
    """The range of the paths below a folder: `0` is the character behind `/`."""
    return f"{folder}/", f"{folder}0"
