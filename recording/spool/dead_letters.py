"""Rows that the audit service will never store: kept in a file, each with the reason, for somebody to look at."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from recording.spool.records import decode_row
from recording.spool.segments import FILE_MODE, FOLDER_MODE


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row, and why it was not stored."""

    number: int
    """The record's number in its spool."""
    payload: bytes
    code: str
    message: str


class DeadLetters:
    """A folder with a file of JSON lines for each producer."""

    def __init__(self, folder: Path, producer_id: str) -> None:
        self._path = folder / f"{producer_id}.jsonl"
        self._producer_id = producer_id

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Appends letters; when it has returned they are on disk. A row may be there twice when its ack was lost.

        Raises:
            OSError: they could not be written.
        """
        lines = "".join(self._line(letter) for letter in letters).encode()
        self._path.parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
        with os.fdopen(fd, "wb") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def size_bytes(self) -> int:
        """What the file takes; 0 when there is none."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def _line(self, letter: DeadLetter) -> str:
        row = decode_row(letter.payload)
        about = {
            "time_ms": time.time_ns() // 1_000_000,
            "producer_id": self._producer_id,
            "number": letter.number,
            "code": letter.code,
            "message": letter.message,
            "kind": row.DESCRIPTOR.name,
            "row": json_format.MessageToDict(row, preserving_proto_field_name=True),
        }
        return json.dumps(about, ensure_ascii=False) + "\n"
