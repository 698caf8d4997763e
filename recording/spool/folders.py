"""The spool folders in one state directory: ownership, and adoption of dead processes' folders.

A folder belongs to the process that holds its lock (held_folder.py). A starting process takes a free folder as its
own, or creates one. It adopts the other free ones: sends their rows under their own ids, and deletes them.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from recording.held_folder import ACKED, FOLDER_MODE, HeldFolder
from recording.ids import uuid7
from recording.locks import sync_folder
from recording.log import get_logger
from recording.spool.segments import ForeignVersion
from recording.spool.spool import Spool, SpoolOptions

log = get_logger(__name__)

_LOOK_AGAIN_SECONDS = 0.05
"""Whoever only asks whether a folder is free has let go of it by then."""

FOLDER_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Folders:
    """The spools in root. Processes and threads may race for the same root."""

    def __init__(self, root: Path, options: SpoolOptions) -> None:
        """Creates root if it is missing.

        Raises:
            OSError: it cannot be created, or is not this user's.
        """
        self.root = root
        """The parent folder of all spools."""
        self._options = options
        self._refused: dict[str, str] = {}
        """Why folders currently cannot be used, by name."""
        self._opened: set[str] = set()
        """The names of those that were opened here."""
        root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        root.chmod(FOLDER_MODE)

    def open_own(self) -> Spool:
        """A spool to write to: none of a newer version, behind whose rows ours might wait for an upgrade of the ledger.

        Raises:
            OSError: none can be created.
        """
        for spool in self._free_spools(self._paths()):
            if not spool.is_newer:
                return spool
            spool.close()
        return self.make()

    def make(self) -> Spool:
        """A spool in a new folder.

        Raises:
            OSError: none can be created.
        """
        while True:
            self.root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            path = self.root / str(uuid7())
            path.mkdir(mode=FOLDER_MODE)
            sync_folder(self.root)
            if (folder := HeldFolder.hold(path)) is None:  # another process was faster
                continue
            if self._options.sent_by_others:
                os.close(folder.open(ACKED, os.O_RDONLY | os.O_CREAT))
            return self._open(folder)

    def names(self) -> list[str]:
        """The names of all spool folders."""
        return [path.name for path in self._paths()]

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.root.iterdir() if FOLDER_NAME.fullmatch(path.name))

    def adopt(self, limit: int, *, surely: bool = False) -> list[Spool]:
        """Adopts at most limit spools that nobody owns.

        To see whether a folder is free is to lock it for a moment (is_free), so one that is locked may be free. surely:
        those are looked at again after 50 ms, by whoever would leave them to the next process.
        """
        adopted: list[Spool] = []
        paths = self._paths()
        self._opened &= {path.name for path in paths}
        free = self._free_spools(paths, again=surely)
        while len(adopted) < limit and (spool := next(free, None)) is not None:
            adopted.append(spool)
            self._options.counters.adopted += 1
            log.info("spool.adopted", producer_id=spool.id, spooled_bytes=spool.spooled_bytes)
        return adopted

    def _free_spools(self, paths: Iterable[Path], *, again: bool = False) -> Iterator[Spool]:
        """Yields spools that nobody owns. One that cannot be opened is logged once, and retried the next time.

        again: whether those that others hold are looked at once more.
        """
        held = []
        for path in paths:
            try:
                if (folder := HeldFolder.hold(path)) is None:
                    if path.name not in self._opened:
                        held.append(path)
                    continue
                spool = self._open(folder)
            except (ForeignVersion, OSError) as error:
                if self._refused.get(path.name) != str(error):
                    self._refused[path.name] = str(error)
                    log.error("spool.folder_refused", folder=str(path), reason=str(error))
            else:
                self._refused.pop(path.name, None)
                yield spool
        if held and again:
            time.sleep(_LOOK_AGAIN_SECONDS)
            yield from self._free_spools(held)

    def _open(self, folder: HeldFolder) -> Spool:
        try:
            spool = Spool(folder, self._options)
        except BaseException:
            folder.close()
            raise
        self._opened.add(spool.id)
        return spool
