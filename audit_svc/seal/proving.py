"""Makes the proof of a row, from the ledger, the tiles and the checkpoints."""

from collections.abc import Sequence
from contextlib import closing

from audit_svc.errors import AmbiguousId, Damaged, NotFound
from audit_svc.seal.errors import NotSealed
from audit_svc.seal.history import Restore
from audit_svc.seal.key_change import KeyChange
from audit_svc.seal.leaf import KINDS, Kind
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import Index, Log
from audit_svc.seal.tiles import Tiles
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier, split_note
from recording.transparency.proof import Proof

KINDS_WITH_ID = tuple(kind for kind in KINDS if "id" in kind.texts)
_FOR_PEOPLE = {"control": "act of control"}


def prove(log: Log, key: Verifier, notes: Sequence[str], rows: Sequence[tuple[Kind, int, bytes]]) -> Proof:
    """The proof of the last of some rows that is sealed, as rows_of() gives them.

    Args:
        log: the seal's.
        key: its verifier key.
        notes: checkpoints that the log has signed, the one to be preferred first; the last is the newest.
        rows: at least one.

    Raises:
        NotSealed: the newest checkpoint has none of the rows.
        Damaged: a row is not what was sealed.
        BadLog: the log's own files are not what they were.
    """
    newest = Checkpoint.parse(split_note(notes[-1])[0])
    with closing(log.index()) as index:
        for row in reversed(rows):
            at = _leaf_of(index, row[0], row[1], newest.size)
            if at is not None:
                break
        else:
            raise NotSealed(f"the {rows[0][0].name} is not sealed yet: try again in a second")
    kind, _, said = row
    for note in notes:
        size = Checkpoint.parse(split_note(note)[0]).size
        if at >= size:
            continue
        made = Proof.make(said, at, Tiles(log, size), note)
        try:
            made.check(key)
        except BadNote:
            continue  # a checkpoint from before a restore of the log, or a row that was changed
        return made
    raise Damaged(f"the {kind.name} is not what was sealed as leaf {at}: `audit-svc verify` tells what was changed")


def _leaf_of(index: Index, kind: Kind, position: int, size: int) -> int | None:
    """The leaf of a row; None where it has none yet, or had another row of a position that a restore lost."""
    at = index.find(kind.name, position, size)
    if at is None:
        return None
    lost = any(
        at < entry and KeyChange.parse(said) is None and Restore.parse(said).kept.get(kind.name, position) < position
        for entry, said in index.entries(size)
    )
    return None if lost else at


def rows_of(
    ledger: SealedLedger, kinds: Sequence[Kind], id_: str, recorded_by: str | None
) -> list[tuple[Kind, int, bytes]]:
    """The kind, position and leaf of the row of an id, of a session of each revision.

    recorded_by: whose; None where there must be only one.

    Raises:
        NotFound, AmbiguousId.
    """
    for kind in kinds:
        found = ledger.leaves_of(kind, id_, recorded_by)
        if not found:
            continue
        if recorded_by is None and len(owners := ledger.owners(kind, id_)) > 1:
            raise AmbiguousId(
                f"several callers recorded a {kind.name} with this id: choose one with recorded_by (`--recorded-by`)",
                kind.name,
                id_,
                owners,
            )
        return [(kind, position, said) for position, said in found]
    raise NotFound(not_there(kinds), kinds[0].name if len(kinds) == 1 else "row", id_)


def not_there(kinds: Sequence[Kind]) -> str:
    """What is said of an id that no row of these kinds has."""
    names = [_FOR_PEOPLE.get(kind.name, kind.name.replace("_", " ")) for kind in kinds]
    listed = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"the ledger has no {listed} with this id"
