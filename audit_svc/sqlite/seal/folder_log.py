"""A log in a folder, as any file server can serve it, with its index beside the tiles: see seal.log.Log."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audit_svc.seal.errors import BadLog, InUse
from audit_svc.seal.files import FolderFiles
from audit_svc.seal.folder import CHECKPOINT
from audit_svc.sqlite.seal.index import INDEX, FolderIndex
from recording.held_folder import HeldFolder


class FolderLog(FolderFiles):
    """The folder is made when it is locked for the first time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._held: HeldFolder | None = None

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
        held = HeldFolder.hold(self.folder)
        if held is None:
            raise InUse(f"another process seals into {self.folder}: `audit-svc serve` does, while it runs")
        self._held = held
        try:
            yield
        finally:
            self._held = None
            held.close()

    @contextmanager
    def changing(self, checkpoint: bytes | None) -> Iterator[None]:
        """The lock keeps others away, and the checkpoint comes last. Raises InUse; BadLog: the folder is another."""
        if self._held:
            if not self._held.is_there():
                raise BadLog(f"{self.folder} was moved or removed while it was sealed into: put it back")
            if self.read(CHECKPOINT) != checkpoint:
                raise InUse(f"{self.place(CHECKPOINT)} is not the one that was written last: it is looked at again")
        yield

    def close(self) -> None:
        """Nothing is open."""
