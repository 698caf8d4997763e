"""Copies a log from one store to another. The signing key, which is a file, stays where it is."""

from audit_svc.seal.folder import CHECKPOINT, ROTATIONS, VERIFIER
from audit_svc.seal.log import OWN, Index, Log
from audit_svc.seal.outside import cosigned, stamps
from audit_svc.seal.reader import TOLD

FILES_AT_ONCE = 256


def copy_log(source: Log, target: Log) -> None:
    """Copies all files and the index, the checkpoint last; nothing where the target has that checkpoint already.

    Raises BadLog, InUse, StoreUnavailable, DiskFull.
    """
    checkpoint = source.read(CHECKPOINT)
    if checkpoint is None or target.read(CHECKPOINT) == checkpoint:
        return
    folders = ("tile", cosigned.FOLDER, stamps.FOLDER, ROTATIONS)
    paths = [*(path for folder in folders for path in source.paths(folder)), VERIFIER, TOLD]
    with target.changing(None):
        for first in range(0, len(paths), FILES_AT_ONCE):
            found = {path: source.read(path) for path in paths[first : first + FILES_AT_ONCE]}
            target.write({path: data for path, data in found.items() if data is not None})
        index, copied = source.index(), target.index(writable=True)
        try:
            with copied.transaction():
                copied.forget_from(0)
                _copy_index(index, copied)
        finally:
            index.close()
            copied.close()
        target.write({CHECKPOINT: checkpoint})


def _copy_index(source: Index, target: Index) -> None:
    for run in source.runs():
        if run.kind != OWN:
            target.add(run)
            continue
        for place in range(run.rows):
            target.add_entry(source.entry(run.first_position + place), run.first_index + place)
    target.note_producers(source.producers())
