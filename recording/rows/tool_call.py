"""The audit row of a tool call. Its keys are a whitelist: the fields of AuditRow, none of which can carry content.

Every text is made to fit its field (see audit.proto), since a row that the ledger must refuse is a call off the record.
"""

import time

from onrecord.audit.v1 import audit_pb2

from recording import redact
from recording.calls import Scope, ToolCall, ToolResult

MAX_ID_CHARACTERS = 128
MAX_ENGINE_CHARACTERS = 64
MAX_NAME_CHARACTERS = 128
MAX_MODEL_CHARACTERS = 256
MAX_TOOL_CALL_ID_CHARACTERS = 256
MAX_ERROR_BYTES = 2_048

_INT32 = 2**31 - 1
_INT64 = 2**63 - 1


def build_intent(call: ToolCall, scope: Scope | None = None) -> audit_pb2.AuditRow:
    """What is known of a call before it runs; begun now. Its outcome is unset."""
    row = audit_pb2.AuditRow(
        id=_identifier(call.id),
        tool_name=redact.redact_name(call.name, MAX_NAME_CHARACTERS) or "(none)",
        args_summary=redact.summarize_args(call.name, call.arguments),
        created_at_ms=_now_ms(),
        tool_call_id=redact.redact_name(call.tool_call_id, MAX_TOOL_CALL_ID_CHARACTERS),
        redaction_version=redact.POLICY_VERSION,
    )
    if scope is not None:
        row.session_id = _identifier(scope.session_id)
        row.turn_id = _identifier(scope.turn_id)
        row.engine = redact.redact_name(scope.engine, MAX_ENGINE_CHARACTERS)
        row.model = redact.redact_name(scope.model, MAX_MODEL_CHARACTERS)
        row.trace_id = scope.trace_id
    return row


def build_audit_row(call: ToolCall, result: ToolResult, scope: Scope | None = None) -> audit_pb2.AuditRow:
    """The row of a call that has ended. A result that does not say when the call began makes it begin now.

    Never raises, whatever a model wrote or a tool returned. Without a scope, session_id and engine stay unset.
    """
    row = build_intent(call, scope)
    row.outcome = result.outcome
    row.created_at_ms = _bounded(result.started_at_ms, 0, _INT64) or row.created_at_ms
    row.duration_ms = _bounded(result.duration_ms, 0, _INT64)
    row.result_bytes = _bounded(result.result_bytes, 0, _INT64)
    row.result_truncated = result.result_truncated
    if result.exit_code is not None:
        row.exit_code = _bounded(result.exit_code, -_INT32, _INT32)
    if result.http_status is not None:
        row.http_status = _bounded(result.http_status, -_INT32, _INT32)
    if result.error is not None:
        row.error = redact.redact_text(result.error, MAX_ERROR_BYTES)
    return row


def _identifier(text: str) -> str:
    """An id of the gateway's own, which is kept as it is, as far as its field can hold it."""
    return redact.clean(text[:MAX_ID_CHARACTERS])


def _bounded(number: int, lowest: int, highest: int) -> int:
    return max(lowest, min(number, highest))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
