"""Rows of hooks' events, by recording.rows."""

import json

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from intake_svc.calls.accounts import is_asked
from intake_svc.calls.call import SIZES
from intake_svc.dialects.base.showing import mcp_server_of
from intake_svc.hooks.event import HookEvent
from intake_svc.hooks.tables import Kind
from recording.args_key import ArgsKey
from recording.calls import AGENT_OWN, Decision, Scope, ToolCall, ToolResult
from recording.redact import show_fields
from recording.rows import close_call, decide, open_call
from recording.show import Show

show_fields(
    {
        # as hooks name them, where telemetry names them otherwise
        "cursor:Shell": {"command": Show.COMMAND, "working_directory": Show.PATH},
        "cursor:Read": {"file_path": Show.PATH, "path": Show.PATH},
        "cursor:Write": {"file_path": Show.PATH, "path": Show.PATH},
        "cursor:Delete": {"file_path": Show.PATH, "path": Show.PATH},
        "cursor:Grep": {"pattern": Show.TEXT, "path": Show.PATH},
    }
)
NOT_TOLD = "the agent does not say how the call ended"
_TOLD = {Kind.FAILED: "the agent tells of a failure", Kind.TIMED_OUT: "the agent tells of a time limit"}


def intent_of(event: HookEvent, id_: str, principal: str, args_key: ArgsKey | None) -> audit_pb2.AuditRow:
    """The row of a call that has not ended."""
    scope = Scope(
        session_id=event.session,
        engine=event.agent,
        model=event.model,
        turn_id=event.subagent or event.turn,
        principal=principal,
        agent=(event.table.agent, event.version),
        source=common_pb2.SOURCE_HOOK,
        parent_turn_id=event.turn if event.subagent else "",
    )
    row = open_call(
        ToolCall(id_, event.call_id, event.tool, event.arguments or ""),
        scope,
        offered=bool(event.tool),
        key=args_key if event.arguments is not None else None,
        mcp_server=(mcp_server_of(event.tool), ""),
        known_as=f"{event.agent}:{event.tool}",
    )
    if event.arguments is None:
        sizes = {"count": event.arguments_count, "bytes": event.arguments_bytes}
        row.args_summary = f"{SIZES}{json.dumps(sizes)}}}" if event.arguments_bytes is not None else ""
    row.created_at_ms = event.at_ms
    row.times_observed = True
    decide(row, AGENT_OWN)
    return row


def ended(intent: audit_pb2.AuditRow, event: HookEvent) -> audit_pb2.AuditRow:
    """The row of a call that an event says has ended. Its outcome is unset where the agent does not say how."""
    duration = event.duration_ms if event.duration_ms is not None else max(0, event.at_ms - intent.created_at_ms)
    result = ToolResult(
        text="",
        outcome=_outcome(event),
        error=_TOLD.get(event.kind),
        exit_code=event.exit_code,
        result_bytes=event.result_bytes,
        started_at_ms=intent.created_at_ms,
        duration_ms=0 if event.kind is Kind.DENIED else duration,
    )
    row = close_call(intent, result)
    decision = row.decision
    if event.kind is Kind.DENIED:
        decision.verdict = common_pb2.VERDICT_DENIED
    elif is_asked(decision):  # it ran, so somebody has let it
        decision.verdict = common_pb2.VERDICT_ALLOWED
    return row


def refused(intent: audit_pb2.AuditRow, decision: Decision) -> audit_pb2.AuditRow:
    """The row of a call that the door has the agent refuse."""
    decide(intent, decision)
    return close_call(intent, ToolResult(text="", outcome=common_pb2.OUTCOME_DENIED))


def _outcome(event: HookEvent) -> common_pb2.Outcome.ValueType:
    if event.kind is Kind.DENIED:
        return common_pb2.OUTCOME_DENIED
    if event.is_interrupted:
        return common_pb2.OUTCOME_CANCELLED
    if event.kind is Kind.TIMED_OUT:
        return common_pb2.OUTCOME_TIMED_OUT
    if event.kind is Kind.FAILED:
        return common_pb2.OUTCOME_FAILED
    return common_pb2.OUTCOME_SUCCEEDED if event.is_known else common_pb2.OUTCOME_UNSPECIFIED
