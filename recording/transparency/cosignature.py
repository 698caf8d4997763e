"""What witnesses sign of a checkpoint: that it begins with all that they saw before, and when they saw it.

https://c2sp.org/tlog-cosignature, `cosignature/v1`.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from recording.transparency.errors import BadNote
from recording.transparency.note import Signer, Verifier, split_note

_TIME = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Witness(Verifier):
    """The public key of a witness, with its name."""

    KIND: ClassVar[bytes] = b"\x04"
    WANTED: ClassVar[str] = "the key of a witness looks like name+1a2b3c4d+BFpz…"

    def verify(self, text: str, signature: bytes) -> None:
        """Raises BadNote: the witness has not made the signature of the checkpoint's text."""
        (seconds,) = _TIME.unpack(signature[: _TIME.size]) if len(signature) >= _TIME.size else (0,)
        self._verify(_signed(text, seconds), signature[_TIME.size :])


@dataclass(frozen=True, slots=True)
class Cosigner(Signer):
    """The private key of a witness, with its name."""

    VERIFIER: ClassVar[type[Verifier]] = Witness

    @property
    def verifier(self) -> Witness:
        """What checks its cosignatures."""
        return Witness.of(self.name, self.private.public_key())

    def cosign(self, text: str, seconds: int) -> str:
        """The line of a checkpoint's text, at a time in seconds since 1970-01-01 UTC; the witness has checked it."""
        return self._line(_TIME.pack(seconds) + self.private.sign(_signed(text, seconds)))


@dataclass(frozen=True, slots=True)
class Cosignature:
    """That a witness has seen a checkpoint."""

    witness: Witness
    seconds: int
    """When, by the witness's clock, since 1970-01-01 UTC."""
    line: str
    """As it stands below the checkpoint, with its line break."""


def cosignatures(note: str, witnesses: Sequence[Witness]) -> Iterator[Cosignature]:
    """Of a checkpoint's note, those of known witnesses, one of each. Raises BadNote: one of them does not fit."""
    text, lines = split_note(note)
    known = {(witness.name, witness.key_id): witness for witness in witnesses}
    for line in lines:
        if witness := known.pop((line.name, line.key_id), None):
            witness.verify(text, line.signature)
            (seconds,) = _TIME.unpack(line.signature[: _TIME.size])
            yield Cosignature(witness, seconds, line.line)


def _signed(text: str, seconds: int) -> bytes:
    if seconds >= 2**63:
        raise BadNote("a witness's time cannot be so late")
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()
