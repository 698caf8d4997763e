"""A ledger in PostgreSQL and its seal, as tests handle them."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from audit_svc.ledger.copying import TABLES, copy_tables
from audit_svc.postgres.copying import PostgresTables
from audit_svc.postgres.open.connection import Connection
from audit_svc.seal.folder import KEY, own_verifier
from audit_svc.seal.sealer import Sealer
from audit_svc.seal.verify import Report, verify
from audit_svc.sealing.places import PostgresPlace, open_sealer
from audit_svc.sqlite.copying import SqliteTables
from audit_svc.sqlite.open.connection import open_for_reading

Record = Callable[..., None]


class PostgresSeal:
    """A ledger in PostgreSQL, and its seal."""

    def __init__(self, url: str, connection: Connection, folder: Path, database: Path) -> None:
        self.place = PostgresPlace(url)
        self.connection = connection
        self.key = folder / KEY
        self.database = database

    def copy(self) -> None:
        """What SQLite's ledger has more since it was copied last, and all that changes in place."""
        for table in TABLES:
            if not table.name.endswith("_log"):
                self.change(f"DELETE FROM {table.name}")
        with closing(open_for_reading(self.database)) as connection:
            copy_tables(SqliteTables(connection, self.database), PostgresTables(self.connection), lambda copied: None)

    def open(self) -> Sealer:
        return open_sealer(self.place, self.key, "ledger.example.com/test")

    def run(self) -> int:
        with self.open() as sealer:
            while sealer.step():
                pass
            return sealer.size

    def change(self, statement: str) -> None:
        """What the database's owner does."""
        self.connection.raw.execute(statement.encode())

    def verify(self, *old: Path) -> Report:
        with closing(self.place.open_ledger()) as ledger, closing(self.place.open_log()) as log:
            return verify(ledger, log, own_verifier(log), list(old))
