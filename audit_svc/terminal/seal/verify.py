"""verify: a ledger, a backup, an export, a folder of tiles or a running service."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

from audit_svc.seal.errors import BadLog, SealError
from audit_svc.seal.files import FolderFiles
from audit_svc.seal.folder import newest_checkpoint, read_verifier
from audit_svc.seal.log import Files
from audit_svc.seal.outside import stamps
from audit_svc.seal.outside.cosigned import Cosigned
from audit_svc.seal.outside.quorum import distinct, look, read_witness, roots_of
from audit_svc.seal.outside.stamps import read_authorities, refuse_without_library
from audit_svc.seal.tiles import Tiles
from audit_svc.seal.verify import Report, verify_tiles
from audit_svc.seal.verify import verify as verify_ledger
from audit_svc.terminal.running import (
    Database,
    Json,
    Target,
    nothing_can_be_said,
    progress,
    refuse_both,
    say_unseen,
)
from audit_svc.terminal.seal.place import Folder, where
from audit_svc.terminal.seal.proof import verify_proof
from audit_svc.terminal.seal.report import show
from recording.transparency.cosignature import Witness
from recording.transparency.note import Verifier
from service_kit.terminal.command import BadParameter, Exit, Option

PublicKey = Annotated[
    str | None, Option("--key", help="The log's verifier key, or a file with it, from where you keep it.")
]
Witnesses = Annotated[
    list[str] | None, Option("--witness", help="The key of a witness, or a file with it; it may be given again.")
]
Quorum = Annotated[int | None, Option(help="How many of the witnesses must have seen the log; all by default.")]
Stamps = Annotated[
    Path | None,
    Option("--timestamp-ca", help="The CA of a time-stamping authority, in PEM: check when it stamped the log."),
]


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
    timestamp_ca: Stamps = None,
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
    with nothing_can_be_said():
        witnesses = distinct(map(read_witness, witness or ()))
    needed = len(witnesses) if quorum is None else quorum
    if not bool(witnesses) <= needed <= len(witnesses):
        raise BadParameter(f"there are {len(witnesses)} witnesses: name each with --witness", "--quorum")
    if timestamp_ca and (export or proof or target):
        raise BadParameter("time-stamps are beside the log: give --db or --tiles, or nothing", "--timestamp-ca")
    if export or tiles:
        if db or seal or target or proof or (export and tiles):
            raise BadParameter("is checked without a ledger and anything else", "--export" if export else "--tiles")
        check = (
            _check_tiles(tiles, witnesses, needed, timestamp_ca)
            if tiles
            else _check_export(export or Path(), witnesses, needed)
        )
        _verify_alone(str(export or tiles), key, check, old_checkpoint or [], as_json=as_json)
    if texts and not proof:
        raise BadParameter("is checked with a proof: give it with --proof", "--texts")
    if proof:
        if db or seal or old_checkpoint or target:
            raise BadParameter(
                "it is checked without a ledger: leave out --db, --target, --seal and --old-checkpoint", "--proof"
            )
        verify_proof(proof, key, witnesses, needed, texts, as_json=as_json)
        return
    if target:
        if seal:
            raise BadParameter("is a folder of this machine: leave it out with --target", "--seal")
        _verify_alone(target, key, _check_service(target, witnesses, needed), old_checkpoint or [], as_json=as_json)
    found = where(db, seal, may_ask_service=True)
    with (
        nothing_can_be_said(),
        progress("verifying") as on_progress,
        found.place.reading(say_unseen) as ledger,
    ):
        verifier = found.verifier(key)
        report = verify_ledger(ledger, found.log, verifier, old_checkpoint or [], on_progress)
        _look_outside(report, found.log, verifier, witnesses, needed, timestamp_ca)
    show(report, found.log.place(), own_key=key is None, as_json=as_json)
    raise Exit(1 if report.problems else 0)


Check = Callable[[Verifier, list[Path], Callable[[int, int], None]], Report]
"""The log's key, old checkpoints, and who hears of progress, to what was found."""


def _verify_alone(place: str, key: str | None, check: Check, old: list[Path], *, as_json: bool) -> NoReturn:
    """Checks what needs no ledger, and so a key from elsewhere."""
    with nothing_can_be_said(), progress("verifying") as on_progress:
        if key is None:
            raise SealError(f"{place} is checked with the log's verifier key, from elsewhere: give it with --key")
        report = check(read_verifier(key), old, on_progress)
    show(report, place, own_key=False, as_json=as_json)
    raise Exit(1 if report.problems else 0)


def _check_service(target: str, witnesses: list[Witness], quorum: int) -> Check:
    from audit_svc.terminal.seal import remote  # who reads a file needs none of it

    return lambda log, old, tell: remote.verify(target, log, old, witnesses, quorum, tell)


def _check_export(path: Path, witnesses: list[Witness], quorum: int) -> Check:
    from audit_svc.terminal.seal import sealed_export  # as above

    return lambda log, old, tell: sealed_export.verify(path, log, old, witnesses, quorum, tell)


def _check_tiles(folder: Path, witnesses: list[Witness], quorum: int, timestamp_ca: Path | None) -> Check:
    def check(log: Verifier, old: list[Path], tell: Callable[[int, int], None]) -> Report:
        files = FolderFiles(folder)
        report, _ = verify_tiles(files, log, old, tell)
        _look_outside(report, files, log, witnesses, quorum, timestamp_ca)
        return report

    return check


def _look_outside(
    report: Report, log: Files, key: Verifier, witnesses: list[Witness], quorum: int, timestamp_ca: Path | None
) -> None:
    """Looks what witnesses and an authority say of the log, where it was verified. Raises SealError, StoreRefused."""
    if report.checkpoint is None:
        return
    roots = roots_of(Tiles(log, report.checkpoint.size))
    try:
        if witnesses:
            notes = [newest_checkpoint(log, key)[1], *(note for _, note in Cosigned(log).notes(witnesses))]
            seen = look(notes, key, witnesses, quorum, roots)
            report.witnesses = seen.by
            report.problems += seen.problems
        if timestamp_ca:
            refuse_without_library()
            stamped = stamps.Stamps(log).look(read_authorities(timestamp_ca), roots)
            report.stamps = stamped.stamps
            report.problems += stamped.problems
        else:
            report.unchecked_stamps = len(stamps.Stamps(log).names())
    except BadLog as error:
        if str(error) not in report.problems:
            report.problems.append(str(error))
