"""The command resume, which knows from the ledger what was lifted before."""

from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.terminal.client import LOOKED_THROUGH, all_rows, connect
from audit_svc.terminal.options import Source
from gateway_svc.stopping import commands
from gateway_svc.terminal.calling import DEFAULT_TARGET, Json, Target
from service_kit.terminal.failures import Failed
from service_kit.terminal.ids import LAST, fitting, too_short
from service_kit.times import show_time


def resume(
    stop_id: commands.StopId,
    reason: commands.WhyResumed,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Lift a stop, at all gateways that share it. What it ended stays ended."""
    try:
        commands.resume(stop_id, reason, as_json, target)
    except commands.NotInForce as failed:
        if stop_id != LAST and not too_short(stop_id):
            failed.sentence = _lifted_already(stop_id) or failed.sentence
        raise


def _lifted_already(stop_id: str) -> str:
    """A sentence on the stop that stop_id stands for, if the ledger says that it was lifted; empty otherwise."""
    wanted = questions_pb2.ControlFilter(kinds=[audit_pb2.CONTROL_KIND_RESUME])
    request = questions_pb2.ListControlsRequest(filter=wanted)
    try:
        with connect(Source()) as client:
            lifted = {
                record.control.stop_id: record.control
                for record in all_rows(client, "ListControls", request, "controls", LOOKED_THROUGH)
            }
    except Failed:  # the ledger is away, and the gateway has said what it knows
        return ""
    found = fitting(stop_id, lifted)
    if len(found) != 1:
        return ""
    control = lifted[found[0]]
    by = f" by {control.principal}" if control.principal else ""
    return f"the stop {control.stop_id} ({control.scope}) was already lifted, at {show_time(control.at_ms)}{by}"
