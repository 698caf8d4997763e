"""A ledger's file as commands open it, beside a service or without one: see audit_svc.stores.by_hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from audit_svc.ledger.progress import OnProgress
from audit_svc.sql.care.check import Finding
from audit_svc.sqlite.care import check, rebuild
from audit_svc.sqlite.care.backup import call_while_it_runs
from audit_svc.sqlite.open.files import reading
from audit_svc.sqlite.read.database import SqliteDatabase


class FileByHand:
    """See audit_svc.stores.by_hand.ByHand."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        """The path."""
        return str(self._path)

    @contextmanager
    def reading(self, on_unseen: Callable[[str], None]) -> Iterator[SqliteDatabase]:
        """See ByHand."""
        with reading(self._path, on_unseen=on_unseen) as connection:
            yield SqliteDatabase(connection)

    def check(self, on_progress: OnProgress) -> Iterator[Finding]:
        """See ByHand."""
        return check.check(self._path, on_progress)

    def rollups_off(self, on_progress: OnProgress, on_unseen: Callable[[str], None]) -> dict[str, int]:
        """See ByHand."""
        with reading(self._path, on_unseen=on_unseen) as connection:
            call_while_it_runs(connection, on_progress)
            return check.rollups_off(connection)

    def rebuild_rollups(self, on_progress: OnProgress) -> None:
        """See ByHand."""
        rebuild.rebuild_file(self._path, on_progress)

    def texts_off(self, on_progress: OnProgress, on_unseen: Callable[[str], None]) -> int:
        """See ByHand."""
        with reading(self._path, on_unseen=on_unseen) as connection:
            return check.texts_off(connection, on_progress)

    def rebuild_texts(self, on_progress: OnProgress) -> None:
        """See ByHand."""
        rebuild.rebuild_texts(self._path, on_progress)
