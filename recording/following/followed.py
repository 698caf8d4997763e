"""One folder that another process writes to, and whose rows this one sends."""

import os
from collections.abc import Callable
from pathlib import Path

from recording.following.growing import GrowingLog
from recording.held_folder import ACKED, HeldFolder, is_free
from recording.locks import lock_file
from recording.spool import Batch, Counters
from recording.spool.quarantine import Quarantine
from recording.spool.reader import Reader
from recording.spool.state import Acked


class FollowedSpool:
    """A spool, for its reader alone: see Spool. When its process has ended, the folder is adopted like any other."""

    def __init__(self, path: Path, fd: int, reading: int, counters: Counters) -> None:
        """Takes ownership of the descriptors of the folder and of its locked file `acked`. See follow()."""
        self.id = path.name
        self.root = path.parent
        self.path = path
        self._folder = HeldFolder(path, fd, reading)
        self._told = Acked(reading)
        self._log = GrowingLog(self._folder)
        self._log.refresh()
        quarantine = Quarantine(self.root / "quarantine", self.id)
        self._reader = Reader(self._log, self._told.load(), counters, quarantine.set_aside, lambda intents: None)
        self._acked = self._reader.position
        self._listener: Callable[[], None] | None = None

    @classmethod
    def follow(cls, path: Path, counters: Counters) -> "FollowedSpool | None":
        """The spool at path. None if it is gone, another process sends its rows, or its own process does.

        Raises:
            OSError: it cannot be read.
            ForeignVersion: another version of this program writes there.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            os.stat(ACKED, dir_fd=fd)
            reading = lock_file(Path(ACKED), fd)
        except FileNotFoundError:
            reading = None
        if reading is None:
            os.close(fd)
            return None
        try:
            return cls(path, fd, reading, counters)
        except BaseException:
            os.close(reading)
            os.close(fd)
            raise

    def refresh(self) -> None:
        """Looks for new rows, and calls the listener if there are any.

        Raises:
            OSError: the disk cannot be read.
            ForeignVersion: see follow().
        """
        self._log.refresh()
        if self._listener is not None and self.has_unread():
            listener, self._listener = self._listener, None
            listener()

    def has_ended(self) -> bool:
        """Whether its process has ended, or closed it, or the folder is no longer there."""
        return not self.path.exists() or is_free(self.path)

    def read(self, max_rows: int, max_bytes: int) -> Batch | None:
        """See Spool.read()."""
        return self._reader.read(max_rows, max_bytes)

    def ack(self, batch: Batch) -> None:
        """See Spool.ack(). The process that writes reads it from the file, and deletes what is acked."""
        self._acked = batch.end
        self._told.save(batch.last)

    def rewind(self) -> None:
        """See Spool.rewind()."""
        self._reader.rewind(self._acked)

    def has_unread(self) -> bool:
        """Whether read() has something to return."""
        return self._log.last_row >= max(self._reader.next_number, self._reader.read_to)

    def unread_records(self) -> int:
        """How many records are ahead of the reader, intents included."""
        return self._log.next - self._reader.next_number

    @property
    def depth(self) -> int:
        """The number of unacked records, intents included."""
        return max(0, self._log.next - self._acked.number)

    def listen(self, callback: Callable[[], None]) -> bool:
        """Registers a callback for the next row. False: there are unread rows."""
        if self.has_unread():
            return False
        self._listener = callback
        return True

    def close(self) -> None:
        """Lets go of the folder."""
        self._reader.close()
        self._folder.close()
