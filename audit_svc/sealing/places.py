"""Where a ledger and its seal are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audit_svc.seal.folder import folder_of
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import Log
from audit_svc.seal.sealer import Sealer
from audit_svc.sqlite.open.files import reading
from audit_svc.sqlite.seal.folder_log import FolderLog
from audit_svc.sqlite.seal.ledger import SqliteSealedLedger


@dataclass(frozen=True, slots=True)
class SealPlace:
    """A database file, and the folder of its seal."""

    database: Path
    folder: Path

    @classmethod
    def of(cls, database: Path, folder: Path | None = None) -> "SealPlace":
        """folder: FILE.seal beside the database by default."""
        return cls(database, folder or folder_of(database))

    def open_ledger(self) -> SealedLedger:
        """Raises StoreRefused: it cannot be read."""
        return SqliteSealedLedger.open(self.database)

    @contextmanager
    def reading(self, on_unseen: Callable[[str], None]) -> Iterator[SealedLedger]:
        """The ledger or a backup, beside a service or without one: neither the file nor its folder is changed.

        on_unseen: called with a sentence where rows may be missing in what is read. Raises as files.reading().
        """
        with reading(self.database, on_unseen=on_unseen) as connection:
            yield SqliteSealedLedger(connection, self.database)

    def open_sealer(self, key_file: Path, origin: str) -> Sealer:
        """Raises as Sealer, and StoreRefused."""
        ledger = self.open_ledger()
        return Sealer(ledger, self.open_log(), key_file, origin)

    def open_log(self) -> Log:
        """The log, which may not be there yet."""
        return FolderLog(self.folder)
