"""What the seal reads of a ledger, whatever its store: it writes nothing there."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from audit_svc.seal.leaf import Kind

Row = tuple[int, bytes]
"""Its position, and its leaf."""


class SealedLedger(Protocol):
    """One connection that reads. Rows come in the order of their positions.

    Any call may raise StoreRefused, or StoreUnavailable.
    """

    def moment(self) -> AbstractContextManager[None]:
        """What the body reads is of one moment of all tables."""
        ...

    def leaves_after(
        self, kind: Kind, after: int, until: int | None = None, limit: int | None = None
    ) -> Generator[Row]:
        """Rows behind a position, up to and with another, and so many at most.

        They are read while they are taken, of one moment where moment() or the store says so: close it where not all
        are taken. See short_reads for many.
        """
        ...

    def leaf_at(self, kind: Kind, position: int) -> bytes | None:
        """A row's leaf as the ledger has it now; None where the row is gone."""
        ...

    def leaves_of(self, kind: Kind, id_: str, recorded_by: str | None) -> list[tuple[int, bytes]]:
        """The positions and leaves of the rows of an id. recorded_by: whose; None for all."""
        ...

    def owners(self, kind: Kind, id_: str) -> list[str]:
        """Who recorded rows of an id, sorted."""
        ...

    def newest_ids(self, kind: Kind, limit: int) -> list[str]:
        """The ids of so many rows at most, the one that began last first; of a session once, whatever its revisions."""
        ...

    def row(self, kind: Kind, position: int) -> Mapping[str, Any]:
        """The columns of a row, and those of leaf.BESIDE where it has texts to hash. Raises KeyError: it is gone."""
        ...

    def count_after(self, kind: Kind, position: int) -> int:
        """How many rows are behind a position."""
        ...

    def was_removed(self, kind: Kind, position: int) -> bool:
        """Whether a prune says that it removed a row."""
        ...

    def removals(self) -> Iterable[tuple[int, str, int, int]]:
        """What prunes removed: the position of each entry, the kind, and the first and last position of the rows."""
        ...

    def producers(self) -> dict[tuple[str, str], int]:
        """The highest number that has come of each producer, by (id, recorded_by)."""
        ...

    def holes(self, producer: tuple[str, str], first: int, last: int) -> list[tuple[int, int]]:
        """Numbers from first to last that have not come of a producer, as ranges; what is above its highest is not."""
        ...

    def erased(self, kind: Kind) -> Iterable[tuple[int, bool, bool]]:
        """Rows whose texts are erased: the position, whether an entry names it, and whether its salt is gone."""
        ...

    def erasure_of(self, kind: Kind, position: int) -> tuple[int, int, str] | None:
        """The entry that says that a row's texts were erased: its position, when in ms, by whom."""
        ...

    def with_texts_again(self, kind: Kind) -> Iterable[int]:
        """Positions of rows that have their texts, though an entry says that they were erased."""
        ...

    def changed_sessions(self, limit: int) -> list[str]:
        """The ids of sessions that are not what their last sealed revision says.

        One that the ledger sums up has revision 0, the labels that were sealed last, and at least as much as its rows:
        some may be pruned.
        """
        ...

    def removed_sessions(self, limit: int) -> list[str]:
        """The ids of sessions that have revisions and are not there."""
        ...

    def close(self) -> None:
        """Closes the connection."""
        ...
