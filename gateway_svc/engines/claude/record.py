"""What the record offers to this engine, passed in: the engine runs without it, and then it is not even imported."""

from collections.abc import Callable
from dataclasses import dataclass

from onrecord.audit.v1 import audit_pb2

from recording.calls import Scope, ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class ClaudeAudit:
    """The functions of recording, bound to the deployment's one logger. None of them raises."""

    build_intent: Callable[[ToolCall, Scope], audit_pb2.AuditRow]
    build_audit_row: Callable[[ToolCall, ToolResult, Scope], audit_pb2.AuditRow]
    intend: Callable[[audit_pb2.AuditRow], object]
    """Takes the intent of a call. What it returns is not heeded: the program runs its tools whoever refuses."""
    record: Callable[[audit_pb2.AuditRow | audit_pb2.CostRow], None]
    redact_text: Callable[[str], str]
    """An error as it may be recorded."""
    redact_name: Callable[[str, int], str]
    """A model's name as it may be recorded, at most so many characters of it."""
