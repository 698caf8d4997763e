"""Keeps damaged pieces of segments for inspection."""

import json
import os
from pathlib import Path

from recording.framing import Damage
from recording.held_folder import FILE_MODE, FOLDER_MODE
from recording.log import get_logger

log = get_logger(__name__)

_CHUNK_BYTES = 256 * 2**10


class Quarantine:
    """A folder with a file for each damaged piece: a line of JSON with its origin and the reason, then its bytes."""

    def __init__(self, folder: Path, producer_id: str) -> None:
        self._folder = folder
        self._producer_id = producer_id
        self._known: set[str] = set()

    def set_aside(self, segment: str, fd: int, damage: Damage) -> bool:
        """Copies the damaged bytes of the segment open as fd; False if an earlier call or run already did.

        If the disk has no room for the copy, that is logged, the rows after the damage go on, and the bytes stay in the
        segment until it is deleted.
        """
        name = f"{self._producer_id}-{segment.removesuffix('.segment')}-{damage.start}"
        path = self._folder / name
        if name in self._known or path.exists():
            return False
        self._known.add(name)
        size = damage.stop - damage.start
        log.error("spool.damage_quarantined", file=str(path), reason=damage.reason, size_bytes=size)
        try:
            self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            self._copy(segment, fd, damage, path)
        except OSError as error:
            log.error("spool.quarantine_failed", file=str(path), reason=error.strerror)
        return True

    def _copy(self, segment: str, fd: int, damage: Damage, path: Path) -> None:
        about = {
            "producer_id": self._producer_id,
            "segment": segment,
            "start": damage.start,
            "stop": damage.stop,
            "reason": damage.reason,
        }
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(target, "wb") as copy:
            copy.write(json.dumps(about).encode() + b"\n")
            at = damage.start
            while chunk := os.pread(fd, min(damage.stop - at, _CHUNK_BYTES), at):
                copy.write(chunk)
                at += len(chunk)
