"""Where damaged pieces of segments go, so that somebody can look at what they were."""

import json
import os
from pathlib import Path

import structlog

from recording.spool.records import Damage
from recording.spool.segments import FILE_MODE, FOLDER_MODE

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 256 * 2**10


class Quarantine:
    """A folder with a file for each damaged piece: a line of JSON that says where it lay and why, then its bytes."""

    def __init__(self, folder: Path, producer_id: str) -> None:
        self._folder = folder
        self._producer_id = producer_id
        self._known: set[str] = set()

    def set_aside(self, segment: Path, damage: Damage) -> bool:
        """Copies the damaged bytes of segment; False when they have been set aside before, in this run or another.

        A disk that has no room for the copy does not hold up the rows behind the damage: the log tells, and the bytes
        stay in the segment for as long as it does.
        """
        name = f"{self._producer_id}-{segment.stem}-{damage.start}"
        path = self._folder / name
        if name in self._known or path.exists():
            return False
        self._known.add(name)
        size = damage.stop - damage.start
        log.error("spool.damage_quarantined", file=str(path), reason=damage.reason, size_bytes=size)
        try:
            self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            self._copy(segment, damage, path)
        except OSError as error:
            log.error("spool.quarantine_failed", file=str(path), reason=error.strerror)
        return True

    def _copy(self, segment: Path, damage: Damage, path: Path) -> None:
        about = {
            "producer_id": self._producer_id,
            "segment": segment.name,
            "start": damage.start,
            "stop": damage.stop,
            "reason": damage.reason,
        }
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with segment.open("rb") as source, os.fdopen(target, "wb") as copy:
            copy.write(json.dumps(about).encode() + b"\n")
            source.seek(damage.start)
            left = damage.stop - damage.start
            while left and (chunk := source.read(min(left, _CHUNK_BYTES))):
                copy.write(chunk)
                left -= len(chunk)
