"""Tables: which fields of an agent's hooks say what. A field that no table names is never read.

Sources: https://code.claude.com/docs/en/hooks, https://developers.openai.com/codex/hooks,
https://geminicli.com/docs/hooks/reference, https://cursor.com/docs/hooks,
https://docs.github.com/en/copilot/reference/copilot-cli-reference/cli-hooks-reference, https://opencode.ai/docs/plugins
(whose plugin is ours, so the fields are too).
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a hook is called for."""

    BEFORE = "before"
    """A tool is about to run."""
    AFTER = "after"
    """A tool ended; well, unless the event says otherwise."""
    FAILED = "failed"
    """A tool failed."""
    TIMED_OUT = "timed_out"
    """A tool took too long."""
    DENIED = "denied"
    """A call was refused, so that it never ran."""
    SESSION_ENDED = "session_ended"
    NOTHING = "nothing"
    """Known, and of no interest to the record."""


class HookTable(NamedTuple):
    """The fields of one agent's hooks. Empty: it has none."""

    agent: str
    """The agent's name on the record where it does not say."""
    kinds: Mapping[str, Kind]
    session: str
    event: str = "hook_event_name"
    turn: str = ""
    subagent: str = ""
    tool: str = "tool_name"
    call_id: str = ""
    arguments: str = "tool_input"
    result: str = ""
    """What the tool returned, of which the size is read, and how it ended where `failed_by` or `status` says so."""
    failed_by: str = ""
    """A field of the result that is there when the tool failed."""
    status: str = ""
    """A field of the result that says how the tool ended, in one of `outcomes`."""
    failure: str = ""
    """A field of the event that says how a tool failed, in one of `outcomes`."""
    outcomes: Mapping[str, Kind] = {}
    error: str = ""
    """An error's text, of which an exit code is read and nothing else."""
    exit_code: str = ""
    result_bytes: str = ""
    interrupted: str = ""
    """Whether a person interrupted the tool."""
    duration_ms: str = ""
    model: str = ""
    version: str = ""
    says_success: bool = True
    """Whether AFTER means that the tool succeeded."""
    asks: bool = False
    """Whether a hook can have the agent ask a person."""
    other: "HookTable | None" = None
    """Of events by other names, by which another program of the agent's calls the same hooks."""


_CLAUDE_KINDS = {
    "PreToolUse": Kind.BEFORE,
    "PostToolUse": Kind.AFTER,
    "PostToolUseFailure": Kind.FAILED,
    "PermissionDenied": Kind.DENIED,
    "SessionEnd": Kind.SESSION_ENDED,
    "SessionStart": Kind.NOTHING,
    "SubagentStart": Kind.NOTHING,
    "SubagentStop": Kind.NOTHING,
    "Stop": Kind.NOTHING,
    "StopFailure": Kind.NOTHING,
    "UserPromptSubmit": Kind.NOTHING,
    "PermissionRequest": Kind.NOTHING,
    "Notification": Kind.NOTHING,
    "PreCompact": Kind.NOTHING,
    "PostCompact": Kind.NOTHING,
}

CLAUDE = HookTable(
    agent="claude-code",
    kinds=_CLAUDE_KINDS,
    session="session_id",
    turn="prompt_id",
    subagent="agent_id",
    call_id="tool_use_id",
    result="tool_response",
    error="error",
    interrupted="is_interrupt",
    duration_ms="duration_ms",
    asks=True,
)
CODEX = CLAUDE._replace(  # whose hooks are made after Claude Code's
    agent="codex",
    turn="turn_id",
    error="",
    interrupted="",
    duration_ms="",
    model="model",
    says_success=False,
    asks=False,
)
GEMINI = HookTable(
    agent="gemini-cli",
    kinds={
        "BeforeTool": Kind.BEFORE,
        "AfterTool": Kind.AFTER,
        "SessionEnd": Kind.SESSION_ENDED,
        "SessionStart": Kind.NOTHING,
        "BeforeAgent": Kind.NOTHING,
        "AfterAgent": Kind.NOTHING,
        "Notification": Kind.NOTHING,
        "PreCompress": Kind.NOTHING,
    },
    session="session_id",
    result="tool_response",
    failed_by="error",
)
_COPILOT_KINDS = {
    "preToolUse": Kind.BEFORE,
    "postToolUse": Kind.AFTER,
    "postToolUseFailure": Kind.FAILED,
    "sessionEnd": Kind.SESSION_ENDED,
    "sessionStart": Kind.NOTHING,
    "subagentStart": Kind.NOTHING,
    "subagentStop": Kind.NOTHING,
    "agentStop": Kind.NOTHING,
    "errorOccurred": Kind.NOTHING,
    "notification": Kind.NOTHING,
}

_VS_CODE = CLAUDE._replace(
    agent="github-copilot",
    turn="",
    subagent="",
    call_id="",  # its telemetry has another
    error="",
    interrupted="",
    duration_ms="",
)
"""Copilot in VS Code, which runs the hooks of ~/.copilot/hooks too: https://code.visualstudio.com/docs/copilot/customization/hooks
and chatHookService.ts of microsoft/vscode-copilot-chat."""
COPILOT = HookTable(
    agent="github-copilot",
    kinds=_COPILOT_KINDS,
    session="sessionId",
    tool="toolName",
    arguments="toolArgs",
    result="toolResult",
    status="resultType",
    outcomes={"success": Kind.AFTER, "failure": Kind.FAILED, "denied": Kind.DENIED, "rejected": Kind.DENIED},
    asks=True,
    other=_VS_CODE,
)
CURSOR = HookTable(
    agent="cursor",
    kinds=_COPILOT_KINDS | {"stop": Kind.NOTHING},
    session="conversation_id",
    turn="generation_id",
    call_id="tool_use_id",
    result="tool_output",
    failure="failure_type",
    outcomes={"permission_denied": Kind.DENIED, "timeout": Kind.TIMED_OUT},
    interrupted="is_interrupt",
    duration_ms="duration",
    model="model",
    version="cursor_version",
)
OPENCODE = HookTable(
    agent="opencode",
    kinds={
        "tool.execute.before": Kind.BEFORE,
        "tool.execute.after": Kind.AFTER,
        "session.deleted": Kind.SESSION_ENDED,
        "session.idle": Kind.NOTHING,
    },
    session="session_id",
    call_id="call_id",
    exit_code="exit_code",
    result_bytes="result_bytes",
)
TABLES: Mapping[str, HookTable] = {
    "claude": CLAUDE,
    "codex": CODEX,
    "gemini": GEMINI,
    "copilot": COPILOT,
    "cursor": CURSOR,
    "opencode": OPENCODE,
}
"""By the name of the agent on the command line and in the path, which is the dialect's too."""
