"""The conversations of a state directory, as a gateway has them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway_svc.conversations.files.lease import FileLease
from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.messages import Message
from gateway_svc.turns.sessions import Sessions


def open_sessions(state_dir: Path) -> Sessions:
    """The sessions of a gateway on this state directory."""
    return Sessions(FileConversations(state_dir))


async def history_of(state_dir: Path, session_id: str) -> list[Message]:
    """What was said in a session, as a gateway that starts reads it."""
    lease = await FileConversations(state_dir).open(session_id)
    lease.give_up()
    return lease.history.messages


@asynccontextmanager
async def held_elsewhere(state_dir: Path, session_id: str) -> AsyncIterator[FileLease]:
    """A session as another gateway has it open."""
    lease = await FileConversations(state_dir).open(session_id)
    try:
        yield lease
    finally:
        await lease.close()


def conversation_name(session_id: str, owner: str = "") -> str:
    """The name of a session's conversation below the state directory."""
    return f"sessions/owner-{owner}/{session_id[:7]}/{session_id}.conversation"
