"""What the log says of the ledger's rows: which leaf is whose, what a prune removed, what a restore lost."""

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Self

from audit_svc.seal import leaf
from audit_svc.seal.errors import BadLog, Rewritten
from audit_svc.seal.key_change import KeyChange
from audit_svc.seal.leaf import Kind
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import OWN, Index, Run
from audit_svc.seal.tiles import Tiles
from recording.transparency import tree

_NOTHING = (0, b"")


@dataclass(frozen=True, slots=True)
class Restore:
    """That somebody put a copy in the ledger's place."""

    kept: Mapping[str, int]
    """Of each kind the position of the last row that is still there; later ones that were sealed are lost."""
    lost: Mapping[str, int]
    """Of each kind how many were lost."""
    reason: str
    by: str
    producers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Of producers of which the ledger had more numbers than it has: the first and the last that it had more."""

    def leaf(self, at_ms: int) -> str:
        """What stands in the log of it."""
        said = {"kind": OWN, "v": str(leaf.VERSION), "act": "restore", "at": str(at_ms), "by": self.by}
        numbers = {"kept": self.kept, "lost": self.lost}
        whole = {name: {kind: str(number) for kind, number in of.items()} for name, of in numbers.items()}
        ranges = {name: f"{first}-{last}" for name, (first, last) in self.producers.items()}
        return leaf.canonical({**said, "reason": self.reason, **whole, "producers": ranges}).decode()

    @classmethod
    def parse(cls, said: str) -> Self:
        """Reads a leaf. Raises BadLog: it is of a version that this one does not know."""
        try:
            read = json.loads(said)
            if read["act"] != "restore" or read["v"] != "1":
                raise ValueError
            kept, lost = ({kind: int(number) for kind, number in read[name].items()} for name in ("kept", "lost"))
            ranges = {name: said.split("-") for name, said in read.get("producers", {}).items()}
            producers = {name: (int(first), int(last)) for name, (first, last) in ranges.items()}
            return cls(kept, lost, str(read["reason"]), str(read["by"]), producers)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise BadLog("the log has an entry that this version does not know: use a later one") from None


class Segments:
    """Of one kind, which leaf each position has: runs in the order of their positions.

    A ledger that is written all day has one or more each second, so they are kept as numbers: 24 bytes a run.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._positions, self._indices, self._rows = array("q"), array("q"), array("q")
        self._ends: array[int] | None = None
        """How many rows there are up to the end of each run, once it is asked."""

    def add(self, run: Run) -> None:
        """A run behind the last one. Raises BadLog: it is not behind it."""
        if run.first_position <= self.last_position:
            raise BadLog(f"the log has the {run.kind} at position {run.first_position} twice")
        self._ends = None
        self._positions.append(run.first_position)
        self._indices.append(run.first_index)
        self._rows.append(run.rows)

    def cut(self, kept: int) -> None:
        """Forgets what is behind a position."""
        self._ends = None
        while self.last_position > kept:
            if self._positions[-1] <= kept:
                self._rows[-1] = kept - self._positions[-1] + 1
                break
            for numbers in (self._positions, self._indices, self._rows):
                numbers.pop()

    def index_of(self, position: int) -> int | None:
        """The index of a row's leaf; None where it has none."""
        place = bisect_right(self._positions, position) - 1
        if place < 0 or position >= self._positions[place] + self._rows[place]:
            return None
        return self._indices[place] + position - self._positions[place]

    def row(self, number: int) -> tuple[int, int]:
        """The position and the index of a row, by how many come before it."""
        self._ends = self._ends or array("q", accumulate(self._rows))
        place = bisect_right(self._ends, number)
        in_run = number - self._ends[place] + self._rows[place]
        return self._positions[place] + in_run, self._indices[place] + in_run

    @property
    def last_position(self) -> int:
        """0 where nothing is sealed."""
        return self._positions[-1] + self._rows[-1] - 1 if self._rows else 0

    def __iter__(self) -> Iterator[Run]:
        for first_position, first_index, rows in zip(self._positions, self._indices, self._rows, strict=True):
            yield Run(first_index, self._kind, leaf.VERSION, first_position, rows)

    def __len__(self) -> int:
        return sum(self._rows)


def segments(index: Index, size: int) -> tuple[dict[str, Segments], list[tuple[int, Restore]]]:
    """What the first size leaves are of, by kind, after the restores, which come with their indices. Raises BadLog."""
    found = {kind.name: Segments(kind.name) for kind in leaf.KINDS}
    restores = []
    behind = 0
    for run in index.runs():
        if run.first_index != behind:
            raise BadLog(f"the index does not say what leaf {behind} is of")
        if run.first_index >= size:
            break
        run = run._replace(rows=min(run.rows, size - run.first_index))
        behind = run.first_index + run.rows
        if run.kind != OWN:
            if run.kind not in found or run.version != leaf.VERSION:
                raise BadLog(f"the log has leaves of the kind {run.kind}, version {run.version}: use a later version")
            found[run.kind].add(run)
            continue
        for place in range(run.rows):
            said = index.entry(run.first_position + place)
            if KeyChange.parse(said):
                continue
            restore = Restore.parse(said)
            restores.append((run.first_index + place, restore))
            for kind, kept in restore.kept.items():
                if kind not in found:
                    raise BadLog(f"the log has a restore of the kind {kind}: use a later version")
                found[kind].cut(kept)
    if behind < size:
        raise BadLog(f"the index does not say what leaf {behind} is of")
    return found, restores


class History:
    """Answers from the ledger and the log together, without reading either whole."""

    def __init__(self, ledger: SealedLedger, index: Index, tiles: Tiles) -> None:
        self._ledger = ledger
        self._index = index
        self.tiles = tiles

    def last_sealed(self, kind: Kind) -> tuple[int, bytes]:
        """Of the last sealed row that no restore lost, its position and its leaf's hash; 0 where there is none."""
        run = self._index.last_of(kind.name, self.tiles.size)
        position = run.last_position if run else 0
        for at, said in self._index.entries(self.tiles.size):
            if run and at > run.first_index and KeyChange.parse(said) is None:
                position = Restore.parse(said).kept.get(kind.name, position)
        return self._sealed(kind, position)

    def _sealed(self, kind: Kind, position: int) -> tuple[int, bytes]:
        index = self._index.find(kind.name, position, self.tiles.size)
        return _NOTHING if index is None else (position, self.tiles.leaf(index))

    def refuse_rewritten(self, kind: Kind, position: int, sealed: bytes) -> None:
        """Looks at the last sealed row, as last_sealed() gives it. Raises Rewritten: it is not there as it was."""
        if not position:
            return
        said = self._ledger.leaf_at(kind, position)
        if said is None and self._ledger.was_removed(kind, position):
            return
        if said is None or tree.leaf_hash(said) != sealed:
            what = "is gone" if said is None else "is another"
            raise Rewritten(
                f"the {kind.name} at position {position} was sealed and {what}: the ledger was changed, or restored "
                "from a backup. `audit-svc verify` tells what is wrong; after a restore, `audit-svc seal "
                "accept-restore` goes on"
            )

    def last_kept(self, kind: Kind) -> int:
        """The last position up to which the ledger is as it was sealed: a copy of it has all before some moment."""
        known = segments(self._index, self.tiles.size)[0][kind.name]
        low, high = 0, len(known)
        while low < high:
            middle = (low + high) // 2
            position, index = known.row(middle)
            said = self._ledger.leaf_at(kind, position)
            if said is None:
                is_there = self._ledger.was_removed(kind, position)
            else:
                is_there = tree.leaf_hash(said) == self.tiles.leaf(index)
            low, high = (middle + 1, high) if is_there else (low, middle)
        return known.row(low - 1)[0] if low else 0

    def restore(self, kept: Mapping[str, int], reason: str, by: str) -> Restore:
        """What is lost where only so much is kept."""
        known, _ = segments(self._index, self.tiles.size)
        lost = {}
        for kind, position in kept.items():
            before = len(known[kind])
            known[kind].cut(position)
            lost[kind] = before - len(known[kind])
        now = self._ledger.producers()
        fewer = {
            producer: (now.get(producer, 0) + 1, highest)
            for producer, highest in self._index.producers().items()
            if now.get(producer, 0) < highest
        }
        return Restore(kept, lost, reason, by, {name_of(*producer): numbers for producer, numbers in fewer.items()})

    def not_back(self) -> dict[str, list[tuple[int, int]]]:
        """By producer, the numbers that restores lost and that the ledger still does not have."""
        known, gone = self._ledger.producers(), {}
        highest = {name_of(*producer): (producer, number) for producer, number in known.items()}
        _, restores = segments(self._index, self.tiles.size)
        for _, restore in restores:
            for name, (first, last) in restore.producers.items():
                producer, number = highest.get(name, (("", ""), 0))
                holes = self._ledger.holes(producer, first, last)
                left = [*holes, *([(max(first, number + 1), last)] if number < last else [])]
                if left:
                    gone[name] = left
        return gone


def name_of(id_: str, recorded_by: str) -> str:
    """A producer for people: its id, and who it is where the id does not say so."""
    return id_ if not recorded_by or id_.startswith(f"{recorded_by}/") else f"{recorded_by}/{id_}"
