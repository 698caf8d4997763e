"""hold, with its commands."""

import getpass
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from onrecord.audit.v1 import administration_pb2, questions_pb2

from audit_svc.errors import DatabaseInUse, InvalidRequest
from audit_svc.ledger.holds import Act, filter_text, lifting_of, placing_of
from audit_svc.sql.care import holds as shared
from audit_svc.sqlite.care import holds
from audit_svc.sqlite.open.files import reading
from audit_svc.terminal import remote
from audit_svc.terminal.client import connect, named_session, what_is_unknown
from audit_svc.terminal.met import may_be_met
from audit_svc.terminal.options import Calls, Labels, Source, Times, label_values
from audit_svc.terminal.running import (
    Database,
    Json,
    Target,
    err,
    error_is_exit_code_1,
    file_meant,
    in_options,
    out,
    refuse_both,
    say,
    say_unseen,
)
from service_kit.printable import printable
from service_kit.terminal.command import Argument, BadParameter, Filter, Option
from service_kit.terminal.printing import Table, Wide
from service_kit.times import show_time

Name = Annotated[str, Argument(help="The hold's name.")]
Reason = Annotated[str, Option(help="Why; it stands on the record for ever.")]


def place(
    name: Name,
    reason: Reason,
    calls: Calls,
    times: Times,
    label: Labels = None,
    tool_glob: Annotated[str, Filter("--tool-glob", help="Only tools whose names match, with * and ?.")] = "",
    everything: Annotated[bool, Option("--all", help="Hold everything.")] = False,
    db: Database = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Keep rows from being pruned and erased, those that are recorded later too, until the hold is lifted."""
    refuse_both(db, target)
    request = administration_pb2.PlaceHoldRequest(name=name, reason=reason)
    _check(placing_of, request)
    labels, within = label_values(label), times.fields()
    source = Source(target=target, db=None if target else file_meant(db))
    is_told = bool(calls.session or calls.turn) and _name_session(source, calls)
    wanted = questions_pb2.ToolCallFilter(**calls.fields(), **within, labels=labels)
    held = administration_pb2.HoldFilter(calls=wanted, tool_glob=tool_glob)
    is_everything = not wanted.ByteSize() and not tool_glob
    if is_everything != everything:
        raise BadParameter("say what is held, or --all for everything, and not both", param_hint="--all")
    request.filter.CopyFrom(held)
    if not (everything or is_told):
        _tell_if_unmet(source, held)
    with error_is_exit_code_1():
        if target:
            with remote.service(target) as (stub, metadata):
                hold = stub.PlaceHold(request, metadata=metadata).hold
        else:
            hold = _act_on_file(file_meant(db), placing_of(request, getpass.getuser()))
        say(f"placed {_told(hold)}", _fields(hold), as_json=as_json)


def _name_session(source: Source, calls: Calls) -> bool:
    """Puts the whole id of a session in the place of a part. What nothing is on record of may come: it is said.

    Returns whether it was.
    """
    with connect(source) as client:
        unknown = what_is_unknown(client, calls)
    if unknown and calls.session:
        calls.session = named_session(source, calls.session, "--session")
        with connect(source) as client:
            unknown = what_is_unknown(client, calls)
    if unknown:
        err.print(f"{printable(str(unknown))} yet: only what comes of it is held", style="yellow")
    return unknown is not None


def _tell_if_unmet(source: Source, held: administration_pb2.HoldFilter) -> None:
    with connect(source) as client:
        is_met = may_be_met(client, held)
    if not is_met:
        err.print("nothing on record meets this yet: only what comes is held", style="yellow")


def lift(name: Name, reason: Reason, db: Database = None, target: Target = None, as_json: Json = False) -> None:
    """End a hold: what it held may be pruned and erased again, unless another holds it."""
    refuse_both(db, target)
    request = administration_pb2.LiftHoldRequest(name=name, reason=reason)
    _check(lifting_of, request)
    with error_is_exit_code_1():
        if target:
            with remote.service(target) as (stub, metadata):
                hold = stub.LiftHold(request, metadata=metadata).hold
        else:
            hold = _act_on_file(file_meant(db), lifting_of(request, getpass.getuser()))
        say(f"lifted {_told(hold)}", _fields(hold), as_json=as_json)


def list_(
    with_lifted: Annotated[bool, Option("--lifted", help="List those too that were lifted.")] = False,
    db: Database = None,
    target: Target = None,
    as_json: Json = False,
    wide: Wide = False,
) -> None:
    """List the holds that are in place."""
    refuse_both(db, target)
    with error_is_exit_code_1():
        if target:
            with remote.service(target) as (stub, metadata):
                request = administration_pb2.ListHoldsRequest(with_lifted=with_lifted)
                found = list(stub.ListHolds(request, metadata=metadata).holds)
        else:
            with reading(file_meant(db), on_unseen=say_unseen) as connection:
                found = shared.list_holds(connection, with_lifted=with_lifted)
        if as_json:
            for hold in found:
                say("", _fields(hold), as_json=True)
        elif found:
            out.print(_table(found), wide=wide)
        if not found:
            err.print("no hold is in place", style="yellow")


def _act_on_file(path: Path, act: Act) -> administration_pb2.Hold:
    try:
        return holds.act_on_file(path, act)
    except DatabaseInUse:
        raise DatabaseInUse(f"a service has {path} open: ask the service with --target HOST:PORT") from None


def _check(read: Callable[[Any, str], Act], request: Any) -> None:
    """Raises BadParameter for a name or a reason that cannot be."""
    try:
        read(request, "")
    except InvalidRequest as error:
        said = str(error).removeprefix(f"{error.field} ")
        raise BadParameter(said, "NAME" if error.field == "name" else "--reason") from None


def _table(found: Sequence[administration_pb2.Hold]) -> Table:
    """Holds, one per line."""
    columns = ("name", "held", "placed", "by", "reason", "lifted", "lifted by", "why lifted")
    table = Table(*columns, least=("lifted by", "by", "why lifted", "reason"), text="reason", wraps=True)
    for hold in found:
        lifted = out.print_time(hold.lifted_at_ms) if hold.lifted_at_ms else ""
        table.add_row(
            printable(hold.name),
            printable(_held(hold.filter)),
            out.print_time(hold.placed_at_ms),
            printable(hold.placed_by),
            printable(hold.reason),
            lifted,
            printable(hold.lifted_by),
            printable(hold.lift_reason),
        )
    return table


def _held(held: administration_pb2.HoldFilter) -> str:
    """What a hold holds, as one types it."""
    asked: dict[str, Any] = json.loads(filter_text(held))
    said = {**asked.pop("calls", {}), **asked}
    for name in ("created_from_ms", "created_before_ms"):
        said |= {name: show_time(int(said[name]))} if name in said else {}
    words = [f"{in_options(f'filter.{name}')} {word}" for name, value in said.items() for word in _words(name, value)]
    return " ".join(words) or "everything"


def _words(name: str, value: Any) -> list[str]:
    match name:
        case "labels":
            return [f"{key}={each}" for key, each in sorted(value.items())]
        case "agent":
            return [" ".join(map(str, value.values()))]
        case "outcomes":
            return [each.removeprefix("OUTCOME_").lower() for each in value]
    return [str(value)]


def _told(hold: administration_pb2.Hold) -> str:
    said = f"{hold.name}: {_held(hold.filter)}, placed {show_time(hold.placed_at_ms)} by {hold.placed_by}: "
    said += hold.reason
    if hold.lifted_at_ms:
        said += f"; lifted {show_time(hold.lifted_at_ms)} by {hold.lifted_by}: {hold.lift_reason}"
    return said


def _fields(hold: administration_pb2.Hold) -> dict[str, Any]:
    return {
        "name": hold.name,
        "filter": json.loads(filter_text(hold.filter)),
        "placed_by": hold.placed_by,
        "placed_at_ms": hold.placed_at_ms,
        "reason": hold.reason,
        "lifted_by": hold.lifted_by or None,
        "lifted_at_ms": hold.lifted_at_ms or None,
        "lift_reason": hold.lift_reason or None,
    }
