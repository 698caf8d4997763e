"""The result of a call that a stop has ended, and what its row says of it."""

from dataclasses import replace

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2

from gateway_svc.stopping.stop import ended
from gateway_svc.tools.toolbox import denied
from recording.calls import ToolResult
from recording.rows import decide
from service_kit.producing.stop import decision, told, why_denied


def stopped_call(stop: control_pb2.Stop, intent: audit_pb2.AuditRow, *, ran: bool) -> ToolResult:
    """Its result for the model. A call that had not begun was refused by the stop; one that ran was allowed to."""
    if ran:
        return ToolResult(told(stop), common_pb2.OUTCOME_CANCELLED, ended(stop))
    decide(intent, replace(decision(stop), waited_ms=intent.decision.waited_ms))
    return denied(why_denied(stop), told=told(stop))
