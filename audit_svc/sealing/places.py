"""Where a ledger and its seal are: a file and a folder, or a database of PostgreSQL that has both."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from audit_svc.postgres.open.cancelling import CancelToken
from audit_svc.seal.folder import KEY, folder_of
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import Log
from audit_svc.seal.sealer import Sealer
from audit_svc.sqlite.open.files import reading
from audit_svc.sqlite.seal.folder_log import FolderLog
from audit_svc.sqlite.seal.ledger import SqliteSealedLedger

POSTGRES = ("postgresql://", "postgres://")
"""How the name of a database of PostgreSQL begins."""
DATABASE = "ONRECORD_SEALED_DATABASE"
"""The variable by which the sealing process is told of the database."""
LOOK = "look"
"""What the sealing process is told in the place of seconds, to look at its key alone."""


class SealPlace(Protocol):
    """A ledger and its log."""

    @property
    def key_file(self) -> Path | None:
        """Where the signing key is by default; None where it has to be named."""
        ...

    def open_ledger(self) -> SealedLedger:
        """The ledger of a service. Raises StoreRefused, StoreUnavailable."""
        ...

    @contextmanager
    def reading(self, on_unseen: Callable[[str], None]) -> Iterator[SealedLedger]:
        """The ledger or a backup, beside a service or without one, after a look whether it is one of this version.

        on_unseen: called with a sentence where rows may be missing in what is read. Raises StoreRefused,
        StoreUnavailable.
        """
        ...

    def open_log(self) -> Log:
        """The log, which may not be there yet."""
        ...

    def give_up(self) -> None:
        """Ends what is opened here, whatever it waits for, as far as that can be done. From any thread."""
        ...


def place_of(database: Path | str, folder: Path | None = None) -> SealPlace:
    """The place of a ledger's seal.

    Args:
        database: a file, or the URL of a database of PostgreSQL.
        folder: of the seal; FILE.seal beside a file by default. With PostgreSQL it has none.
    """
    if isinstance(database, str) and database.startswith(POSTGRES):
        return PostgresPlace(database)
    return FolderPlace(Path(database), folder or folder_of(Path(database)))


def open_sealer(place: SealPlace, key_file: Path, origin: str) -> Sealer:
    """Raises as Sealer, and as open_ledger()."""
    ledger = place.open_ledger()
    return Sealer(ledger, place.open_log(), key_file, origin)


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A database file, and the folder of its seal."""

    database: Path
    folder: Path

    @property
    def key_file(self) -> Path:
        """In the folder."""
        return self.folder / KEY

    def open_ledger(self) -> SealedLedger:
        """See SealPlace."""
        return SqliteSealedLedger.open(self.database)

    @contextmanager
    def reading(self, on_unseen: Callable[[str], None]) -> Iterator[SealedLedger]:
        """Neither the file nor its folder is changed. Raises as files.reading()."""
        with reading(self.database, on_unseen=on_unseen) as connection:
            yield SqliteSealedLedger(connection, self.database)

    def open_log(self) -> Log:
        """See SealPlace."""
        return FolderLog(self.folder)

    def give_up(self) -> None:
        """A read of a disk ends when it does."""


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """A database of PostgreSQL. Its driver is loaded when it is opened: the service installs it as an extra."""

    url: str
    key_file: Path | None = None
    _token: CancelToken = field(default_factory=CancelToken, repr=False, compare=False)

    def open_ledger(self) -> SealedLedger:
        """See SealPlace."""
        from audit_svc.postgres.seal.ledger import PostgresSealedLedger

        return PostgresSealedLedger.open(self.url, self._token)

    @contextmanager
    def reading(self, on_unseen: Callable[[str], None]) -> Iterator[SealedLedger]:
        """See SealPlace."""
        from audit_svc.postgres.open import migrate
        from audit_svc.postgres.open.connection import connect

        with closing(connect(self.url)) as connection:
            migrate.refuse_older(connection)
        with closing(self.open_ledger()) as ledger:
            yield ledger

    def open_log(self) -> Log:
        """See SealPlace."""
        from audit_svc.postgres.seal.log import PostgresLog

        return PostgresLog(self.url, self._token)

    def give_up(self) -> None:
        """See SealPlace."""
        self._token.cancel()
