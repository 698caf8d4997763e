"""Rows and requests as producers send them, for tests to change in the one field that they are about."""

import time
from typing import Any

from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from uuid_utils import uuid7

from audit_svc.ledger.batch import Batch, read_batch
from recording.rows import ROW_VERSION

NOW_MS = time.time_ns() // 1_000_000


def audit_row(**fields: Any) -> audit_pb2.AuditRow:
    """A complete row of a command."""
    row: dict[str, Any] = {
        "id": str(uuid7()),
        "session_id": "session-1",
        "engine": "ollama",
        "tool_name": "bash",
        "args_summary": '{"command": "ls"}',
        "duration_ms": 12,
        "exit_code": 0,
        "result_bytes": 345,
        "created_at_ms": NOW_MS,
        "outcome": common_pb2.OUTCOME_SUCCEEDED,
        "model": "llama3.2:3b",
        "provider_call_id": "call_1",
        "turn_id": "turn-1",
        "redaction_version": 1,
    }
    return audit_pb2.AuditRow(**{**row, **fields})


def cost_row(**fields: Any) -> audit_pb2.CostRow:
    """A complete row of a model request."""
    row: dict[str, Any] = {
        "id": str(uuid7()),
        "session_id": "session-1",
        "turn_id": "turn-1",
        "engine": "openai",
        "model": "gpt-x-2026",
        "requested_model": "gpt-x",
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_micros": 42,
        "duration_ms": 900,
        "created_at_ms": NOW_MS,
    }
    return audit_pb2.CostRow(**{**row, **fields})


def session_row(**fields: Any) -> audit_pb2.SessionRow:
    """A complete row of a session."""
    row: dict[str, Any] = {
        "id": "session-1",
        "revision": 1,
        "engine": "ollama",
        "model": "llama3.2:3b",
        "status": common_pb2.SESSION_STATUS_RUNNING,
        "turns": 1,
        "usage": {"requests": 2, "input_tokens": 100, "known_cost_micros": 42},
        "labels": {"user": "ada", "team": "engines"},
        "created_at_ms": NOW_MS,
        "updated_at_ms": NOW_MS,
    }
    return audit_pb2.SessionRow(**{**row, **fields})


def record_request(*, producer_id: str = "p", first: int = 0, last: int = 0, **fields: Any) -> audit_pb2.RecordRequest:
    """A batch of rows of any kinds; with last, of the producer's numbers first to last, or last alone."""
    if last:
        fields["range"] = audit_pb2.SequenceRange(producer_id=producer_id, first=first or last, last=last)
    return audit_pb2.RecordRequest(row_version=ROW_VERSION, **fields)


def request(*rows: audit_pb2.AuditRow, **fields: Any) -> audit_pb2.RecordRequest:
    """A batch of tool calls."""
    return record_request(tool_calls=rows, **fields)


def batch(*rows: audit_pb2.AuditRow, **fields: Any) -> Batch:
    """A batch of tool calls as the store takes it."""
    return read_batch(request(*rows, **fields), NOW_MS)


def question(kind: type[Message], **fields: Any) -> Any:
    """A question: fields that its type lacks are conditions of its filter."""
    own = set(kind.DESCRIPTOR.fields_by_name)
    conditions = {name: value for name, value in fields.items() if name not in own}
    given = {name: value for name, value in fields.items() if name in own}
    return kind(**given, **({"filter": conditions} if conditions else {}))


def row_of(record: Any) -> Any:
    """The producer's row of a record; anything else is itself."""
    first, *_, last = (field.name for field in record.DESCRIPTOR.fields)
    return getattr(record, first) if last == "receipt" else record
