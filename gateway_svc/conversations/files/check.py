"""Looks through the files of sessions for what is damaged, missing or out of place; changes nothing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway_svc.conversations.encryption import Keys
from gateway_svc.conversations.files import session_file, transcript
from gateway_svc.conversations.files.places import CONVERSATION, OWNER, SESSION, SET_ASIDE, owner_of
from gateway_svc.errors import GatewayError, KeyMissing


class Finding(NamedTuple):
    """Something that is not as it should be, or that an operator should know."""

    session_id: str
    is_damage: bool
    told: str


def check(root: Path, keys: Keys) -> Iterator[Finding]:
    """Looks through the folder `sessions` of a state directory. A session without a finding is whole.

    One that is encrypted by a key that is not there is told as damaged: nobody can know whether it is.
    """
    for folder in sorted(root.glob(f"{OWNER}*/*")):
        for path in sorted(folder.iterdir()):
            if path.suffix == SESSION:
                yield from _session(path, keys)
            elif path.suffix != CONVERSATION or not path.with_suffix(SESSION).exists():
                yield Finding(path.stem, path.suffix == CONVERSATION, f"{path.name} belongs to no session")
    for path in sorted((root / SET_ASIDE).glob("*")):
        yield Finding(path.stem, False, f"{path.name} of an earlier version was set aside: it could not be read")


def _session(path: Path, keys: Keys) -> Iterator[Finding]:
    records, cipher = 0, keys.cipher(path.stem, owner_of(path))
    try:
        state, records = session_file.read(path, cipher, prompt=True)
    except (GatewayError, OSError) as error:
        yield Finding(path.stem, True, str(error))
        if isinstance(error, KeyMissing):
            return
    else:
        if cipher.encrypts and cipher.takes_clear:
            yield Finding(path.stem, False, "it is in clear: `gateway-svc sessions encrypt` encrypts it")
        if owner_of(path) != state.owner:
            yield Finding(path.stem, True, f"it is {state.owner or 'nobody'}'s, and lies in {path.parent.parent.name}")
    try:
        fd = os.open(path.with_suffix(CONVERSATION), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if records:
            yield Finding(path.stem, True, f"all its {records} records are missing")
        return
    except OSError as error:
        yield Finding(path.stem, True, f"its conversation cannot be read: {error.strerror}")
        return
    try:
        found = transcript.read(fd, cipher)
        torn = os.fstat(fd).st_size - found.end
    except KeyMissing as error:
        yield Finding(path.stem, True, str(error))
        return
    finally:
        os.close(fd)
    for hole in found.holes:
        yield Finding(path.stem, True, hole)
    if found.number <= records:
        yield Finding(path.stem, True, f"its last {records - found.number + 1} records are missing")
    if torn > 0:
        yield Finding(path.stem, False, f"it ends in {torn} bytes that are no record yet, or were never a whole one")
