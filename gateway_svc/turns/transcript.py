"""A session's conversation on disk: one JSON object a line, appended during the turn.

This is the one place where content is kept. There are two kinds of lines:
{"session": {...}}   what the session is, at its creation, when a turn begins, spends or ends (the last one counts)
{"user"|"assistant"|"tool": ...}   a message
"""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Self

from gateway_svc.errors import Busy, NotFound
from gateway_svc.messages import AssistantMessage, Message, Native, ToolMessage, UserMessage
from gateway_svc.turns.state_files import append_whole, storing
from recording.calls import ToolCall

TAIL_BYTES = 64 * 1024
"""How much of a transcript's end is searched for its last state before all of it is read."""


class Transcript:
    """An open transcript, locked so that only one process at a time continues a session."""

    def __init__(self, file: BinaryIO, session_id: str) -> None:
        self._file = file
        self._session_id = session_id

    @classmethod
    def create(cls, path: Path) -> Self:
        """Creates a new transcript.

        Raises:
            StoreUnavailable: there is one already, or it cannot be made.
        """
        with storing():
            return cls._locked(path, os.O_CREAT | os.O_EXCL)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens a transcript to continue it.

        Raises:
            NotFound: there is none.
            Busy: another process has it open.
        """
        try:
            transcript = cls._locked(path, 0)
        except FileNotFoundError:
            raise NotFound(f"session {path.stem} is not known to this gateway", "session", path.stem) from None
        transcript._cut_torn_tail()
        return transcript

    @classmethod
    def _locked(cls, path: Path, flags: int) -> Self:
        file = os.fdopen(os.open(path, flags | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise Busy(f"session {path.stem} is open in another gateway process") from None
        return cls(file, path.stem)

    def _cut_torn_tail(self) -> None:
        """Removes an incomplete last line, which a crash left."""
        data = os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size, 0)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)

    def append(self, line: dict[str, Any]) -> None:
        """Appends a line: a message, or the session's state.

        Raises:
            StoreUnavailable: the disk refuses it; nothing of it is left.
        """
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        append_whole(self._file.fileno(), data)

    def read(self) -> tuple[dict[str, Any], list[Message]]:
        """The session's last state and all its messages, in order.

        Raises:
            NotFound: the process that created it died before it wrote a state.
        """
        data = os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size, 0)
        state: dict[str, Any] = {}
        messages: list[Message] = []
        for line in _lines(data):
            if "session" in line:
                state = line["session"]
            else:
                messages.append(_from_line(line))
        if not state:
            raise NotFound("the session was never begun", "session", self._session_id)
        return state, messages

    def close(self) -> None:
        """Releases the lock and closes the file."""
        # Explicitly, since a child process that is just being started shares the file until its exec.
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


def read_state(path: Path) -> dict[str, Any]:
    """The last state of a session, without opening its transcript for writing.

    Raises:
        NotFound: there is no such transcript.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            tail = file.read()
            state = _last_state(tail)
            if state is None:
                file.seek(0)
                state = _last_state(file.read())
    except FileNotFoundError:
        raise NotFound(f"session {path.stem} is not known to this gateway", "session", path.stem) from None
    if state is None:
        raise NotFound(f"session {path.stem} was never begun", "session", path.stem)
    return state


def _last_state(data: bytes) -> dict[str, Any] | None:
    for line in reversed(data.split(b"\n")[:-1]):
        if line.startswith(b'{"session":') and line.endswith(b"}"):
            state: dict[str, Any] = json.loads(line)["session"]
            return state
    return None


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.split(b"\n"):
        if line:
            yield json.loads(line)


def to_line(message: Message) -> dict[str, Any]:
    """A message as its line."""
    match message:
        case UserMessage(text):
            return {"user": text}
        case ToolMessage():
            return {"tool": {name: getattr(message, name) for name in ToolMessage.__slots__}}
        case AssistantMessage():
            fields = asdict(message)
            return {"assistant": fields if message.native else {k: v for k, v in fields.items() if k != "native"}}
        case _:
            raise TypeError(f"{type(message).__name__} is not part of a transcript")


def _from_line(line: dict[str, Any]) -> Message:
    if "user" in line:
        return UserMessage(line["user"])
    if "tool" in line:
        return ToolMessage(**_renamed(line["tool"]))
    fields = dict(line["assistant"])
    fields["tool_calls"] = tuple(ToolCall(**_renamed(call)) for call in fields["tool_calls"])
    if native := fields.get("native"):
        fields["native"] = Native(**{**native, "items": tuple(native["items"])})
    return AssistantMessage(**fields)


def _renamed(fields: dict[str, Any]) -> dict[str, Any]:
    """Older transcripts have the model server's id of a call under another name."""
    return {"provider_call_id" if name == "tool_call_id" else name: value for name, value in fields.items()}


def closing_messages(messages: list[Message], note: str) -> list[Message]:
    """The messages that complete the history of an unfinished turn, so that every model server accepts it.

    Servers refuse a tool call without its result, and some chat templates refuse two user messages in a row.
    """
    results = 0
    for last in reversed(messages):
        if not isinstance(last, ToolMessage):
            break
        results += 1
    else:
        return []
    if isinstance(last, AssistantMessage) and not last.tool_calls:
        return []
    unanswered = last.tool_calls[results:] if isinstance(last, AssistantMessage) else ()
    return [*(ToolMessage(call.provider_call_id, call.name, note) for call in unanswered), AssistantMessage(note)]
