"""Rows of hooks' events, by recording.rows."""

import json
from hashlib import sha256

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

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


def row_id(key: str, at_ms: int) -> str:
    """The id of the row of a call that is known by its key, as a UUID of version 8."""
    digits = sha256(f"{key} {at_ms}".encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-8{digits[12:15]}-8{digits[15:18]}-{digits[18:30]}"


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
        row.args_summary = json.dumps({"$arguments": sizes}) if event.arguments_bytes is not None else ""
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
        error="the agent tells of a failure" if event.kind is Kind.FAILED else None,
        exit_code=event.exit_code,
        result_bytes=event.result_bytes,
        started_at_ms=intent.created_at_ms,
        duration_ms=0 if event.kind is Kind.DENIED else duration,
    )
    row = close_call(intent, result)
    decision = row.decision
    if event.kind is Kind.DENIED:
        decision.verdict = common_pb2.VERDICT_DENIED
    elif _is_asked(decision):  # it ran, so somebody has let it
        decision.verdict = common_pb2.VERDICT_ALLOWED
    return row


def refused(intent: audit_pb2.AuditRow, decision: Decision) -> audit_pb2.AuditRow:
    """The row of a call that the door has the agent refuse."""
    decide(intent, decision)
    return close_call(intent, ToolResult(text="", outcome=common_pb2.OUTCOME_DENIED))


def interrupted(intent: audit_pb2.AuditRow, why: str) -> audit_pb2.AuditRow:
    """The row of a call of which nobody says how it ended."""
    row = audit_pb2.AuditRow()
    row.CopyFrom(intent)
    row.outcome = common_pb2.OUTCOME_INTERRUPTED
    row.error = why
    return row


def merged(by_hook: audit_pb2.AuditRow, by_telemetry: audit_pb2.AuditRow) -> audit_pb2.AuditRow:
    """One row of both accounts of a call: the hook's, with what only telemetry tells.

    Where the first account is telemetry's decision, the row is that of the result, with the decision and its id.
    """
    row = audit_pb2.AuditRow()
    row.CopyFrom(by_telemetry)
    if by_hook.source == common_pb2.SOURCE_OTLP:
        row.id = by_hook.id
        row.decision.CopyFrom(merged_decision(by_telemetry.decision, by_hook.decision))
        return row
    row.ClearField("decision")
    row.MergeFrom(by_hook)  # which leaves what a hook does not say
    if by_telemetry.HasField("result_bytes"):
        row.result_bytes = by_telemetry.result_bytes
    if by_telemetry.turn_id and not by_hook.parent_turn_id:
        row.turn_id, row.parent_turn_id = by_telemetry.turn_id, by_telemetry.parent_turn_id
    row.decision.CopyFrom(merged_decision(by_hook.decision, by_telemetry.decision))
    return row


def merged_decision(by_hook: common_pb2.Decision, by_telemetry: common_pb2.Decision) -> common_pb2.Decision:
    """What the agent says of who decided, where the hook knows of no more than that a rule asked."""
    if by_telemetry.source in (common_pb2.DECISION_SOURCE_UNSPECIFIED, common_pb2.DECISION_SOURCE_AGENT_OWN):
        return by_hook
    if by_hook.source != common_pb2.DECISION_SOURCE_AGENT_OWN and not _is_asked(by_hook):
        return by_hook
    decision = common_pb2.Decision()
    decision.CopyFrom(by_telemetry)
    if by_hook.rule:
        decision.rule, decision.reason, decision.policy_digest = by_hook.rule, by_hook.reason, by_hook.policy_digest
    return decision


def _is_asked(decision: common_pb2.Decision) -> bool:
    """Whether a rule had the agent ask, and nobody has told the answer."""
    return decision.source == common_pb2.DECISION_SOURCE_PERSON and decision.verdict == common_pb2.VERDICT_UNSPECIFIED


def _outcome(event: HookEvent) -> common_pb2.Outcome.ValueType:
    if event.kind is Kind.DENIED:
        return common_pb2.OUTCOME_DENIED
    if event.is_interrupted:
        return common_pb2.OUTCOME_CANCELLED
    if event.kind is Kind.FAILED:
        return common_pb2.OUTCOME_FAILED
    return common_pb2.OUTCOME_SUCCEEDED if event.is_known else common_pb2.OUTCOME_UNSPECIFIED
