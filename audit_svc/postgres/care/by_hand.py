"""A ledger in PostgreSQL as commands open it, beside services or without any: see audit_svc.stores.by_hand."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg

from audit_svc.errors import StoreRefused, Unsupported
from audit_svc.ledger.progress import OnProgress
from audit_svc.postgres.care import check
from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import Connection, connect, said_in, translated
from audit_svc.postgres.open.served import refuse_served
from audit_svc.postgres.read.database import PostgresDatabase
from audit_svc.postgres.text.trigrams import INDEX, MAKE_INDEX, has_index, index_state
from audit_svc.postgres.usage import recount
from audit_svc.sql.care.check import Finding, comparable_from


class PostgresByHand:
    """See audit_svc.stores.by_hand.ByHand."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def place(self) -> str:
        """The server and the database, without what may be secret."""
        said = said_in(self._url)
        host, port = (str(said.get(name) or "") for name in ("host", "port"))
        return f"postgresql://{host}{':' if port else ''}{port}/{said.get('dbname') or ''}"

    @contextmanager
    def reading(self, on_unseen: Callable[[str], None]) -> Iterator[PostgresDatabase]:
        """Nothing is unseen in a database."""
        with self._moment() as connection:
            migrate.refuse_older(connection)
            yield PostgresDatabase(connection, has_trigrams=has_index(connection))

    def check(self, on_progress: OnProgress) -> Iterator[Finding]:
        """See ByHand."""
        with self._moment() as connection:
            yield from check.check(connection, on_progress)

    def rollups_off(self, on_progress: OnProgress, on_unseen: Callable[[str], None]) -> dict[str, int]:
        """See ByHand."""
        with self._moment() as connection:
            migrate.refuse_older(connection)
            return recount.rollup_differences(connection, comparable_from(connection), on_progress)

    def rebuild_rollups(self, on_progress: OnProgress) -> None:
        """See ByHand."""
        with self._alone() as connection:
            recount.rebuild_rollups(connection, on_progress)

    def texts_off(self, on_progress: OnProgress, on_unseen: Callable[[str], None]) -> int:
        """1 where the index was not finished: the database keeps it with the rows."""
        with self._moment() as connection:
            migrate.refuse_older(connection)
            return int(_index_state(connection) == "unfinished")

    def rebuild_texts(self, on_progress: OnProgress) -> None:
        """See ByHand. Services may go on meanwhile."""
        with translated(), closing(connect(self._url, writes=True)) as connection:
            migrate.refuse_older(connection)
            _index_state(connection)
            try:
                connection.execute(f"REINDEX INDEX CONCURRENTLY {INDEX}")
            except psycopg.errors.InsufficientPrivilege:
                raise StoreRefused(f"this user does not own the index of texts {INDEX}: ask as its owner") from None

    @contextmanager
    def _moment(self) -> Iterator[Connection]:
        with translated(), closing(connect(self._url)) as connection:
            connection.raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.raw.read_only = True
            with connection.raw.transaction():
                yield connection

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        with translated(), closing(connect(self._url, writes=True)) as connection:
            migrate.up(connection, migrate.load_migrations())
            refuse_served(connection)
            yield connection


def _index_state(connection: Connection) -> str:
    """Raises Unsupported where there is no index."""
    if (state := index_state(connection)) == "missing":
        raise Unsupported(
            "the database has no index of texts, and looks for them row by row; its owner makes one by "
            f"`{'; '.join(MAKE_INDEX)}`"
        )
    return state
