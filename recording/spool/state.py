"""A spool's state besides its records: how far it is acked, and the pending gap."""

import os
import struct
import zlib
from contextlib import suppress

from recording.held_folder import HeldFolder
from recording.spool.gap import Gap

STATE = "state"

_HEADER = b"onrecord/state 1"
_BODY = struct.Struct("<16sQQ16sQQQqq")
_CHECKSUM = struct.Struct("<I")
_SLOT_BYTES = 512
_SLOTS = 2
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
        body = slot[: _BODY.size]
        if len(body) < _BODY.size or slot[_BODY.size :] != _CHECKSUM.pack(zlib.crc32(body)):
            return
        header, serial, acked, gap_id, tool_calls, model_requests, session_states, from_ms, to_ms = _BODY.unpack(body)
        if header == _HEADER and serial > self._serial:
            self._serial, self.acked = serial, acked
            gap = Gap(gap_id, from_ms, to_ms, tool_calls, model_requests, session_states)
            self.gap = gap if any(gap_id) else None

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)
