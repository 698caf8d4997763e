"""A spool's state besides its records: how far it is acked, and the pending gap."""

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

from recording.framing import read_at
from recording.held_folder import ACKED, HeldFolder
from recording.spool.gap import Gap

STATE = "state"

_HEADER = b"onrecord/state 1"
_BODY = struct.Struct("<16sQQ16sQQQqq")
_CHECKSUM = struct.Struct("<I")
_SLOT_BYTES = 512
_SLOTS = 2
_ACKED_HEADER = b"onrecord/acked 1"
_ACKED = struct.Struct("<16sQ")
_NO_GAP = Gap(bytes(16), 0, 0)


class State:
    """The state file: two slots, written alternately, so that one is intact whenever the process dies.

    They are written in place, which works on a full disk, and never synced: if a power cut takes back an ack, rows are
    only resent, and the ledger counts them as duplicates.
    """

    def __init__(self, folder: HeldFolder) -> None:
        """Reads the file; a missing or damaged one counts as new.

        Raises:
            OSError: it can be neither opened nor created.
        """
        self._fd = folder.open(STATE, os.O_RDWR | os.O_CREAT)
        self._serial = 0
        self.acked = 0
        """The number up to which all records are acked."""
        self.gap: Gap | None = None
        self.running_unrecorded: set[str] = set()
        """Ids of running calls whose intents were not accepted: if the process dies, the gap counts them too."""
        for slot in range(_SLOTS):
            self._load(os.pread(self._fd, _BODY.size + _CHECKSUM.size, slot * _SLOT_BYTES))

    def save(self) -> None:
        """Writes the file. A failing disk is no error: the values stay in memory, and older ones only cost a resend."""
        gap = self.gap or _NO_GAP
        self._serial += 1
        body = _BODY.pack(
            _HEADER,
            self._serial,
            self.acked,
            gap.id,
            gap.tool_calls + len(self.running_unrecorded),
            gap.model_requests,
            gap.session_states,
            gap.from_ms,
            gap.to_ms,
        )
        with suppress(OSError):
            os.pwrite(self._fd, body + _CHECKSUM.pack(zlib.crc32(body)), self._serial % _SLOTS * _SLOT_BYTES)

    def _load(self, slot: bytes) -> None:
        """Takes the values of slot, if it is intact and the newest."""
        read = _unpack(slot)
        if read is not None and read[0] > self._serial:
            self._serial, self.acked, self.gap = read

    def descriptors(self) -> list[int]:
        """The descriptor of the file."""
        return [self._fd]

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def _unpack(slot: bytes) -> tuple[int, int, Gap | None] | None:
    """The serial, the acked number and the gap of a slot; None if it is damaged."""
    body = slot[: _BODY.size]
    if len(body) < _BODY.size or slot[_BODY.size :] != _CHECKSUM.pack(zlib.crc32(body)):
        return None
    header, serial, acked, gap_id, tool_calls, model_requests, session_states, from_ms, to_ms = _BODY.unpack(body)
    if header != _HEADER:
        return None
    gap = Gap(gap_id, from_ms, to_ms, tool_calls, model_requests, session_states)
    return serial, acked, gap if any(gap_id) else None


def acked_number(folder: Path) -> int:
    """How far the spool in folder is acked, whoever holds it; 0 where that cannot be read."""
    acked = 0
    with suppress(OSError):
        data = (folder / STATE).read_bytes()
        slots = (_unpack(data[at : at + _BODY.size + _CHECKSUM.size]) for at in (0, _SLOT_BYTES))
        acked = max((found[:2] for found in slots if found), default=(0, 0))[1]
    with suppress(OSError), (folder / ACKED).open("rb") as file:
        acked = max(acked, Acked(file.fileno()).load())
    return acked


class Acked:
    """The file `acked`: how far the rows of a folder are acked, told by who sends them to who writes them.

    Like the state file it is never synced: a number that is too low only costs a resend.
    """

    def __init__(self, fd: int) -> None:
        """Takes ownership of fd."""
        self.fd = fd

    def load(self) -> int:
        """The number up to which all records are acked; 0 if the file is new or damaged.

        Raises:
            OSError: it cannot be read.
        """
        told = read_at(self.fd, _ACKED.size + _CHECKSUM.size, 0)
        body = told[: _ACKED.size]
        if len(body) < _ACKED.size or told[_ACKED.size :] != _CHECKSUM.pack(zlib.crc32(body)):
            return 0
        header, number = _ACKED.unpack(body)
        return int(number) if header == _ACKED_HEADER else 0

    def save(self, number: int) -> None:
        """Writes the number. A failing disk is no error, as in State.save()."""
        body = _ACKED.pack(_ACKED_HEADER, number)
        with suppress(OSError):
            os.pwrite(self.fd, body + _CHECKSUM.pack(zlib.crc32(body)), 0)

    def close(self) -> None:
        """Closes the file."""
        os.close(self.fd)
