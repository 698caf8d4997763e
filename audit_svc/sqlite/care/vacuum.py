"""Returns the space of removed rows by rewriting the whole file."""

from dataclasses import dataclass
from pathlib import Path

from audit_svc.ledger.progress import OnProgress
from audit_svc.sqlite.care.backup import call_while_it_runs
from audit_svc.sqlite.care.free_pages import INCREMENTAL
from audit_svc.sqlite.open.files import reading, writing


@dataclass(frozen=True, slots=True)
class Space:
    """The size of a ledger's file in bytes, and how much of it is free."""

    size_bytes: int
    free_bytes: int
    gives_back: bool
    """Whether prune gives space back by itself; a file has learned it when it was new, or by a vacuum."""


def space(path: Path) -> Space:
    """How large the file is. Raises StoreRefused."""
    with reading(path, exact_schema=False) as connection:
        page, pages, free = (int(connection.pragma(name)) for name in ("page_size", "page_count", "freelist_count"))
        return Space(page * pages, page * free, connection.pragma("auto_vacuum") == INCREMENTAL)


def vacuum(path: Path, on_progress: OnProgress) -> Space:
    """Rewrites the file without its free pages, and returns its size afterwards.

    Raises:
        StoreRefused: a service has it open, or it is no sound ledger.
        DiskFull: the disk has no room for a second copy, which is needed meanwhile.
    """
    with writing(path, exact_schema=False) as connection:
        call_while_it_runs(connection, on_progress)
        connection.execute("VACUUM")
    return space(path)
