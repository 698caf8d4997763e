"""Whether enough witnesses have seen a log that this one begins with."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audit_svc.seal.tiles import Tiles
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Cosignature, Witness, cosignatures
from recording.transparency.errors import BadKey, BadNote
from recording.transparency.note import Verifier

RootOf = Callable[[int], bytes | None]
"""The root of a log's first leaves; None where it has fewer."""


@dataclass
class Seen:
    """What witnesses say of a log."""

    by: list[tuple[Cosignature, int]] = field(default_factory=list)
    """Each with the leaves of the largest checkpoint that it has signed."""
    problems: list[str] = field(default_factory=list)


def read_witness(text_or_file: str) -> Witness:
    """The key of a witness, or the file that has it. Raises BadKey."""
    path = Path(text_or_file)
    try:
        return Witness.parse(path.read_text(encoding="utf-8") if path.is_file() else text_or_file)
    except (OSError, UnicodeDecodeError) as error:
        raise BadKey(f"{path} cannot be read ({type(error).__name__}): check its rights") from None


def distinct(witnesses: Iterable[Witness]) -> list[Witness]:
    """One for each public key: under a second name it is no second witness."""
    return list({witness.public.public_bytes_raw(): witness for witness in witnesses}.values())


def roots_of(tiles: Tiles) -> RootOf:
    """The roots of the log that the tiles are of."""
    return lambda size: tiles.root(size) if size <= tiles.size else None


def look(
    notes: Iterable[str], log: Verifier, witnesses: Sequence[Witness], quorum: int, root_of: RootOf | None
) -> Seen:
    """Looks for the witnesses in checkpoints.

    Args:
        notes: what somebody gave; those that the log has not signed count for nothing.
        log: its key.
        witnesses: see distinct().
        quorum: how many of them are enough.
        root_of: of the log, which was verified; None where the notes are all that there is.

    Raises:
        BadLog: a tile cannot be read.
    """
    seen = Seen()
    if not witnesses:
        return seen
    largest: dict[Witness, tuple[Cosignature, int]] = {}
    for note in notes:
        try:
            checkpoint, found = Checkpoint.open(note, log), list(cosignatures(note, witnesses))
        except BadNote as error:
            seen.problems.append(f"a checkpoint with cosignatures cannot be used: {error}")
            continue
        is_there = root_of is None or root_of(checkpoint.size) == checkpoint.root
        for cosignature in found:
            if not is_there:
                seen.problems.append(
                    f"{cosignature.witness.name} has seen {checkpoint.size} leaves with which this log does not begin: "
                    "it was rolled back or written anew"
                )
            elif largest.get(cosignature.witness, (None, -1))[1] < checkpoint.size:
                largest[cosignature.witness] = cosignature, checkpoint.size
    seen.by = list(largest.values())
    if len(seen.by) < quorum:
        seen.problems.append(f"{len(seen.by)} of the witnesses have seen this log, and {quorum} are needed")
    return seen
