"""Which session of Claude's program continues a session of the gateway, and how much of it the program knows.

The program keeps conversations itself, under its own ids. A small file for each session of ours has that id, and how
many of our messages the program knows: turns that another engine ran in between are passed to it as text.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from gateway_svc.messages import AssistantMessage, Message, UserMessage
from recording.replacing import replace_file

MAX_RETOLD_CHARACTERS = 100_000
PROGRAM_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What the program knows of a session."""

    claude_session_id: str = ""
    messages: int = 0
    """How many messages of our history, from its beginning."""


class Memory:
    """The files under one folder, which survive the gateway."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder

    def read(self, session_id: str) -> Known:
        """What the program knows of a session; nothing if it never ran a turn of it."""
        try:
            known = Known(**json.loads(self._path(session_id).read_bytes()))
        except FileNotFoundError:
            return Known()
        except (OSError, ValueError, TypeError) as error:
            log.warning("claude.memory_unreadable", session_id=session_id, error=type(error).__name__)
            return Known()
        return known

    def write(self, session_id: str, known: Known) -> None:
        """Saves what the program knows, atomically. If that fails, the next turn passes everything again."""
        try:
            replace_file(self._path(session_id), json.dumps(asdict(known)).encode(), synced=False)
        except OSError as error:
            log.warning("claude.memory_unwritable", session_id=session_id, error=type(error).__name__)

    def forget(self, session_id: str) -> None:
        """Forgets a session; what the program itself keeps of it stays."""
        self._path(session_id).unlink(missing_ok=True)

    def _path(self, session_id: str) -> Path:
        return self._folder / f"{session_id}.json"


def as_text(messages: Sequence[Message]) -> str:
    """A conversation as text, only its newest part if it is long; tool calls by name, since results are bulky."""
    told: list[str] = []
    room = MAX_RETOLD_CHARACTERS
    for message in reversed(messages):
        line = _line(message)
        room -= len(line)
        if room < 0:
            told.append("[… what was said before is left out …]")
            break
        if line:
            told.append(line)
    return "\n\n".join(reversed(told))


def _line(message: Message) -> str:
    match message:
        case UserMessage(text):
            return f"User: {text}"
        case AssistantMessage(text, _, calls):
            tools = f" [used {', '.join(call.name for call in calls)}]" if calls else ""
            return f"Assistant: {text}{tools}" if text or tools else ""
        case _:
            return ""
