"""backup, check, prune, rebuild-rollups, rebuild-texts and vacuum."""

import getpass
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from onrecord.audit.v1 import administration_pb2

from audit_svc.errors import DatabaseInUse
from audit_svc.ledger.pruning import response_of, whole_hour
from audit_svc.sql.care.check import NAMES as CHECKED
from audit_svc.sqlite.care import backup as copies
from audit_svc.sqlite.care import prune as prunes
from audit_svc.sqlite.care.vacuum import space
from audit_svc.sqlite.care.vacuum import vacuum as write_anew
from audit_svc.sqlite.open.files import reading
from audit_svc.stores.by_hand import by_hand
from audit_svc.terminal import remote
from audit_svc.terminal.running import (
    AnyDatabase,
    Database,
    DryRun,
    Json,
    Target,
    err,
    error_is_exit_code_1,
    file_meant,
    ledger_path,
    named_database,
    nothing_can_be_said,
    progress,
    refuse_both,
    say,
    say_unseen,
    size,
)
from service_kit.printable import printable
from service_kit.terminal.command import Argument, Exit, Option
from service_kit.terminal.printing import counted
from service_kit.times import parse_time, show_time


def backup(
    path: Annotated[Path, Argument(help="The file to make; it must not be there.")],
    db: Database = None,
    target: Target = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a copy of the ledger as it is at one moment, and check it; a service may go on meanwhile."""
    refuse_both(db, target)
    makes_folder = not dry_run and not path.absolute().parent.exists()
    with error_is_exit_code_1():
        if dry_run:
            _try_backup(path, None if target else file_meant(db), as_json=as_json)
        elif target:
            with progress("copying") as on_progress:
                total, digest = remote.back_up(target, path, on_progress)
            said = f"{path}: {size(total)}, checked by the service, SHA-256 {digest}"
            say(said, {"path": str(path), "bytes": total, "sha256": digest}, as_json=as_json)
        else:
            with progress("copying") as on_progress:
                copy = copies.back_up(file_meant(db), path, on_progress, say_unseen)
            calls, requests, sessions = (copy.rows.get(name, 0) for name in ("tool_call_log", "cost_log", "sessions"))
            said = (
                f"{path}: {size(copy.size_bytes)}, sound, with {counted(calls, 'tool call')}, "
                f"{counted(requests, 'model request')} and {counted(sessions, 'session')}"
            )
            say(said, {"path": str(path), "bytes": copy.size_bytes, "rows": copy.rows}, as_json=as_json)
    if makes_folder:
        err.print(printable(f"made the folder {path.absolute().parent}, which was not there"), style="yellow")


def _try_backup(path: Path, source: Path | None, *, as_json: bool) -> None:
    copies.refuse_existing(path)
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(folder).free
    needed = None
    if source is not None:
        needed = space(source).size_bytes
    said = f"would make {path}" + ("" if needed is None else f" of {size(needed)}") + f"; {size(free)} are free there"
    say(said, {"path": str(path), "bytes": needed, "free_bytes": free}, as_json=as_json)


def check(db: AnyDatabase = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Check a ledger or a backup, beside a running service too.

    The exit code is 1 when something is wrong, 2 when nothing can be said.
    """
    wrong = False
    with nothing_can_be_said():
        ledger = by_hand(named_database(db))
        if dry_run:
            said = f"would read {ledger.place} and check: {', '.join(CHECKED)}"
            say(said, {"path": ledger.place, "checks": CHECKED}, as_json=as_json)
            return
        with progress("checking") as on_progress:
            for finding in ledger.check(on_progress):
                wrong |= finding.state == "wrong"
                said = f"{finding.state:5}  {finding.check:9}  {finding.detail}".rstrip()
                say(said, asdict(finding), as_json=as_json)
    raise Exit(1 if wrong else 0)


def prune(
    before: Annotated[str, Option(help="A time such as 2026-11-01 (UTC), or an age such as 90d.")],
    db: Database = None,
    target: Target = None,
    dry_run: DryRun = False,
    confirm_clock: Annotated[
        bool, Option("--confirm-clock", help="Say that the ledger's clock is right, though it has jumped.")
    ] = False,
    reset_mark: Annotated[
        bool, Option("--reset-mark", help="Remove nothing; set the time that was pruned to back to --before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove what began before a time, rounded down to a whole hour; a summary stays, and nothing of it comes back."""
    refuse_both(db, target)
    now_ms = time.time_ns() // 1_000_000
    with error_is_exit_code_1():
        before_ms = whole_hour(parse_time(before, now_ms), now_ms)
        request = administration_pb2.PruneRequest(
            created_before_ms=before_ms, dry_run=dry_run, confirm_clock=confirm_clock, reset_mark=reset_mark
        )
        last = None
        with progress("pruning") as on_progress:
            for response in _prune(request, target, db):
                last = response
                on_progress(response.tool_calls, 0)
        if last is None:
            raise remote.Refused(f"{target} has told nothing of its prune")
        verb = "would remove" if dry_run else "removed"
        said = (
            f"{'would set' if dry_run else 'set'} the mark to {show_time(last.pruned_before_ms)}"
            if reset_mark
            else (
                f"{verb} {counted(last.tool_calls, 'tool call')}, {counted(last.model_requests, 'model request')} and "
                f"{counted(last.sessions, 'session')} from before {show_time(last.pruned_before_ms)}"
            )
        )
        if last.held:
            said += f"; legal holds {'would keep' if dry_run else 'kept'} {counted(last.held, 'row')}"
        fields = {
            "pruned_before": show_time(last.pruned_before_ms),
            "tool_calls": last.tool_calls,
            "model_requests": last.model_requests,
            "sessions": last.sessions,
            "held": last.held,
            "dry_run": dry_run,
        }
        say(said, fields, as_json=as_json)


def _prune(
    request: administration_pb2.PruneRequest, target: str | None, db: Path | None
) -> Iterator[administration_pb2.PruneResponse]:
    if target:
        yield from remote.prune(target, request)
        return
    path, before_ms, by = file_meant(db), request.created_before_ms, getpass.getuser()
    if request.dry_run:
        with reading(path, on_unseen=say_unseen) as connection:
            yield response_of(prunes.count(connection, before_ms))
        return
    try:
        if request.reset_mark:
            yield response_of(prunes.reset_mark_of_file(path, before_ms, by))
            return
        for progressed in prunes.prune_file(path, before_ms, by, confirm_clock=request.confirm_clock):
            yield response_of(progressed)
    except DatabaseInUse:
        raise DatabaseInUse(f"a service has {path} open: prune through it with --target HOST:PORT") from None


def rebuild_rollups(db: AnyDatabase = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Make the rollups again from the rows; no service may have the ledger open."""
    with error_is_exit_code_1():
        ledger = by_hand(named_database(db))
        if not dry_run:
            with progress("counting") as on_progress:
                ledger.rebuild_rollups(on_progress)
            say("rebuilt the rollups", {"path": ledger.place, "dry_run": False}, as_json=as_json)
            return
        with progress("counting") as on_progress:
            wrong = {table: rows for table, rows in ledger.rollups_off(on_progress, say_unseen).items() if rows}
        told = [f"would mend {counted(rows, 'row')} of {table}" for table, rows in wrong.items()]
        said = "\n".join(told) or "the rollups are what the rows say"
        say(said, {"path": ledger.place, "wrong_rows": wrong, "dry_run": True}, as_json=as_json)


def rebuild_texts(db: AnyDatabase = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Make the index of texts again from the rows; no service may have a file open."""
    with error_is_exit_code_1():
        ledger = by_hand(named_database(db))
        if not dry_run:
            with progress("indexing") as on_progress:
                ledger.rebuild_texts(on_progress)
            say("rebuilt the index of texts", {"path": ledger.place, "dry_run": False}, as_json=as_json)
            return
        with progress("reading") as on_progress:
            wrong = ledger.texts_off(on_progress, say_unseen)
        said = f"would mend {counted(wrong, 'part')}" if wrong else "the index of texts is what the rows say"
        say(said, {"path": ledger.place, "wrong_parts": wrong, "dry_run": True}, as_json=as_json)


def vacuum(db: Database = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Write the file anew without the space of rows that are gone; no service may have it open."""
    path = ledger_path(db)
    with error_is_exit_code_1():
        before = after = space(path)
        if not dry_run:
            with progress("writing anew") as on_progress:
                after = write_anew(path, on_progress)
        gains = before.free_bytes if dry_run else before.size_bytes - after.size_bytes
        verb = "would give back about" if dry_run else "gave back"
        said = f"{verb} {size(gains)} of {size(before.size_bytes)}"
        if dry_run and not before.gives_back:
            said += "; until it was run once, prune gives back nothing, and leaves the space to new rows"
        say(said, {"bytes": before.size_bytes, "given_back_bytes": gains, "dry_run": dry_run}, as_json=as_json)
