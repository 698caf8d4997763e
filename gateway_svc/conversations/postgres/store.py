"""Conversations in PostgreSQL: the protocol."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import structlog
from onrecord.common.v1 import common_pb2

from gateway_svc.conversations.encryption import Cipher, Keys, NotGenuine, is_encrypted
from gateway_svc.conversations.memory import Kept, Memory
from gateway_svc.conversations.postgres.calls import ANSWERS, CALLS, Calls
from gateway_svc.conversations.postgres.database import ONCE, TURN, Database
from gateway_svc.conversations.postgres.lease import UNSYNCED, PostgresLease
from gateway_svc.conversations.postgres.membership import ALIVE, Membership
from gateway_svc.conversations.postgres.noted_keys import NOTE_ONLY, USED
from gateway_svc.conversations.postgres.reading import read, said_page
from gateway_svc.conversations.postgres.requests import SharedRequests
from gateway_svc.conversations.postgres.rewriting import rewrite
from gateway_svc.conversations.postgres.spending import SPENDING, PostgresSpending
from gateway_svc.conversations.postgres.stops import STOPS, PostgresStops
from gateway_svc.conversations.records import SUMS
from gateway_svc.conversations.said import Place, SaidPage
from gateway_svc.conversations.session import SESSION_ID, SessionPage, SessionState
from gateway_svc.conversations.stored import decode_state, encode_prompt, encode_state
from gateway_svc.conversations.undisturbed import whole
from gateway_svc.errors import Busy, Damaged, InvalidRequest, KeyMissing, NotFound, StoreUnavailable
from gateway_svc.stopping.kept import SharedStops
from gateway_svc.turns.account import Totals
from gateway_svc.turns.budgets import Spent
from gateway_svc.turns.named import Claims
from service_kit.paging import MAX_PAGE_BYTES

LEFT = 0
"""The holder of a session that was let go in the middle of a turn: no gateway has this number."""

_CREATE = """INSERT INTO conversations
    (id, owner, created_at_ms, updated_at_ms, state, prompt, records, bytes, fence)
VALUES (%(id)s, %(owner)s, %(created_at_ms)s, %(updated_at_ms)s, %(state)s, %(prompt)s, 0, 0, 0)
ON CONFLICT (id) DO NOTHING"""

_MAY_TAKE = "(holder IS NULL OR holder = %(holder)s OR holder NOT IN (SELECT number FROM alive))"
_OPEN = f"""WITH {ALIVE}
UPDATE conversations SET holder = %(holder)s, fence = fence + 1 WHERE id = %(id)s AND {_MAY_TAKE}
RETURNING fence, owner, state, prompt, sums, records, bytes{UNSYNCED}"""
_COUNT = """UPDATE conversations SET records = %(records)s
WHERE id = %(id)s AND holder = %(holder)s AND fence = %(fence)s"""
_REMOVE = f"""WITH {ALIVE} DELETE FROM conversations WHERE id = %(id)s AND {_MAY_TAKE}"""
_RELEASE = f"""UPDATE conversations SET holder = %(left)s
WHERE id = %(id)s AND holder = %(holder)s AND fence = %(fence)s RETURNING 1{UNSYNCED}"""
_HELD = "SELECT id, fence FROM conversations WHERE holder = %(holder)s"
_SWEEP = """UPDATE conversations SET holder = %(left)s
FROM unnest(%(ids)s::text[], %(fences)s::bigint[]) AS unheld (id, fence)
WHERE conversations.id = unheld.id AND holder = %(holder)s AND conversations.fence = unheld.fence"""
_THERE = "SELECT 1 FROM conversations WHERE id = %(id)s"
_SEEN = """SELECT owner, substring(state FROM 1 FOR 1) FROM conversations
WHERE id = %(id)s AND owner IN ('', %(viewer)s)"""
_IS_HELD = "holder IN (SELECT number FROM alive)"
_STATE = f"""WITH {ALIVE} SELECT owner, state, prompt, {_IS_HELD} FROM conversations
WHERE id = %(id)s AND (%(viewer)s::text IS NULL OR owner IN ('', %(viewer)s))"""
_LIST = f"""WITH {ALIVE} SELECT id, owner, state, {_IS_HELD} FROM conversations
WHERE (%(before)s::text IS NULL OR id < %(before)s)
  AND (%(viewer)s::text IS NULL OR owner IN ('', %(viewer)s))
ORDER BY id DESC LIMIT %(size)s"""
_ABANDONED = f"""WITH {ALIVE} SELECT id FROM conversations
WHERE holder IS NOT NULL AND holder NOT IN (SELECT number FROM alive) ORDER BY id"""
_UNUSED = (
    """SELECT id FROM conversations WHERE updated_at_ms < %(before)s AND id > %(after)s ORDER BY id LIMIT %(size)s"""
)
_AT_ONCE = 100

log = structlog.get_logger(__name__)


class _Taken(NamedTuple):
    """A session as it was when it was taken."""

    ids: Mapping[str, Any]
    """Its id, its holder and its fence."""
    cipher: Cipher
    state: bytes
    prompt: bytes
    sums: bytes | None
    records: int
    size: int


class PostgresConversations:
    """See protocol.Conversations. It belongs to the loop that uses it first."""

    def __init__(self, url: str, *, synced: bool = True, memory_bytes: int = 2**28, keys: Keys | None = None) -> None:
        """synced: whether saving waits until the server has synced it. keys: those that sessions are encrypted by.

        Raises:
            SettingsError: the database is not what is needed, or keys are not those of its sessions.
        """
        self._keys = keys or Keys()
        self.database = Database(url, self._keys)
        self.synced = synced
        channels = CALLS, ANSWERS, STOPS, SPENDING
        self._membership = Membership(self.database, self._keys, self._on_beat, self._on_note, channels)
        self._calls = Calls(self.database, self._membership, self._keys)
        self.calls: Calls | None = self._calls
        self._stops = PostgresStops(self.database)
        self.stops: SharedStops | None = self._stops
        self._spending = PostgresSpending(self.database, self._membership)
        self.spending: Spent | None = self._spending
        self._requests = SharedRequests(self.database, self._membership)
        self.requests: Claims | None = self._requests
        self._memory = Memory(memory_bytes)
        self._held = set[str]()
        self._is_swept = True
        """Whether the database knows of nothing held here that is not."""

    async def create(self, state: SessionState, *, synced: bool) -> None:
        times = {"created_at_ms": state.created_at_ms, "updated_at_ms": state.updated_at_ms}
        ids = {"id": state.id, "owner": state.owner}
        cipher = self._keys.cipher(state.id, state.owner)
        kept = {"state": encode_state(state, 0, cipher), "prompt": encode_prompt(state, cipher)}
        await self.database.ask(_CREATE, {**ids, **times, **kept})

    async def open(self, session_id: str) -> PostgresLease:
        return await whole(self._open(session_id), PostgresLease.close)

    async def _open(self, session_id: str) -> PostgresLease:
        async with self._taking(session_id) as holder:
            taken = await self._take(session_id, holder)
            try:
                state, told = decode_state(session_id, taken.state, taken.prompt, taken.cipher)
                _add_sums(state, taken.sums, taken.cipher)
                if taken.cipher.takes_clear == taken.cipher.encrypts:
                    await rewrite(self.database, taken.ids, state, told, taken.cipher)
                records = taken.records
                if told > records:  # some were taken away: the numbers of what was there are not used again
                    records = told
                    await self.database.ask(_COUNT, {**taken.ids, "records": records}, TURN)
                kept = self._memory.take(session_id)
                found = await read(self.database, taken.cipher, session_id, records, taken.size, kept)
            except BaseException as error:
                await self._let_go(taken.ids, in_order=isinstance(error, Damaged) and not isinstance(error, KeyMissing))
                raise
        self._held.add(session_id)
        return PostgresLease(self, taken.cipher, state, found.history, taken.ids, found.records, found.last)

    async def _take(self, session_id: str, holder: int) -> "_Taken":
        rows = await self.database.ask(_OPEN, {"id": session_id, "holder": holder}, TURN)
        if not rows:
            raise await self._why_not(session_id)
        fence, owner, *kept = rows[0][:7]
        ids = {"id": session_id, "holder": holder, "fence": fence}
        return _Taken(ids, self._keys.cipher(session_id, owner), *kept)

    @asynccontextmanager
    async def _taking(self, session_id: str) -> AsyncIterator[int]:
        """A session that is taken, and nobody else of this gateway's meanwhile. Yields the gateway's number."""
        _check_id(session_id)
        if session_id in self._held:
            raise _busy(session_id)
        self._held.add(session_id)
        try:
            yield await self._membership.number(TURN)
        finally:
            self._held.discard(session_id)

    async def _why_not(self, session_id: str) -> Exception:
        """Why a session cannot be taken."""
        if await self.database.ask(_THERE, {"id": session_id}):
            return _busy(session_id)
        return _not_found(session_id)

    async def release(self, lease: PostgresLease, *, in_order: bool) -> None:
        """Lets others have a session. in_order: else it shows as one whose turn has failed."""
        if in_order:
            kept = Kept(lease.last, lease.records, lease.records + 1, lease.history)
            self._memory.put(lease.state.id, kept)
        await self._let_go(lease.ids, in_order=in_order)
        self._held.discard(lease.state.id)

    async def _let_go(self, ids: Mapping[str, Any], *, in_order: bool) -> None:
        try:
            await self.database.ask(_RELEASE, {**ids, "left": None if in_order else LEFT}, TURN)
        except StoreUnavailable as error:
            log.warning("session.not_released", session_id=ids["id"], reason=str(error))
            self._is_swept = False

    async def _on_beat(self, *, joined: bool) -> None:
        """Lets go what this gateway does not hold, though the database says so: it was away, or a crash undid that."""
        if joined:  # what was told meanwhile was told to nobody
            self._stops.changed.set()
        await self._calls.look(clean=True)
        await self._requests.look()
        self._is_swept &= not joined
        if not self._is_swept:
            with suppress(StoreUnavailable):
                await self.let_go_of_unheld()
                self._is_swept = True

    async def let_go_of_unheld(self) -> None:
        """Lets go what the database says that this gateway holds, and it does not.

        Raises:
            StoreUnavailable: the database cannot be used now.
        """
        holder = await self._membership.number()
        rows = await self.database.ask(_HELD, {"holder": holder}, ONCE)
        unheld = {session_id: fence for session_id, fence in rows if session_id not in self._held}
        if unheld:  # by its fence, since any may be opened meanwhile
            values = {"ids": list(unheld), "fences": list(unheld.values()), "holder": holder, "left": LEFT}
            await self.database.ask(_SWEEP, values, ONCE)

    async def _on_note(self, channel: str, payload: str) -> None:
        if channel == STOPS:
            self._stops.changed.set()
        elif channel == SPENDING:
            self._spending.notified()
        else:
            await self._calls.notified(channel, payload)

    def start(self) -> None:
        """Joins the gateways that share the database, as soon as it can be reached."""
        self._membership.start()

    async def state(self, session_id: str, viewer: str | None) -> SessionState:
        _check_id(session_id)
        rows = await self.database.ask(_STATE, {"id": session_id, "viewer": viewer})
        if not rows:
            raise _not_found(session_id)
        owner, about_it, prompt, is_held = rows[0]
        state, _ = decode_state(session_id, about_it, prompt, self._keys.cipher(session_id, owner))
        return _as_it_is(state, is_held)

    async def read_said(self, session_id: str, owner: str, after: Place, size: int) -> SaidPage:
        _check_id(session_id)
        rows = await self.database.ask(_SEEN, {"id": session_id, "viewer": owner})
        if not rows:
            raise _not_found(session_id)
        cipher = self._keys.cipher(session_id, rows[0][0])
        cipher.takes_clear = not is_encrypted(rows[0][1])
        return await said_page(self.database, cipher, session_id, after, size)

    async def list_page(self, size: int, before: str | None, viewer: str | None) -> SessionPage:
        page, page_bytes = list[SessionState](), 0
        while True:
            values = {"before": before, "viewer": viewer, "size": min(size + 1 - len(page), _AT_ONCE)}
            rows = await self.database.ask(_LIST, values)
            if not rows:
                return SessionPage(page, has_more=False)
            for session_id, owner, about_it, is_held in rows:
                before = session_id
                try:
                    state, _ = decode_state(session_id, about_it, None, self._keys.cipher(session_id, owner))
                except Damaged as error:
                    log.warning("session.unreadable", session_id=session_id, reason=str(error))
                    continue
                if len(page) == size or page_bytes > MAX_PAGE_BYTES:
                    return SessionPage(page, has_more=True)
                page.append(_as_it_is(state, is_held))
                page_bytes += len(about_it)

    async def remove(self, session_id: str) -> None:
        async with self._taking(session_id) as holder:
            rows = await self.database.ask(_REMOVE, {"id": session_id, "holder": holder}, TURN)
            if not rows[0][0]:
                raise await self._why_not(session_id)
            self._memory.take(session_id)

    async def rewrite(self, session_id: str) -> None:
        async with self._taking(session_id) as holder:
            taken, in_order = await self._take(session_id, holder), False
            try:
                state, records = decode_state(session_id, taken.state, taken.prompt, taken.cipher)
                in_order = state.status != common_pb2.SESSION_STATUS_RUNNING
                _add_sums(state, taken.sums, taken.cipher)
                await rewrite(self.database, taken.ids, state, records, taken.cipher)
            finally:
                await self._let_go(taken.ids, in_order=in_order)

    async def keys_in_use(self) -> list[str]:
        return [key_id for (key_id,) in await self.database.ask(USED, {"id": self._keys.first})]

    async def all_rewritten(self) -> list[str]:
        await self.database.ask(NOTE_ONLY, {"id": self._keys.first})
        return await self.keys_in_use()

    async def abandoned(self) -> list[str]:
        return [session_id for (session_id,) in await self.database.ask(_ABANDONED)]

    async def unused_since(self, updated_ms: int) -> AsyncIterator[str]:
        after = ""
        while rows := await self.database.ask(_UNUSED, {"before": updated_ms, "after": after, "size": _AT_ONCE}):
            for (session_id,) in rows:
                yield session_id
                after = session_id

    async def trouble(self) -> str:
        try:
            await self.database.ask("SELECT 1", patience=ONCE)
        except StoreUnavailable as error:
            return str(error)
        return self._membership.trouble()

    def hurry(self) -> None:
        self.database.hurry()

    async def aclose(self) -> None:
        await self._calls.aclose()
        await self._requests.aclose()
        await self._spending.aclose()
        await self._membership.aclose()
        await self.database.aclose()


def _check_id(session_id: str) -> None:
    if not session_id:
        raise InvalidRequest("session_id is empty: name the session", "session_id")
    if not SESSION_ID.fullmatch(session_id):
        raise NotFound("session_id is not the id of a session", "session", session_id)


def _not_found(session_id: str) -> NotFound:
    return NotFound(f"session {session_id} is not known to this gateway", "session", session_id)


def _busy(session_id: str) -> Busy:
    return Busy(f"session {session_id} is open in another gateway process")


def _add_sums(state: SessionState, sums: bytes | None, cipher: Cipher) -> None:
    """Takes over what a turn has spent since the state was saved."""
    if sums is None:
        return
    try:
        later = json.loads(cipher.decrypt(SUMS, 0, sums))
        if later["revision"] > state.revision:
            state.revision, state.updated_at_ms = later["revision"], later["updated_at_ms"]
            state.totals = Totals.from_json(later["totals"])
    except (NotGenuine, KeyError, TypeError, ValueError, AttributeError) as error:
        told = f"session {state.id}: what it has spent cannot be read ({type(error).__name__})"
        raise Damaged(told, "session", state.id) from None


def _as_it_is(state: SessionState, is_held: bool) -> SessionState:
    if state.status == common_pb2.SESSION_STATUS_RUNNING and not is_held:
        state.status = common_pb2.SESSION_STATUS_FAILED  # the gateway that ran it is gone
    return state
