"""Sessions: conversations that a gateway keeps in its state directory, and continues after a restart."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.errors import InvalidRequest, NotFound
from gateway_svc.messages import Message
from gateway_svc.turns.account import Totals
from gateway_svc.turns.transcript import Transcript, closing_messages, read_state, to_line

SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""The form of a session id, which is also the name of a file."""
MAX_LABELS, MAX_LABEL_KEY, MAX_LABEL_VALUE = 32, 64, 256


def now_ms() -> int:
    """The time in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class SessionState:
    """A session without its messages."""

    id: str
    engine: str = ""
    model: str = ""
    system_prompt: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    status: int = audit_pb2.SESSION_STATUS_IDLE
    revision: int = 0
    turns: int = 0
    totals: Totals = field(default_factory=Totals)
    created_at_ms: int = 0
    updated_at_ms: int = 0
    max_cost_micros: int = 0
    """0: no budget."""
    fallback: tuple[str, str] | None = None
    """Engine and model, empty for the engine's default."""
    shadows: list[tuple[str, str]] = field(default_factory=list)
    shadow_totals: Totals = field(default_factory=Totals)
    owner: str = ""
    """The caller that created it; empty if callers have no names."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The state from a transcript."""
        fallback = value.get("fallback")
        return cls(
            **{
                **value,
                "totals": Totals(**value["totals"]),
                "fallback": (fallback[0], fallback[1]) if fallback else None,
                "shadows": [(engine, model) for engine, model in value.get("shadows", ())],
                "shadow_totals": Totals(**value.get("shadow_totals", {})),
            }
        )

    def is_visible_to(self, viewer: str | None) -> bool:
        """Whether the caller `viewer` may see it; None: somebody who may see all sessions."""
        return viewer is None or self.owner in ("", viewer)

    def add_labels(self, labels: Mapping[str, str]) -> None:
        """Adds labels; a later value of a key replaces the earlier one.

        Raises:
            InvalidRequest: there are too many, or one is too long.
        """
        for key, value in labels.items():
            if not 0 < len(key) <= MAX_LABEL_KEY or len(value) > MAX_LABEL_VALUE:
                raise InvalidRequest(
                    f"labels: a key has 1 to {MAX_LABEL_KEY} characters and a value at most {MAX_LABEL_VALUE}", "labels"
                )
        merged = self.labels | dict(labels)
        if len(merged) > MAX_LABELS:
            raise InvalidRequest(f"labels: a session has at most {MAX_LABELS}", "labels")
        self.labels = merged

    def apply_options(self, request: pb.CreateSessionRequest | pb.RunTurnRequest) -> None:
        """Applies a checked request's options besides the engine: budget, fallback, shadows."""
        if isinstance(request, pb.CreateSessionRequest):
            self.max_cost_micros = request.max_cost_micros
        elif request.HasField("session_max_cost_micros"):
            self.max_cost_micros = request.session_max_cost_micros
        if request.HasField("fallback"):
            self.fallback = (request.fallback.engine, request.fallback.model) if request.fallback.engine else None
        if request.HasField("shadow"):
            self.shadows = [(choice.engine, choice.model) for choice in request.shadow.engines]

    def to_row(self) -> audit_pb2.SessionRow:
        """The session's row in the ledger."""
        from recording.rows import session_row  # only if rows are recorded: it loads redaction

        return session_row(
            self.id,
            self.revision,
            audit_pb2.SessionStatus.ValueType(self.status),
            engine=self.engine,
            model=self.model,
            labels=self.labels,
            created_at_ms=self.created_at_ms,
            updated_at_ms=self.updated_at_ms,
            turns=self.turns,
            steps=self.totals.steps,
            tool_calls=self.totals.tool_calls,
            input_tokens=self.totals.input_tokens,
            output_tokens=self.totals.output_tokens,
            cost_micros=self.totals.cost_micros,
            unpriced_steps=self.totals.unpriced_steps,
        )

    def to_message(self) -> pb.Session:
        """The session as a message for clients."""
        return pb.Session(
            id=self.id,
            engine=self.engine,
            model=self.model,
            status=audit_pb2.SessionStatus.ValueType(self.status),
            turns=self.turns,
            steps=self.totals.steps,
            tool_calls=self.totals.tool_calls,
            usage=self.totals.to_usage(),
            labels=self.labels,
            created_at_ms=self.created_at_ms,
            updated_at_ms=self.updated_at_ms,
            max_cost_micros=self.max_cost_micros,
            fallback=_choice(self.fallback) if self.fallback else None,
            shadow_engines=map(_choice, self.shadows),
            shadow_usage=self.shadow_totals.to_usage() if self.shadows or self.shadow_totals.steps else None,
        )


def _choice(choice: tuple[str, str]) -> pb.EngineChoice:
    return pb.EngineChoice(engine=choice[0], model=choice[1])


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
        self._transcript.append({"session": asdict(self.state)})

    def close(self) -> None:
        """Closes the transcript."""
        self._transcript.close()


class Sessions:
    """The sessions in one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "sessions"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._queues: dict[str, tuple[asyncio.Lock, int]] = {}

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
            NotFound: there is no such session.
            Busy: another process has it open.
        """
        path = self._path(session_id)
        lock, users = self._queues.get(session_id, (asyncio.Lock(), 0))
        self._queues[session_id] = lock, users + 1
        try:
            async with lock:
                session = await _open(path)
                try:
                    yield session
                finally:
                    session.close()
        finally:
            lock, users = self._queues[session_id]
            self._queues[session_id] = lock, users - 1
            if users == 1:
                del self._queues[session_id]

    def get(self, session_id: str, viewer: str | None = None) -> SessionState:
        """The current state of a session.

        Raises:
            NotFound: there is no such session, or viewer may not see it.
        """
        state = SessionState.from_json(read_state(self._path(session_id)))
        if state.status == audit_pb2.SESSION_STATUS_RUNNING and session_id not in self._queues:
            state.status = audit_pb2.SESSION_STATUS_FAILED  # the process that ran it is gone
        if not state.is_visible_to(viewer):
            raise NotFound(f"session {session_id} is not known to this gateway")
        return state

    def list_page(self, size: int, before: str | None, viewer: str | None = None) -> list[SessionState]:
        """At most `size` sessions that viewer may see, the newest first, older than the session `before`."""
        names = (path.stem for path in self._folder.glob("*.jsonl"))  # UUIDv7: they sort by creation time
        older = sorted((name for name in names if before is None or name < before), reverse=True)
        visible = (state for state in map(self.get, older) if state.is_visible_to(viewer))
        return list(islice(visible, size))

    def left_running(self) -> list[str]:
        """The sessions with a running turn, or one that was running when its process died."""
        running = []
        for path in self._folder.glob("*.jsonl"):
            with suppress(NotFound):
                if read_state(path)["status"] == audit_pb2.SESSION_STATUS_RUNNING:
                    running.append(path.stem)
        return running

    def _path(self, session_id: str) -> Path:
        if not SESSION_ID.fullmatch(session_id):
            raise NotFound("session_id is not the id of a session")
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
