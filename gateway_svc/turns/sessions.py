"""Sessions: conversations that a gateway keeps in its state directory, and continues after a restart."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.errors import InvalidRequest, NotFound
from gateway_svc.messages import Message
from gateway_svc.turns import session_settings
from gateway_svc.turns.account import Totals
from gateway_svc.turns.events import now_ms
from gateway_svc.turns.transcript import Transcript, closing_messages, read_state, to_line

SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""What a session id may look like, since it is the name of a file."""


def may_see(owner: str, viewer: str | None) -> bool:
    """Whether the caller `viewer` may see what `owner` began, empty if callers have no names; None: who sees all."""
    return viewer is None or owner in ("", viewer)


@dataclass(slots=True)
class SessionState:
    """A session without its messages."""

    id: str
    settings: pb.SessionSettings = field(default_factory=pb.SessionSettings)
    """With the engine and the model of its last turn, or those that its next turn takes."""
    status: int = common_pb2.SESSION_STATUS_IDLE
    revision: int = 0
    turns: int = 0
    totals: Totals = field(default_factory=Totals)
    created_at_ms: int = 0
    updated_at_ms: int = 0
    shadow_totals: Totals = field(default_factory=Totals)
    owner: str = ""
    """The caller that created it; empty if callers have no names."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The state that a transcript holds."""
        rest = dict(value)
        settings = session_settings.from_json(rest)
        totals, shadow_totals = (Totals.from_json(rest.pop(name, {})) for name in ("totals", "shadow_totals"))
        return cls(**rest, settings=settings, totals=totals, shadow_totals=shadow_totals)

    def to_json(self) -> dict[str, Any]:
        """The state for a transcript."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "settings": session_settings.to_json(self.settings),
            "totals": asdict(self.totals),
            "shadow_totals": asdict(self.shadow_totals),
        }

    def is_visible_to(self, viewer: str | None) -> bool:
        """Whether the caller `viewer` may see it; None: somebody who may see all sessions."""
        return may_see(self.owner, viewer)

    def to_row(self) -> audit_pb2.SessionRow:
        """The session's row in the ledger."""
        from recording.rows import session_row  # only if rows are recorded: it loads redaction

        return session_row(
            self.id,
            self.revision,
            common_pb2.SessionStatus.ValueType(self.status),
            engine=self.settings.engine,
            model=self.settings.model,
            labels=self.settings.labels,
            created_at_ms=self.created_at_ms,
            updated_at_ms=self.updated_at_ms,
            turns=self.turns,
            tool_calls=self.totals.tool_calls,
            usage=self.totals.to_usage(),
        )

    def to_message(self) -> pb.Session:
        """The session as the gateway's clients see it: without its system prompt."""
        session = pb.Session(
            id=self.id,
            settings=self.settings,
            status=common_pb2.SessionStatus.ValueType(self.status),
            turns=self.turns,
            tool_calls=self.totals.tool_calls,
            usage=self.totals.to_usage(),
            created_at_ms=self.created_at_ms,
            updated_at_ms=self.updated_at_ms,
            shadow_usage=self.shadow_totals.to_usage()
            if self.settings.shadows or self.shadow_totals.requests
            else None,
        )
        session.settings.ClearField("system_prompt")
        return session


class Session:
    """A session with its transcript open, so that a turn can continue it."""

    def __init__(self, state: SessionState, history: list[Message], transcript: Transcript) -> None:
        self.state = state
        self.history = history
        self._transcript = transcript

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens a session to continue it.

        Raises:
            NotFound: there is no such session.
            Busy: another process has it open.
        """
        transcript = Transcript.open(path)
        try:
            value, history = transcript.read()
        except BaseException:
            transcript.close()
            raise
        return cls(SessionState.from_json(value), history, transcript)

    def append(self, message: Message) -> None:
        """Adds a message to the history and to the transcript."""
        self.history.append(message)
        self._transcript.append(to_line(message))

    def close_history(self, note: str) -> None:
        """Completes the history so that every model server accepts it."""
        for message in closing_messages(self.history, note):
            self.append(message)

    def save(self) -> None:
        """Writes the state as the next revision."""
        self.state.revision += 1
        self.state.updated_at_ms = now_ms()
        self._transcript.append({"session": self.state.to_json()})

    def close(self) -> None:
        """Closes the transcript."""
        self._transcript.close()


class Sessions:
    """The sessions in one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "sessions"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._queues: dict[str, tuple[asyncio.Lock, int]] = {}
        self._held: dict[str, asyncio.Future[Session]] = {}
        """The sessions that are held, once they are open."""
        self._listing = asyncio.Lock()

    def create(self, state: SessionState) -> None:
        """Creates a session: assigns its id and writes its first state."""
        state.id = str(uuid7())
        state.created_at_ms = now_ms()
        session = Session(state, [], Transcript.create(self._path(state.id)))
        session.save()
        session.close()

    @asynccontextmanager
    async def hold(self, session_id: str) -> AsyncIterator[Session]:
        """Opens a session for one turn, in the order of the requests.

        Raises:
            InvalidRequest: the id is empty.
            NotFound: there is no such session.
            Busy: another process has it open.
        """
        path = self._path(session_id)
        lock, users = self._queues.get(session_id, (asyncio.Lock(), 0))
        self._queues[session_id] = lock, users + 1
        try:
            async with lock:
                opened = self._held[session_id] = asyncio.get_running_loop().create_future()
                try:
                    session = await _open(path)
                    opened.set_result(session)
                    try:
                        yield session
                    finally:
                        session.close()
                finally:
                    del self._held[session_id]
                    opened.cancel()
        finally:
            lock, users = self._queues[session_id]
            self._queues[session_id] = lock, users - 1
            if users == 1:
                del self._queues[session_id]

    async def change(self, session_id: str, change: Callable[[Session], None]) -> SessionState:
        """Calls `change` with a session at once, also while a turn holds it, and returns the session's state.

        Raises:
            InvalidRequest, NotFound, Busy: as hold().
        """
        while session_id in self._queues:
            if (held := self._held.get(session_id)) is None:
                await asyncio.sleep(0)  # it is being passed on
                continue
            await asyncio.wait([held])
            if self._held.get(session_id) is held and not held.cancelled():
                change(held.result())
                return held.result().state
        async with self.hold(session_id) as session:
            change(session)
            return session.state

    def get(self, session_id: str, viewer: str | None = None) -> SessionState:
        """The current state of a session.

        Raises:
            InvalidRequest: the id is empty.
            NotFound: there is no such session, or none that viewer may know of.
        """
        state = SessionState.from_json(read_state(self._path(session_id)))
        if state.status == common_pb2.SESSION_STATUS_RUNNING and session_id not in self._queues:
            state.status = common_pb2.SESSION_STATUS_FAILED  # the process that ran it is gone
        if not state.is_visible_to(viewer):
            raise NotFound(f"session {session_id} is not known to this gateway", "session", session_id)
        return state

    async def list_page(self, size: int, before: str | None, viewer: str | None = None) -> list[SessionState]:
        """At most `size` sessions that viewer may see, the newest first, older than the session `before`.

        One listing reads its files at a time, and none on the event loop: a page of 1,000 takes a tenth of a second.
        """
        async with self._listing:
            return await asyncio.to_thread(self._list_page, size, before, viewer)

    def _list_page(self, size: int, before: str | None, viewer: str | None) -> list[SessionState]:
        names = (path.stem for path in self._folder.glob("*.jsonl"))  # UUIDv7: they sort by creation time
        older = sorted((name for name in names if before is None or name < before), reverse=True)
        visible = (state for state in map(self.get, older) if state.is_visible_to(viewer))
        return list(islice(visible, size))

    def left_running(self) -> list[str]:
        """The sessions with a running turn, or one that was running when its process died."""
        running = []
        for path in self._folder.glob("*.jsonl"):
            with suppress(NotFound):
                if read_state(path)["status"] == common_pb2.SESSION_STATUS_RUNNING:
                    running.append(path.stem)
        return running

    def _path(self, session_id: str) -> Path:
        if not session_id:
            raise InvalidRequest("session_id is empty: name the session", "session_id")
        if not SESSION_ID.fullmatch(session_id):
            raise NotFound("session_id is not the id of a session", "session", session_id)
        return self._folder / f"{session_id}.jsonl"


async def _open(path: Path) -> Session:
    opening = asyncio.create_task(asyncio.to_thread(Session.open, path))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # A thread cannot be cancelled, and the next turn must find the session closed.
        while not opening.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            opening.result().close()
        raise
