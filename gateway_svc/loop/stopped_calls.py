"""The result of a call that a stop has ended, and what its row says of it."""

from dataclasses import replace

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from gateway_svc.stopping.stop import decision, told
from gateway_svc.stopping.turns import CallStopped
from gateway_svc.tools.toolbox import denied
from recording.calls import ToolResult
from recording.rows import decide


def stopped_call(stopped: CallStopped, intent: audit_pb2.AuditRow) -> ToolResult:
    """Its result for the model. A call that had not begun was refused by the stop; one that ran was allowed to."""
    stop = stopped.stop
    if stopped.ran:
        return ToolResult(told(stop), common_pb2.OUTCOME_CANCELLED, f"the stop {stop.id} ended the call")
    decide(intent, replace(decision(stop), waited_ms=intent.decision.waited_ms))
    return denied(f"the stop {stop.id} does not allow the call", told=told(stop))
