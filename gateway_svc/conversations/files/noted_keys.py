"""Which keys the sessions of a state directory may be encrypted by: a file with what tells them from others."""

import json
from pathlib import Path

import structlog

from gateway_svc.conversations.encryption import Keys
from recording.replacing import replace_file

NAME = "keys.json"

log = structlog.get_logger(__name__)


def note_keys(root: Path, keys: Keys) -> None:
    """Looks whether keys are those of the sessions below root, and notes the one that encrypts before it does.

    Raises:
        SettingsError: they are not.
        OSError: the file cannot be read or written.
    """
    noted = noted_keys(root)
    keys.compare(noted)
    if keys.first and keys.first not in noted:
        _write(root / NAME, {**noted, keys.first: keys.checks()[keys.first]})


def note_only(root: Path, keys: Keys) -> None:
    """Notes that no session is encrypted by any other key than the one that encrypts; by none where none does.

    Raises:
        OSError: the file cannot be written.
    """
    if keys.first:
        _write(root / NAME, {keys.first: keys.checks()[keys.first]})
    else:
        (root / NAME).unlink(missing_ok=True)


def noted_keys(root: Path) -> dict[str, bytes]:
    """By their ids what tells the keys that sessions below root may be encrypted by from others.

    Raises:
        OSError: the file cannot be read.
    """
    path = root / NAME
    try:
        return {key_id: bytes.fromhex(check) for key_id, check in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError):
        log.warning("sessions.keys_unknown", path=str(path), hint="the file is damaged: the next start writes it anew")
        return {}


def _write(path: Path, noted: dict[str, bytes]) -> None:
    replace_file(path, json.dumps({key_id: check.hex() for key_id, check in noted.items()}).encode())
