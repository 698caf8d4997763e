"""Whether a key's file is the newest of the keys that the log says are its own.

Replicas have each a file of their own. One that was not replaced when the key was changed must not sign: with the key
before, whoever follows the log would take it for a forgery.
"""

from contextlib import closing
from pathlib import Path

from audit_svc.seal.folder import CHECKPOINT, beside, read_key, read_keys
from audit_svc.seal.key_change import KeyChange
from audit_svc.seal.log import Index, Log
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.errors import BadKey, BadNote
from recording.transparency.note import Signer, split_note


def last_change(index: Index, checkpoint: bytes) -> KeyChange | None:
    """The last that the log under a checkpoint says of its key; None where it has the first. Raises BadNote."""
    size = Checkpoint.parse(split_note(checkpoint.decode(errors="replace"))[0]).size
    for _, said in reversed(index.entries(size)):
        if change := KeyChange.parse(said):
            return change
    return None


def is_cut_short(key_file: Path, signer: Signer, change: KeyChange | None) -> bool:
    """Whether the log's newest key waits beside this one: a rotation ended before it had that one's name."""
    waiting = beside(key_file, "next")
    if change is None or change.act != "rotate" or change.old != str(signer.verifier) or not waiting.exists():
        return False
    return str(read_key(waiting).verifier) == change.key


def refuse_older(key_file: Path, signer: Signer, change: KeyChange | None) -> None:
    """Raises BadKey: the log has changed its key since this one."""
    if change is None or str(signer.verifier) == change.key or is_cut_short(key_file, signer, change):
        return
    raise BadKey(
        f"{key_file} is not the log's newest key, which is {change.key}: put the file from where `audit-svc seal key "
        f"{change.act}` ran in its place"
        + (f", and {beside(key_file, 'old').name} beside it while both sign" if change.act == "rotate" else "")
    )


def refuse_unfit(key_file: Path, log: Log) -> None:
    """Raises BadKey: a sealer could not go on with the log by this file. Nothing is changed."""
    if (checkpoint := log.read(CHECKPOINT)) is None:
        return
    try:
        keys = read_keys(key_file)
    except FileNotFoundError:
        raise missing(key_file, log) from None
    with closing(log.index()) as index:
        refuse_older(key_file, keys[0], change := last_change(index, checkpoint))
    if change is None:
        for key in keys:
            try:
                Checkpoint.open(checkpoint.decode(errors="replace"), key.verifier)
                return
            except BadNote as error:
                why = error
        raise BadKey(f"{key_file} is not the log's key: {why}")


def missing(key_file: Path, log: Log) -> BadKey:
    """That there is a log, and no key."""
    return BadKey(f"{key_file} is missing, with which the log in {log.place()} was begun: put it back")
