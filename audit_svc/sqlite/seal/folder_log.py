"""A log in a folder, as any file server can serve it, with its index beside the tiles: see seal.log.Log."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from audit_svc.seal.errors import InUse
from audit_svc.seal.files import FolderFiles
from audit_svc.seal.folder import LOCK
from audit_svc.sqlite.seal.index import INDEX, FolderIndex


class FolderLog(FolderFiles):
    """The folder is made when it is locked for the first time."""

    def index(self, *, writable: bool = False) -> FolderIndex:
        """Raises BadLog: it cannot be opened."""
        return FolderIndex(self.folder, writable=writable)

    def has_begun(self) -> bool:
        """Whether there are tiles, or an index."""
        return any((self.folder / name).exists() for name in (INDEX, "tile"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The kernel lets go of the lock when the process ends. Raises InUse."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InUse(
                    f"another process seals into {self.folder}: `audit-svc serve` does, while it runs"
                ) from None
            yield
        finally:
            os.close(handle)

    @contextmanager
    def changing(self, checkpoint: bytes | None) -> Iterator[None]:
        """The lock keeps others away, and the checkpoint comes last."""
        yield

    def close(self) -> None:
        """Nothing is open."""
