"""Saves of sessions, which may wait for the disk.

Those that do have threads of their own, so that what only reads, or makes a session, does not wait behind them. Several
run at once: a file system writes together what they sync at the same time.
"""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from weakref import WeakValueDictionary

from gateway_svc.conversations.encryption import Cipher
from gateway_svc.conversations.files import session_file
from gateway_svc.conversations.session import SessionState
from gateway_svc.conversations.undisturbed import in_thread, whole
from gateway_svc.threads import Threads
from recording.locks import sync_folder

AT_ONCE = 8


class Saves:
    """Those of one process."""

    def __init__(self, *, synced: bool) -> None:
        """synced: whether they wait until the disk has what they write."""
        self.synced = synced
        self._threads = Threads("saves", at_once=AT_ONCE)
        self._folders: WeakValueDictionary[Path, _Folder] = WeakValueDictionary()
        self._changing = threading.Lock()

    async def run(self, work: Callable[[], None]) -> None:
        """Runs work in a thread, to its end."""
        await (whole(self._threads.run(work)) if self.synced else in_thread(work))

    def write(self, path: Path, state: SessionState, records: int, cipher: Cipher, *, new: bool) -> None:
        """See session_file.write(). new: whether names above the file may be new too, and must stay.

        Raises:
            OSError: it cannot be known that the file is written.
        """
        session_file.write(path, state, records, cipher, synced=self.synced)
        if self.synced and new:
            self.sync(path.parents[:3])  # down from sessions/

    def sync(self, folders: Iterable[Path]) -> None:
        """Makes the names in folders durable, as sync_folder(); from any thread.

        Raises:
            OSError: it cannot be known that they are.
        """
        for path in folders:
            with self._changing:
                folder = self._folders.setdefault(path, _Folder())
            folder.sync(path)


class _Folder:
    """A sync that begins after somebody has asked is theirs too."""

    def __init__(self) -> None:
        self._asked = self._synced = 0
        self._asking, self._syncing = threading.Lock(), threading.Lock()

    def sync(self, path: Path) -> None:
        with self._asking:
            self._asked = mine = self._asked + 1
        with self._syncing:
            if self._synced >= mine:
                return
            until = self._asked
            sync_folder(path)
            self._synced = until
