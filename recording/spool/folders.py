"""The folders of all spools below one state directory: who owns which, and who takes over what the dead left.

A folder belongs to the process that holds the flock of its file `lock`. A process that starts takes a free folder as
its own, or makes one; the other free ones it adopts: it sends what lies in them under their own ids, and deletes them.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import structlog
import uuid_utils

from recording.locks import lock_file
from recording.spool.segments import FOLDER_MODE, ForeignVersion, sync_folder
from recording.spool.spool import Spool, SpoolOptions

log = structlog.get_logger(__name__)

LOCK = "lock"

_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Folders:
    """The spools below root. Processes and threads may race for the same root."""

    def __init__(self, root: Path, options: SpoolOptions) -> None:
        """Makes root when it is missing.

        Raises:
            OSError: it cannot be made, or is not this user's.
        """
        self._root = root
        self._options = options
        self._refused: set[str] = set()
        root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        root.chmod(FOLDER_MODE)

    def open_own(self) -> Spool:
        """A spool to write to.

        Raises:
            OSError: none can be made.
        """
        own = next(self._free_spools(), None)
        while own is None:
            folder = self._root / str(uuid_utils.uuid7())
            folder.mkdir(mode=FOLDER_MODE)
            sync_folder(self._root)
            lock = lock_file(folder / LOCK)  # None: another process saw it first, and has a folder of its own now
            own = None if lock is None else Spool(folder, lock, self._options)
        return own

    def adopt(self, limit: int) -> list[Spool]:
        """At most limit spools that nobody owns."""
        adopted: list[Spool] = []
        free = self._free_spools()
        while len(adopted) < limit and (spool := next(free, None)) is not None:
            adopted.append(spool)
            self._options.counters.adopted += 1
            log.info("spool.adopted", producer_id=spool.id, spooled_bytes=spool.spooled_bytes)
        return adopted

    def _free_spools(self) -> Iterator[Spool]:
        for folder in sorted(path for path in self._root.iterdir() if _NAME.fullmatch(path.name)):
            if folder.name in self._refused or (lock := lock_file(folder / LOCK)) is None:
                continue
            try:
                spool = Spool(folder, lock, self._options)
            except (ForeignVersion, OSError) as error:
                os.close(lock)
                self._refused.add(folder.name)
                log.error("spool.folder_refused", folder=str(folder), reason=str(error))
            else:
                yield spool
