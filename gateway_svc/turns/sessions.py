"""The sessions that turns run on: each held by one turn at a time, in the order of the requests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from uuid_utils import uuid7

from gateway_svc.conversations.history import closing_messages
from gateway_svc.conversations.protocol import Conversations, Lease
from gateway_svc.conversations.said import Place, SaidPage
from gateway_svc.conversations.session import SessionPage, SessionState
from gateway_svc.errors import Busy, Damaged
from gateway_svc.messages import EncodedConversation, Message
from gateway_svc.turns.events import now_ms
from gateway_svc.turns.keyed_locks import KeyedLocks
from service_kit.time_slice import TimeSlice

AGAIN_SECONDS = 0.1
"""How soon a turn looks again whether another process has let its session go."""


class Session:
    """A session that is held, so that a turn can continue it."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    @property
    def state(self) -> SessionState:
        """What the session is; save() keeps what is changed of it."""
        return self._lease.state

    @property
    def history(self) -> list[Message]:
        """What was said in it; only append() adds to it."""
        return self._lease.history.messages

    @property
    def contexts(self) -> dict[str, EncodedConversation]:
        """What engines keep of the conversation from turn to turn."""
        return self._lease.history.contexts

    @property
    def unreadable(self) -> str:
        """What of it could not be read, as a sentence for people; empty if all could."""
        return self._lease.history.unreadable

    def append(self, message: Message) -> None:
        """Adds a message to the conversation.

        Raises:
            StoreUnavailable: it cannot be kept, and is not in the history.
        """
        self._lease.append(message)

    async def close_history(self, note: str) -> None:
        """Completes the history so that every model server accepts it. Others have their turn in between.

        Raises:
            StoreUnavailable: it cannot be kept.
        """
        time_slice = TimeSlice()
        for message in closing_messages(self.history, note):
            self.append(message)
            if time_slice.is_over():
                await time_slice.give_way()

    async def kept(self) -> None:
        """Returns when what was said and spent so far would survive the end of this process.

        Raises:
            StoreUnavailable: it would not.
        """
        await self._lease.kept()

    def note_sums(self) -> None:
        """Keeps what was spent.

        Raises:
            StoreUnavailable: it cannot be kept.
        """
        self._lease.note_sums()

    async def save(self) -> None:
        """Keeps the state as its next revision, and the conversation, so that both survive a power cut.

        Raises:
            StoreUnavailable: they cannot be kept.
        """
        await self._lease.save()


class Sessions:
    """The sessions of a home of conversations, as this gateway uses them."""

    def __init__(self, conversations: Conversations, is_home: Callable[[str], bool] = lambda session_id: True) -> None:
        """is_home: whether a session with this id would belong to this process; new ones get such ids."""
        self._is_home = is_home
        self._conversations = conversations
        self._queues = KeyedLocks()
        self._held: dict[str, asyncio.Future[Session]] = {}
        """The sessions that are held, once they are open."""

    async def create(self, state: SessionState, *, synced: bool = True) -> None:
        """Creates a session: assigns its id and keeps its first state. synced: whether that must survive a power cut.

        Raises:
            StoreUnavailable: it cannot be kept.
        """
        state.id, state.revision = str(uuid7()), 1
        while not self._is_home(state.id):
            state.id = str(uuid7())
        state.created_at_ms = state.updated_at_ms = now_ms()
        await self._conversations.create(state, synced=synced)

    @asynccontextmanager
    async def hold(self, session_id: str, *, patient: bool = False) -> AsyncIterator[Session]:
        """Opens a session for one turn, in the order of the requests.

        patient: waits while another gateway that shares the sessions has it open. In a folder of files whoever else has
        it open is no such gateway, and nobody knows when it ends.

        Raises:
            InvalidRequest: the id is empty.
            NotFound: there is no such session.
            Busy: another process has it open, and it is not to be waited for.
            Damaged: what it is cannot be read.
        """
        async with self._queues.hold(session_id):
            opened = self._held[session_id] = asyncio.get_running_loop().create_future()
            try:
                lease = await self._open(session_id, patient=patient)
                try:
                    session = Session(lease)
                    opened.set_result(session)
                    yield session
                finally:
                    await lease.close()
            finally:
                del self._held[session_id]
                opened.cancel()

    async def _open(self, session_id: str, *, patient: bool) -> Lease:
        while True:
            try:
                return await self._conversations.open(session_id)
            except Busy:
                if not patient or self._conversations.calls is None:
                    raise
            await asyncio.sleep(AGAIN_SECONDS)

    def asking_for(self, session_id: str) -> int:
        """How many hold a session here, or wait for it."""
        return self._queues.users(session_id)

    async def change(self, session_id: str, change: Callable[[Session], Awaitable[object]]) -> SessionState:
        """Calls `change` with a session at once, also while a turn holds it, and returns the session's state.

        Raises:
            InvalidRequest, NotFound, Busy, Damaged: as hold().
        """
        while session_id in self._queues:
            if (held := self._held.get(session_id)) is None:
                await asyncio.sleep(0)  # it is being passed on
                continue
            await asyncio.wait([held])
            if self._held.get(session_id) is held and not held.cancelled():
                session = held.result()
                await change(session)
                return session.state.copy()
        async with self.hold(session_id) as session:
            await change(session)
            return session.state.copy()

    async def get(self, session_id: str, viewer: str | None = None) -> SessionState:
        """The current state of a session.

        Raises:
            InvalidRequest: the id is empty.
            NotFound: there is no such session, or none that viewer may know of.
            Damaged: what it is cannot be read.
        """
        held = self._held.get(session_id)
        if held is not None and held.done() and not held.cancelled():
            state = held.result().state
            if state.is_visible_to(viewer):
                return state.copy()
        return await self._conversations.state(session_id, viewer)

    async def read_said(self, session_id: str, owner: str, after: Place, size: int) -> SaidPage:
        """A page of what was said in a session of owner's: see Conversations."""
        return await self._conversations.read_said(session_id, owner, after, size)

    async def list_page(self, size: int, before: str | None, viewer: str | None = None) -> SessionPage:
        """At most `size` sessions that viewer may see, the newest first, older than the session `before`. Fewer where
        they are large.
        """
        return await self._conversations.list_page(size, before, viewer)

    async def remove(self, session_id: str, viewer: str | None = None) -> None:
        """Removes a session that viewer may know of, and all that was said in it.

        Raises:
            InvalidRequest, NotFound, Busy: as hold(); Busy also while a turn runs on it or waits for it here.
            StoreUnavailable: it could not be removed.
        """
        if viewer is not None:
            with suppress(Damaged):  # which is the owner's too
                await self._conversations.state(session_id, viewer)
        if session_id in self._queues:
            raise Busy(f"a turn runs on session {session_id} or waits for it: cancel it first")
        await self._conversations.remove(session_id)

    async def left_running(self) -> list[str]:
        """The sessions whose turn was running when its process died."""
        return await self._conversations.abandoned()
