"""Compares rows with what was sealed of them: a tile at a time, and row by row where something does not fit."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from audit_svc.seal.history import Segments
from audit_svc.seal.ledger import Row
from audit_svc.seal.log import Run
from audit_svc.seal.tiles import WIDTH, Tiles, split
from recording.transparency.tree import HASH_BYTES, leaf_hash


@dataclass(slots=True)
class Comparison:
    """What was found of a kind."""

    rows: int = 0
    """Those that are as they were sealed."""
    missing: list[int] = field(default_factory=list)
    """Positions that were sealed and have no row."""
    problems: list[str] = field(default_factory=list)


def compare(
    kind: str,
    rows: Iterable[Row],
    known: Segments,
    tiles: Tiles,
    encode_again: Callable[[int], bytes | None],
    on_rows: Callable[[int], None],
) -> Comparison:
    """Compares rows.

    Args:
        kind: of the rows, by its name.
        rows: in the order of their positions, up to the last one that is sealed.
        known: which leaf each position has.
        tiles: of the log.
        encode_again: the leaf of the row at a position, by other code; None where it has gone since. It is asked for
            one row of each tile.
        on_rows: called with how many more positions were compared.

    Raises:
        BadLog: a tile cannot be read.
    """
    found, ahead = Comparison(), _Ahead(rows)
    for run in known:
        for index in _tile_by_tile(run):
            first = run.first_position + index - run.first_index
            count = min(WIDTH - index % WIDTH, run.first_index + run.rows - index)
            begin = index % WIDTH * HASH_BYTES
            sealed = tiles.tile(0, index // WIDTH)[begin : begin + count * HASH_BYTES]
            taken = ahead.take(count)
            if _are_sealed(taken, first, count, sealed):
                found.rows += count
                if encode_again(first) not in (None, taken[0][1]):
                    found.problems.append(f"{kind} {first} is encoded differently by the database and by Python")
            else:
                ahead.give_back(taken)
                _look_closely(kind, ahead, first, index, sealed, found)
            on_rows(count)
    found.problems += _added(kind, ahead.rest())
    return found


def _tile_by_tile(run: Run) -> Iterator[int]:
    """The first index of each part of a run that is in one tile."""
    yield run.first_index
    yield from range((run.first_index // WIDTH + 1) * WIDTH, run.first_index + run.rows, WIDTH)


def _are_sealed(rows: Sequence[Row], first: int, count: int, sealed: bytes) -> bool:
    """Whether these are the rows of so many positions side by side, with the hashes that were sealed."""
    if len(rows) != count or rows[0][0] != first or rows[-1][0] != first + count - 1:
        return False
    return b"".join([leaf_hash(leaf) for _, leaf in rows]) == sealed


def _look_closely(kind: str, ahead: "_Ahead", first: int, index: int, sealed: bytes, found: Comparison) -> None:
    for place, hash_ in enumerate(split(sealed)):
        position = first + place
        found.problems += _added(kind, ahead.take_before(position))
        row = ahead.take_at(position)
        if row is None:
            found.missing.append(position)
        elif leaf_hash(row[1]) != hash_:
            found.problems.append(f"{kind} {position} is not what was sealed as leaf {index + place}: it was changed")
        else:
            found.rows += 1


def _added(kind: str, rows: Iterable[Row]) -> Iterator[str]:
    for position, _ in rows:
        yield f"{kind} {position} stands between sealed rows and was never sealed: it was added"


class _Ahead:
    """Rows in the order of their positions, some of which may be given back."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self._back: deque[Row] = deque()

    def take(self, count: int) -> list[Row]:
        """So many, or fewer where there are no more."""
        taken = [self._back.popleft() for _ in range(min(count, len(self._back)))]
        return taken + list(islice(self._rows, count - len(taken)))

    def rest(self) -> Iterator[Row]:
        """All that were not taken."""
        yield from self._back
        yield from self._rows

    def give_back(self, rows: Sequence[Row]) -> None:
        """The rows that were taken last."""
        self._back.extendleft(reversed(rows))

    def take_before(self, position: int) -> Iterator[Row]:
        """Those before a position."""
        while (taken := self.take(1)) and taken[0][0] < position:
            yield taken[0]
        self.give_back(taken)

    def take_at(self, position: int) -> Row | None:
        """The row at a position, where it is the next one."""
        taken = self.take(1)
        if taken and taken[0][0] == position:
            return taken[0]
        self.give_back(taken)
        return None
