"""Gemini CLI and Qwen Code, which began as a copy of it: their log events. Their spans tell the same once more."""

from collections.abc import Iterable
from dataclasses import replace

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from intake_svc.dialects.base.decisions import by_agent, by_configuration, by_person
from intake_svc.dialects.base.event import Event
from intake_svc.dialects.base.logs import Kind, LogDialect, kinds, read_records
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Dialect, Table
from intake_svc.dialects.reading import Reading
from recording.calls import Decision
from recording.show import Show

GEMINI_SCOPE = "gemini-cli"
QWEN_SCOPE = "qwen-code"

_FILE = {"file_path": Show.PATH, "absolute_path": Show.PATH}
_FOLDER = {"path": Show.PATH, "dir_path": Show.PATH}
_GREP = {"pattern": Show.TEXT, "include": Show.TEXT, "glob": Show.TEXT, **_FOLDER}
GEMINI = Dialect(
    engine="gemini",
    agent="gemini-cli",
    provider="google",
    output_excludes_reasoning=True,
    version_is_the_agents=False,  # it is that of Node.js
    tools={
        "run_shell_command": {
            "command": Show.COMMAND,
            "directory": Show.PATH,
            "dir_path": Show.PATH,
            "is_background": Show.NUMBER,
        },
        "read_file": {**_FILE, "offset": Show.NUMBER, "limit": Show.NUMBER},
        "write_file": _FILE,
        "replace": _FILE,
        "edit": {**_FILE, "replace_all": Show.NUMBER},
        "list_directory": _FOLDER,
        "glob": {"pattern": Show.TEXT, **_FOLDER},
        "search_file_content": _GREP,
        "grep_search": _GREP,
        "web_fetch": {"url": Show.URL},
    },
)
QWEN = replace(
    GEMINI,
    engine="qwen",
    agent="qwen-code",
    provider=None,
    output_excludes_reasoning=False,
    version_is_the_agents=True,
)
LOGS = Table(
    kind=("event.name",),
    time=("event.timestamp",),
    duration_ms=("duration_ms",),
    session=("session.id",),
    turn=("prompt_id",),
    tool=("function_name",),
    call_id=("call_id",),
    arguments=("function_args",),
    mcp_server=("mcp_server_name",),
    success=("success",),
    status=("status",),
    error_type=("error_type",),
    result_bytes=("content_length",),
    decision=("decision",),
    interactive=("interactive",),
    model=("model",),
    input_tokens=("input_token_count",),
    output_tokens=("output_token_count",),
    cached_tokens=("cached_content_token_count",),
    reasoning_tokens=("thoughts_token_count",),
    tool_tokens=("tool_token_count",),
    total_tokens=("total_token_count",),
    http_status=("status_code", "http.status_code"),
)


_REFUSED = "policy_violation"
"""The error of a call that a policy refused; `decision` is empty then."""


def _kinds(prefix: str) -> dict[str, Kind]:
    return {
        f"{prefix}.tool_call": Kind.RESULT,
        f"{prefix}.api_response": Kind.REQUEST,
        f"{prefix}.api_error": Kind.FAILED_REQUEST,
    }


def _decision(event: Event) -> Decision | None:
    if event.attributes.text(LOGS.error_type) == _REFUSED:
        return by_configuration(allowed=False)
    match event.attributes.word(LOGS.decision):
        case "auto_accept":
            return by_configuration(allowed=True)
        case "reject":
            return by_person(event.ended_ms, allowed=False)
        case "modify":
            return by_person(event.ended_ms, allowed=True)
        case "accept":
            # Gemini CLI says so too where it asked nobody
            alone = event.attributes.flag(LOGS.interactive) is False
            return by_configuration(allowed=True) if alone else by_agent(allowed=True)
    return None


def _decision_of_qwen(event: Event) -> Decision | None:
    asked = event.attributes.word(LOGS.decision) == "accept"
    return by_person(event.ended_ms, allowed=True) if asked else _decision(event)


def _how(dialect: Dialect, prefix: str) -> LogDialect:
    return LogDialect(
        dialect=dialect,
        table=LOGS,
        kind=kinds(_kinds(prefix), LOGS),
        decision=_decision if dialect is GEMINI else _decision_of_qwen,
        arguments=lambda attributes: attributes.json(LOGS.arguments),
    )


_GEMINI, _QWEN = _how(GEMINI, "gemini_cli"), _how(QWEN, "qwen-code")


def read_gemini_logs(records: Iterable[LogRecord], agent: Agent) -> Reading:
    """The rows of log events of Gemini CLI."""
    return read_records(_GEMINI, records, agent)


def read_qwen_logs(records: Iterable[LogRecord], agent: Agent) -> Reading:
    """The rows of log events of Qwen Code."""
    return read_records(_QWEN, records, agent)
