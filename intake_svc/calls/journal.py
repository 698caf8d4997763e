"""The door's memory on disk: which calls are open and what told of them, and which were told of lately.

One log in the format of recording.framing. What a restart finds is what was: a call that ran when the door was killed
is still open afterwards. The file is written anew at each start and when it has grown. On a full disk nothing is lost:
what cannot be put is refused, and the file that is there stays.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onrecord.audit.v1 import audit_pb2

from recording.framing import Form, Record, append_whole, encode_record, scan
from recording.locks import lock_file, sync_folder
from recording.log import get_logger
from recording.replacing import replace_file

log = get_logger(__name__)

CALL, DONE, TOLD = 1, 2, 3
VERSION = 1
MAX_REMEMBERED = 65_536
MAX_BYTES = 16 * 2**20
_FORM = Form((CALL, DONE, TOLD), 2**20)
_MOST_DOORS = 64


class Journal:
    """What is on disk. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Opens the first file of the folder that no other process has.

        Raises:
            OSError: there is none, or it cannot be read or written.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path, self._lock = _own(folder)
        self.calls: dict[str, audit_pb2.AuditRow] = {}
        """Calls that are not on the record yet, by their ids."""
        self.told: dict[str, list[str]] = {}
        """What would tell of them again, by their ids."""
        self.done: OrderedDict[str, str] = OrderedDict()
        """What was told of calls on the record, with their ids; the oldest first."""
        self._fd, self._number = -1, 0
        self._puts_wait, self._is_synced = False, False
        self._is_sound = False
        """Whether the disk has what was synced of the file. Once an fsync failed, another proves nothing: the kernel
        may have dropped what it could not write."""
        self._read()
        try:
            self._write_anew()
        except OSError as error:
            if not self._path.exists():
                raise
            log.warning("calls.journal_failed", reason=error.strerror)

    def put(self, calls: Iterable[tuple[audit_pb2.AuditRow, list[str]]]) -> None:
        """Keeps calls, or what has become of them, with what would tell of each again; on the disk when it returns.

        Raises:
            OSError: they are not kept.
        """
        calls = list(calls)
        self._append(record for row, told in calls for record in _records(row, told))
        self._is_synced = False
        if not self._puts_wait:
            self._sync()
        for row, told in calls:
            self.calls[row.id], self.told[row.id] = row, told

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is put while the body runs is on the disk when this ends: the disk is waited for once.

        Raises:
            OSError: it is not on the disk. What of it was put before stays, and is there when the next one ends.
        """
        self._puts_wait = True
        try:
            yield
        finally:
            self._puts_wait = False
        self._sync()

    def finish(self, row_id: str, told: Iterable[str]) -> None:
        """A call is in the spool; `told` is what would tell of it again."""
        self.calls.pop(row_id, None)
        self.told.pop(row_id, None)
        told = [key for key in told if key]
        for key in told:
            self.remember(key, row_id)
        try:
            self._append([(DONE, json.dumps([row_id, *told]).encode())])
            if os.fstat(self._fd).st_size > MAX_BYTES:
                self._write_anew()
        except OSError as error:  # after a restart its row is sent once more, as a duplicate
            log.warning("calls.journal_failed", reason=error.strerror)

    def remember(self, key: str, row_id: str) -> None:
        """Remembers, in memory alone, that a call was told of."""
        self.done[key] = row_id
        self.done.move_to_end(key)
        while len(self.done) > MAX_REMEMBERED:
            self.done.popitem(last=False)

    def close(self) -> None:
        """Lets the file go."""
        if self._fd >= 0:
            os.close(self._fd)
        os.close(self._lock)

    def _read(self) -> None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            for found in scan(fd, 0, os.fstat(fd).st_size, 0, _FORM):
                if isinstance(found, Record):
                    self._number = found.number
                    self._replay(found)
        finally:
            os.close(fd)
        self.told = {row_id: told for row_id, told in self.told.items() if row_id in self.calls}

    def _replay(self, record: Record) -> None:
        if record.kind == CALL:
            row = audit_pb2.AuditRow.FromString(record.payload)
            self.calls[row.id] = row
            return
        row_id, *told = json.loads(record.payload)
        if record.kind == TOLD:
            self.told[row_id] = told
            return
        self.calls.pop(row_id, None)
        self.told.pop(row_id, None)
        for key in told:
            self.remember(key, row_id)

    def _write_anew(self) -> None:
        by_row: dict[str, list[str]] = {}
        for key, row_id in self.done.items():
            by_row.setdefault(row_id, []).append(key)
        records = [each for row in self.calls.values() for each in _records(row, self.told.get(row.id, []))]
        records += [(DONE, json.dumps([row_id, *told]).encode()) for row_id, told in by_row.items()]
        data = b"".join(encode_record(number, *record, VERSION) for number, record in enumerate(records, 1))
        replace_file(self._path, data)
        if self._fd >= 0:  # of the file that is gone
            os.close(self._fd)
        self._fd, self._number = -1, len(records)
        self._is_synced = self._is_sound = False
        sync_folder(self._path.parent)
        self._is_synced = self._is_sound = True

    def _sync(self) -> None:
        if not self._is_sound:
            self._write_anew()
        if not self._is_synced:
            try:
                os.fsync(self._fd)
            except OSError:
                self._is_sound = False
                raise
            self._is_synced = True

    def _append(self, records: Iterable[tuple[int, bytes]]) -> None:
        if not self._is_sound:
            self._write_anew()
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        data = []
        for kind, payload in records:
            self._number += 1
            data.append(encode_record(self._number, kind, payload, VERSION))
        append_whole(self._fd, b"".join(data))


def _records(row: audit_pb2.AuditRow, told: list[str]) -> Iterator[tuple[int, bytes]]:
    yield CALL, row.SerializeToString()
    if told:
        yield TOLD, json.dumps([row.id, *told]).encode()


def _own(folder: Path) -> tuple[Path, int]:
    for number in range(_MOST_DOORS):
        path = folder / f"calls-{number}.log"
        lock = lock_file(path.with_suffix(".lock"))
        if lock is not None:
            return path, lock
    raise OSError(f"{folder}: {_MOST_DOORS} processes use it already")
