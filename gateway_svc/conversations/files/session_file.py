"""What a session is, in a small file that is replaced by rename: a record with all but the prompt, and one with that.

A listing reads only the first.
"""

import os
from pathlib import Path

from gateway_svc.conversations.encryption import OVERHEAD_BYTES, Cipher
from gateway_svc.conversations.files.transcript import BEGINNING, VERSION
from gateway_svc.conversations.records import PROMPT, STATE
from gateway_svc.conversations.session import SessionState
from gateway_svc.conversations.stored import decode_state, encode_prompt, encode_state
from gateway_svc.errors import Damaged, NotFound
from recording.framing import Damage, Form, Record, encode_record, scan
from recording.replacing import replace_file

FORM = Form({STATE, PROMPT}, 2**24 + OVERHEAD_BYTES)

_FIRST_BYTES = 64 * 2**10
"""How much is read at first: all but a prompt, as a rule."""


def write(path: Path, state: SessionState, records: int, cipher: Cipher, *, synced: bool) -> None:
    """Puts the file in the place of the one before. `records` is how many the transcript has.

    synced: whether what it says is on the disk when this returns; for a new one's name, see Saves.write().

    Raises:
        OSError: it could not be written; the one before is there.
    """
    data = BEGINNING + encode_record(1, STATE, encode_state(state, records, cipher), VERSION)
    if prompt := encode_prompt(state, cipher):
        data += encode_record(2, PROMPT, prompt, VERSION)
    replace_file(path, data, synced=synced)


def read(path: Path, cipher: Cipher, *, prompt: bool) -> tuple[SessionState, int]:
    """The session of a file, and how many records its transcript had; prompt: whether its prompt is wanted.

    Raises:
        NotFound: there is no such file.
        KeyMissing: the key that it is encrypted by is not there.
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
        second = next(scan(fd, about.stop, size, 2, FORM), None) if prompt and about is not None else None
    finally:
        os.close(fd)
    if about is None or isinstance(second, Damage):
        raise Damaged(f"session {session_id} cannot be read: its file is damaged", "session", session_id)
    stored = (second.payload if second else b"") if prompt else None
    return decode_state(session_id, about.payload, stored, cipher)


def _first(fd: int) -> Record | None:
    size = os.fstat(fd).st_size
    for stop in (min(size, _FIRST_BYTES), size):
        found = next(scan(fd, len(BEGINNING), stop, 1, FORM), None)
        if isinstance(found, Record):
            return found
    return None
