"""Moves over the transcripts of earlier versions: sessions/<session id>.jsonl, a JSON object a line.

    {"session": {...}}   what the session is, at its creation, when a turn begins, spends or ends (the last one counts)
    {"user"|"assistant"|"tool": ...}   a message

Each is moved whole or stays: whoever is stopped in between begins again with it. What cannot be read of one is a hole
in the new one; a file without anything that says what its session is, is set aside.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import structlog
from onrecord.common.v1 import common_pb2

from gateway_svc.conversations.encryption import Keys
from gateway_svc.conversations.files.places import CONVERSATION, SET_ASIDE, Places
from gateway_svc.conversations.files.saving import Saves
from gateway_svc.conversations.files.transcript import Transcript
from gateway_svc.conversations.messages import from_line
from gateway_svc.conversations.records import record_of
from gateway_svc.conversations.session import SESSION_ID, SessionState

log = structlog.get_logger(__name__)


def move_over(places: Places, keys: Keys, saves: Saves) -> None:
    """Moves over all that nobody holds; an older gateway that still runs keeps its own until the next start.

    Raises:
        OSError: the disk refuses it; what was moved stays so.
    """
    moved = 0
    for path in sorted(places.root.glob("*.jsonl")):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("session.left_to_older_gateway", session_id=path.stem)
                continue
            moved += _move(places, keys, path, file, saves)
    if moved:
        log.info("sessions.moved", sessions=moved, hint="an earlier version kept them in another format")


def _move(places: Places, keys: Keys, path: Path, file: BinaryIO, saves: Saves) -> bool:
    state = _last_state(file) if SESSION_ID.fullmatch(path.stem) else None
    if state is None or state.id != path.stem:
        aside = places.root / SET_ASIDE
        aside.mkdir(mode=0o700, exist_ok=True)
        path.replace(aside / path.name)
        log.warning("session.set_aside", file=str(aside / path.name), reason="nothing in it says what its session is")
        return False
    target = places.new(state.owner, state.id)
    target.with_suffix(CONVERSATION).unlink(missing_ok=True)
    cipher, damaged = keys.cipher(state.id, state.owner), 0
    transcript = Transcript(target.with_suffix(CONVERSATION), cipher)
    try:
        for line in _lines(file):
            if line is not None and "session" in line:
                continue
            try:
                if line is None:
                    raise ValueError
                transcript.append(*record_of(from_line(line)))
            except (KeyError, TypeError, ValueError, AttributeError):
                damaged += 1
                end, number = transcript.position
                transcript.go_to(end, number + 1)  # a number that never came
        if saves.synced:
            transcript.sync()
        records = transcript.position[1] - 1
    finally:
        transcript.close()
    saves.write(target, state, records, cipher, new=True)
    if state.status == common_pb2.SESSION_STATUS_RUNNING:
        (places.leases / state.id).touch(0o600)  # for recovery: nobody holds it
    path.unlink()
    if damaged:
        log.warning("session.moved_with_holes", session_id=state.id, lines=damaged)
    return True


def _last_state(file: BinaryIO) -> SessionState | None:
    """The last state that can be read; None if there is none."""
    last = None
    for line in _lines(file):
        if line is not None and "session" in line:
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                last = SessionState.from_json(line["session"])
    return last


def _lines(file: BinaryIO) -> Iterator[dict[str, Any] | None]:
    """The objects of the lines; None for one that is none. A last line without an end was never whole."""
    file.seek(0)
    for line in file:
        if not line.endswith(b"\n"):
            return
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        yield value if isinstance(value, dict) else None
