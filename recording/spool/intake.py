"""The writing end of a spool for callers: from any thread, bounded, and never silent about a loss."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ParamSpec

from onrecord.audit.v1 import audit_pb2

from recording.framing import HEADER
from recording.log import get_logger
from recording.logger import Row
from recording.row_version import ROW_VERSION
from recording.spool.appender import Appender
from recording.spool.counters import Counters
from recording.spool.gap import Gap
from recording.spool.records import (
    INTENT,
    MAX_PAYLOAD_BYTES,
    ROW,
    UnknownRow,
    Versioned,
    decode_row,
    encode_row,
    in_writes,
)
from recording.spool.state import State

P = ParamSpec("P")

log = get_logger(__name__)

_OUTCOME_BYTES = 8 * 2**10
_RETRY_SECONDS = 0.25
_WARNING_SECONDS = 60.0


class SpoolClosed(Exception):
    """The spool is closed."""


class Intake:
    """Appends rows and intents, and counts those that it could not accept."""

    def __init__(
        self, log: Appender, state: State, max_bytes: int, counters: Counters, wake_keeper: Callable[[], None]
    ) -> None:
        self.lock = threading.Lock()
        """Guards the appender and the state."""
        self.last_row = 0
        """The number of the last row of this run."""
        self._log = log
        self._state = state
        self._max_bytes = max_bytes
        self._counters = counters
        self._wake_keeper = wake_keeper
        self._listener: Callable[[], None] | None = None
        self._open: dict[str, tuple[int, bytes]] = {}
        self._held: deque[tuple[str, bytes]] = deque()
        self._closed = False
        self._retry_at = 0.0
        self._next_warning = 0.0

    @property
    def kept_bytes(self) -> int:
        """The disk space allocated for the outcomes of running calls."""
        return len(self._open) * _OUTCOME_BYTES

    @property
    def owes_gap(self) -> bool:
        """Whether a gap row is still to be written. last_row includes it before this becomes false."""
        gap = self._state.gap
        return gap is not None and gap.rows > 0

    def append_intent(self, row: audit_pb2.AuditRow) -> bool:
        """Appends an intent, and allocates space for its outcome. False: it was not accepted.

        Raises:
            SpoolClosed: the spool is closed.
        """
        payload = encode_row(row)
        with self.lock:
            self._ensure_open()
            if len(payload) > MAX_PAYLOAD_BYTES or not self._has_room(len(payload) + _OUTCOME_BYTES):
                self.warn("there is no room, or a row is too large")
                return False
            number = self._write(INTENT, payload, self.kept_bytes + _OUTCOME_BYTES)
            if number:
                self._open[row.id] = (number, payload)
            return number > 0

    def append(self, row: Row) -> bool:
        """Appends a row; an open intent's outcome is always accepted. False: not accepted; a gap row will count it.

        Raises:
            SpoolClosed: the spool is closed.
        """
        payload = encode_row(row)
        with self.lock:
            self._ensure_open()
            if len(payload) > MAX_PAYLOAD_BYTES:
                self._open.pop(row.id, None)
                self._drop(row, "a row is too large")
                return False
            if row.id in self._open:
                self._held.append((row.id, payload))
                self._write_held()
            elif not self._has_room(len(payload)) or not self._write(ROW, payload, self.kept_bytes):
                self._drop(row, "there is no room")
                return False
            self._state.running_unrecorded.discard(row.id)
            self._counters.accepted += 1
        return True

    def append_all(self, rows: Sequence[Row | audit_pb2.SessionNumbers]) -> int | None:
        """Appends rows that somebody else keeps until they are safe; returns the last one's number, or None if not
        all were accepted. Then they are not lost, and no gap row counts them: whoever keeps them brings them again.

        None of them closes an intent.

        Raises:
            SpoolClosed: the spool is closed.
        """
        payloads = list(map(encode_row, rows))
        with self.lock:
            self._ensure_open()
            size = sum(map(len, payloads)) + (len(payloads) - 1) * HEADER.size
            if not self._has_room(size):
                self.warn("there is no room")
                return None
            for row, payload in zip(rows, payloads, strict=True):
                if len(payload) > MAX_PAYLOAD_BYTES:  # it never would be
                    self._drop(None if isinstance(row, audit_pb2.SessionNumbers) else row, "a row is too large")
            for together in in_writes(payloads):
                if not self._attempt(ROW, self._log.append_rows, together, self.kept_bytes):
                    return None
                self._counters.accepted += len(together)
            return self.last_row

    def trouble(self) -> str:
        """Why an intent would not be accepted now, found by trying the disk; empty if it would."""
        size = HEADER.size + _OUTCOME_BYTES  # no intent is longer than an outcome may be
        with self.lock:
            if self._closed:
                return ""
            if not self._fits(size + _OUTCOME_BYTES):
                return f"the spool is full: {self._log.bytes} of {self._max_bytes} bytes wait for the audit service"
            try:
                self._log.try_disk(size, self.kept_bytes + _OUTCOME_BYTES, write=self._retry_at > 0)
            except OSError as error:
                return f"the spool cannot be written: {error.strerror}"
            self._retry_at = 0.0
            return ""

    def append_recovered(self, rows: list[Versioned]) -> None:
        """Appends the rows of calls that an earlier run left open, even if the spool is full.

        Raises:
            OSError: not all were written; all may be appended again.
            SpoolClosed: the spool is closed.
        """
        with self.lock:
            self._ensure_open()
            for row in rows:
                self.last_row = self._log.append(ROW, row.payload, row_version=row.row_version)
            self._wake_keeper()

    def append_moved(self, rows: list[Versioned]) -> None:
        """Appends another spool's rows, even if this one is full. Rows that cannot be written count as lost."""
        with self.lock:
            lost = [row for row in rows if not self._write(ROW, row.payload, self.kept_bytes, row.row_version)]
            for _, payload in lost:
                row: Row | None = None
                with suppress(UnknownRow):
                    row = decode_row(payload)
                self._drop(row, "rows of another folder could not be taken over")

    def hand_over(self, other: "Intake", switch: Callable[[], None]) -> None:
        """Closes this one, and hands its open intents, waiting rows and pending gap to other.

        Calls switch before anybody can append to other again.
        """
        with self.lock, other.lock:
            self._closed = True
            switch()
            for call_id, (_, payload) in self._open.items():
                other._open[call_id] = (other._write(INTENT, payload, other.kept_bytes + _OUTCOME_BYTES), payload)
            self._open.clear()
            other._held.extend(self._held)
            self._held.clear()
            mine, theirs = self._state, other._state
            theirs.running_unrecorded |= mine.running_unrecorded
            if mine.gap is not None:
                theirs.gap = mine.gap if theirs.gap is None else theirs.gap.joined(mine.gap)
            mine.gap, mine.running_unrecorded = None, set()
            theirs.save()
            mine.save()

    def note_lost(self, rows: int, from_ms: int) -> None:
        """Adds lost rows, recorded since from_ms, to the next gap row."""
        if rows:
            with self.lock:
                gap = self._state.gap = self._state.gap or Gap.begin()
                gap.tool_calls += rows
                gap.from_ms = min(gap.from_ms, from_ms)
                self._state.save()
                self._wake_keeper()

    def note_unrecorded(self, call_id: str) -> None:
        """Notes a running call whose intent was not accepted: a gap row counts it unless its outcome is accepted."""
        with self.lock:
            self._state.running_unrecorded.add(call_id)
            self._state.gap = self._state.gap or Gap.begin()
            self._state.save()

    def listen(self, callback: Callable[[], None], is_idle: Callable[[], bool]) -> bool:
        """Registers a callback for the next row, called once by the writing thread, under the lock; see tell().

        Returns False unless is_idle() holds.
        """
        with self.lock:
            if not is_idle():
                return False
            self._listener = callback
            return True

    def tell(self) -> None:
        """Calls who listens, though no row came."""
        with self.lock:
            self._tell()

    def settle(self) -> bool:
        """Writes what waits for space: outcomes first, then the gap row. False if something still waits."""
        with self.lock:
            self._write_held()
            gap = self._state.gap
            if gap is not None and gap.rows:
                payload = encode_row(gap.row())
                room = self._closed or self._has_room(len(payload))
                if not room or not self._write(ROW, payload, self.kept_bytes):
                    return False
                log.warning("spool.gap_recorded", tool_calls=gap.tool_calls, from_ms=gap.from_ms, to_ms=gap.to_ms)
                gap = None
            if self._state.running_unrecorded:
                self._state.gap = gap or Gap.begin()
            else:
                self._state.gap = None
            self._state.save()
            return not self._held

    def carry_open_intents(self, before: int) -> bool:
        """Rewrites open intents below `before`, since their segments will be deleted; returns whether there were any.

        Raises:
            OSError: not all were written.
        """
        with self.lock:
            old = [(call_id, payload) for call_id, (number, payload) in self._open.items() if number < before]
            for call_id, payload in old:
                self._open[call_id] = (self._log.append(INTENT, payload, self.kept_bytes), payload)
            return bool(old)

    def close(self) -> None:
        """Accepts nothing more."""
        with self.lock:
            self._closed = True

    def warn(self, reason: str) -> None:
        """Logs, at intervals, that the spool cannot accept rows."""
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARNING_SECONDS
            log.warning(
                "spool.impaired",
                reason=reason,
                spooled_bytes=self._log.bytes,
                max_bytes=self._max_bytes,
                dropped=self._counters.dropped,
            )

    def _ensure_open(self) -> None:
        if self._closed:
            raise SpoolClosed("the spool is closed")

    def _has_room(self, size: int) -> bool:
        if self._retry_at and time.monotonic() < self._retry_at:
            return False
        return self._fits(HEADER.size + size)

    def _fits(self, size: int) -> bool:
        return self._log.bytes + size + self.kept_bytes <= self._max_bytes

    def _write(self, kind: int, payload: bytes, keep_bytes: int | None, row_version: int = ROW_VERSION) -> int:
        """Appends a record and returns its number; 0 if the write fails."""
        return self._attempt(kind, self._log.append, kind, payload, keep_bytes, row_version)

    def _attempt(self, kind: int, append: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
        """Appends records of a kind, and returns the last one's number; 0 if the write fails."""
        try:
            number = append(*args, **kwargs)
        except OSError as error:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            self.warn(error.strerror or str(error))
            return 0
        finally:
            self._wake_keeper()
        self._retry_at = 0.0
        if kind == ROW:
            self.last_row = number
            self._tell()
        return number

    def _tell(self) -> None:
        if self._listener is not None:
            listener, self._listener = self._listener, None
            listener()

    def _write_held(self) -> None:
        """Writes outcomes of open intents, whose space is allocated. What a broken disk refuses stays in memory."""
        while self._held:
            call_id, payload = self._held[0]
            if not self._write(ROW, payload, keep_bytes=None):
                return
            self._held.popleft()
            self._open.pop(call_id, None)

    def _drop(self, row: Row | None, reason: str) -> None:
        self._counters.dropped += 1
        if row is not None:
            self._state.running_unrecorded.discard(row.id)
        self._state.gap = self._state.gap or Gap.begin()
        self._state.gap.count(row)
        self._state.save()
        self.warn(reason)
        self._wake_keeper()
