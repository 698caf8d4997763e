"""erase."""

import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from onrecord.audit.v1 import administration_pb2, questions_pb2

from audit_svc.errors import DatabaseInUse
from audit_svc.ledger.erasing import erasure_of, response_of
from audit_svc.sql.care import erase as shared
from audit_svc.sqlite.care import erase as erases
from audit_svc.sqlite.open.files import reading
from audit_svc.terminal import remote
from audit_svc.terminal.options import label_values
from audit_svc.terminal.running import (
    Database,
    DryRun,
    Json,
    Target,
    err,
    error_is_exit_code_1,
    ledger_path,
    progress,
    refuse_both,
    say,
    say_unseen,
)
from service_kit.terminal.command import Argument, BadParameter, Option
from service_kit.terminal.printing import counted

LEFT_IN_WAL = (
    "the texts may still stand in the database's log: of a file the -wal, which somebody who reads kept from being "
    "emptied until the service ends or rows are erased again; of PostgreSQL the WAL, and tables until VACUUM"
)


def erase(
    row: Annotated[str, Argument(help="The id of a tool call, a model request or an act of control.")] = "",
    session: Annotated[str, Option(help="All rows of this session.")] = "",
    label: Annotated[
        list[str] | None, Option("--label", help="All rows of sessions with key=value; may be repeated.")
    ] = None,
    reason: Annotated[str, Option(help="Why; it stands on the record for ever, so it names nobody.")] = "",
    recorded_by: Annotated[str | None, Option("--recorded-by", help="Whose rows, where an id is of several.")] = None,
    db: Database = None,
    target: Target = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Erase the texts of rows, their arguments, errors and reasons; all else of them stays, and stays provable."""
    refuse_both(db, target)
    if sum(map(bool, (row, session, label))) != 1:
        raise BadParameter("name a row, or --session, or --label", param_hint="ROW")
    if not reason.strip():
        raise BadParameter("is empty: say why, it stands on the record for ever", param_hint="--reason")
    request = administration_pb2.EraseRequest(reason=reason, dry_run=dry_run)
    if label:
        labels = administration_pb2.SessionLabels(labels=label_values(label), recorded_by=recorded_by)
        request.labels.CopyFrom(labels)
    else:
        key = questions_pb2.RowKey(id=row or session, recorded_by=recorded_by)
        (request.row if row else request.session).CopyFrom(key)
    last = administration_pb2.EraseResponse()
    with error_is_exit_code_1():
        with progress("erasing") as on_progress:
            for last in _erase(request, target, db):
                on_progress(last.tool_calls + last.model_requests + last.controls, 0)
        verb = "would erase" if dry_run else "erased"
        said = (
            f"{verb} the texts of {counted(last.tool_calls, 'tool call')}, "
            f"{counted(last.model_requests, 'model request')} and {counted(last.controls, 'act of control')}"
        ).replace("act of controls", "acts of control")
        fields = {
            "tool_calls": last.tool_calls,
            "model_requests": last.model_requests,
            "controls": last.controls,
            "left_in_wal": last.left_in_wal,
            "dry_run": dry_run,
        }
        say(said, fields, as_json=as_json)
        if last.left_in_wal:
            err.print(LEFT_IN_WAL, style="yellow")


def _erase(
    request: administration_pb2.EraseRequest, target: str | None, db: Path | None
) -> Iterator[administration_pb2.EraseResponse]:
    if target:
        yield from remote.erase(target, request)
        return
    path = ledger_path(db)
    wanted = erasure_of(request, getpass.getuser())
    if request.dry_run:
        with reading(path, on_unseen=say_unseen) as connection:
            yield response_of(shared.count(connection, wanted))
        return
    try:
        yield from map(response_of, erases.erase_file(path, wanted))
    except DatabaseInUse:
        raise DatabaseInUse(f"a service has {path} open: erase through it with --target HOST:PORT") from None
