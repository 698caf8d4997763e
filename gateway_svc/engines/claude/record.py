"""What this engine needs for recording, passed in: without it the engine still runs, and recording is not imported."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from onrecord.audit.v1 import audit_pb2

from recording.calls import Scope, ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class ClaudeAudit:
    """The functions of recording, bound to the deployment's one logger. None of them raises."""

    open_call: Callable[[ToolCall, Scope], audit_pb2.AuditRow]
    close_call: Callable[[audit_pb2.AuditRow, ToolResult], audit_pb2.AuditRow]
    cost_row: Callable[..., audit_pb2.CostRow]
    intend: Callable[[audit_pb2.AuditRow], str | None]
    """Takes the intent of a call; returns why its tool must not run, or None when it may."""
    synced: Callable[[], Awaitable[str | None]]
    """Waits until intents are synced where that is promised; returns as intend does."""
    record: Callable[[audit_pb2.AuditRow | audit_pb2.CostRow], None]
