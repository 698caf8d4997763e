"""Dead letters: rows that the audit service will never store, kept in files with the reason until somebody decides.

The files are `dead-letters/<producer id>.jsonl` below the spool's root. Whoever changes the folder holds the flock of
its file `.lock`, so that commands work beside a running gateway.
"""

import base64
import fcntl
import json
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from onrecord.audit.v1 import audit_pb2

from recording.held_folder import FILE_MODE, FOLDER_MODE
from recording.locks import sync_folder
from recording.logger import Row
from recording.replacing import replace_file
from recording.row_version import ROW_VERSION
from recording.spool.records import UnknownRow, decode_row

FOLDER = "dead-letters"

_LOCK = ".lock"
_KINDS: dict[str, type[Row]] = {
    kind.DESCRIPTOR.name: kind for kind in (audit_pb2.AuditRow, audit_pb2.CostRow, audit_pb2.SessionRow)
}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row, and why it was not stored."""

    number: int
    """The record's number in its spool."""
    payload: bytes
    code: str
    message: str
    row_version: int = ROW_VERSION


@dataclass(frozen=True, slots=True)
class KeptLetter:
    """A dead letter read from a file."""

    line: bytes
    about: dict[str, Any]
    """The parsed line; empty if it cannot be read."""

    @property
    def id(self) -> str:
        """The row's id; empty if the line cannot be read."""
        return str(self.about["row"].get("id", "")) if self.about else ""

    def row(self) -> Row:
        """The row.

        Raises:
            ValueError: this version cannot read it.
        """
        if (version := self.about.get("row_version", ROW_VERSION)) > ROW_VERSION:
            raise ValueError(f"a newer version wrote the row of the dead letter (row_version {version}): use that one")
        try:
            if "payload" in self.about:
                return decode_row(base64.b64decode(self.about["payload"]))
            return json_format.ParseDict(self.about["row"], _KINDS[self.about["kind"]]())
        except (KeyError, ValueError, json_format.ParseError, DecodeError, UnknownRow) as error:
            raise ValueError(f"this version cannot read the row of the dead letter: {error}") from None


class DeadLetters:
    """The folder of dead letters."""

    def __init__(self, root: Path) -> None:
        """`root` is the spools' folder. Nothing is created before the first letter."""
        self._folder = root / FOLDER
        self._counted: tuple[object, int] = ((), 0)

    def write(self, producer_id: str, letters: Sequence[DeadLetter]) -> None:
        """Appends letters, synced to disk. A row may be there twice if its ack was lost.

        Raises:
            OSError: they could not be written.
        """
        lines = b"".join(_line(producer_id, letter) for letter in letters)
        self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        with self._locked():
            fd = os.open(self._folder / f"{producer_id}.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE)
            with os.fdopen(fd, "r+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    lines = b"\n" + lines  # a power cut tore the last line
                file.write(lines)
                file.flush()
                os.fsync(fd)
            sync_folder(self._folder)

    def read(self) -> list[KeptLetter]:
        """All letters, one for each row, in each producer's order.

        Raises:
            OSError: they cannot be read.
        """
        return [letter for path in self._files() for letter in _distinct(path.read_bytes())]

    def remove(self, letters: Collection[KeptLetter]) -> None:
        """Removes letters from their files, synced to disk.

        Raises:
            OSError: not all were removed.
        """
        gone, ids = {letter.line for letter in letters}, {letter.id for letter in letters if letter.id}
        if not gone:
            return
        with self._locked():
            for path in self._files():
                lines = path.read_bytes().splitlines(keepends=True)
                kept = [line for line in lines if line not in gone and _read(line).id not in ids]
                if len(kept) == len(lines):
                    continue
                if not kept:
                    path.unlink()
                    continue
                replace_file(path, b"".join(kept))
            sync_folder(self._folder)

    def size_bytes(self) -> int:
        """The size of the files."""
        return sum(size for _, size, _ in self._state())

    def count(self) -> int:
        """The number of rows. The files are read only when they have changed."""
        state = self._state()
        if self._counted[0] != state:
            self._counted = (state, len(self.read()))
        return self._counted[1]

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))

    def _state(self) -> list[tuple[str, int, int]]:
        state = []
        for path in self._files():
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            state.append((path.name, found.st_size, found.st_mtime_ns))
        return state

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _line(producer_id: str, letter: DeadLetter) -> bytes:
    try:
        row: Row | None = decode_row(letter.payload)
    except UnknownRow:
        row = None
    about = {
        "time_ms": time.time_ns() // 1_000_000,
        "producer_id": producer_id,
        "number": letter.number,
        "code": letter.code,
        "message": letter.message,
        "kind": row.DESCRIPTOR.name if row else "unknown",
        "row": json_format.MessageToDict(row, preserving_proto_field_name=True) if row else {},
        "row_version": letter.row_version,
    }
    if letter.row_version > ROW_VERSION:  # with fields that this version knows no names of
        about["payload"] = base64.b64encode(letter.payload).decode()
    return json.dumps(about, ensure_ascii=False).encode() + b"\n"


def _read(line: bytes) -> KeptLetter:
    try:
        about = json.loads(line)
        whole = isinstance(about, dict) and isinstance(about.get("row"), dict)
    except ValueError:
        whole = False
    return KeptLetter(line, about if whole else {})


def _distinct(lines: bytes) -> list[KeptLetter]:
    """One letter for each row: the last, whose ack may have come. Unreadable lines are all kept."""
    letters = [_read(line) for line in lines.splitlines(keepends=True)]
    return list({letter.id or letter.line: letter for letter in letters}.values())
