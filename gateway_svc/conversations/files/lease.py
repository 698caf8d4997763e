"""A session that is held: its files, open for one turn."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Self

from onrecord.common.v1 import common_pb2

from gateway_svc.conversations.encryption import Cipher
from gateway_svc.conversations.files import session_file
from gateway_svc.conversations.files.places import CONVERSATION, Hold
from gateway_svc.conversations.files.rewriting import rewrite
from gateway_svc.conversations.files.saving import Saves
from gateway_svc.conversations.files.transcript import Transcript
from gateway_svc.conversations.history import mended
from gateway_svc.conversations.memory import History, Kept, Memory
from gateway_svc.conversations.messages import encode
from gateway_svc.conversations.records import SUMS, record_of
from gateway_svc.conversations.session import SessionState
from gateway_svc.conversations.undisturbed import to_its_end
from gateway_svc.errors import Damaged, KeyMissing, NotFound, storing
from gateway_svc.messages import Message
from gateway_svc.turns.account import Totals
from gateway_svc.turns.events import now_ms


class FileLease:
    """See protocol.Lease."""

    def __init__(
        self,
        path: Path,
        hold: Hold,
        transcript: Transcript,
        cipher: Cipher,
        state: SessionState,
        history: History,
        memory: Memory,
        saves: Saves,
    ) -> None:
        """Takes ownership of hold and transcript."""
        self.state = state
        self.history = history
        self._path = path
        self._hold = hold
        self._transcript = transcript
        self._cipher = cipher
        self._memory = memory
        self._saves = saves
        self._saving = asyncio.Lock()
        self._new = not transcript.position[0]
        """Whether the names of its files may not be synced."""
        self._kept_status = state.status

    @classmethod
    def open(cls, path: Path, leases: Path, cipher: Cipher, memory: Memory, saves: Saves) -> Self:
        """Opens a session's files, which are encrypted if they are to be, and reads what is not in memory.

        Raises:
            NotFound, KeyMissing, Damaged, Busy: see protocol.Conversations.open.
            OSError: the disk cannot be read, or has no room for the lease.
        """
        hold = Hold(leases, path.stem)
        try:
            state, records = session_file.read(path, cipher, prompt=True)
            if cipher.takes_clear == cipher.encrypts:
                rewrite(path, state, records, cipher)
            transcript = Transcript(path.with_suffix(CONVERSATION), cipher)
            try:
                history = _read(transcript, state, records, memory)
            except BaseException:
                transcript.close()
                raise
        except BaseException as error:
            hold.release(in_order=isinstance(error, NotFound | Damaged) and not isinstance(error, KeyMissing))
            raise
        return cls(path, hold, transcript, cipher, state, history, memory, saves)

    def append(self, message: Message) -> None:
        kind, payload = record_of(message)
        with storing():
            self._transcript.append(kind, payload)
        self.history.messages.append(message)
        self.history.bytes += len(payload)

    def note_sums(self) -> None:
        state = self.state
        revision, updated_ms = state.revision + 1, now_ms()
        sums = {"revision": revision, "updated_at_ms": updated_ms, "totals": state.totals.to_json()}
        with storing():
            self._transcript.append(SUMS, encode(sums))
        state.revision, state.updated_at_ms = revision, updated_ms

    async def kept(self) -> None:
        """It is since append()."""

    async def save(self) -> None:
        async with self._saving:
            self.state.revision += 1
            self.state.updated_at_ms = now_ms()
            state, records = self.state.copy(), self._transcript.position[1] - 1
            await self._saves.run(partial(self._keep, state, records))
            self._kept_status, self._new = state.status, False

    def _keep(self, state: SessionState, records: int) -> None:
        with storing():
            if self._saves.synced:
                self._transcript.sync()
            self._saves.write(self._path, state, records, self._cipher, new=self._new)

    async def close(self) -> None:
        await to_its_end(self._close())

    async def _close(self) -> None:
        async with self._saving:
            in_order = self._kept_status != common_pb2.SESSION_STATUS_RUNNING
            if in_order:
                end, number = self._transcript.position
                self._memory.put(self.state.id, Kept(self._transcript.identity, end, number, self.history))
            self._transcript.close()
            self._hold.release(in_order=in_order)

    def give_up(self) -> None:
        """Closes it at once, when nothing was done with it."""
        self._transcript.close()
        self._hold.release(in_order=self._kept_status != common_pb2.SESSION_STATUS_RUNNING)


def _read(transcript: Transcript, state: SessionState, records: int, memory: Memory) -> History:
    """The session's history: from memory, with what others have appended since, or as a whole."""
    kept, identity = memory.take(state.id), transcript.identity
    if kept is not None and kept.identity == identity and kept.end == transcript.size:
        transcript.go_to(kept.end, kept.number)
        return kept.history
    goes_on = kept is not None and kept.identity == identity and kept.end <= transcript.size
    found = transcript.read(kept.end, kept.number) if kept is not None and goes_on else transcript.read()
    if kept is not None and goes_on and found.holes:
        kept, found = None, transcript.read()
    transcript.go_to(found.end, max(found.number, records + 1))
    if found.number <= records:
        found.holes.append(f"its last {records - found.number + 1} records are missing")
    if found.sums and found.sums["revision"] > state.revision:
        state.revision, state.updated_at_ms = found.sums["revision"], found.sums["updated_at_ms"]
        state.totals = Totals.from_json(found.sums["totals"])
    if kept is not None and goes_on:
        kept.history.messages += found.messages
        kept.history.bytes += found.size_bytes
        return kept.history
    messages = mended(found.messages) if found.holes else found.messages
    return History(messages, unreadable=found.unreadable, bytes=found.size_bytes)
