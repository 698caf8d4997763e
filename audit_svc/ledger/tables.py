"""The columns of the ledger's tables, in their order."""

from collections.abc import Sequence

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger.columns import UNKNOWN, Choice, Column, Digest, Flag, Number, Text, Time, enum_names
from recording import durations

SOURCES = enum_names("SOURCE_", common_pb2.Source.items())
VERDICTS = enum_names("VERDICT_", common_pb2.Verdict.items())
DECISION_SOURCES = enum_names("DECISION_SOURCE_", common_pb2.DecisionSource.items())
CONTROL_KINDS = enum_names("CONTROL_KIND_", audit_pb2.ControlKind.items())
OUTCOMES = enum_names("OUTCOME_", common_pb2.Outcome.items())
WITHOUT_DURATION = tuple(str(OUTCOMES[number]) for number in sorted(durations.WITHOUT_DURATION))
"""The outcomes whose calls are in no histogram of durations."""


def _unset(name: str, limit: int, field: str = "") -> Text:
    """A name that is null in the table where it is empty."""
    return Text(name, field, limit=limit, zero_is_null=True)


WHO_COLUMNS: tuple[Column, ...] = (
    _unset("principal", 128),
    _unset("on_behalf_of", 128),
    Choice("source", names=SOURCES, required=False, zero_is_null=True),
    _unset("parent_turn_id", 128),
    _unset("agent", 64, "agent.name"),
    _unset("agent_version", 64, "agent.version"),
)
"""Of tool calls and model requests. Null in the table where they are not set, as in rows of before."""

TOOL_CALL_COLUMNS: tuple[Column, ...] = (
    Text("id", limit=128, required=True),
    Text("session_id", limit=128, default=UNKNOWN),
    Text("engine", limit=64, default=UNKNOWN),
    Text("tool_name", limit=128, required=True),
    Text("args_summary", limit=4096, in_bytes=True, is_name=False),
    Number("duration_ms"),
    Number("exit_code", optional=True, minimum=-(2**31)),
    Number("http_status", zero_is_null=True),
    Text("error", limit=2048, in_bytes=True, is_name=False, zero_is_null=True),
    Flag("result_truncated"),
    Number("result_bytes", optional=True),
    Time("created_at", field="created_at_ms"),
    Choice("outcome", names=OUTCOMES),
    Text("model", limit=256),
    Text("provider_call_id", limit=256),
    Text("turn_id", limit=128),
    Number("redaction_version"),
    Flag("times_observed"),
    Flag("shadow"),
    Text("trace_id", limit=32),
    *WHO_COLUMNS,
    _unset("mcp_server", 64, "mcp_server.name"),
    _unset("mcp_server_version", 64, "mcp_server.version"),
    _unset("args_digest_key", 64, "args_digest.key_id"),
    Digest("args_digest", "args_digest.hmac_sha256", zero_is_null=True),
    Choice("verdict", "decision.verdict", names=VERDICTS, required=False, zero_is_null=True),
    Choice("decision_source", "decision.source", names=DECISION_SOURCES, required=False, zero_is_null=True),
    _unset("decided_by", 128, "decision.decided_by"),
    Number("decided_at", "decision.decided_at_ms", zero_is_null=True),
    Number("waited_ms", "decision.waited_ms", zero_is_null=True),
    _unset("rule", 128, "decision.rule"),
    _unset("policy_digest", 128, "decision.policy_digest"),
    Text("reason", "decision.reason", limit=256, in_bytes=True, is_name=False, zero_is_null=True),
    Flag("unconfined", zero_is_null=True),
)

COST_COLUMNS: tuple[Column, ...] = (
    Text("id", limit=128, required=True),
    Text("session_id", limit=128, default=UNKNOWN),
    Text("turn_id", limit=128),
    Text("engine", limit=64, default=UNKNOWN),
    Text("model", limit=256),
    Text("requested_model", limit=256),
    Number("input_tokens"),
    Number("output_tokens"),
    Number("cached_input_tokens"),
    Number("reasoning_tokens"),
    Number("cost_micros", optional=True),
    Number("duration_ms"),
    Text("error", limit=2048, in_bytes=True, is_name=False, zero_is_null=True),
    Time("created_at", field="created_at_ms"),
    Flag("usage_incomplete"),
    Flag("context_exceeded"),
    Flag("shadow"),
    Text("trace_id", limit=32),
    Flag("cost_reported", zero_is_null=True),
    *WHO_COLUMNS,
)

CONTROL_COLUMNS: tuple[Column, ...] = (
    Text("id", limit=128, required=True),
    Choice("kind", names=CONTROL_KINDS),
    _unset("principal", 128),
    Text("scope", limit=1024),
    _unset("policy_digest", 128),
    Text("reason", limit=256, in_bytes=True, is_name=False, zero_is_null=True),
    Time("created_at", field="at_ms"),
    _unset("stop_id", 128),
)

SESSION_COLUMNS: tuple[Column, ...] = (
    Text("id", limit=128, required=True),
    Number("revision"),
    Text("engine", limit=64),
    Text("model", limit=256),
    Choice(
        "status",
        names=enum_names("SESSION_STATUS_", common_pb2.SessionStatus.items()),
        required=False,
        required_with="revision",
    ),
    Number("turns"),
    Number("tool_calls"),
    Number("requests", field="usage.requests"),
    Number("input_tokens", field="usage.input_tokens"),
    Number("output_tokens", field="usage.output_tokens"),
    Number("cached_input_tokens", field="usage.cached_input_tokens"),
    Number("reasoning_tokens", field="usage.reasoning_tokens"),
    Number("known_cost_micros", field="usage.known_cost_micros"),
    Number("unpriced_requests", field="usage.unpriced_requests"),
    Time("created_at", field="created_at_ms"),
    Time("updated_at", field="updated_at_ms"),
)


def _place(columns: Sequence[Column], name: str) -> int:
    return [column.name for column in columns].index(name)


CALL_BEGAN = _place(TOOL_CALL_COLUMNS, "created_at")
REQUEST_BEGAN = _place(COST_COLUMNS, "created_at")
SESSION_UPDATED = _place(SESSION_COLUMNS, "updated_at")
