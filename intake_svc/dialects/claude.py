"""Claude Code: its log events, and its spans where only those come.

https://code.claude.com/docs/en/monitoring-usage says what they are; the tables follow what 2.1.197 sent.
"""

from collections.abc import Iterable

from onrecord.common.v1 import common_pb2
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects.base.decisions import by_agent, by_configuration, by_person, by_rule
from intake_svc.dialects.base.event import Event, of_span
from intake_svc.dialects.base.logs import FAILED, Kind, LogDialect, kinds, read_records
from intake_svc.dialects.base.results import refused, result_of, unknown_end
from intake_svc.dialects.base.rows import Rows
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Dialect, Table
from intake_svc.dialects.reading import Reading
from recording.calls import Decision, Failure, Scope
from recording.show import Show

LOG_SCOPE = "com.anthropic.claude_code.events"
SPAN_SCOPE = "com.anthropic.claude_code.tracing"

_FILE = {"file_path": Show.PATH}
DIALECT = Dialect(
    engine="claude",
    agent="claude-code",
    provider="anthropic",
    input_excludes_cache=True,
    tools={
        "Bash": {
            "command": Show.COMMAND,
            "full_command": Show.COMMAND,
            "bash_command": Show.WORD,
            "timeout": Show.NUMBER,
            "run_in_background": Show.NUMBER,
        },
        "Read": {**_FILE, "offset": Show.NUMBER, "limit": Show.NUMBER},
        "Write": _FILE,
        "Edit": {**_FILE, "replace_all": Show.NUMBER},
        "MultiEdit": _FILE,
        "NotebookEdit": {"notebook_path": Show.PATH, "cell_type": Show.WORD, "edit_mode": Show.WORD},
        "Glob": {"pattern": Show.TEXT, "path": Show.PATH},
        "Grep": {"pattern": Show.TEXT, "path": Show.PATH, "glob": Show.TEXT, "type": Show.WORD},
        "WebFetch": {"url": Show.URL},
    },
)
LOGS = Table(
    kind=("event.name",),
    time=("event.timestamp",),
    duration_ms=("duration_ms",),
    session=("session.id",),
    turn=("prompt.id",),
    subagent=("agent_id",),
    parent=("parent_agent_id",),
    sequence=("event.sequence",),
    counted_by=("user.id",),  # of an installation, whose process counts on after /clear
    tool=("tool_name",),
    call_id=("tool_use_id",),
    arguments=("tool_input", "tool_parameters"),
    success=("success",),
    error_type=("error_type",),
    result_bytes=("tool_result_size_bytes",),
    decision=("decision", "decision_type"),
    decided_by=("source", "decision_source"),
    model=("model",),
    input_tokens=("input_tokens",),
    output_tokens=("output_tokens",),
    cached_tokens=("cache_read_tokens",),
    cache_write_tokens=("cache_creation_tokens",),
    cost_micros=("cost_usd_micros",),
    cost_usd=("cost_usd",),
    http_status=("status_code",),
)
SPANS = Table(
    kind=("span.type",),
    session=("session.id",),
    subagent=("agent_id",),
    parent=("parent_agent_id",),
    tool=("tool_name",),
    call_id=("tool_use_id", "gen_ai.tool.call.id"),
    argument=("full_command", "file_path"),
    success=("success",),
    error_type=("error_class", "error_type"),  # of 2.1.268 and later: before, it was where a message may be
    decision=("decision",),
    decided_by=("source",),
    model=("model",),
    requested_model=("gen_ai.request.model",),
    input_tokens=("input_tokens",),
    output_tokens=("output_tokens",),
    cached_tokens=("cache_read_tokens",),
    cache_write_tokens=("cache_creation_tokens",),
    http_status=("status_code",),
)
_KINDS = {
    "tool_result": Kind.RESULT,
    "tool_decision": Kind.DECISION,
    "api_request": Kind.REQUEST,
    "api_error": Kind.FAILED_REQUEST,
}
_KINDS |= {f"claude_code.{word}": kind for word, kind in _KINDS.items()}  # as its bodies have it
_PERSON = ("user_permanent", "user_temporary", "user_reject", "user_abort")


def _decision(event: Event, table: Table = LOGS) -> Decision | None:
    said = event.attributes.word(table.decision)
    if said in ("", "unknown"):
        return None
    allowed = {"accept": True, "reject": False}.get(said)
    match event.attributes.word(table.decided_by):
        case "config":
            return by_configuration(allowed=allowed)
        case "hook":
            return by_rule("hook", allowed=allowed)
        case person if person in _PERSON:
            return by_person(event.ended_ms, allowed=allowed)
    return by_agent(allowed=allowed)


def _scope(rows: Rows, event: Event) -> Scope:
    """A sub-agent's events are a turn of their own, whose parent is the agent or the prompt that began it."""
    attributes = event.attributes
    turn, subagent = attributes.text(rows.table.turn), attributes.text(rows.table.subagent)
    if not subagent:
        return rows.scope(event)
    return rows.scope(event, turn=subagent, parent_turn=attributes.text(rows.table.parent) or turn)


_HOW = LogDialect(
    dialect=DIALECT,
    table=LOGS,
    kind=kinds(_KINDS, LOGS),
    decision=_decision,
    scope=_scope,
    arguments=lambda attributes: attributes.json(LOGS.arguments),
)


def read_logs(records: Iterable[LogRecord], agent: Agent) -> Reading:
    """The rows of log events."""
    return read_records(_HOW, records, agent)


def read_spans(spans: Iterable[Span], agent: Agent) -> Reading:
    """The rows of spans: `tool` has the call, and its children `tool.execution` how it ended, and what decided."""
    rows = Rows(DIALECT, SPANS, agent)
    tools, parts = [], {}
    for span in spans:
        event = of_span(span, SPANS)
        match event.attributes.text(SPANS.kind):
            case "tool":
                tools.append((span.span_id, event))
            case "tool.execution" | "tool.blocked_on_user" as part:
                parts[span.parent_span_id, part] = event
                rows.ignore()
            case "llm_request":
                error = event.attributes.text(SPANS.error_type) or event.error_type
                failed = event.failed or bool(error) or event.attributes.flag(SPANS.success) is False
                status = event.attributes.number(SPANS.http_status)
                rows.cost(event, scope=_scope(rows, event), failure=Failure(FAILED, status) if failed else None)
            case _:
                rows.ignore()
    for span_id, event in tools:
        execution, asked = parts.get((span_id, "tool.execution")), parts.get((span_id, "tool.blocked_on_user"))
        success = execution.attributes.flag(SPANS.success) if execution else None
        decision = _decision(asked, SPANS) if asked else None
        arguments = event.attributes.together(SPANS.argument)
        if decision is not None and decision.verdict == common_pb2.VERDICT_DENIED:
            result = refused(event)
        elif execution is None or success is None or not (success is False or event.says_end):
            result = unknown_end(event)
        else:
            error = execution.attributes.text(SPANS.error_type) or execution.error_type
            # its times are those of the tool, without the wait for leave
            result = result_of(SPANS, execution, failed=not success or event.failed, error=error)
        rows.call(event, result, decision, scope=_scope(rows, event), arguments=arguments)
    return rows.reading()
