"""seal status, run and accept-restore."""

import getpass
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

from audit_svc.seal import leaf
from audit_svc.seal.errors import InUse, Rewritten, SealError
from audit_svc.seal.folder import CHECKPOINT, ORDER
from audit_svc.seal.history import History, Restore
from audit_svc.seal.index import Index
from audit_svc.seal.sealer import Sealer
from audit_svc.seal.tiles import Tiles, replace_file
from audit_svc.sqlite.open.files import reading
from audit_svc.terminal.running import Database, Json, error_is_exit_code_1, progress, say, say_unseen
from audit_svc.terminal.seal.place import Folder, KeyFile, checkpoint_of, own_verifier, where
from service_kit.terminal.command import Exit, Option, echo

_ORDER_SECONDS = 60.0


def status(db: Database = None, seal: Folder = None, as_json: Json = False) -> None:
    """Show the log's name, key and last checkpoint, and how many rows wait; exit code 1 when nothing can be sealed."""
    path, folder, _ = where(db, seal)
    trouble = ""
    with error_is_exit_code_1(), reading(path, on_unseen=say_unseen) as connection:
        verifier = own_verifier(folder)
        checkpoint, _ = checkpoint_of(folder, verifier)
        waiting = 0
        leaf.prepare(connection)
        with closing(Index(folder)) as index:
            history = History(connection, index, Tiles(folder, checkpoint.size))
            for kind in leaf.KINDS:
                last = history.last_sealed(kind)
                try:
                    history.refuse_rewritten(kind, *last)
                except Rewritten as error:
                    trouble = trouble or str(error)
                ((rows,),) = connection.execute(
                    f"SELECT count(*) FROM {kind.table} WHERE {kind.column('position')} > ?",  # noqa: S608 - names of ours
                    (last[0],),
                )
                waiting += rows
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


def run(db: Database = None, seal: Folder = None, key_file: KeyFile = None) -> None:
    """Seal what is committed and not yet sealed, once, without a service."""
    path, folder, own_key = where(db, seal)
    with error_is_exit_code_1(), progress("sealing") as on_progress:
        with reading(path):
            pass  # which refuses what is no ledger of this version
        with Sealer(path, folder, key_file or own_key, "") as sealer:
            while sealer.step():
                on_progress(sealer.size, 0)
            said = f"{folder}: {sealer.size} leaves, signed by {sealer.signer.name}"
    echo(said)


def accept_restore(
    reason: Annotated[str, Option(help="Why the ledger is an older one; it stands in the log for ever.")],
    db: Database = None,
    seal: Folder = None,
    key_file: KeyFile = None,
) -> None:
    """Go on with a ledger that was restored from a backup: what is lost by that goes into the log, with the reason."""
    path, folder, own_key = where(db, seal)
    with error_is_exit_code_1():
        if not reason.strip():
            raise SealError("--reason is empty: say why, it stands in the log for ever")
        if not (folder / CHECKPOINT).exists():
            raise SealError(f"{folder} has no checkpoint: nothing is sealed there, and so nothing lost")
    with error_is_exit_code_1():
        try:
            with Sealer(path, folder, key_file or own_key, "") as sealer:
                restore = sealer.accept_restore(reason, getpass.getuser())
        except InUse:
            restore = _ask_sealer(folder, reason)
    lost = {kind: count for kind, count in restore.lost.items() if count}
    echo("lost: " + (", ".join(f"{count} of {kind}" for kind, count in lost.items()) or "nothing"))
    for name, (first, last) in restore.producers.items():
        echo(f"lost of producer {name}: numbers {first} to {last}, until it sends them again")


def _ask_sealer(folder: Path, reason: str) -> Restore:
    """Has the running sealer accept a restore. Raises SealError: it does not."""
    order = folder / ORDER
    replace_file(order, json.dumps({"reason": reason, "by": getpass.getuser()}).encode(), mode=0o600)
    deadline = time.monotonic() + _ORDER_SECONDS
    while order.exists():
        if time.monotonic() > deadline:
            order.unlink(missing_ok=True)
            raise SealError("the process that seals does not answer: look at the service's log (seal.trouble)")
        time.sleep(0.05)
    checkpoint, _ = checkpoint_of(folder, own_verifier(folder))
    with closing(Index(folder)) as index:
        (_, said) = index.entries(checkpoint.size, 1)[-1]
    return Restore.parse(said)
