"""verify, proof, and seal with its commands."""

import getpass
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

from audit_svc.ledger.columns import MAX_TIME_MS
from audit_svc.seal import leaf
from audit_svc.seal.errors import BadLog, InUse, Rewritten, SealError
from audit_svc.seal.folder import (
    CHECKPOINT,
    KEY,
    ORDER,
    VERIFIER,
    folder_of,
    make_key,
    read_checkpoint,
    read_key,
    read_verifier,
)
from audit_svc.seal.history import History, Restore
from audit_svc.seal.index import Index
from audit_svc.seal.outside.cosigned import Cosigned, cosigned_by_all
from audit_svc.seal.outside.quorum import distinct, look, read_witness, roots_of
from audit_svc.seal.proving import KINDS_WITH_ID, prove, rows_of
from audit_svc.seal.sealer import Sealer
from audit_svc.seal.texts import MAX_BYTES, check_texts, texts_of
from audit_svc.seal.tiles import Tiles, replace_file
from audit_svc.seal.verify import Report, verify_tiles
from audit_svc.seal.verify import verify as verify_ledger
from audit_svc.sqlite.open.files import reading
from audit_svc.terminal.running import (
    Database,
    Json,
    Target,
    error_is_exit_code_1,
    progress,
    refuse_both,
    say,
    say_unseen,
)
from recording.transparency.cosignature import Cosignature, Witness
from recording.transparency.note import Verifier
from recording.transparency.proof import Proof
from service_kit.terminal.command import Argument, BadParameter, Exit, Option, echo
from service_kit.terminal.failures import Failed
from service_kit.times import show_time

EXIT_NOT_VERIFIED = 2

_ORDER_SECONDS = 60.0

Folder = Annotated[Path | None, Option("--seal", help="The seal's folder; FILE.seal beside the database by default.")]
KeyFile = Annotated[Path | None, Option("--key-file", help="The signing key; `key` in the seal's folder by default.")]
PublicKey = Annotated[
    str | None, Option("--key", help="The log's verifier key, or a file with it, from where you keep it.")
]


Witnesses = Annotated[
    list[str] | None, Option("--witness", help="The key of a witness, or a file with it; it may be given again.")
]
Quorum = Annotated[int | None, Option(help="How many of the witnesses must have seen the log; all by default.")]


def verify(
    db: Database = None,
    target: Target = None,
    seal: Folder = None,
    key: PublicKey = None,
    old_checkpoint: Annotated[
        list[Path] | None, Option("--old-checkpoint", help="A checkpoint that you kept; it may be given again.")
    ] = None,
    witness: Witnesses = None,
    quorum: Quorum = None,
    proof: Annotated[Path | None, Option(help="Check this proof of a row alone; it needs --key.")] = None,
    texts: Annotated[
        Path | None, Option(help="Check the texts that `proof --texts` wrote, against the row in --proof.")
    ] = None,
    export: Annotated[
        Path | None, Option(help="Check this file of `export --format sealed` alone; it needs --key.")
    ] = None,
    tiles: Annotated[
        Path | None, Option(help="Check this folder of a log alone, such as a web server's copy; it needs --key.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a ledger or a backup against its seal; exit code 1 when something is wrong, 2 when nothing can be said.

    With --target it is a running service: its log, and whether its newest tool calls are what it sealed of them.
    """
    refuse_both(db, target)
    with _nothing_can_be_said():
        witnesses = distinct(map(read_witness, witness or ()))
    needed = len(witnesses) if quorum is None else quorum
    if not bool(witnesses) <= needed <= len(witnesses):
        raise BadParameter(f"there are {len(witnesses)} witnesses: name each with --witness", "--quorum")
    if export or tiles:
        if db or seal or target or proof or (export and tiles):
            raise BadParameter("is checked without a ledger and anything else", "--export" if export else "--tiles")
        check = _check_tiles(tiles, witnesses, needed) if tiles else _check_export(export or Path(), witnesses, needed)
        _verify_alone(str(export or tiles), key, check, old_checkpoint or [], as_json=as_json)
    if texts and not proof:
        raise BadParameter("is checked with a proof: give it with --proof", "--texts")
    if proof:
        if db or seal or old_checkpoint or target:
            raise BadParameter(
                "it is checked without a ledger: leave out --db, --target, --seal and --old-checkpoint", "--proof"
            )
        _verify_proof(proof, key, witnesses, needed, texts, as_json=as_json)
        return
    if target:
        if seal:
            raise BadParameter("is a folder of this machine: leave it out with --target", "--seal")
        _verify_alone(target, key, _check_service(target, witnesses, needed), old_checkpoint or [], as_json=as_json)
    path, folder, _ = where(db, seal)
    with (
        _nothing_can_be_said(),
        progress("verifying") as on_progress,
        reading(path, on_unseen=say_unseen) as connection,
    ):
        verifier = _verifier(key, folder)
        leaf.prepare(connection)
        connection.execute("BEGIN")
        report = verify_ledger(connection, folder, verifier, old_checkpoint or [], on_progress)
        _look_for_witnesses(report, folder, verifier, witnesses, needed)
    _show(report, str(folder), own_key=key is None, as_json=as_json)
    raise Exit(1 if report.problems else 0)


@contextmanager
def _nothing_can_be_said() -> Iterator[None]:
    """Gives a failure in the body the exit code of what is not verified."""
    try:
        with error_is_exit_code_1():
            yield
    except Failed as failed:
        failed.code = EXIT_NOT_VERIFIED
        raise


Check = Callable[[Verifier, list[Path], Callable[[int, int], None]], Report]
"""The log's key, old checkpoints, and who hears of progress, to what was found."""


def _verify_alone(place: str, key: str | None, check: Check, old: list[Path], *, as_json: bool) -> NoReturn:
    """Checks what needs no ledger, and so a key from elsewhere."""
    with _nothing_can_be_said(), progress("verifying") as on_progress:
        if key is None:
            raise SealError(f"{place} is checked with the log's verifier key, from elsewhere: give it with --key")
        report = check(read_verifier(key), old, on_progress)
    _show(report, place, own_key=False, as_json=as_json)
    raise Exit(1 if report.problems else 0)


def _check_service(target: str, witnesses: list[Witness], quorum: int) -> Check:
    from audit_svc.terminal import remote_seal  # who reads a file needs none of it

    return lambda log, old, tell: remote_seal.verify(target, log, old, witnesses, quorum, tell)


def _check_export(path: Path, witnesses: list[Witness], quorum: int) -> Check:
    from audit_svc.terminal import sealed  # which imports this module

    return lambda log, old, tell: sealed.verify(path, log, old, witnesses, quorum, tell)


def _check_tiles(folder: Path, witnesses: list[Witness], quorum: int) -> Check:
    def check(log: Verifier, old: list[Path], tell: Callable[[int, int], None]) -> Report:
        report, _ = verify_tiles(folder, log, old, tell)
        _look_for_witnesses(report, folder, log, witnesses, quorum)
        return report

    return check


def _look_for_witnesses(report: Report, folder: Path, log: Verifier, witnesses: list[Witness], quorum: int) -> None:
    if report.checkpoint is None or not witnesses:
        return
    notes = [_checkpoint(folder, log)[1], *(note for _, note in Cosigned(folder).notes(witnesses))]
    try:
        seen = look(notes, log, witnesses, quorum, roots_of(Tiles(folder, report.checkpoint.size)))
    except BadLog:
        return  # which the report has already
    report.witnesses = seen.by
    report.problems += seen.problems


def proof(
    id: Annotated[str, Argument(help="The id of a tool call, a model request, a session's or an act of control.")],  # noqa: A002
    db: Database = None,
    target: Target = None,
    seal: Folder = None,
    recorded_by: Annotated[str | None, Option("--recorded-by", help="Whose row, where an id is of several.")] = None,
    texts: Annotated[
        Path | None, Option(help="Write the row's texts and its salt to this file, for whom may read them.")
    ] = None,
) -> None:
    """Print the proof of a row: a signed checkpoint, the way to it, and the row as it was sealed."""
    refuse_both(db, target)
    if target:
        if texts:
            raise BadParameter("salts are read from the database alone: give it with --db", "--texts")
        from audit_svc.terminal import remote_seal  # who reads a file needs none of it

        echo(remote_seal.prove(target, id, recorded_by).removesuffix("\n"))
        return
    path, folder, _ = where(db, seal)
    with error_is_exit_code_1(), reading(path, on_unseen=say_unseen) as connection:
        leaf.prepare(connection)
        verifier = _verifier(None, folder)
        _, note = _checkpoint(folder, verifier)
        rows = rows_of(connection, KINDS_WITH_ID, id, recorded_by)
        made = prove(folder, verifier, [*cosigned_by_all(folder, verifier), note], rows)
        if texts:
            kind, position, _ = rows[-1]
            replace_file(texts, json.dumps(texts_of(connection, kind, position), indent=1).encode(), mode=0o600)
    echo(str(made).removesuffix("\n"))


def status(db: Database = None, seal: Folder = None, as_json: Json = False) -> None:
    """Show the log's name, key and last checkpoint, and how many rows wait; exit code 1 when nothing can be sealed."""
    path, folder, _ = where(db, seal)
    trouble = ""
    with error_is_exit_code_1(), reading(path, on_unseen=say_unseen) as connection:
        verifier = _verifier(None, folder)
        checkpoint, _ = _checkpoint(folder, verifier)
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


def key_new(
    origin: Annotated[str, Argument(help="The log's name: yours, such as ledger.example.com/agents.")],
    db: Database = None,
    key_file: KeyFile = None,
) -> None:
    """Make a signing key before the first start, and print the verifier key that others check with."""
    with error_is_exit_code_1():
        made = make_key(key_file or where(db, None)[2], origin)
    echo(str(made.verifier))


def key_show(db: Database = None, key_file: KeyFile = None) -> None:
    """Print the verifier key: keep it where who writes to the ledger cannot."""
    path = key_file or where(db, None)[2]
    with error_is_exit_code_1():
        try:
            signer = read_key(path)
        except FileNotFoundError:
            raise SealError(f"{path} is not there: `audit-svc seal key new` or the first start makes it") from None
    echo(str(signer.verifier))


def key_rotate(
    reason: Annotated[str, Option(help="Why; it stands in the log for ever.")],
    db: Database = None,
    seal: Folder = None,
    key_file: KeyFile = None,
) -> None:
    """Begin to sign with a new key beside the old one, while no service runs, and print the new verifier key."""
    with _sealer(reason, db, seal, key_file) as sealer:
        said = str(sealer.rotate_key(reason, getpass.getuser()).verifier)
    echo(said)


def key_retire(
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
    path, folder, own_key = where(db, seal)
    with error_is_exit_code_1():
        if not reason.strip():
            raise SealError("--reason is empty: say why, it stands in the log for ever")
        if not (folder / CHECKPOINT).exists():
            raise SealError(f"{folder} has no checkpoint: nothing is sealed there")
        with Sealer(path, folder, key_file or own_key, "") as sealer:
            yield sealer


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
    checkpoint, _ = _checkpoint(folder, _verifier(None, folder))
    with closing(Index(folder)) as index:
        (_, said) = index.entries(checkpoint.size, 1)[-1]
    return Restore.parse(said)


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


def _verifier(key: str | None, folder: Path) -> Verifier:
    return own_verifier(folder) if key is None else read_verifier(key)


def _checkpoint(folder: Path, verifier: Verifier) -> Any:
    try:
        return read_checkpoint(folder / CHECKPOINT, verifier)
    except FileNotFoundError:
        raise SealError(f"{folder} has no checkpoint: nothing is sealed there") from None


def _verify_proof(
    path: Path, key: str | None, witnesses: list[Witness], quorum: int, texts: Path | None, *, as_json: bool
) -> None:
    with _nothing_can_be_said():
        if key is None:
            raise SealError("a proof is checked with the log's verifier key: give it with --key")
        verifier = read_verifier(key)
        try:
            made = Proof.parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SealError(f"{path} cannot be read ({type(error).__name__})") from None
    with error_is_exit_code_1():
        checkpoint = made.check(verifier)
        seen = look([made.note], verifier, witnesses, quorum, None)
        if seen.problems:
            raise SealError("; ".join(seen.problems))
        fitting = check_texts(made.leaf, _read(texts)) if texts else []
    said = f"leaf {made.index} of {checkpoint.size} in {checkpoint.origin}:\n{made.leaf.decode()}"
    fields = {
        "index": made.index,
        "leaves": checkpoint.size,
        "origin": checkpoint.origin,
        "leaf": made.leaf.decode(),
        "witnesses": _witnesses(seen.by),
        "texts": fitting,
    }
    if texts:
        said += f"\ntexts that were sealed so: {', '.join(fitting) or 'none'}"
    say("", fields, as_json=True) if as_json else echo(said)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise SealError(f"{path} cannot be read ({error.strerror})") from None


def _witnesses(seen: list[tuple[Cosignature, int]]) -> list[dict[str, Any]]:
    at_ms = [min(cosignature.seconds * 1000, MAX_TIME_MS) for cosignature, _ in seen]
    return [
        {"name": cosignature.witness.name, "leaves": leaves, "at": show_time(at)}
        for (cosignature, leaves), at in zip(seen, at_ms, strict=True)
    ]


def _show(report: Report, place: str, *, own_key: bool, as_json: bool) -> None:
    checkpoint = report.checkpoint
    fields = {
        "verified": not report.problems,
        "origin": checkpoint.origin if checkpoint else "",
        "leaves": checkpoint.size if checkpoint else 0,
        "rows_compared": report.compared,
        "rows": report.rows,
        "removed": report.removed,
        "erased": report.erased,
        "lost_by_restores": report.lost,
        "restores": [{"by": each.by, "reason": each.reason, "lost": dict(each.lost)} for each in report.restores],
        "unsealed": report.unsealed,
        "witnesses": _witnesses(report.witnesses),
        "problems": report.problems,
    }
    if as_json:
        say("", fields, as_json=True)
        return
    for problem in report.problems:
        echo(f"wrong  {problem}")
    if checkpoint:
        echo(f"log    {checkpoint.origin}, {checkpoint.size} leaves")
        echo(f"seal   {place}")
    if checkpoint and not report.compared:
        echo(f"rows   not compared: {'the log itself is wrong' if report.problems else 'that is the log alone'}")
    elif checkpoint:
        said = f"{report.erased} of them without texts that were erased, " if report.erased else ""
        echo(f"rows   {report.rows} as they were sealed, {said}{report.removed} pruned, {report.lost} lost by restores")
    for witness in _witnesses(report.witnesses):
        echo(f"seen   by {witness['name']}: {witness['leaves']} leaves, at {witness['at']}")
    for kind, rows in report.unsealed.items():
        echo(f"note   not sealed yet: {kind} {rows}")
    for change in report.key_changes:
        what = "is the key beside" if change.act == "rotate" else "is the key without"
        echo(f"note   {change.key} {what} {change.old}, by {change.by}: {change.reason}")
    for restore in report.restores:
        echo(f"note   restored by {restore.by}: {restore.reason}")
    if own_key:
        echo("note   checked with the key of that folder, where whoever can write could have")
        echo("       put another: --key takes one that you keep elsewhere")
