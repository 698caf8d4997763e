"""The real Claude Code, told to ask a scripted model and to export to the door."""

import os
from collections.abc import Mapping
from pathlib import Path

QUIET = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


def command(program: Path, prompt: str, *allowed: str) -> list[str]:
    """Its command line: one prompt, and the tools that need no leave; all others that write or run are refused."""
    return [str(program), "-p", prompt, "--model", "claude-sonnet-5", "--allowedTools", *allowed]


def environment(home: Path, model_url: str, door: str) -> dict[str, str]:
    """Its environment, with a home of its own, so that nobody's login and settings are used.

    Args:
        home: an empty folder.
        model_url: the model server.
        door: host:port of the door's gRPC.
    """
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
