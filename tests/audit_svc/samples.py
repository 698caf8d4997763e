"""Rows and requests as producers send them, for tests to change in the one field that they are about."""

import time
from typing import Any

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from uuid_utils import uuid7

from audit_svc.ledger.batch import Batch, read_batch

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
        "tool_call_id": "call_1",
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
        "labels": {"user": "ada", "team": "engines"},
        "created_at_ms": NOW_MS,
        "updated_at_ms": NOW_MS,
    }
    return audit_pb2.SessionRow(**{**row, **fields})


def request(*rows: audit_pb2.AuditRow, **fields: Any) -> audit_pb2.RecordRequest:
    """A batch of tool calls."""
    return audit_pb2.RecordRequest(rows=rows, **fields)


def batch(*rows: audit_pb2.AuditRow, **fields: Any) -> Batch:
    """A batch of tool calls as the store takes it."""
    return read_batch(request(*rows, **fields), NOW_MS)
