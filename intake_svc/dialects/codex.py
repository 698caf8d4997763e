"""Codex: its log events. Its spans are hundreds a run and tell nothing more, so they are not read."""

import json
import shlex
from collections.abc import Iterable

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from intake_svc.dialects.base.decisions import by_agent, by_configuration, by_person, by_rule
from intake_svc.dialects.base.event import Event
from intake_svc.dialects.base.logs import Kind, LogDialect, read_records
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Attributes, Dialect, Table
from intake_svc.dialects.reading import Reading
from recording.calls import Decision
from recording.show import Show

SCOPE = "codex_"
"""What its scopes begin with: codex_otel.log_only, codex_exec, codex_cli_rs."""

DIALECT = Dialect(
    engine="codex",
    agent="codex",
    provider="openai",
    tools={
        "Bash": {"command": Show.COMMAND},  # its hooks' name for the shell
        "exec_command": {"cmd": Show.COMMAND, "workdir": Show.PATH, "yield_time_ms": Show.NUMBER},
        "shell": {"command": Show.COMMAND, "workdir": Show.PATH, "timeout_ms": Show.NUMBER},
        "shell_command": {"command": Show.COMMAND, "workdir": Show.PATH, "timeout_ms": Show.NUMBER},
        "local_shell": {"command": Show.COMMAND, "workdir": Show.PATH, "timeout_ms": Show.NUMBER},
        "view_image": {"path": Show.PATH},
        "read_file": {"file_path": Show.PATH, "offset": Show.NUMBER, "limit": Show.NUMBER},
        "list_dir": {"dir_path": Show.PATH, "depth": Show.NUMBER},
        "grep_files": {"pattern": Show.TEXT, "path": Show.PATH, "include": Show.TEXT},
    },
)
LOGS = Table(
    kind=("event.name",),
    status=("event.kind",),
    time=("event.timestamp",),
    duration_ms=("duration_ms",),
    session=("conversation.id",),
    sequence=("tool_result_seq",),
    tool=("tool_name",),
    call_id=("call_id",),
    arguments=("arguments",),
    mcp_server=("mcp_server",),
    success=("success",),
    error=("error.message",),
    truncated=("output_truncated",),
    decision=("decision",),
    decided_by=("source",),
    model=("model", "slug"),
    input_tokens=("input_token_count",),
    output_tokens=("output_token_count",),
    cached_tokens=("cached_token_count",),
    reasoning_tokens=("reasoning_token_count",),
    http_status=("http.response.status_code",),
)

_REFUSALS = ("denied", "denied_with_network_policy_deny", "abort", "timed_out")


def _kind(attributes: Attributes) -> Kind:
    match attributes.text(LOGS.kind):
        case "codex.tool_result":
            return Kind.RESULT
        case "codex.tool_decision":
            return Kind.DECISION
        case "codex.api_request" if attributes.have(LOGS.error) or (attributes.number(LOGS.http_status) or 0) >= 400:
            return Kind.FAILED_REQUEST
        case "codex.sse_event" | "codex.websocket_event" if attributes.text(LOGS.status) == "response.completed":
            # one request ends with two of these, and one of them has the counts, or the error of a broken answer
            if attributes.number(LOGS.input_tokens) is not None:
                return Kind.REQUEST
            return Kind.FAILED_REQUEST if attributes.have(LOGS.error) else Kind.NOTHING
    return Kind.NOTHING


def _decision(event: Event) -> Decision | None:
    said = event.attributes.word(LOGS.decision)
    if not said:
        return None
    allowed = True if said.startswith("approved") else False if said in _REFUSALS else None
    match event.attributes.word(LOGS.decided_by):
        case "config":
            return by_configuration(allowed=allowed)
        case "user":
            return by_person(event.ended_ms, allowed=allowed)
        case "automatedreviewer" | "automated_reviewer":
            return by_rule("automated_reviewer", allowed=allowed)
    return by_agent(allowed=allowed)


def _arguments(attributes: Attributes) -> str | None:
    """The arguments, with a command that is a list of words as the line that it is."""
    text = attributes.json(LOGS.arguments)
    if text is None or '"command"' not in text or "[" not in text:
        return text
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return text
    words = arguments.get("command") if isinstance(arguments, dict) else None
    if not (isinstance(words, list) and words and all(isinstance(word, str) for word in words)):
        return text
    shell = len(words) == 3 and words[1] in ("-c", "-lc") and words[0].rpartition("/")[2] in ("bash", "sh", "zsh")
    return json.dumps(arguments | {"command": words[2] if shell else shlex.join(words)})


_HOW = LogDialect(dialect=DIALECT, table=LOGS, kind=_kind, decision=_decision, arguments=_arguments)


def read_logs(records: Iterable[LogRecord], agent: Agent) -> Reading:
    """The rows of log events."""
    return read_records(_HOW, records, agent)
