"""Tool calls as they are recorded, across restarts of the service."""

import random
import sys
import time
from typing import Annotated

import grpc
from onrecord.audit.v1 import questions_pb2

from audit_svc.terminal.client import connect, named_session, what_is_unknown
from audit_svc.terminal.options import Calls, Source, Target, address_of
from audit_svc.terminal.plain import print_json
from audit_svc.terminal.running import Json, err, out
from audit_svc.terminal.service import answers_are_exit_code_1, open_service
from audit_svc.terminal.timeline import call_line
from service_kit.printable import printable
from service_kit.terminal.command import Option
from service_kit.terminal.printing import counted
from service_kit.unanswered import LEDGER, told

_FIRST_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 10.0
_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


def tail(
    calls: Calls,
    errors_only: Annotated[bool, Option("--errors", help="Only calls that failed.")] = False,
    reconnect: Annotated[bool, Option(help="Wait when the service goes away, and go on where it was.")] = True,
    as_json: Json = False,
    target: Target = None,
) -> None:
    """Show tool calls as they are recorded, until interrupted."""
    source = Source(target=target)
    calls.session = named_session(source, calls.session, "--session")
    with connect(source) as client:
        if unknown := what_is_unknown(client, calls):
            err.print(f"{printable(str(unknown))} yet: waiting for it", style="yellow")
    wanted = questions_pb2.ToolCallFilter(**calls.fields(), has_error=True if errors_only else None)
    request = questions_pb2.TailToolCallsRequest(filter=wanted, skip_when_behind=True)
    address = address_of(target)
    with answers_are_exit_code_1(address):
        _follow(address, request, reconnect=reconnect, as_json=as_json)


def _follow(target: str, request: questions_pb2.TailToolCallsRequest, *, reconnect: bool, as_json: bool) -> None:
    """Prints rows as they come, and keeps the resume token of the last response in request.

    Raises:
        grpc.RpcError: the service was never there, refuses for good, or is away and reconnect is not asked for.
    """
    failures = 0
    while True:
        try:
            with open_service(target) as service:
                for response in service.call("TailToolCalls", request):
                    if failures:
                        err.print("the service is back: going on", style="yellow")
                    failures = 0
                    _print(response, as_json=as_json)
                    request.resume_token = response.resume_token
            return
        except grpc.RpcError as error:
            if not reconnect or not request.resume_token or error.code() not in _PASSING:
                raise
            if not failures:
                err.print(f"{printable(told(target, LEDGER, error))}; waiting for the service", style="yellow")
        ceiling = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(failures, 30))
        time.sleep(random.uniform(0, ceiling))  # noqa: S311 - only spreads retries
        failures += 1


def _print(response: questions_pb2.TailToolCallsResponse, *, as_json: bool) -> None:
    if response.HasField("skipped"):
        missed = counted(response.skipped.last - response.skipped.first + 1, "row was", "rows were")
        err.print(f"{missed} missed, since they came faster than they were read", style="yellow")
    for record in response.tool_calls:
        print_json(record) if as_json else out.print(call_line(record.tool_call), cut=True)
    sys.stdout.flush()
