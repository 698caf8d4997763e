"""seal status, run and accept-restore."""

import getpass
from contextlib import closing
from typing import Annotated

from audit_svc.seal import leaf
from audit_svc.seal.errors import InUse, Rewritten
from audit_svc.seal.folder import newest_checkpoint
from audit_svc.seal.history import History, Restore
from audit_svc.seal.tiles import Tiles
from audit_svc.terminal.running import Database, Json, error_is_exit_code_1, progress, say
from audit_svc.terminal.seal.ordering import ask_sealer
from audit_svc.terminal.seal.place import Folder, KeyFile, where
from service_kit.terminal.command import Exit, Option, echo


def status(db: Database = None, seal: Folder = None, as_json: Json = False) -> None:
    """Show the log's name, key and last checkpoint, and how many rows wait; exit code 1 when nothing can be sealed."""
    found = where(db, seal)
    trouble = ""
    with error_is_exit_code_1(), found.reading() as ledger:
        verifier = found.verifier()
        checkpoint, _ = newest_checkpoint(found.log, verifier)
        waiting = 0
        with closing(found.log.index()) as index:
            history = History(ledger, index, Tiles(found.log, checkpoint.size))
            for kind in leaf.KINDS:
                last = history.last_sealed(kind)
                try:
                    history.refuse_rewritten(kind, *last)
                except Rewritten as error:
                    trouble = trouble or str(error)
                waiting += ledger.count_after(kind, last[0])
            gone = history.not_back()
    fields = {"origin": checkpoint.origin, "key": str(verifier), "leaves": checkpoint.size, "waiting": waiting}
    fields["trouble"] = trouble
    fields["lost"] = gone
    said = f"log      {checkpoint.origin}\nkey      {verifier}\nleaves   {checkpoint.size}\nwaiting  {waiting}"
    if as_json:
        say("", fields, as_json=True)
    else:
        for name, ranges in gone.items():
            said += "".join(f"\nlost     {name}: numbers {first} to {last}" for first, last in ranges)
        echo(f"{said}\ntrouble  {trouble}" if trouble else said)
    raise Exit(1 if trouble else 0)


def run(db: Database = None, seal: Folder = None, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Seal what is committed and not yet sealed, once, without a service."""
    found = where(db, seal)
    with error_is_exit_code_1(), progress("sealing") as on_progress:
        with found.place.reading(lambda _: None):
            pass  # which refuses what is no ledger of this version
        with found.open_sealer(key_file) as sealer:
            while sealer.step():
                on_progress(sealer.size, 0)
            leaves, name = sealer.size, sealer.signer.name
    if as_json:
        say("", {"log": str(found.log.place()), "leaves": leaves, "signed_by": name}, as_json=True)
    else:
        echo(f"{found.log.place()}: {leaves} leaves, signed by {name}")


def accept_restore(
    reason: Annotated[str, Option(help="Why the ledger is an older one; it stands in the log for ever.")],
    db: Database = None,
    seal: Folder = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Go on with a ledger that was restored from a backup: what is lost by that goes into the log, with the reason."""
    found = where(db, seal)
    with error_is_exit_code_1():
        found.refuse_act(reason)
        try:
            with found.open_sealer(key_file) as sealer:
                restore = sealer.accept_restore(reason, getpass.getuser())
        except InUse:
            restore = Restore.parse(ask_sealer(found.log, "restore", reason))
    lost = {kind: count for kind, count in restore.lost.items() if count}
    if as_json:
        say("", {"lost": lost, "producers": {name: list(of) for name, of in restore.producers.items()}}, as_json=True)
        return
    echo("lost: " + (", ".join(f"{count} of {kind}" for kind, count in lost.items()) or "nothing"))
    for name, (first, last) in restore.producers.items():
        echo(f"lost of producer {name}: numbers {first} to {last}, until it sends them again")
