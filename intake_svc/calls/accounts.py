"""One row of what several accounts tell of a call: a hook's, and telemetry's."""

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2


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


def decided(row: audit_pb2.AuditRow, by_telemetry: audit_pb2.AuditRow) -> audit_pb2.AuditRow:
    """A row with what telemetry tells of who decided."""
    both = audit_pb2.AuditRow()
    both.CopyFrom(row)
    both.decision.CopyFrom(merged_decision(row.decision, by_telemetry.decision))
    return both


def merged_decision(by_hook: common_pb2.Decision, by_telemetry: common_pb2.Decision) -> common_pb2.Decision:
    """What the agent says of who decided, where the hook knows of no more than that a rule asked."""
    if by_telemetry.source in (common_pb2.DECISION_SOURCE_UNSPECIFIED, common_pb2.DECISION_SOURCE_AGENT_OWN):
        return by_hook
    if by_hook.source != common_pb2.DECISION_SOURCE_AGENT_OWN and not is_asked(by_hook):
        return by_hook
    decision = common_pb2.Decision()
    decision.CopyFrom(by_telemetry)
    if by_hook.rule:
        decision.rule, decision.reason, decision.policy_digest = by_hook.rule, by_hook.reason, by_hook.policy_digest
    return decision


def is_asked(decision: common_pb2.Decision) -> bool:
    """Whether a rule had the agent ask, and nobody has told the answer."""
    return decision.source == common_pb2.DECISION_SOURCE_PERSON and decision.verdict == common_pb2.VERDICT_UNSPECIFIED
