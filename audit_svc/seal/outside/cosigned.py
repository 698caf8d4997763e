"""What witnesses signed: the newest checkpoint of each, beside the log."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from audit_svc.errors import Damaged, InvalidRequest, NotFound
from audit_svc.seal.log import Files
from audit_svc.seal.tiles import Tiles
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Cosignature, Witness, cosignatures
from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier, split_note

FOLDER = "cosigned"
"""Below the log: a file for each witness, by its key's id."""
MAX_COSIGNED_BYTES = 16_384
"""Of a note that somebody sends: a checkpoint with some cosignatures has a few hundred."""


class Cosigned:
    """The newest checkpoint of each witness, kept beside the log. One process writes, any may read."""

    def __init__(self, log: Files) -> None:
        self._log = log
        self._verified: dict[Witness, tuple[bytes, Cosignature, str]] = {}
        """What was read of each, and verified."""

    def notes(self, witnesses: Sequence[Witness]) -> Iterator[tuple[Cosignature, str]]:
        """What is kept of these witnesses, each with the note that it signed; what is damaged is left out."""
        kept = self._log.read_below(FOLDER) if witnesses else {}
        for witness in witnesses:
            said = kept.get(_name(witness))
            if said is None or said != self._verified.get(witness, (b"",))[0]:
                self._verified.pop(witness, None)
            if said is not None and witness not in self._verified:
                with suppress(BadNote, UnicodeDecodeError):
                    note = said.decode()
                    for cosignature in cosignatures(note, [witness]):
                        self._verified[witness] = said, cosignature, note
            if witness in self._verified:
                yield self._verified[witness][1:]

    def checkpoints(self, witnesses: Sequence[Witness]) -> dict[str, tuple[str, int]]:
        """Each checkpoint that is the newest of some witness, by its text without its last line break.

        It comes as a note with the lines of all those, and with how many they are.
        """
        found: dict[str, tuple[str, int]] = {}
        for cosignature, note in self.notes(witnesses):
            text = note.rpartition("\n\n")[0]  # it was verified already
            whole, count = found.get(text, ("", 0))
            found[text] = (whole + cosignature.line if whole else note, count + 1)
        return found

    def keep(self, note: str, log: Verifier, witnesses: Sequence[Witness], tiles: Tiles) -> list[Cosignature]:
        """Keeps what witnesses have signed in a note, where they have not signed a larger checkpoint before.

        Returns what is good in it.

        Raises:
            InvalidRequest: it is no checkpoint that the log has signed, or a signature does not fit.
            NotFound: no witness of these has signed it.
            Damaged: the log has signed it, and has other leaves now.
        """
        try:
            if len(note.encode()) > MAX_COSIGNED_BYTES:
                raise BadNote(f"it has more than {MAX_COSIGNED_BYTES} bytes")
            checkpoint = Checkpoint.open(note, log)
            text, lines = split_note(note)
            found = list(cosignatures(note, witnesses))
        except BadNote as error:
            raise InvalidRequest(f"note: {error}", "note") from None
        own = [line.line for line in lines if (line.name, line.key_id) == (log.name, log.key_id)]
        if not found:
            others = [line.name for line in lines if line.line not in own]
            if not others:
                raise InvalidRequest("note: no witness has signed it", "note")
            raise NotFound(f"AUDIT_SEAL_WITNESSES names no witness {others[0]} with this key", "witness", others[0])
        if checkpoint.size > tiles.size or tiles.root(checkpoint.size) != checkpoint.root:
            raise Damaged(
                f"the log has {tiles.size} leaves and does not begin with the {checkpoint.size} that it signed: it was "
                "rolled back or written anew. `audit-svc verify --old-checkpoint` with this note proves it"
            )
        for cosignature in found:
            if self.size(cosignature.witness) <= checkpoint.size:
                whole = f"{text}\n{own[0]}{cosignature.line}"
                self._log.write({f"{FOLDER}/{_name(cosignature.witness)}": whole.encode()})
        return found

    def size(self, witness: Witness) -> int:
        """The leaves of its newest checkpoint; 0 without one."""
        return max((Checkpoint.parse(split_note(note)[0]).size for _, note in self.notes([witness])), default=0)


def _name(witness: Witness) -> str:
    return witness.key_id.hex()


def cosigned_by_all(log: Files, key: Verifier) -> list[str]:
    """What the log and witnesses have signed; a note for each checkpoint, first that of most. key: the log's.

    Nothing is known of the witnesses, and so nothing is verified of them.
    """
    found: dict[str, list[str]] = {}
    for said in log.read_below(FOLDER).values():
        with suppress(UnicodeDecodeError, BadNote):
            note = said.decode()
            Checkpoint.open(note, key)
            text, lines = split_note(note)
            found.setdefault(text, [f"{text}\n{lines[0].line}"]).append(lines[-1].line)
    return ["".join(parts) for parts in sorted(found.values(), key=len, reverse=True)]
