"""What each agent's own configuration needs: telemetry to this door, no prompts in it, and hooks.

Sources: those of intake_svc.hooks.tables, and docs/agents/.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

AGENTS = ("claude", "codex", "gemini", "copilot", "cursor", "opencode")
_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where events go."""

    grpc: str
    """The address of OTLP over gRPC, host:port."""
    http: str
    """The same over HTTP."""
    hook: tuple[str, ...]
    """The program `onrecord-hook`, as words."""
    options: tuple[str, ...] = ()
    """Its options, such as --rules."""
    socket: str = ""
    """The Unix socket where hooks go; empty for over HTTP, too."""

    @property
    def door(self) -> str:
        """Where hooks go."""
        return f"unix:{self.socket}" if self.socket else self.http

    def command(self, agent: str, event: str = "") -> str:
        """The command line of a hook."""
        words = [*self.hook, agent, *([event] if event else []), "--door", self.door, *self.options]
        return shlex.join(words)


@dataclass(frozen=True, slots=True)
class File:
    """A file of an agent's, and what it needs."""

    path: Path
    how: Literal["json", "toml", "whole"]
    """json: `content` is merged. toml: it is appended between marks. whole: the file is ours."""
    content: Any


def _json_hooks(events: tuple[str, ...], hook: Callable[[str], Mapping[str, Any]], tools: tuple[str, ...]) -> Any:
    return {event: [({"matcher": "*"} if event in tools else {}) | {"hooks": [dict(hook(event))]}] for event in events}


def _claude(wanted: Wanted, home: Path) -> list[File]:
    tools = ("PreToolUse", "PostToolUse", "PostToolUseFailure", "PermissionDenied")
    hook = {"type": "command", "command": wanted.command("claude"), "timeout": _SECONDS}
    environment = {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{wanted.grpc}",
        "OTEL_LOG_USER_PROMPTS": "0",
    }
    hooks = _json_hooks((*tools, "SessionEnd"), lambda _: hook, tools)
    return [File(home / ".claude/settings.json", "json", {"env": environment, "hooks": hooks})]


def _gemini(wanted: Wanted, home: Path) -> list[File]:
    tools = ("BeforeTool", "AfterTool")
    hook = {"type": "command", "command": wanted.command("gemini"), "timeout": _SECONDS * 1000}
    telemetry = {
        "enabled": True,
        "target": "local",
        "otlpEndpoint": f"http://{wanted.grpc}",
        "otlpProtocol": "grpc",
        "logPrompts": False,
    }
    hooks = _json_hooks((*tools, "SessionEnd"), lambda _: hook, tools)
    return [File(home / ".gemini/settings.json", "json", {"telemetry": telemetry, "hooks": hooks})]


def _copilot(wanted: Wanted, home: Path) -> list[File]:
    events = ("preToolUse", "postToolUse", "postToolUseFailure", "sessionEnd")
    hooks = {
        event: [{"type": "command", "bash": wanted.command("copilot", event), "timeoutSec": _SECONDS}]
        for event in events
    }
    return [File(home / ".copilot/hooks/onrecord.json", "whole", _pretty({"version": 1, "hooks": hooks}))]


def _cursor(wanted: Wanted, home: Path) -> list[File]:
    events = ("preToolUse", "postToolUse", "postToolUseFailure", "sessionEnd")
    hooks = {event: [{"command": wanted.command("cursor"), "timeout": _SECONDS}] for event in events}
    return [File(home / ".cursor/hooks.json", "json", {"version": 1, "hooks": hooks})]


def _codex(wanted: Wanted, home: Path) -> list[File]:
    quoted = json.dumps(wanted.command("codex"))
    lines = [
        "[otel]",
        "log_user_prompt = false",
        f'exporter = {{ otlp-grpc = {{ endpoint = "http://{wanted.grpc}" }} }}',
    ]
    for event in ("PreToolUse", "PostToolUse"):
        lines += ["", f"[[hooks.{event}]]", f"[[hooks.{event}.hooks]]", 'type = "command"', f"command = {quoted}"]
        lines += [f"timeout = {_SECONDS}"]
    return [File(home / ".codex/config.toml", "toml", "\n".join(lines) + "\n")]


_PLUGIN = """// Puts tool calls on the record. `intake-svc setup opencode --undo` takes it back.
import {{ spawnSync }} from "node:child_process"
const [program, ...words] = {words}
const tell = (event) => {{
  const told = spawnSync(program, words, {{ input: JSON.stringify(event), encoding: "utf8", timeout: {timeout} }})
  return told.status === 0 && told.stdout ? JSON.parse(told.stdout) : told.status === 2 ? {{ decision: "deny" }} : {{}}
}}
export const onrecord = async () => ({{
  "tool.execute.before": async ({{ tool, sessionID, callID }}, {{ args }}) => {{
    const call = {{ session_id: sessionID, call_id: callID, tool_name: tool, tool_input: args }}
    const said = tell({{ hook_event_name: "tool.execute.before", ...call }})
    if (said.decision === "deny") throw new Error(said.reason || "refused: it cannot be recorded")
  }},
  "tool.execute.after": async ({{ tool, sessionID, callID }}, output) => {{
    tell({{ hook_event_name: "tool.execute.after", session_id: sessionID, call_id: callID, tool_name: tool,
      exit_code: output?.metadata?.exit, result_bytes: output?.output?.length }})
  }},
}})
"""


def _opencode(wanted: Wanted, home: Path) -> list[File]:
    words = json.dumps(shlex.split(wanted.command("opencode")))
    plugin = _PLUGIN.format(words=words, timeout=_SECONDS * 1000)
    config = {"experimental": {"openTelemetry": True}}
    return [
        File(home / ".config/opencode/plugins/onrecord.js", "whole", plugin),
        File(home / ".config/opencode/opencode.json", "json", config),
    ]


_FILES: Mapping[str, Callable[[Wanted, Path], list[File]]] = {
    "claude": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "copilot": _copilot,
    "cursor": _cursor,
    "opencode": _opencode,
}


def files_of(agent: str, wanted: Wanted, home: Path) -> list[File]:
    """The files of an agent, in a home folder."""
    return _FILES[agent](wanted, home)


def environment_of(agent: str, wanted: Wanted) -> dict[str, str]:
    """What an agent that has no file for it must find in its environment."""
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{wanted.http}"}
    return {"copilot": {"COPILOT_OTEL_ENABLED": "true", **endpoint}, "opencode": endpoint}.get(agent, {})


def text_of(file: File) -> str:
    """What a file would hold were it empty."""
    return _pretty(file.content) if file.how == "json" else str(file.content)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
