"""The key with which a producer says what it has seen (https://c2sp.org/tlog-cosignature)."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from recording.locks import sync_folder
from recording.log import get_logger
from recording.replacing import replace_file
from recording.transparency.cosignature import Cosigner
from recording.transparency.errors import BadKey

log = get_logger(__name__)

KEY = "key"


def open_cosigner(folder: Path, name: str) -> Cosigner | None:
    """The key in a folder, made at the first start with its verifier key beside it; None where it cannot be used.

    name: of the producer; the key of one without a name is named by chance.

    Raises:
        OSError: the disk refuses it.
    """
    path = folder / KEY
    try:
        if path.exists():
            return Cosigner.parse(path.read_text(encoding="utf-8"))
        made = Cosigner.new(name or f"onrecord.invalid/witness-{secrets.token_hex(8)}")
    except (BadKey, UnicodeDecodeError) as error:
        log.warning("witness.key_unusable", file=str(path), reason=str(error), hint="nothing is cosigned")
        return None
    replace_file(folder / f"{KEY}.pub", f"{made.verifier}\n".encode())
    replace_file(path, f"{made}\n".encode())
    sync_folder(folder)
    with suppress(OSError):
        os.chmod(path, 0o600)  # noqa: PTH101
    return made
