"""What a spool remembers besides its records: how far it is acked, and what it could not take."""

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

from gateway_svc.audit.spool.gap import Gap
from gateway_svc.audit.spool.segments import FILE_MODE

_HEADER = b"onrecord/state 1"
_BODY = struct.Struct("<16sQ16sQQQqq")
_CHECKSUM = struct.Struct("<I")
_NO_GAP = Gap(bytes(16), 0, 0)


class State:
    """The state file. It is written in place, so that it needs no room on a full disk, and never synced: an ack that a
    power cut takes back only has rows sent again, which the ledger counts as duplicates.
    """

    def __init__(self, folder: Path) -> None:
        """Reads it; one that is missing or damaged counts as new.

        Raises:
            OSError: it can be neither opened nor made.
        """
        self._fd = os.open(folder / "state", os.O_RDWR | os.O_CREAT, FILE_MODE)
        self.acked = 0
        """The number up to which all records are acked."""
        self.gap: Gap | None = None
        self.running_unrecorded: set[str] = set()
        """Ids of calls that run and whose intents were not taken: when the process dies, the gap tells them too."""
        stored = os.pread(self._fd, _BODY.size + _CHECKSUM.size, 0)
        body = stored[: _BODY.size]
        if stored == body + _CHECKSUM.pack(zlib.crc32(body)) and body.startswith(_HEADER):
            _, self.acked, gap_id, tool_calls, model_requests, session_states, from_ms, to_ms = _BODY.unpack(body)
            if any(gap_id):
                self.gap = Gap(gap_id, from_ms, to_ms, tool_calls, model_requests, session_states)

    def save(self) -> None:
        """Writes it. A disk that fails is no error: the values stay in memory, and older ones only cost a resend."""
        gap = self.gap or _NO_GAP
        body = _BODY.pack(
            _HEADER,
            self.acked,
            gap.id,
            gap.tool_calls + len(self.running_unrecorded),
            gap.model_requests,
            gap.session_states,
            gap.from_ms,
            gap.to_ms,
        )
        with suppress(OSError):
            os.pwrite(self._fd, body + _CHECKSUM.pack(zlib.crc32(body)), 0)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)
