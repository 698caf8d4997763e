"""What this engine needs for recording, passed in: without it the engine still runs, and recording is not imported."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from onrecord.audit.v1 import audit_pb2

from recording.calls import Decision, Scope, ToolCall, ToolResult


class OpenCall(Protocol):
    """recording.rows.open_call."""

    def __call__(
        self, call: ToolCall, scope: Scope, *, offered: bool, mcp_server: tuple[str, str]
    ) -> audit_pb2.AuditRow:
        """The intent of a call."""
        ...


@dataclass(frozen=True, slots=True)
class ClaudeAudit:
    """The functions of recording, bound to the deployment's one logger. None of them raises."""

    open_call: OpenCall
    decide: Callable[[audit_pb2.AuditRow, Decision], None]
    close_call: Callable[[audit_pb2.AuditRow, ToolResult], audit_pb2.AuditRow]
    cost_row: Callable[..., audit_pb2.CostRow]
    intend: Callable[[audit_pb2.AuditRow], str | None]
    """Takes the intent of a call; returns why its tool must not run, or None when it may."""
    synced: Callable[[], Awaitable[str | None]]
    """Waits until intents are synced where that is promised; returns as intend does."""
    record: Callable[[audit_pb2.AuditRow | audit_pb2.CostRow], None]
