"""One spool: a folder whose lock this process holds."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from onrecord.audit.v1 import audit_pb2

from recording.held_folder import ACKED, LOCK, HeldFolder
from recording.kept.folder import Kept
from recording.log import get_logger
from recording.logger import Row
from recording.row_version import ROW_VERSION
from recording.spool.appender import Appender
from recording.spool.counters import Counters
from recording.spool.intake import Intake
from recording.spool.interrupted import interrupted
from recording.spool.keeper import Keeper
from recording.spool.quarantine import Quarantine
from recording.spool.reader import Batch, Reader
from recording.spool.records import UnknownRow, Versioned, decode_row
from recording.spool.salvage import salvage
from recording.spool.segments import Segment
from recording.spool.state import STATE, Acked, State

log = get_logger(__name__)

Sync = Literal["always", "interval", "never"]

_SEGMENT_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """Options for the spools of a process."""

    sync: Sync = "interval"
    """When rows are synced: when the caller waits for sync(), every sync_interval_ms, or whenever the system does.
    """
    sync_interval_ms: int = 100
    max_bytes: int = 2**30
    """The most disk space for the segments of one spool; at least 1 MiB."""
    counters: Counters = field(default_factory=Counters)
    ahead_bytes: int = 256 * 2**10
    """Disk space that is allocated ahead of the rows."""
    keep_acked_bytes: int = 0
    """How much of what is acked stays on disk, for all spools of a state directory together, besides the segments that
    are being written; 0 keeps none."""
    sent_by_others: bool = False
    """Whether another process sends the rows: new folders get a file `acked`, in which it tells how far it is."""
    on_upkeep: Callable[[], None] = lambda: None
    """Called by a thread of the spool's, soon after rows were appended."""


class Spool:
    """Accepts rows from any thread, and passes them, in order, to one reader, whose methods belong to one thread.

    A row that append() accepted is on disk until its batch is acked. A power cut can lose the rows since the last sync.
    """

    def __init__(self, folder: HeldFolder, options: SpoolOptions) -> None:
        """Takes ownership of folder, which close() releases.

        Raises:
            OSError: the folder cannot be read or written.
            ForeignVersion: another version of this program wrote it.
        """
        self.id = folder.path.name
        """The producer's id. It stays with the folder, whoever sends its rows."""
        self.counters = options.counters
        self.sync_failed = False
        """Whether the last sync failed, so that rows accepted since may not survive a power cut."""
        self.root = folder.path.parent
        """The parent of all spool folders, of the quarantine and of the dead letters."""
        self._folder = folder
        self._kept = Kept(self.root, options.keep_acked_bytes)
        self._options = options
        self._state = State(folder)
        self._told = Acked(folder.open(ACKED, os.O_RDONLY)) if folder.has(ACKED) else None
        if self._told is not None:
            self._state.acked = max(self._state.acked, self._told.load())
        try:
            self._log = Appender(
                folder, self._state.acked, min(_SEGMENT_BYTES, options.max_bytes // 8), options.ahead_bytes
            )
        except BaseException:
            self._state.close()
            if self._told is not None:
                self._told.close()
            raise
        self.is_newer = self._log.last_row_version > ROW_VERSION
        """Whether a newer version of this program wrote the last rows, which may have to wait for a newer ledger."""
        quarantine = Quarantine(self.root / "quarantine", self.id)
        self._reader = Reader(self._log, self._state.acked, self.counters, quarantine.set_aside, self._recover)
        self._acked = self._reader.position
        self._trim_before = 0
        self.moved = False
        """Whether its content was moved to another spool."""
        self._sync_began: float | None = None
        self._sync_lock = threading.Lock()
        self._keeper = Keeper(f"spool-{self.id}", options.sync_interval_ms / 1000, self._keep)
        self._intake = Intake(self._log, self._state, options.max_bytes, self.counters, self._keeper.wake)
        self._keeper.wake()

    def append_intent(self, row: audit_pb2.AuditRow) -> bool:
        """Appends the intent of a call; append() of a row with its id closes it. False: it was not accepted.

        Raises:
            SpoolClosed: the spool is closed.
        """
        return self._intake.append_intent(row)

    def append(self, row: Row) -> bool:
        """Appends a row; an open intent's outcome is always accepted. False: not accepted; a gap row will count it.

        Raises:
            SpoolClosed: the spool is closed.
        """
        return self._intake.append(row)

    def append_all(self, rows: Sequence[Row | audit_pb2.SessionNumbers]) -> int | None:
        """Appends rows that somebody else keeps until they are safe: see Intake.append_all().

        Raises:
            SpoolClosed: the spool is closed.
        """
        return self._intake.append_all(rows)

    def note_unrecorded(self, call_id: str) -> None:
        """Notes a running call whose intent was not accepted: a gap row counts it unless its outcome is accepted."""
        self._intake.note_unrecorded(call_id)

    def trouble(self) -> str:
        """Why an intent would not be recorded as promised now, found by trying the disk; empty if it would."""
        return self._intake.trouble() or ("the spool's disk fails to sync" if self.sync_failed else "")

    def sync(self) -> bool:
        """Syncs all accepted rows to disk; False if that failed, which is logged.

        After a failure another segment begins, since the system may count the old one's pages as written.
        """
        with self._sync_lock:
            self._sync_began = time.monotonic()
            try:
                with self._intake.lock:
                    if self.sync_failed:
                        self._log.begin_segment(self._intake.kept_bytes)
                    unsynced = self._log.take_unsynced()
                unsynced.sync()
            except OSError as error:
                with self._intake.lock:
                    self._log.abandon_segment()
                    self.counters.sync_failures += 1
                    self._intake.warn(f"sync failed: {error.strerror}")
                self.sync_failed = True
            else:
                self.sync_failed = False
            finally:
                self._sync_began = None
            return not self.sync_failed

    def sync_seconds(self) -> float:
        """How long the running sync has taken so far; 0 if there is none."""
        began = self._sync_began
        return 0.0 if began is None else time.monotonic() - began

    def is_there(self) -> bool:
        """Whether the folder, and the file that rows are written to, are still where the next process looks for them.

        A missing lock file is created again.
        """
        with self._intake.lock:
            whole = not self._reader.missed and self._log.is_there()
            return self.moved or (whole and self._folder.is_there())

    def move_to(self, other: "Spool", switch: Callable[[], None] = lambda: None) -> None:
        """Hands all unacked and readable rows to other; other's gap row counts the unreadable ones.

        Afterwards this one neither accepts nor returns rows. switch is called in between: earlier rows are handed over,
        and later ones must go to other.
        """
        with self._sync_lock:
            self._intake.hand_over(other._intake, switch)
            self.moved = True
            found = salvage(self._log, self._state.acked + 1, other._intake, pair=not self._reader.recovered)
        self._intake.tell()  # nothing is left to be read
        self.counters.moved += 1
        self.counters.lost += found.lost_rows
        self.counters.interrupted += found.interrupted_calls
        other.sync()
        log.error(
            "spool.folder_gone",
            folder=str(self._folder.path),
            moved_rows=found.moved_rows,
            lost_rows=found.lost_rows,
            went_on_in=other.id,
            hint="somebody removed, moved or replaced the folder, or a file in it, while the gateway ran",
        )

    def read(self, max_rows: int, max_bytes: int) -> Batch | None:
        """The next rows, in order; None if there are none. An empty batch means that there may be more.

        Raises:
            OSError: the disk cannot be read.
        """
        return None if self.moved else self._reader.read(max_rows, max_bytes)

    def ack(self, batch: Batch) -> None:
        """Acknowledges batch, the oldest unacked one that was read, so that its rows may be deleted."""
        self._acked = batch.end
        oldest_needed = self._reader.oldest_open_segment()
        with self._intake.lock:
            self._state.acked = batch.last
            self._state.save()
        before = batch.end.segment if oldest_needed is None else min(oldest_needed, batch.end.segment)
        if before > self._trim_before:
            self._trim_before = before
            self._keeper.wake()

    def is_acked(self, number: int) -> bool:
        """Whether the ledger has the record of that number, and all before it."""
        return self._state.acked >= number

    def rewind(self) -> None:
        """Makes the next read() start after the last acked batch."""
        self._reader.rewind(self._acked)

    def has_unread(self) -> bool:
        """Whether read() has something to return."""
        if self.moved:
            return False
        reader = self._reader
        return not reader.recovered or self._intake.last_row >= max(reader.next_number, reader.read_to)

    def is_read_out(self) -> bool:
        """Whether everything was read, and no outcome or gap row waits for space."""
        missed = self._reader.missed and not self.moved
        return not self._intake.owes_gap and not missed and not self.has_unread()

    def unread_records(self) -> int:
        """How many records are ahead of the reader, intents included."""
        return self._log.next - self._reader.next_number

    def take_acks(self) -> None:
        """Takes note of what another process has sent, so that it may be deleted.

        Raises:
            OSError: the disk cannot be read.
        """
        acked = self._told.load() if self._told is not None else 0
        if acked <= self._state.acked:
            return
        with self._intake.lock:
            self._state.acked = acked
            self._acked = self._acked._replace(number=acked + 1)
            self._trim_before = max(known.first for known in self._log.segments if known.first <= acked + 1)

    def is_sent(self) -> bool:
        """Whether another process has sent every row, and no outcome or gap row waits for space."""
        with suppress(OSError):
            self.take_acks()
        with self._intake.lock:
            return self._state.acked >= self._intake.last_row and not self._intake.owes_gap

    def note_lost(self, rows: int, from_ms: int) -> None:
        """Has the next gap row count rows that were lost before this spool began, since from_ms."""
        self._intake.note_lost(rows, from_ms)

    def rest(self) -> None:
        """Ends the spool's thread for a moment; see Keeper.rest()."""
        self._keeper.rest()

    def resume(self) -> None:
        """Goes on after rest()."""
        self._keeper.resume()

    def leave(self) -> None:
        """In a forked child: lets go of the folder, which is the parent's, and of its lock. Nothing may follow.

        The numbers of the descriptors stay taken: what another thread, or an interrupted call, writes goes nowhere.
        """
        fds = [*self._folder.descriptors(), *self._state.descriptors(), *self._log.descriptors()]
        fds += [self._told.fd] if self._told is not None else []
        try:
            null = os.open(os.devnull, os.O_RDWR)
        except OSError:  # out of descriptors
            null = None
        for fd in fds:
            with suppress(OSError):
                os.close(fd) if null is None else os.dup2(null, fd, inheritable=False)
        if null is not None:
            os.close(null)

    def listen(self, callback: Callable[[], None]) -> bool:
        """Registers a callback for the next row, or move_to(), called once by the thread that does it.

        False: there already are unread rows.
        """
        return self._intake.listen(callback, lambda: not self.has_unread())

    @property
    def spooled_bytes(self) -> int:
        """The segments' size on disk."""
        return self._log.bytes

    @property
    def kept_bytes(self) -> int:
        """The size of the acked segments that all spools of the state directory keep. It reads the disk."""
        return self._kept.size_bytes()

    @property
    def depth(self) -> int:
        """The number of unacked records, intents included."""
        return max(0, self._log.next - max(self._acked.number, self._state.acked + 1))

    def oldest_age_seconds(self) -> float:
        """The age of the oldest unacked row, by the row's own time; 0 if all are acked. Thread-safe."""
        try:
            found = self._reader.peek(self._acked)
        except OSError:  # the segment was just trimmed: its rows are acked
            return 0.0
        if found is None:
            return 0.0
        payload, began_ms = found
        with suppress(UnknownRow):
            row = decode_row(payload)
            began_ms = row.at_ms if isinstance(row, audit_pb2.ControlRow) else row.created_at_ms
        return max(0.0, time.time() - began_ms / 1000)

    def close(self) -> None:
        """Syncs everything and releases the folder. Nothing can be appended afterwards."""
        self._close(keep_folder=False)

    def _close(self, *, keep_folder: bool) -> None:
        self._intake.close()
        self._keeper.stop()
        if not self._intake.settle():
            log.error(
                "spool.closed_with_unwritten_rows",
                hint="the disk refuses writes; the calls will be recorded as interrupted",
            )
        with self._sync_lock:
            self._log.abandon_segment()
            unsynced = self._log.take_unsynced()
            if self._options.sync == "never":
                unsynced.close()
            else:
                with suppress(OSError):  # its earlier failure was logged, and there is nothing else to do
                    unsynced.sync()
            self._reader.close()
            self._state.close()
            if self._told is not None:
                self._told.close()
            if not keep_folder:
                self._folder.close()

    def remove(self) -> None:
        """Closes the spool and deletes its folder, once everything was read and acked."""
        # Held to the end: a process that opens the lock in between gets the lock of a deleted file, and notices.
        self._close(keep_folder=True)
        try:
            if self._folder.is_there():  # or what lies there is somebody else's
                if not self.moved:  # what was moved is acked under other numbers
                    self._keep_segments(list(self._log.segments))
                for name in [*(segment.name for segment in self._log.segments), STATE, ACKED, LOCK]:
                    self._folder.unlink(name)
                self._folder.path.rmdir()
        except OSError as error:
            log.warning("spool.folder_not_removed", folder=str(self._folder.path), reason=error.strerror)
        finally:
            self._folder.close()

    def _recover(self, intents: list[Versioned]) -> None:
        """Appends rows for open intents of earlier runs. Each follows from its intent, so a second is a duplicate."""
        rows = list(map(interrupted, intents))
        self._intake.append_recovered(rows)
        self.counters.interrupted += len(rows)
        if rows:
            log.warning("spool.calls_interrupted", count=len(rows), producer_id=self.id)

    def _keep(self) -> None:
        self.take_acks()
        trim_before = self._trim_before  # read before the sync, so that whatever allows this trim is on disk first
        if self._options.sync == "never":
            with self._intake.lock:
                unsynced = self._log.take_unsynced()
            unsynced.close()
        else:
            self.sync()
        settled = self._intake.settle()
        self._trim(trim_before)
        if not settled or self.sync_failed:
            self._keeper.wake()
        self._options.on_upkeep()

    def _trim(self, before: int) -> None:
        try:
            if self._intake.carry_open_intents(before) and self._options.sync != "never":
                self.sync()
        except OSError as error:
            self._intake.warn(error.strerror or str(error))
            return
        with self._intake.lock:
            forgotten = self._log.forget_segments(before)
        self._keep_segments(forgotten)

    def _keep_segments(self, acked: list[Segment]) -> None:
        for segment in acked:
            self._kept.take(self._folder, segment.name)
        if acked:
            self._kept.trim()
