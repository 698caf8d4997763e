"""seal key new, show, rotate and retire."""

import getpass
from pathlib import Path
from typing import Annotated

from audit_svc.seal.errors import InUse, SealError
from audit_svc.seal.folder import make_key, read_key
from audit_svc.seal.key_change import Act, KeyChange
from audit_svc.terminal.running import Database, error_is_exit_code_1
from audit_svc.terminal.seal.ordering import ask_sealer
from audit_svc.terminal.seal.place import Folder, KeyFile, Where, where
from service_kit.terminal.command import Argument, Option, echo
from service_kit.terminal.printing import Json, print_fields


def new(
    origin: Annotated[str, Argument(help="The log's name: yours, such as ledger.example.com/agents.")],
    db: Database = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Make a signing key before the first start, and print the verifier key that others check with."""
    with error_is_exit_code_1():
        made = make_key(key_file or where(db, None).key_file, origin)
    _say(str(made.verifier), str(made.verifier), as_json=as_json)


def show(db: Database = None, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Print the verifier key: keep it where who writes to the ledger cannot."""
    with error_is_exit_code_1():
        path = key_file or where(db, None).key_file
        try:
            signer = read_key(path)
        except FileNotFoundError:
            raise SealError(f"{path} is not there: `audit-svc seal key new` or the first start makes it") from None
    _say(str(signer.verifier), str(signer.verifier), as_json=as_json)


def rotate(
    reason: Annotated[str, Option(help="Why; it stands in the log for ever.")],
    db: Database = None,
    seal: Folder = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Begin to sign with a new key beside the old one, and print the new verifier key."""
    key = _change("rotate", reason, where(db, seal), key_file).key
    _say(key, key, as_json=as_json)


def retire(
    reason: Annotated[str, Option(help="Why; it stands in the log for ever.")],
    db: Database = None,
    seal: Folder = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """End that two keys sign, and remove the old one."""
    key = _change("retire", reason, where(db, seal), key_file).key
    _say(f"signed by {key} alone", key, as_json=as_json)


def _say(text: str, key: str, *, as_json: bool) -> None:
    print_fields({"key": key}) if as_json else echo(text)


def _change(act: Act, reason: str, found: Where, key_file: Path | None) -> KeyChange:
    """Has the key changed: by the running sealer, else here."""
    with error_is_exit_code_1():
        found.refuse_act(reason)
        try:
            with found.open_sealer(key_file) as sealer:
                return (sealer.rotate_key if act == "rotate" else sealer.retire_key)(reason, getpass.getuser())
        except InUse:
            change = KeyChange.parse(ask_sealer(found.log, act, reason))
        if change is None or change.act != act:
            raise SealError("somebody asked the process that seals for something else meanwhile: look, and ask again")
        return change
