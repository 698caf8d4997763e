"""Writes a session's files anew: encrypted where they were in clear or by an older key, or in clear.

The session is held meanwhile. Each file takes the place of the one before by its name, so that whoever is stopped in
between leaves whole files, and begins again. The state is encrypted last and put in clear first: one that is encrypted
has no record in clear.
"""

import os
from contextlib import suppress
from pathlib import Path

from gateway_svc.conversations.encryption import Cipher, NotGenuine
from gateway_svc.conversations.files import session_file
from gateway_svc.conversations.files.places import CONVERSATION
from gateway_svc.conversations.files.transcript import BEGINNING, FORM, VERSION
from gateway_svc.conversations.session import SessionState
from recording.framing import TORN, Damage, encode_record, scan, write_whole
from recording.locks import sync_folder

DRAFT = ".draft"
"""Of a file that is being written; recording.replacing has the same."""


def rewrite(path: Path, state: SessionState, records: int, cipher: Cipher) -> None:
    """Writes both files of a session as the cipher would write them now, and syncs them.

    Raises:
        KeyMissing: the key of a record is not there; the files are whole, and as readable as before.
        OSError: they cannot be written; the same.
    """
    if cipher.encrypts:
        _rewrite_conversation(path.with_suffix(CONVERSATION), cipher)
    session_file.write(path, state, records, cipher, synced=True)
    cipher.takes_clear = not cipher.encrypts
    if not cipher.encrypts:
        _rewrite_conversation(path.with_suffix(CONVERSATION), cipher)
    sync_folder(path.parent)


def _rewrite_conversation(path: Path, cipher: Cipher) -> None:
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # nothing was said yet
        return
    draft = path.with_suffix(DRAFT)
    try:
        target = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _copy(source, target, cipher)
            os.fsync(target)
        finally:
            os.close(target)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(source)


def _copy(source: int, target: int, cipher: Cipher) -> None:
    size, start = os.fstat(source).st_size, 0
    if os.pread(source, len(BEGINNING), 0) == BEGINNING:
        start = len(BEGINNING)
        write_whole(target, BEGINNING)
    for part in scan(source, start, size, 1, FORM):
        if isinstance(part, Damage):
            if part.stop < size or part.reason != TORN:  # else what a crash left of a record that nobody was told of
                # It stays damage, and is told as such; what it was of may be content.
                damaged = os.pread(source, part.stop - part.start, part.start)
                write_whole(target, cipher.encrypt(0, 0, damaged))
            continue
        payload = part.payload
        if not cipher.is_current(payload):
            with suppress(NotGenuine):  # it stays what it is, and is told as such
                payload = cipher.encrypt(part.kind, part.number, cipher.decrypt(part.kind, part.number, payload))
        write_whole(target, encode_record(part.number, part.kind, payload, VERSION))
