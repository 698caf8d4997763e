"""Which keys the sessions of a state directory may be encrypted by: a file with what tells them from others.

    keys.json            what tells the keys from others, by their ids
    keys.lock            locked while keys.json is changed
    keys-used/<key id>   locked, shared, by each gateway that encrypts by that key, for as long as it runs

A key that a running gateway encrypts by stays noted: what that gateway writes next needs it.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from gateway_svc.conversations.encryption import Keys
from recording.replacing import replace_file

NAME, LOCK, USED = "keys.json", "keys.lock", "keys-used"

log = structlog.get_logger(__name__)


def note_keys(root: Path, keys: Keys) -> None:
    """Looks whether keys are those of the sessions below root, and notes the one that encrypts before it does.

    Raises:
        SettingsError: they are not.
        OSError: the file cannot be read or written.
    """
    if keys.first is None:  # nothing is written, so that a disk that is full costs no start
        keys.compare(noted_keys(root))
        return
    with _changing(root):
        _note(root, keys)


def use_key(root: Path, keys: Keys) -> int | None:
    """Shows to others that the key that encrypts is in use, until the descriptor that it returns is closed.

    None where none encrypts.

    Raises:
        SettingsError, OSError: see note_keys().
    """
    if keys.first is None:
        return None
    with _changing(root):
        (root / USED).mkdir(mode=0o700, exist_ok=True)
        fd = os.open(root / USED / keys.first, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            _note(root, keys)  # others may have taken it for unused since the home was opened
        except BaseException:
            os.close(fd)
            raise
    return fd


def keys_in_use(root: Path, keys: Keys) -> list[str]:
    """The ids of the keys that running gateways encrypt by, without the one that encrypts here.

    Raises:
        OSError: it cannot be known.
    """
    with _changing(root):
        return _in_use(root, keys)


def note_only(root: Path, keys: Keys) -> list[str]:
    """Notes that no session is encrypted by any other key than the one that encrypts, by none where none does, and
    those that running gateways encrypt by, whose ids it returns.

    Raises:
        OSError: the file cannot be written.
    """
    with _changing(root):
        used, noted = _in_use(root, keys), noted_keys(root)
        kept = {key_id: check for key_id, check in {**noted, **keys.checks()}.items() if key_id in (*used, keys.first)}
        if kept:
            _write(root / NAME, kept)
        else:
            (root / NAME).unlink(missing_ok=True)
    return used


def noted_keys(root: Path) -> dict[str, bytes]:
    """By their ids what tells the keys that sessions below root may be encrypted by from others.

    Raises:
        OSError: the file cannot be read.
    """
    path = root / NAME
    try:
        return {key_id: bytes.fromhex(check) for key_id, check in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError):
        log.warning("sessions.keys_unknown", path=str(path), hint="the file is damaged: the next start writes it anew")
        return {}


def _write(path: Path, noted: dict[str, bytes]) -> None:
    replace_file(path, json.dumps({key_id: check.hex() for key_id, check in noted.items()}).encode())


def _note(root: Path, keys: Keys) -> None:
    noted = noted_keys(root)
    keys.compare(noted)
    if keys.first is not None and keys.first not in noted:
        _write(root / NAME, {**noted, keys.first: keys.checks()[keys.first]})


def _in_use(root: Path, keys: Keys) -> list[str]:
    return [path.name for path in sorted((root / USED).glob("*")) if path.name != keys.first and _is_locked(path)]


def _is_locked(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    path.unlink()  # under the lock of changes: nobody has opened it meanwhile
    return False


@contextmanager
def _changing(root: Path) -> Iterator[None]:
    fd = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
