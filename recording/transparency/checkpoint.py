"""A log's head, as the log signs it (https://c2sp.org/tlog-checkpoint)."""

import base64
import binascii
from dataclasses import dataclass
from typing import Self

from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier, open_note
from recording.transparency.tree import HASH_BYTES

_MAX_SIZE = 2**63


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How many leaves a log has, and the root above them."""

    origin: str
    size: int
    root: bytes
    """32 bytes."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the text of a note. Raises BadNote."""
        try:
            origin, size, encoded, *_ = text.removesuffix("\n").split("\n")
            root = base64.b64decode(encoded, validate=True)
            if not origin or len(root) != HASH_BYTES or not size.isascii() or str(int(size)) != size:
                raise ValueError
            if not 0 <= int(size) < _MAX_SIZE:
                raise ValueError
        except (ValueError, binascii.Error):
            raise BadNote("the note is not a checkpoint of a log") from None
        return cls(origin, int(size), root)

    @classmethod
    def open(cls, note: str, verifier: Verifier) -> Self:
        """Reads a note that the log itself has signed. Raises BadNote."""
        checkpoint = cls.parse(open_note(note, [verifier]))
        if checkpoint.origin != verifier.name:
            raise BadNote(f"the checkpoint is of the log {checkpoint.origin}, and not of {verifier.name}")
        return checkpoint

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"
