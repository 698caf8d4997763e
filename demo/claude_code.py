"""The real Claude Code, told to ask a scripted model and to export to the door."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from demo.model_server import ModelServer
from demo.script import Call, Script, Step

PROGRAM = Path(sys.prefix) / "agents" / "claude-code" / "node_modules" / ".bin" / "claude"
HOOK = Path(sys.executable).with_name("onrecord-hook")
EVENTS = ("PreToolUse", "PostToolUse", "PostToolUseFailure", "PermissionDenied", "SessionStart", "Stop", "SessionEnd")
PROMPT = "Read the README, list the tides by hour, and write them down."
QUIET = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


def command(prompt: str, *allowed: str) -> list[str]:
    """Its command line: one prompt, and the tools that need no leave; all others that write or run are refused."""
    return [str(PROGRAM), "-p", prompt, "--model", "claude-sonnet-5", "--allowedTools", *allowed]


def environment(home: Path, model_url: str, door: str, door_http: str) -> dict[str, str]:
    """Its environment, with a home of its own, so that nobody's login and settings are used. Writes its hooks there.

    Args:
        home: an empty folder.
        model_url: the model server.
        door: host:port of the door's gRPC.
        door_http: host:port of its HTTP.
    """
    hook = {"matcher": "*", "hooks": [{"type": "command", "command": f"{HOOK} claude --door {door_http}"}]}
    (home / ".claude").mkdir(parents=True)
    (home / ".claude" / "settings.json").write_bytes(
        json.dumps({"hooks": {event: [hook] for event in EVENTS}}).encode()
    )
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        **QUIET,
        "ANTHROPIC_API_KEY": "sk-nobody",
        "ANTHROPIC_BASE_URL": model_url,
        **exporting(door),
    }


def exporting(door: str) -> Mapping[str, str]:
    """What tells it to export its log events to the door, with arguments and without prompts."""
    return {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{door}",
        "OTEL_LOG_TOOL_DETAILS": "1",
    }


def script(work: Path) -> Script:
    """What the model asks of it: a file, a command that fails, and a file that it may not write."""
    return Script(
        steps=(
            Step(
                text="I will read the README and sort the table.",
                tool_calls=(
                    Call(name="Read", arguments={"file_path": str(work / "README.md")}),
                    Call(name="Bash", arguments={"command": "sort -t, -k2 tides.csv; exit 3"}),
                ),
            ),
            Step(
                text="It exits with 3, though it sorts. I write the list.",
                tool_calls=(
                    Call(name="Write", arguments={"file_path": str(work / "tides.md"), "content": "07:02 Cuxhaven"}),
                ),
            ),
            Step(text="The next high water is at 07:02 in Cuxhaven. I was not allowed to write it down."),
        ),
        one_prompt=True,
        aside=Step(text="High water"),
    )


async def run(home: Path, work: Path, door: str, door_http: str) -> str:
    """Runs it in a folder, with a scripted model behind it; returns what it said.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    async with ModelServer(script(work)) as server:
        process = await asyncio.create_subprocess_exec(
            *command(PROMPT, "Read", "Bash(sort:*)", "Bash(exit:*)"),
            cwd=work,
            env=environment(home, server.url, door, door_http),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode(errors="replace").strip()
    if process.returncode:
        raise RuntimeError(f"Claude Code failed: {said}")
    return said
