"""Sessions as clients make, change and remove them, and as their turns find them."""

from collections.abc import Callable
from contextlib import suppress

from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.conversations.session import SessionState
from gateway_svc.errors import Busy, NotFound
from gateway_svc.turns.session_settings import check_settings, masked, updated
from gateway_svc.turns.session_turns import NOTES, SessionTurns
from gateway_svc.turns.sessions import Session, Sessions
from recording.upkeep import attempt


class ClientSessions:
    """Checks what clients ask for, and puts what becomes of it on the record."""

    def __init__(
        self,
        sessions: Sessions,
        turns: SessionTurns,
        record: Callable[[SessionState], None],
        forget: Callable[[str], object],
        max_prompt_bytes: int,
    ) -> None:
        """`turns` choose engines and save sessions; `record` receives the state of a new session, and must not raise.

        `forget` drops what is kept of a removed session elsewhere.
        """
        self._sessions = sessions
        self._turns = turns
        self._record = record
        self._forget = forget
        self._max_prompt_bytes = max_prompt_bytes

    async def create(self, settings: pb.SessionSettings, owner: str = "") -> SessionState:
        """Makes a session, which only the caller named owner and administrators see; empty if callers have no names.

        Raises:
            EngineNotConfigured, InvalidRequest: the settings cannot be had.
            StoreUnavailable: it cannot be kept.
        """
        self._check(settings, "settings")
        return await self._create(settings, owner, synced=True)

    async def update(self, request: pb.UpdateSessionRequest, viewer: str | None = None) -> SessionState:
        """Changes the settings of a session that viewer may know of, at once, whether or not one of its turns runs.

        That turn goes on with what it began with; the next one has the new settings.

        Raises:
            EngineNotConfigured, InvalidRequest: the settings cannot be had.
            NotFound: there is no such session.
            Busy: another process has it open.
        """
        given, paths = masked(request), request.update_mask.paths
        self._check(given, "settings")

        async def change(session: Session) -> None:
            session.state.settings = updated(session.state.settings, paths, given)  # a new one: see SessionTurns.run
            self._turns.choose(session.state.settings)
            await self._turns.save(session, common_pb2.SessionStatus.ValueType(session.state.status))

        return await self._sessions.change((await self._sessions.get(request.session_id, viewer)).id, change)

    async def delete(self, session_id: str, viewer: str | None = None) -> None:
        """Removes a session that viewer may know of, and all that was said in it.

        Raises:
            InvalidRequest, NotFound: there is no such session.
            Busy: a turn runs on it or waits for it, here or in another process.
            StoreUnavailable: it could not be removed.
        """
        await self._sessions.remove(session_id, viewer)
        self._forget(session_id)

    async def for_turn(
        self,
        request: pb.RunTurnRequest,
        viewer: str | None,
        owner: str,
        check: Callable[[pb.SessionSettings], object],
    ) -> SessionState:
        """The session that a turn is for: the one that it names, or a new one, whose settings `check` may refuse.

        Nothing is left of a refusal.

        Raises:
            EngineNotConfigured, InvalidRequest, NotFound: the turn cannot be run.
        """
        if request.HasField("session_id"):
            state = await self._sessions.get(request.session_id, viewer)
            self._turns.choose(state.settings, request.engine, request.model)  # what is read here is thrown away
            return state
        self._check(request.new_session, "new_session")
        chosen = pb.SessionSettings()
        chosen.CopyFrom(request.new_session)
        self._turns.choose(chosen, request.engine, request.model)
        check(chosen)
        return await self._create(request.new_session, owner, request.engine, request.model)

    async def recover(self) -> None:
        """Ends the sessions whose process died, so that the ledger does not show them as running for ever."""
        left: list[str] = []
        with attempt("recovery of sessions"):
            left = await self._sessions.left_running()
        for session_id in left:
            # Gone, or run by another gateway; one that cannot be read must not keep the others from their end.
            with attempt("recovery of sessions"), suppress(NotFound, Busy):
                async with self._sessions.hold(session_id) as session:
                    if session.state.status == common_pb2.SESSION_STATUS_RUNNING:
                        await session.close_history(NOTES[common_pb2.SESSION_STATUS_RUNNING])
                        await self._turns.save(session, common_pb2.SESSION_STATUS_FAILED)

    def _check(self, settings: pb.SessionSettings, path: str) -> None:
        check_settings(settings, self._turns.runner, path, self._max_prompt_bytes)

    async def _create(
        self, settings: pb.SessionSettings, owner: str, engine: str = "", model: str = "", *, synced: bool = False
    ) -> SessionState:
        """Creates a session. One that begins with a turn is synced by that."""
        state = SessionState(id="", owner=owner)
        state.settings.CopyFrom(settings)
        self._turns.choose(state.settings, engine, model)
        await self._sessions.create(state, synced=synced)
        self._record(state)
        return state
