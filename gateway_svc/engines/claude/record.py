"""What the record offers to this engine, passed in: the engine runs without it, and then it is not even imported."""

from collections.abc import Callable
from dataclasses import dataclass

from onrecord.audit.v1 import audit_pb2

from recording.calls import Scope, ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class ClaudeAudit:
    """The functions of recording, bound to the deployment's one logger. None of them raises."""

    open_call: Callable[[ToolCall, Scope], audit_pb2.AuditRow]
    close_call: Callable[[audit_pb2.AuditRow, ToolResult], audit_pb2.AuditRow]
    cost_row: Callable[..., audit_pb2.CostRow]
    intend: Callable[[audit_pb2.AuditRow], object]
    """Takes the intent of a call. What it returns is not heeded: the program runs its tools whoever refuses."""
    record: Callable[[audit_pb2.AuditRow | audit_pb2.CostRow], None]
