"""Erasing in the file: what SQLite overwrites and merges, and erasures that no service does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit_svc.ledger.clock import wall_ms
from audit_svc.ledger.erased import ERASED
from audit_svc.ledger.erasing import ErasingProgress, Erasure
from audit_svc.ledger.side_by_side import side_by_side
from audit_svc.seal.leaf import Kind
from audit_svc.sql.care import erase as shared
from audit_svc.sql.care.erase import kept_of, refuse_held
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sqlite.care.free_pages import give_space_back
from audit_svc.sqlite.open.connection import Connection, transaction
from audit_svc.sqlite.open.files import writing
from audit_svc.sqlite.text.text_index import merge_all, replace_texts


def erase_file(path: Path, wanted: Erasure) -> Iterator[ErasingProgress]:
    """Erases in a ledger that no service has open, and tells after each batch how far it is.

    Raises:
        NotFound, AmbiguousId: there is no such row or session, or several callers have one.
        Held: a legal hold holds one of the rows. Nothing is erased.
        StoreRefused: a service has it open, or it is no ledger of this version of the code.
        DiskFull: the disk has no room for a batch.
    """
    with writing(path) as connection:
        refuse_held(connection, wanted)
        erase = Erase(wanted, LedgerClock(connection))
        done = False
        while not done:
            with transaction(connection):
                progress = erase.step(connection)
            done = progress.done
            if done:
                connection.pragma("wal_checkpoint(TRUNCATE)")
            yield progress


@dataclass
class Erase(shared.Erase):
    """One erasure in the file."""

    _is_merging: bool = False

    @property
    def has_written(self) -> bool:
        """Whether the file was changed, so that its log has what was there before."""
        return bool(self._erased.rows) or self._is_merging

    def _erase(self, connection: Any, kind: Kind, rows: list[Any]) -> None:
        said = [(kept_of(kind, row), *(None if text is None else ERASED for text in row[3:]), row[1]) for row in rows]
        columns = ", ".join(f"{name} = ?" for name in kind.hashed)
        with _overwriting(connection):
            connection.executemany(
                f"UPDATE {kind.table} SET salt = NULL, erased = ?, {columns} WHERE position = ?",  # noqa: S608 - names of ours
                said,
            )
            if kind.name == "tool_call":
                replace_texts(connection, [(row[1], row[3]) for row in rows], ERASED)
                connection.execute("UPDATE erasing SET is_merged = 0")
        now_ms = wall_ms()
        connection.executemany(
            "INSERT INTO erasure_log (erased_kind, first_position, last_position, erased_by, reason, recorded_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [
                (kind.name, first, last, self.wanted.by, self.wanted.reason, now_ms)
                for first, last in side_by_side(sorted(row[1] for row in rows))
            ],
        )

    def _is_gone(self, connection: Any) -> bool:
        if is_merged(connection):
            # what the index of texts was merged from may still stand in free pages
            return give_space_back(connection)
        if not merge_all(connection, begin=not self._is_merging):
            connection.execute("UPDATE erasing SET is_merged = 1")
        self._is_merging = True
        return False


def is_merged(connection: Connection) -> bool:
    """Whether the index of texts has nothing left of what was erased, as after an erasure that ended early."""
    ((merged,),) = connection.execute("SELECT is_merged FROM erasing")
    return bool(merged)


@contextmanager
def _overwriting(connection: Connection) -> Iterator[None]:
    """What the body removes is overwritten in the file, also where a whole page becomes free."""
    connection.pragma("secure_delete", True)
    try:
        yield
    finally:
        connection.pragma("secure_delete", "fast")
