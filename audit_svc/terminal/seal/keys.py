"""seal key new, show, rotate and retire."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from audit_svc.seal.errors import SealError
from audit_svc.seal.folder import CHECKPOINT, make_key, read_key
from audit_svc.seal.sealer import Sealer
from audit_svc.terminal.running import Database, error_is_exit_code_1
from audit_svc.terminal.seal.place import Folder, KeyFile, where
from service_kit.terminal.command import Argument, Option, echo


def new(
    origin: Annotated[str, Argument(help="The log's name: yours, such as ledger.example.com/agents.")],
    db: Database = None,
    key_file: KeyFile = None,
) -> None:
    """Make a signing key before the first start, and print the verifier key that others check with."""
    with error_is_exit_code_1():
        made = make_key(key_file or where(db, None).key_file, origin)
    echo(str(made.verifier))


def show(db: Database = None, key_file: KeyFile = None) -> None:
    """Print the verifier key: keep it where who writes to the ledger cannot."""
    path = key_file or where(db, None).key_file
    with error_is_exit_code_1():
        try:
            signer = read_key(path)
        except FileNotFoundError:
            raise SealError(f"{path} is not there: `audit-svc seal key new` or the first start makes it") from None
    echo(str(signer.verifier))


def rotate(
    reason: Annotated[str, Option(help="Why; it stands in the log for ever.")],
    db: Database = None,
    seal: Folder = None,
    key_file: KeyFile = None,
) -> None:
    """Begin to sign with a new key beside the old one, while no service runs, and print the new verifier key."""
    with _sealer(reason, db, seal, key_file) as sealer:
        said = str(sealer.rotate_key(reason, getpass.getuser()).verifier)
    echo(said)


def retire(
    reason: Annotated[str, Option(help="Why; it stands in the log for ever.")],
    db: Database = None,
    seal: Folder = None,
    key_file: KeyFile = None,
) -> None:
    """End that two keys sign, while no service runs, and remove the old one."""
    with _sealer(reason, db, seal, key_file) as sealer:
        sealer.retire_key(reason, getpass.getuser())
        said = f"signed by {sealer.signer.verifier} alone"
    echo(said)


@contextmanager
def _sealer(reason: str, db: Path | None, seal: Path | None, key_file: Path | None) -> Iterator[Sealer]:
    found = where(db, seal)
    with error_is_exit_code_1():
        if not reason.strip():
            raise SealError("--reason is empty: say why, it stands in the log for ever")
        if found.log.read(CHECKPOINT) is None:
            raise SealError(f"{found.log.place()} has no checkpoint: nothing is sealed there")
        with found.open_sealer(key_file) as sealer:
            yield sealer
