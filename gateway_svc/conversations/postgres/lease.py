"""A session that is held: what is said is sent while the turn goes on, and waited for where it counts."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from onrecord.common.v1 import common_pb2

from gateway_svc.conversations.encryption import Cipher
from gateway_svc.conversations.memory import History
from gateway_svc.conversations.messages import encode
from gateway_svc.conversations.postgres.database import TURN, Database
from gateway_svc.conversations.postgres.reading import digest_of
from gateway_svc.conversations.records import SUMS, record_of
from gateway_svc.conversations.session import SessionState
from gateway_svc.conversations.stored import encode_prompt, encode_state
from gateway_svc.conversations.undisturbed import to_its_end, whole
from gateway_svc.errors import LeaseLost, StoreUnavailable
from gateway_svc.messages import Message
from gateway_svc.turns.events import now_ms

_WRITE = """WITH held AS (
    UPDATE conversations
    SET records = %(last)s, bytes = bytes + %(bytes)s, {more}
    WHERE id = %(id)s AND holder = %(holder)s AND fence = %(fence)s AND records = %(first)s - 1
    RETURNING 1
), put AS (
    INSERT INTO conversation_records (session_id, number, kind, payload)
    SELECT %(id)s, record.number, record.kind, record.payload FROM held, unnest(
        %(numbers)s::bigint[], %(kinds)s::smallint[], %(payloads)s::bytea[]) AS record (number, kind, payload)
)
SELECT count(*){unsynced} FROM held"""
_NOTED = "sums = coalesce(%(sums)s, sums)"
_SAVED = "sums = NULL, state = %(state)s, prompt = coalesce(%(prompt)s, prompt), updated_at_ms = %(updated_at_ms)s"
UNSYNCED = ", set_config('synchronous_commit', 'off', true)"
"""Of what a statement returns; it holds for its transaction. A crash of the server may undo that, as a power cut what
is in a file: what is missing then is sent again."""
_KEEP, _SAVE = _WRITE.format(more=_NOTED, unsynced=UNSYNCED), _WRITE.format(more=_SAVED, unsynced="")
_SAVE_UNSYNCED = _WRITE.format(more=_SAVED, unsynced=UNSYNCED)
_LOOK = "SELECT records FROM conversations WHERE id = %(id)s AND holder = %(holder)s AND fence = %(fence)s"


class Owner(Protocol):
    """The home that a lease is of."""

    database: Database
    synced: bool

    async def release(self, lease: "PostgresLease", *, in_order: bool) -> None:
        """Lets others have the session."""
        ...


class PostgresLease:
    """See protocol.Lease."""

    def __init__(
        self,
        owner: Owner,
        cipher: Cipher,
        state: SessionState,
        history: History,
        ids: Mapping[str, Any],
        records: int,
        last: bytes,
    ) -> None:
        """ids: the session's id, its holder and its fence. records: the number of the last record; last: its digest."""
        self.state = state
        self.history = history
        self.ids = ids
        self.records = records
        self.last = last
        self._owner = owner
        self._cipher = cipher
        self._unsynced: list[tuple[int, int, bytes]] = []
        """Records since the last save. A crash of the server may lose them once they are written."""
        self._written = records
        """The number of the last record that the database has been sent."""
        self._sums: bytes | None = None
        self._prompt = state.settings.system_prompt
        """The one that the database has."""
        self._kept_status = state.status
        self._failure: StoreUnavailable | None = None
        self._writing = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def append(self, message: Message) -> None:
        self._check()
        kind, payload = record_of(message)
        self.records += 1
        stored = self._cipher.encrypt(kind, self.records, payload)
        self.last = digest_of(stored)
        self._unsynced.append((self.records, kind, stored))
        self.history.messages.append(message)
        self.history.bytes += len(payload)
        self._send()

    def note_sums(self) -> None:
        self._check()
        self.state.revision, self.state.updated_at_ms = self.state.revision + 1, now_ms()
        sums = {"revision": self.state.revision, "updated_at_ms": self.state.updated_at_ms}
        self._sums = self._cipher.encrypt(SUMS, 0, encode({**sums, "totals": self.state.totals.to_json()}))
        self._send()

    async def kept(self) -> None:
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        self._check()

    async def save(self) -> None:
        async with self._saving:
            self._check()
            self.state.revision += 1
            self.state.updated_at_ms = now_ms()
            state = self.state.copy()
            await whole(self._write(state))
            self._kept_status = state.status

    async def close(self) -> None:
        await to_its_end(self._close())

    async def _close(self) -> None:
        async with self._saving:
            try:
                await self.kept()
                in_order = self._kept_status != common_pb2.SESSION_STATUS_RUNNING
            except StoreUnavailable:
                in_order = False
            await self._owner.release(self, in_order=in_order)

    def _check(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure)) from self._failure

    def _send(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._failure is None and (self._sums is not None or self._written < self.records):
                await self._write()
        except StoreUnavailable:
            pass  # kept() tells it

    async def _write(self, state: SessionState | None = None) -> None:
        """Writes what has not been written, and the state if it is given, or nothing.

        Raises:
            StoreUnavailable: it is not there; nothing more is written under this lease.
        """
        async with self._writing:
            self._check()
            sums, self._sums, records = self._sums, None, self.records
            values: dict[str, Any] = {**self.ids, "sums": sums, "last": records}
            statement, prompt = _KEEP, self._prompt
            if state is not None:
                statement = _SAVE if self._owner.synced else _SAVE_UNSYNCED
                prompt = state.settings.system_prompt
                values |= {"state": encode_state(state, records, self._cipher), "updated_at_ms": state.updated_at_ms}
                values["prompt"] = None if prompt == self._prompt else encode_prompt(state, self._cipher)
            try:
                while not await self._put(statement, values):
                    await self._look()
            except StoreUnavailable as error:
                self._failure = error
                raise
            self._written = records
            if state is not None:
                self._prompt = prompt
                self._unsynced = [record for record in self._unsynced if record[0] > records]

    async def _put(self, statement: str, values: Mapping[str, Any]) -> bool:
        """Writes; returns whether the session is held, and its last record is the one before those that are written."""
        due = [record for record in self._unsynced if self._written < record[0] <= values["last"]]
        numbers, kinds, payloads = map(list, zip(*due, strict=True)) if due else ([], [], [])
        more = {"numbers": numbers, "kinds": kinds, "payloads": payloads, "bytes": sum(map(len, payloads))}
        rows = await self._owner.database.ask(statement, {**values, **more, "first": self._written + 1}, TURN)
        return bool(rows[0][0])

    async def _look(self) -> None:
        """Finds out what the database has: more than was told when an answer was lost, or less after its crash.

        Raises:
            LeaseLost: another has taken the session.
            StoreUnavailable: the database has lost what it had promised to keep, or has what is not this lease's.
        """
        rows = await self._owner.database.ask(_LOOK, self.ids, TURN)
        if not rows:
            raise LeaseLost(
                f"another gateway has taken session {self.ids['id']} over, since this one did not answer: "
                "what came after that is not kept"
            )
        records, first = rows[0][0], self.records - len(self._unsynced)
        if not first <= records <= self.records or records == self._written:
            raise StoreUnavailable(f"the sessions' database has {records} records of {self._written}: was it restored?")
        self._written = records
