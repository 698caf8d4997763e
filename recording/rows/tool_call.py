"""The audit row of a tool call: opened before the tool runs, closed when it has ended.

The fields of AuditRow are a whitelist; none of them can carry content.
"""

import time
from collections.abc import Collection
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording import compact_json
from recording.args_key import ArgsKey
from recording.calls import UNDECIDED, UNKNOWN_TOOL, Decision, Scope, ToolCall, ToolResult
from recording.redact import POLICY_VERSION, exact
from recording.rows import fit
from recording.rows.who import Lasting, fit_turn, fit_who, lasting
from recording.show import Arguments

_values_of = attrgetter(*(field.name for field in fields(Decision)))
"""Those of a decision as a tuple, whose hash is faster than a dataclass's."""


def open_call(
    call: ToolCall,
    scope: Scope | None = None,
    *,
    offered: bool = True,
    parameters: Collection[str] | None = None,
    arguments: Arguments | None = None,
    key: ArgsKey | None = None,
    mcp_server: tuple[str, str] = ("", ""),
    known_as: str = "",
) -> audit_pb2.AuditRow:
    """The intent: what is known of a call before it runs. The call begins now; its outcome is unset.

    What decides on the call is not known yet: decide() says it, and close_call() needs it.

    Never raises, whatever the model wrote. Without a scope, session_id and engine stay unset. A tool that was not
    `offered` is UNKNOWN_TOOL: the name that the model made up, and those of its arguments, are told by their sizes.
    `parameters` are the names of the arguments that it was offered with, where they are known: others are counted.
    `arguments` is what the row keeps of them; redact.keep_arguments() says it when not given. `key` makes their digest.
    `mcp_server` is the name and the version of the server that has the tool. `known_as` is the name under which
    redact.show_fields() was told of the tool, where it is not the call's: another agent's `read` is not ours.
    """
    row = audit_pb2.AuditRow()
    if scope is not None:
        row.CopyFrom(_fields_of(exact.version(), lasting(scope)))
        fit_turn(row, scope)
    row.id = fit.identifier(call.id)
    value = compact_json.read(call.arguments)
    if offered:
        row.tool_name = fit.tool_name(call.name) or "(none)"
        row.args_summary = fit.args_summary(
            known_as or call.name, call.arguments, parameters, kept=arguments, value=value
        )
    else:
        row.tool_name = UNKNOWN_TOOL
        row.args_summary = fit.unknown_args_summary(call.name, call.arguments)
    row.created_at_ms = time.time_ns() // 1_000_000
    row.provider_call_id = fit.provider_call_id(call.provider_call_id)
    row.redaction_version = POLICY_VERSION
    if key is not None:
        digest = row.args_digest  # Python makes an object of it each time that it is read
        digest.key_id, digest.hmac_sha256 = key.id, key.digest(call.arguments, value)
    if mcp_server[0]:
        row.mcp_server.name, row.mcp_server.version = map(fit.software, mcp_server)
    return row


def decide(row: audit_pb2.AuditRow, decision: Decision) -> None:
    """Says in an intent what decided on its call. The last decision stands. Never raises."""
    row.decision.CopyFrom(_decision(exact.version(), _values_of(decision)))


def close_call(intent: audit_pb2.AuditRow, result: ToolResult) -> audit_pb2.AuditRow:
    """The row of a finished call: a copy of its intent, plus how it ended.

    Never raises, whatever the tool returned. If the result has no start time, the intent's stays.
    """
    row = audit_pb2.AuditRow()
    row.CopyFrom(intent)
    end_call(row, result)
    return row


def end_call(row: audit_pb2.AuditRow, result: ToolResult) -> None:
    """Says in an intent that nobody keeps how its call ended: close_call() without the copy. Never raises."""
    row.outcome = result.outcome
    row.created_at_ms = fit.bounded(result.started_at_ms) or row.created_at_ms
    row.duration_ms = fit.bounded(result.duration_ms)
    if result.result_bytes is not None:
        row.result_bytes = fit.bounded(result.result_bytes)
    row.result_truncated = result.result_truncated
    if result.exit_code is not None:
        row.exit_code = fit.bounded(result.exit_code, -fit.INT32_MAX, fit.INT32_MAX)
    if result.http_status is not None:
        row.http_status = fit.bounded(result.http_status, -fit.INT32_MAX, fit.INT32_MAX)
    if result.error is not None:
        row.error = fit.error(result.error)
    if result.rule:
        # Whoever answered before, it was this that refused.
        decision = row.decision
        decision.verdict, decision.source = common_pb2.VERDICT_DENIED, common_pb2.DECISION_SOURCE_RULE
        decision.rule = fit.name(result.rule)


def build_audit_row(
    call: ToolCall, result: ToolResult, scope: Scope | None = None, decision: Decision = UNDECIDED
) -> audit_pb2.AuditRow:
    """The row of a finished call for which no intent was recorded."""
    row = open_call(call, scope)
    decide(row, decision)
    end_call(row, result)
    return row


@lru_cache(maxsize=1_024)
def _fields_of(_version: int, values: tuple[Any, ...]) -> audit_pb2.AuditRow:
    """What all calls of a session have in common, fitted once. values: of lasting()."""
    who = Lasting(*values)
    row = audit_pb2.AuditRow(
        session_id=fit.identifier(who.session_id), engine=fit.engine(who.engine), model=fit.model(who.model)
    )
    fit_who(row, who)
    return row


@lru_cache(maxsize=256)
def _decision(_version: int, values: tuple[Any, ...]) -> common_pb2.Decision:
    """Fitted once: nearly all calls of a deployment are decided alike."""
    decision = Decision(*values)
    return common_pb2.Decision(
        verdict=decision.verdict,
        source=decision.source,
        decided_by=fit.name(decision.decided_by),
        decided_at_ms=fit.bounded(decision.decided_at_ms),
        waited_ms=fit.bounded(decision.waited_ms),
        rule=fit.name(decision.rule),
        policy_digest=fit.name(decision.policy_digest),
        reason=fit.reason(decision.reason),
    )
