"""Conversations in PostgreSQL: the protocol."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from onrecord.common.v1 import common_pb2

from gateway_svc.conversations.memory import Kept, Memory
from gateway_svc.conversations.postgres.calls import ANSWERS, CALLS, Calls
from gateway_svc.conversations.postgres.database import Database
from gateway_svc.conversations.postgres.lease import UNSYNCED, PostgresLease, about, prompt_of
from gateway_svc.conversations.postgres.membership import ALIVE, Membership
from gateway_svc.conversations.postgres.reading import read, said_page
from gateway_svc.conversations.postgres.requests import SharedRequests
from gateway_svc.conversations.said import Place, SaidPage
from gateway_svc.conversations.session import SESSION_ID, SessionState
from gateway_svc.conversations.undisturbed import whole
from gateway_svc.errors import Busy, Damaged, InvalidRequest, NotFound, StoreUnavailable
from gateway_svc.turns.account import Totals
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
RETURNING fence, state, prompt, sums, records, bytes{UNSYNCED}"""
_REMOVE = f"""WITH {ALIVE} DELETE FROM conversations WHERE id = %(id)s AND {_MAY_TAKE}"""
_RELEASE = f"""UPDATE conversations SET holder = %(left)s
WHERE id = %(id)s AND holder = %(holder)s AND fence = %(fence)s RETURNING 1{UNSYNCED}"""
_SWEEP = "UPDATE conversations SET holder = %(left)s WHERE holder = %(holder)s AND id <> ALL(%(held)s)"
_THERE = "SELECT 1 FROM conversations WHERE id = %(id)s"
_SEEN = f"{_THERE} AND owner IN ('', %(viewer)s)"
_IS_HELD = "holder IN (SELECT number FROM alive)"
_STATE = f"""WITH {ALIVE} SELECT state, prompt, {_IS_HELD} FROM conversations
WHERE id = %(id)s AND (%(viewer)s::text IS NULL OR owner IN ('', %(viewer)s))"""
_LIST = f"""WITH {ALIVE} SELECT id, state, {_IS_HELD} FROM conversations
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


class PostgresConversations:
    """See protocol.Conversations. It belongs to the loop that uses it first."""

    def __init__(self, url: str, *, synced: bool = True, memory_bytes: int = 2**28) -> None:
        """synced: whether saving waits until the server has synced it.

        Raises:
            SettingsError: the database is not what is needed.
        """
        self.database = Database(url)
        self.synced = synced
        self._membership = Membership(self.database, self._on_beat, self._on_note, (CALLS, ANSWERS))
        self._calls = Calls(self.database, self._membership)
        self.calls: Calls | None = self._calls
        self._requests = SharedRequests(self.database, self._membership)
        self.requests: SharedRequests | None = self._requests
        self._memory = Memory(memory_bytes)
        self._held = set[str]()
        self._is_swept = True
        """Whether the database knows of nothing held here that is not."""

    async def create(self, state: SessionState, *, synced: bool) -> None:
        times = {"created_at_ms": state.created_at_ms, "updated_at_ms": state.updated_at_ms}
        ids = {"id": state.id, "owner": state.owner}
        await self.database.ask(_CREATE, {**ids, **times, "state": about(state), "prompt": prompt_of(state)})

    async def open(self, session_id: str) -> PostgresLease:
        return await whole(self._open(session_id), PostgresLease.close)

    async def _open(self, session_id: str) -> PostgresLease:
        async with self._taking(session_id) as holder:
            rows = await self.database.ask(_OPEN, {"id": session_id, "holder": holder})
            if not rows:
                raise await self._why_not(session_id)
            fence, about_it, prompt, sums, records, size = rows[0][:6]
            ids = {"id": session_id, "holder": holder, "fence": fence}
            try:
                state = _session(session_id, about_it, prompt, sums)
                found = await read(self.database, session_id, records, size, self._memory.take(session_id))
            except BaseException as error:
                await self._let_go(ids, in_order=isinstance(error, Damaged))
                raise
        self._held.add(session_id)
        return PostgresLease(self, state, found.history, ids, found.records, found.last)

    @asynccontextmanager
    async def _taking(self, session_id: str) -> AsyncIterator[int]:
        """A session that is taken, and nobody else of this gateway's meanwhile. Yields the gateway's number."""
        _check_id(session_id)
        if session_id in self._held:
            raise _busy(session_id)
        self._held.add(session_id)
        try:
            yield await self._membership.number()
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
            await self.database.ask(_RELEASE, {**ids, "left": None if in_order else LEFT})
        except StoreUnavailable as error:
            log.warning("session.not_released", session_id=ids["id"], reason=str(error))
            self._is_swept = False

    async def _on_beat(self, *, joined: bool) -> None:
        """Lets go what this gateway does not hold, though the database says so: it was away, or a crash undid that."""
        await self._calls.look(clean=True)
        await self._requests.look()
        self._is_swept &= not joined
        if self._is_swept:
            return
        with suppress(StoreUnavailable):
            holder = await self._membership.number()
            await self.database.ask(_SWEEP, {"holder": holder, "held": list(self._held), "left": LEFT}, patient=False)
            self._is_swept = True

    async def _on_note(self, channel: str) -> None:
        await self._calls.notified(channel)

    def start(self) -> None:
        """Joins the gateways that share the database, as soon as it can be reached."""
        self._membership.start()

    async def state(self, session_id: str, viewer: str | None) -> SessionState:
        _check_id(session_id)
        rows = await self.database.ask(_STATE, {"id": session_id, "viewer": viewer})
        if not rows:
            raise _not_found(session_id)
        about_it, prompt, is_held = rows[0]
        return _as_it_is(_session(session_id, about_it, prompt), is_held)

    async def read_said(self, session_id: str, owner: str, after: Place, size: int) -> SaidPage:
        _check_id(session_id)
        if not await self.database.ask(_SEEN, {"id": session_id, "viewer": owner}):
            raise _not_found(session_id)
        return await said_page(self.database, session_id, after, size)

    async def list_page(self, size: int, before: str | None, viewer: str | None) -> list[SessionState]:
        page, page_bytes = list[SessionState](), 0
        while len(page) < size and page_bytes <= MAX_PAGE_BYTES:
            values = {"before": before, "viewer": viewer, "size": min(size - len(page), _AT_ONCE)}
            rows = await self.database.ask(_LIST, values)
            if not rows:
                break
            for session_id, about_it, is_held in rows:
                before = session_id
                try:
                    page.append(_as_it_is(_session(session_id, about_it), is_held))
                except Damaged as error:
                    log.warning("session.unreadable", session_id=session_id, reason=str(error))
                    continue
                page_bytes += len(about_it)
                if page_bytes > MAX_PAGE_BYTES:
                    break
        return page

    async def remove(self, session_id: str) -> None:
        async with self._taking(session_id) as holder:
            rows = await self.database.ask(_REMOVE, {"id": session_id, "holder": holder})
            if not rows[0][0]:
                raise await self._why_not(session_id)
            self._memory.take(session_id)

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
            await self.database.ask("SELECT 1", patient=False)
        except StoreUnavailable as error:
            return str(error)
        return self._membership.trouble()

    async def aclose(self) -> None:
        await self._calls.aclose()
        await self._requests.aclose()
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


def _session(session_id: str, about_it: bytes, prompt: bytes = b"", sums: bytes | None = None) -> SessionState:
    """The session of a row.

    Raises:
        Damaged: it cannot be read.
    """
    try:
        value = json.loads(about_it)
        value["settings"] |= json.loads(prompt) if prompt else {}
        state = SessionState.from_json(value)
        if sums is not None and (later := json.loads(sums))["revision"] > state.revision:
            state.revision, state.updated_at_ms = later["revision"], later["updated_at_ms"]
            state.totals = Totals.from_json(later["totals"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(
            f"what session {session_id} is cannot be read by this version ({type(error).__name__})",
            "session",
            session_id,
        ) from None
    return state


def _as_it_is(state: SessionState, is_held: bool) -> SessionState:
    if state.status == common_pb2.SESSION_STATUS_RUNNING and not is_held:
        state.status = common_pb2.SESSION_STATUS_FAILED  # the gateway that ran it is gone
    return state
