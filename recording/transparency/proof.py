"""A row's proof as one file (https://c2sp.org/tlog-proof), with the row in it: it is checked without the ledger."""

import base64
import binascii
from dataclasses import dataclass
from typing import Protocol, Self

from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.errors import BadNote
from recording.transparency.note import MAX_NOTE_BYTES, Verifier
from recording.transparency.tree import HASH_BYTES

_FIRST_LINE = "c2sp.org/tlog-proof@v1"


class Tiles(Protocol):
    """The hashes of a log."""

    @property
    def size(self) -> int:
        """How many leaves."""
        ...

    def subtree(self, height: int, n: int) -> bytes:
        """See tree.Subtree."""
        ...


@dataclass(frozen=True, slots=True)
class Proof:
    """That a leaf stands in a signed log."""

    leaf: bytes
    index: int
    hashes: tuple[bytes, ...]
    """From the leaf's sibling up to the root's child."""
    note: str
    """The signed checkpoint."""

    @classmethod
    def make(cls, leaf: bytes, index: int, tiles: Tiles, note: str) -> Self:
        """Of the leaf at an index. Raises what tiles raises where one cannot be read."""
        return cls(leaf, index, tuple(tree.inclusion_proof(index, tiles.size, tiles.subtree)), note)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a proof. Raises BadNote: it is none, or has no leaf in it."""
        try:
            if len(text) > 2 * MAX_NOTE_BYTES:
                raise ValueError
            head, note = text.split("\n\n", 1)
            first, extra, index, *lines = head.split("\n")
            said = index.removeprefix("index ")
            hashes = tuple(base64.b64decode(line, validate=True) for line in lines)
            if first != _FIRST_LINE or not extra.startswith("extra ") or said == index or str(int(said)) != said:
                raise ValueError
            if any(len(each) != HASH_BYTES for each in hashes):
                raise ValueError
            return cls(base64.b64decode(extra.removeprefix("extra "), validate=True), int(said), hashes, note)
        except (ValueError, binascii.Error):
            raise BadNote("it is not a proof with the row in it, as `audit-svc proof` writes") from None

    def __str__(self) -> str:
        hashes = "".join(f"{base64.b64encode(each).decode()}\n" for each in self.hashes)
        extra = base64.b64encode(self.leaf).decode()
        return f"{_FIRST_LINE}\nextra {extra}\nindex {self.index}\n{hashes}\n{self.note}"

    def check(self, verifier: Verifier) -> Checkpoint:
        """The checkpoint that holds the leaf. Raises BadNote: it is not signed by the log, or does not hold it."""
        checkpoint = Checkpoint.open(self.note, verifier)
        found = tree.includes(checkpoint.root, checkpoint.size, self.index, tree.leaf_hash(self.leaf), self.hashes)
        if not found:
            raise BadNote(f"the row does not stand at leaf {self.index} of the signed log: one of the two was changed")
        return checkpoint
