"""What a session is, in a small file that is replaced by rename: a record with all but the prompt, and one with that.

A listing reads only the first.
"""

import json
import os
from pathlib import Path
from typing import Any

from gateway_svc.conversations.files.transcript import BEGINNING, VERSION
from gateway_svc.conversations.messages import encode
from gateway_svc.conversations.session import SessionState
from gateway_svc.errors import Damaged, NotFound
from recording.framing import Form, Record, encode_record, scan
from recording.locks import sync_folder
from recording.replacing import replace_file

STATE, PROMPT = 5, 6
FORM = Form({STATE, PROMPT}, 2**24)

_FIRST_BYTES = 64 * 2**10
"""How much is read at first: all but a prompt, as a rule."""


def write(path: Path, state: SessionState, records: int, *, synced: bool, new: bool = False) -> None:
    """Puts the file in the place of the one before. `records` is how many the transcript has.

    Raises:
        OSError: it could not be written; the one before is there.
    """
    about = state.to_json()
    prompt = about["settings"].pop("system_prompt", "")
    data = BEGINNING + encode_record(1, STATE, encode({**about, "records": records}), VERSION)
    if prompt:
        data += encode_record(2, PROMPT, encode({"system_prompt": prompt}), VERSION)
    replace_file(path, data, synced=synced)
    if synced and new:
        for folder in path.parents[:3]:  # down from sessions/: what was made for it must stay too
            sync_folder(folder)


def read(path: Path, *, prompt: bool) -> tuple[SessionState, int]:
    """The session of a file, and how many records its transcript had; prompt: whether its prompt is wanted.

    Raises:
        NotFound: there is no such file.
        Damaged: it is not whole.
        OSError: it cannot be read.
    """
    session_id = path.stem
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"session {session_id} is not known to this gateway", "session", session_id) from None
    try:
        about, size = _first(fd), os.fstat(fd).st_size
        if prompt and about is not None and about.stop < size:
            second = next(scan(fd, about.stop, size, 2, FORM), None)
            value = _value(second)
        else:
            second, value = None, {}
    finally:
        os.close(fd)
    state = _value(about)
    if not state or value is None:
        raise Damaged(f"what session {session_id} is cannot be read: its file is damaged", "session", session_id)
    try:
        records = int(state.pop("records"))
        state["settings"] |= value
        return SessionState.from_json(state), records
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(
            f"what session {session_id} is cannot be read by this version ({type(error).__name__})",
            "session",
            session_id,
        ) from None


def _first(fd: int) -> Record | None:
    size = os.fstat(fd).st_size
    for stop in (min(size, _FIRST_BYTES), size):
        found = next(scan(fd, len(BEGINNING), stop, 1, FORM), None)
        if isinstance(found, Record):
            return found
    return None


def _value(record: object) -> dict[str, Any] | None:
    """The JSON object of a record; None if it is none."""
    if not isinstance(record, Record):
        return None
    try:
        value = json.loads(record.payload)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
