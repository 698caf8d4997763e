"""Rows that a spool could not accept, and the row that reports them."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.ids import uuid7
from recording.logger import Row

GAP_TOOL_NAME = "onrecord.gap"


@dataclass(slots=True)
class Gap:
    """The rows that went unrecorded in one outage of the spool."""

    id: bytes
    """The id of the gap row, chosen at the start, so that the gap is reported exactly once."""
    from_ms: int
    to_ms: int
    tool_calls: int = 0
    model_requests: int = 0
    session_states: int = 0
    """Acts of control are counted with them."""

    @classmethod
    def begin(cls) -> "Gap":
        """Starts a gap now."""
        now = time.time_ns() // 1_000_000
        return cls(uuid7().bytes, now, now)

    @property
    def rows(self) -> int:
        """The number of rows of all kinds."""
        return self.tool_calls + self.model_requests + self.session_states

    def count(self, row: Row | None) -> None:
        """Counts an unrecorded row; None, of a kind that this version does not know, as a tool call."""
        self.to_ms = max(self.to_ms, time.time_ns() // 1_000_000)
        if row is None or isinstance(row, audit_pb2.AuditRow):
            self.tool_calls += 1
        elif isinstance(row, audit_pb2.CostRow):
            self.model_requests += 1
        else:
            self.session_states += 1

    def joined(self, other: "Gap") -> "Gap":
        """Both gaps as one, with this one's id."""
        return Gap(
            self.id,
            min(self.from_ms, other.from_ms),
            max(self.to_ms, other.to_ms),
            self.tool_calls + other.tool_calls,
            self.model_requests + other.model_requests,
            self.session_states + other.session_states,
        )

    def row(self, reason: str = "the spool could not take or keep them") -> audit_pb2.AuditRow:
        """The gap row: the same bytes for the same gap."""
        return audit_pb2.AuditRow(
            id=str(UUID(bytes=self.id)),
            tool_name=GAP_TOOL_NAME,
            outcome=common_pb2.OUTCOME_FAILED,
            args_summary=f'{{"tool_calls": {self.tool_calls}, "model_requests": {self.model_requests}, '
            f'"session_states": {self.session_states}, "from_ms": {self.from_ms}, "to_ms": {self.to_ms}}}',
            error=f"{self.tool_calls} tool calls between {_iso(self.from_ms)} and {_iso(self.to_ms)} went unrecorded: "
            f"{reason}",
            created_at_ms=self.from_ms,
            source=common_pb2.SOURCE_OWN_LOOP,
            decision=common_pb2.Decision(source=common_pb2.DECISION_SOURCE_NONE),
            duration_ms=self.to_ms - self.from_ms,
        )


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
