"""What is in a log beside the tiles, and the key, which is a file by itself wherever the log is."""

import secrets
from pathlib import Path

from audit_svc.seal.errors import BadLog, SealError
from audit_svc.seal.files import replace_file
from audit_svc.seal.log import Files
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.errors import BadKey, BadNote
from recording.transparency.note import Signer, Verifier

KEY, VERIFIER, CHECKPOINT = "key", "key.pub", "checkpoint"
ORDER = "order"
"""What asks the running sealer to accept a restore or change its key; it removes it when that is done, or refused."""
ROTATIONS = "rotations"
"""For each rotation, in their order, the proof of its entry in a checkpoint that the key before it has signed too."""


def folder_of(database: Path) -> Path:
    """Where the seal of a database is by default."""
    return database.with_name(f"{database.name}.seal")


def make_key(key_file: Path, origin: str) -> Signer:
    """Makes a signing key for this user alone, and its verifier key beside it. Raises BadKey: there is one, or was."""
    public = key_file.with_name(f"{key_file.name}.pub")
    if public.exists() and not key_file.exists():
        raise BadKey(f"{public} is of a key that is missing, {key_file}: put it back, or move the log away")
    there = BadKey(f"{key_file} is there already: a log keeps its key")
    if key_file.exists():
        raise there
    signer = Signer.new(origin or f"onrecord.invalid/{secrets.token_hex(8)}")
    key_file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    whole = beside(key_file, "made")
    write_key(whole, signer)
    try:
        key_file.hardlink_to(whole)  # which takes no key's place, and never has a part of one
    except FileExistsError:
        raise there from None
    finally:
        whole.unlink()
    replace_file(public, f"{signer.verifier}\n".encode())
    return signer


def beside(key_file: Path, ending: str) -> Path:
    """Another key beside the signing key: `old` is the one before, while both sign; `next` and `made` wait for use."""
    return key_file.with_name(f"{key_file.name}.{ending}")


def write_key(key_file: Path, signer: Signer) -> None:
    """Writes a signing key for this user alone, in the place of what is there."""
    replace_file(key_file, f"{signer}\n".encode(), mode=0o600)


def read_keys(key_file: Path) -> list[Signer]:
    """The signing key, and behind it the one before while both sign. Raises BadKey, FileNotFoundError."""
    keys = [read_key(key_file)]
    if beside(key_file, "old").exists() and str(old := read_key(beside(key_file, "old"))) != str(keys[0]):
        keys.append(old)
    return keys


def keep_verifier(log: Files, verifier: Verifier) -> None:
    """Has the log's verifier key beside it, wherever its key is."""
    said = f"{verifier}\n".encode()
    if log.read(VERIFIER) != said:
        log.write({VERIFIER: said})


def own_verifier(log: Files) -> Verifier:
    """The key that stands beside a log. Raises SealError: there is none; BadKey."""
    said = log.read(VERIFIER)
    if said is None:
        raise SealError(
            f"{log.place(VERIFIER)} is not there: put it back, or verify with the key that you keep (--key)"
        )
    return Verifier.parse(said.decode(errors="replace"))


def newest_checkpoint(log: Files, verifier: Verifier) -> tuple[Checkpoint, str]:
    """A log's checkpoint, and its note. Raises BadLog, BadNote, SealError: there is none."""
    said = log.read(CHECKPOINT)
    if said is None:
        raise SealError(f"{log.place()} has no checkpoint: nothing is sealed there")
    return _opened(said, verifier, log.place(CHECKPOINT))


def read_key(key_file: Path) -> Signer:
    """The signing key. Raises BadKey, FileNotFoundError."""
    try:
        return Signer.parse(key_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise BadKey(f"{key_file} cannot be read ({type(error).__name__}): check its rights") from None


def read_verifier(text_or_file: str) -> Verifier:
    """A verifier key, or the file that has it. Raises BadKey."""
    path = Path(text_or_file)
    if "+" not in text_or_file and not path.is_file():
        raise BadKey(f"{path} is no file, and no verifier key such as name+1a2b3c4d+AVpz…")
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else text_or_file
    except (OSError, UnicodeDecodeError) as error:
        raise BadKey(f"{path} cannot be read ({type(error).__name__}): check its rights") from None
    return Verifier.parse(text)


def read_checkpoint(path: Path, verifier: Verifier) -> tuple[Checkpoint, str]:
    """A checkpoint in a file, and its note. Raises BadLog, BadNote, FileNotFoundError."""
    try:
        said = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadLog(f"{path} cannot be read ({type(error).__name__})") from None
    return _opened(said, verifier, str(path))


def _opened(said: bytes, verifier: Verifier, place: str) -> tuple[Checkpoint, str]:
    try:
        note = said.decode()
        return Checkpoint.open(note, verifier), note
    except UnicodeDecodeError as error:
        raise BadLog(f"{place} cannot be read ({type(error).__name__})") from None
    except BadNote as error:
        raise BadNote(f"{place}: {error}") from None
