"""The two ends of a copy: a file with its seal's folder, or a database of PostgreSQL that has both."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

from audit_svc.errors import NoFile, StoreRefused
from audit_svc.ledger.copying import UNFINISHED, Tables
from audit_svc.seal.folder import folder_of
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import Log
from audit_svc.sqlite.copying import SqliteTables
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_writing, translated
from audit_svc.sqlite.open.files import reading, sync
from audit_svc.sqlite.open.lock import FileLock
from audit_svc.sqlite.open.served import mark_served
from audit_svc.sqlite.seal.folder_log import FolderLog
from audit_svc.sqlite.seal.ledger import SqliteSealedLedger
from audit_svc.sqlite.text.text_index import rebuild_text_index


class End(Protocol):
    """A ledger that no service writes to."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def tables(self) -> Tables:
        """Its rows."""
        ...

    @property
    def log(self) -> Log:
        """Its seal."""
        ...

    def reading(self) -> AbstractContextManager[SealedLedger]:
        """As the seal reads it."""
        ...

    def is_unchanged(self) -> bool:
        """Whether nobody has written to it since it was opened, as far as the store can tell."""
        ...

    def make_derived(self) -> None:
        """Makes what a store keeps beside the tables that are copied."""
        ...

    def finish(self, unmark: Callable[[Log], None]) -> None:
        """Lets services use it. unmark: takes away what says that the copy is not finished."""
        ...


class FileEnd:
    """A file. A target is made beside its place, and put there at the end."""

    def __init__(self, path: Path, folder: Path, tables: SqliteTables) -> None:
        self.name = str(path)
        self.tables = tables
        self.log: Log = FolderLog(folder)
        self._path = path

    @contextmanager
    def reading(self) -> Iterator[SealedLedger]:
        """See End."""
        with closing(SqliteSealedLedger.open(self._path)) as ledger:
            yield ledger

    def is_unchanged(self) -> bool:
        """Its lock is held, and files.reading() looks at the end."""
        return True

    def make_derived(self) -> None:
        """The index of texts."""
        with translated(self._path):
            for _ in rebuild_text_index(self.tables.connection):
                pass

    def finish(self, unmark: Callable[[Log], None]) -> None:
        """See opened_target()."""
        raise NotImplementedError


class FileTarget(FileEnd):
    """A file that is made."""

    def __init__(self, path: Path, folder: Path, draft: Path, tables: SqliteTables) -> None:
        super().__init__(draft, _seal_of(draft, folder), tables)
        self.name = str(path)
        self._final, self._folder = path, folder

    def finish(self, unmark: Callable[[Log], None]) -> None:
        """The seal first: whoever asks again after it was cut short finds the draft, and both are put into place."""
        with translated(self._path):
            self.tables.connection.pragma("wal_checkpoint(TRUNCATE)")
            self.tables.connection.close()
        draft = folder_of(self._path)
        if draft.exists():
            draft.replace(self._folder)
            sync(self._folder.parent)
        self._path.replace(self._final)
        sync(self._final.parent)
        mark_served(self._final)
        self._path.with_name(f"{self._path.name}.lock").unlink(missing_ok=True)
        unmark(FolderLog(self._folder))


def _seal_of(draft: Path, folder: Path) -> Path:
    """Where the seal of a draft is: in its place already where finish() was cut short."""
    return folder if folder.exists() else folder_of(draft)


@contextmanager
def source_file(path: Path, folder: Path | None, on_unseen: Callable[[str], None]) -> Iterator[End]:
    """A ledger in a file to read from.

    Raises:
        DatabaseInUse: a service has it open.
        StoreRefused: as files.reading().
    """
    folder = folder or folder_of(path)
    with ExitStack() as held:
        if not path.exists():
            raise NoFile(path)
        held.enter_context(FileLock(path, "--from"))
        if folder.exists():
            held.enter_context(FolderLog(folder).locked())
        connection = held.enter_context(reading(path, on_unseen=on_unseen))
        yield FileEnd(path, folder, SqliteTables(connection, path))


@contextmanager
def target_file(path: Path, folder: Path | None) -> Iterator[End]:
    """A file to make. Raises StoreRefused: there is one."""
    folder, draft = folder or folder_of(path), path.with_name(f"{path.name}.copying")
    if path.exists():
        log = FolderLog(folder)
        if log.read(UNFINISHED) is not None:
            log.remove(UNFINISHED)
            raise StoreRefused(f"{path} is a whole copy: only its last step was cut short, which is done now")
        raise StoreRefused(f"there is a file {path}: name another, or move it away")
    if folder.exists() and not draft.exists():
        raise StoreRefused(f"there is a seal in {folder}: move it away")
    with FileLock(draft, "--to"), translated(draft), closing(open_for_writing(draft, create=True)) as connection:
        migrate.up(connection, migrate.load_migrations())
        yield FileTarget(path, folder, draft, SqliteTables(connection, draft))
