"""Where a seal is, and what its folder says of itself."""

from pathlib import Path
from typing import Annotated

from audit_svc.seal.errors import SealError
from audit_svc.seal.folder import CHECKPOINT, KEY, VERIFIER, folder_of, read_checkpoint, read_verifier
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.note import Verifier
from service_kit.terminal.command import Option

Folder = Annotated[Path | None, Option("--seal", help="The seal's folder; FILE.seal beside the database by default.")]
KeyFile = Annotated[Path | None, Option("--key-file", help="The signing key; `key` in the seal's folder by default.")]


def where(db: Path | None, seal: Path | None) -> tuple[Path, Path, Path]:
    """The database, the seal's folder and its key: those of the service's settings where no options name others."""
    if db is not None:
        folder = seal or folder_of(db)
        return db, folder, folder / KEY
    from audit_svc.settings import AuditSettings
    from service_kit.settings import load_settings

    settings = load_settings(AuditSettings)
    folder = seal or settings.seal_dir or folder_of(settings.db)
    return settings.db, folder, (None if seal else settings.seal_key_file) or folder / KEY


def own_verifier(folder: Path) -> Verifier:
    """The key that a seal's folder has. Raises SealError, BadKey."""
    path = folder / VERIFIER
    if not path.exists():
        raise SealError(f"{folder} has no verifier key: give the one that you keep with --key")
    return read_verifier(str(path))


def verifier_of(key: str | None, folder: Path) -> Verifier:
    return own_verifier(folder) if key is None else read_verifier(key)


def checkpoint_of(folder: Path, verifier: Verifier) -> tuple[Checkpoint, str]:
    try:
        return read_checkpoint(folder / CHECKPOINT, verifier)
    except FileNotFoundError:
        raise SealError(f"{folder} has no checkpoint: nothing is sealed there") from None
