"""The folder `kept` below the spools: segments whose rows are all acked, the newest up to a size.

A segment that a spool is done with is renamed into it, so that no spool, no count and no recovery sees it any more. The
names begin with a number that grows, whatever the clock says: `<order>-<producer id>-<first number>.segment`.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from recording.held_folder import FOLDER_MODE, HeldFolder
from recording.log import get_logger

log = get_logger(__name__)

FOLDER = "kept"
KEEP_BYTES = 64 * 2**20
"""By default."""
MAX_SEGMENTS = 1024
"""Many short processes leave many small segments."""

_NAME = re.compile(r"(\d{20})-([0-9a-f-]{36})-(\d{20})\.segment")
_BLOCK_BYTES = 4096


class KeptSegment(NamedTuple):
    """A segment in the folder."""

    order: int
    """Of when it came here."""
    producer_id: str
    first: int
    """The lowest record number that it can hold."""
    path: Path


class Kept:
    """The folder, for all processes of a state directory. Losing it loses no row, so that it raises nothing."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        """root: the parent of all spool folders. max_bytes: what the segments may take on disk; 0 keeps none."""
        self._folder = root / FOLDER
        self._max_bytes = max_bytes

    def take(self, folder: HeldFolder, name: str) -> None:
        """Takes a segment out of a spool's folder.

        Raises:
            OSError: it is still there.
        """
        if self._max_bytes:
            try:
                self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
                newest = max((segment.order for segment in list_kept(self._folder.parent)), default=0)
                path = self._folder / f"{newest + 1:020d}-{folder.path.name}-{name}"
                folder.move(name, path)
                with suppress(OSError):
                    os.truncate(path, path.stat().st_size)  # frees what was allocated ahead
            except FileNotFoundError:
                return
            except OSError as error:  # the spool's folder was moved to another file system, or this one is full
                log.warning("spool.segment_not_kept", segment=name, reason=error.strerror)
        folder.unlink(name)

    def trim(self) -> None:
        """Removes the oldest segments beyond the size."""
        size = count = 0
        for segment in reversed(list_kept(self._folder.parent)):
            with suppress(OSError):  # another process may trim it
                size += max(segment.path.stat().st_size, _BLOCK_BYTES)
                count += 1
                if size > self._max_bytes or count > MAX_SEGMENTS:
                    segment.path.unlink()

    def size_bytes(self) -> int:
        """What the segments hold."""
        size = 0
        for segment in list_kept(self._folder.parent):
            with suppress(OSError):
                size += segment.path.stat().st_size
        return size


def list_kept(root: Path) -> list[KeptSegment]:
    """What is kept below the parent of all spool folders, the oldest first."""
    try:
        names = os.listdir(root / FOLDER)  # noqa: PTH208 - names are all that is needed
    except OSError:
        return []
    matches = (match for match in map(_NAME.fullmatch, names) if match)
    return sorted(KeptSegment(int(match[1]), match[2], int(match[3]), root / FOLDER / match[0]) for match in matches)
