"""erase."""

import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from onrecord.audit.v1 import administration_pb2, questions_pb2

from audit_svc.errors import DatabaseInUse, NotFound
from audit_svc.ledger.erasing import erasure_of, response_of
from audit_svc.sql.care import erase as shared
from audit_svc.sqlite.care import erase as erases
from audit_svc.sqlite.open.files import reading
from audit_svc.terminal import remote
from audit_svc.terminal.client import ROWS, SESSIONS, connect, newest_ids
from audit_svc.terminal.options import Source, label_values
from audit_svc.terminal.running import (
    Database,
    DryRun,
    Json,
    Target,
    as_option,
    err,
    error_is_exit_code_1,
    file_meant,
    progress,
    refuse_both,
    say,
    say_unseen,
)
from service_kit.printable import printable
from service_kit.terminal.command import Argument, BadParameter, Option
from service_kit.terminal.failures import Failed
from service_kit.terminal.ids import LAST, SHORT, is_whole, whole_id
from service_kit.terminal.printing import counted

LEFT_IN_WAL = (
    "the texts may still stand in the database's log: of a file the -wal, which somebody who reads kept from being "
    "emptied until the service ends or rows are erased again; of PostgreSQL the WAL, and tables until VACUUM"
)
_OWN = (SESSIONS,)


def erase(
    row: Annotated[
        str,
        Argument(
            help="The id of a tool call, model request or act of control, or 8 characters of its beginning or end."
        ),
    ] = "",
    session: Annotated[
        str,
        Option(help=f"All rows of this session: its id, 8 characters of its beginning or end, or {LAST}."),
    ] = "",
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
        _name_whole(request, target, db)
    last = administration_pb2.EraseResponse()
    with error_is_exit_code_1(as_option(db, target)):
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
        if label and not (last.tool_calls or last.model_requests or last.controls):
            err.print("no session with these labels has a row whose texts are left", style="yellow")
        if last.left_in_wal:
            err.print(LEFT_IN_WAL, style="yellow")


def _name_whole(request: administration_pb2.EraseRequest, target: str | None, db: Path | None) -> None:
    """Puts the whole id in the place of a part of one. What a part fits is looked for only where nothing has it for
    its id: no text is erased for another's.

    Raises:
        BadParameter: it fits several, or it is @last and names no session.
        Failed: it fits nothing, or is too short for what cannot be undone.
    """
    key, hint, kinds = (request.row, "ROW", ROWS) if request.HasField("row") else (request.session, "--session", _OWN)
    if is_whole(key.id):
        return
    asked = administration_pb2.EraseRequest()
    asked.CopyFrom(request)
    asked.dry_run = True
    with error_is_exit_code_1(as_option(db, target)):
        try:
            for _ in _erase(asked, target, db):
                pass
        except (NotFound, remote.NotThere) as error:
            if key.id == LAST and key is request.row:
                raise BadParameter(f"{LAST} is a session: --session {LAST} erases all rows of it", hint) from None
            if key.id != LAST and len(key.id) < SHORT:
                what = "row" if key is request.row else "session"
                needs = f"of a longer one, erasing needs {SHORT} characters of its beginning or its end"
                raise Failed(f"there is no {what} with this id; {needs}", cause=error) from None
            with connect(Source(target=target, db=None if target else file_meant(db))) as client:
                found = whole_id(key.id, newest_ids(client, kinds), hint)
            if found == key.id:
                raise
            err.print(f"{printable(key.id)} is {printable(found)}", style="dim")
            key.id = found


def _erase(
    request: administration_pb2.EraseRequest, target: str | None, db: Path | None
) -> Iterator[administration_pb2.EraseResponse]:
    if target:
        yield from remote.erase(target, request)
        return
    path = file_meant(db)
    wanted = erasure_of(request, getpass.getuser())
    if request.dry_run:
        with reading(path, on_unseen=say_unseen) as connection:
            yield response_of(shared.count(connection, wanted))
        return
    try:
        yield from map(response_of, erases.erase_file(path, wanted))
    except DatabaseInUse:
        raise DatabaseInUse(f"a service has {path} open: erase through it with --target HOST:PORT") from None
