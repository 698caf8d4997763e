"""The audit row of a tool call. Its keys are a whitelist: the fields of AuditRow, none of which can carry content."""

import time

from onrecord.audit.v1 import audit_pb2

from gateway_svc.audit import redact
from gateway_svc.messages import Scope, ToolCall
from gateway_svc.tools import ToolResult


def build_audit_row(call: ToolCall, result: ToolResult, scope: Scope | None = None) -> audit_pb2.AuditRow:
    raise NotImplementedError
