"""A ledger that a command opens by itself, whichever store it is in."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from audit_svc.ledger.progress import OnProgress
from audit_svc.sql.care.check import Finding
from audit_svc.sql.database import Database
from audit_svc.stores.driver import refuse_without_driver

OnUnseen = Callable[[str], None]
"""Called with a sentence where rows may be missing in what is read."""


class ByHand(Protocol):
    """What commands do with one. All methods raise StoreRefused, and StoreUnavailable where it cannot be reached."""

    @property
    def place(self) -> str:
        """Where it is, without what may be secret."""
        ...

    def reading(self, on_unseen: OnUnseen) -> AbstractContextManager[Database]:
        """What answers questions, all of one moment; beside a service too."""
        ...

    def check(self, on_progress: OnProgress) -> Iterator[Finding]:
        """Each finding as it is made, beside a service too."""
        ...

    def rollups_off(self, on_progress: OnProgress, on_unseen: OnUnseen) -> dict[str, int]:
        """How many rows of each rollup are not what the rows say, beside a service too."""
        ...

    def rebuild_rollups(self, on_progress: OnProgress) -> None:
        """Makes all rollups again from the rows. Raises DatabaseInUse: a service writes."""
        ...

    def texts_off(self, on_progress: OnProgress, on_unseen: OnUnseen) -> int:
        """How many parts of the index of texts lack something. Raises Unsupported: the store has no such index."""
        ...

    def rebuild_texts(self, on_progress: OnProgress) -> None:
        """Makes the index of texts again. Raises as texts_off(); DatabaseInUse: a service writes, to a file."""
        ...


def by_hand(database: Path | str) -> ByHand:
    """The ledger in a file, or at the URL of a database of PostgreSQL."""
    if isinstance(database, str):
        refuse_without_driver()
        from audit_svc.postgres.care.by_hand import PostgresByHand

        return PostgresByHand(database)
    from audit_svc.sqlite.care.by_hand import FileByHand

    return FileByHand(database)
