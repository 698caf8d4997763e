"""Finds the folders of other processes, and has their rows sent."""

import os
from contextlib import suppress
from itertools import islice
from pathlib import Path

from recording.delivery.sender import Sender
from recording.following.followed import FollowedSpool
from recording.held_folder import is_free
from recording.locks import lock_file
from recording.log import get_logger
from recording.producing.courier import SENDER_LOCK
from recording.spool import Counters
from recording.spool.folders import FOLDER_NAME
from recording.spool.segments import ForeignVersion

log = get_logger(__name__)

LOOK_SECONDS = 0.05
"""How often it looks while processes write."""
IDLE_LOOK_SECONDS = 1.0

_MAX_FOLLOWED = 256
"""Folders at once, with three descriptors each. The others have their turn when processes end."""
_FREE_AT_ONCE = 16
"""Of the folders that nobody owned, as many are looked at again at a time: there may be thousands."""


class Follower:
    """Sends what other processes append, one follower for a state directory. Its methods belong to the event loop."""

    def __init__(self, root: Path, sender: Sender, counters: Counters) -> None:
        self._root = root
        self._sender = sender
        self._counters = counters
        self._lock: int | None = None
        self._followed: dict[str, FollowedSpool] = {}
        self._refused: dict[str, str] = {}
        self._free: dict[str, None] = {}
        """Folders that nobody owned when they were looked at, the first to be looked at again first."""

    @property
    def is_busy(self) -> bool:
        """Whether processes write whose rows it sends."""
        return bool(self._followed)

    def begin(self) -> bool:
        """Takes its turn; False while another process has it."""
        if self._lock is None:
            with suppress(OSError):
                if (lock := lock_file(self._root / SENDER_LOCK)) is not None:
                    self.take(lock)
        return self._lock is not None

    def take(self, lock: int) -> None:
        """Takes its turn by the lock that this process holds already."""
        self._lock = lock
        with suppress(OSError):  # for people: it decides nothing
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)

    def folders(self) -> list[Path]:
        """All spool folders; the state directory may be gone."""
        try:
            names = os.listdir(self._root)  # noqa: PTH208 - twenty times a second
        except OSError:
            return []
        return [self._root / name for name in sorted(names) if FOLDER_NAME.fullmatch(name)]

    def has_unknown(self) -> bool:
        """Whether there are folders that it does not follow: of processes that ended, or that have just begun."""
        return any(path.name not in self._followed for path in self.folders())

    def look(self) -> None:
        """Looks for new rows of those that it follows, for processes that began, and for those that ended."""
        if not self.begin():
            return
        for spool in list(self._followed.values()):
            try:
                spool.refresh()
            except (OSError, ForeignVersion) as error:
                self._refuse(spool.path, error)
            if not self._sender.is_sending(spool) and not spool.has_unread() and spool.has_ended():
                self._let_go(spool)
        for name in list(islice(self._free, _FREE_AT_ONCE)):  # its process may just have made it
            del self._free[name]
        for path in self.folders():
            if path.name in self._followed or path.name in self._free or len(self._followed) >= _MAX_FOLLOWED:
                continue
            if is_free(path):  # what nobody owns is adopted
                self._free[path.name] = None
            else:
                self._follow(path)

    def end(self) -> None:
        """Lets go of all folders. Call it when the sender has ended."""
        for spool in list(self._followed.values()):
            self._let_go(spool)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _follow(self, path: Path) -> None:
        try:
            spool = FollowedSpool.follow(path, self._counters)
        except (OSError, ForeignVersion) as error:
            self._refuse(path, error)
            return
        self._refused.pop(path.name, None)
        if spool is not None:
            self._followed[path.name] = spool
            self._sender.follow(spool)

    def _let_go(self, spool: FollowedSpool) -> None:
        del self._followed[spool.id]
        self._sender.leave(spool)
        spool.close()

    def _refuse(self, path: Path, error: Exception) -> None:
        if self._refused.get(path.name) != str(error):
            self._refused[path.name] = str(error)
            log.error("spool.folder_refused", folder=str(path), reason=str(error))
