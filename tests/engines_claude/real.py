"""What tests of Claude's own program share: where it is, a home of its own, a scripted model behind it."""

import os
import shutil

import pytest

from gateway_svc.engines.claude import ClaudeRunner
from tests.engines_claude.messages_api import MessagesApi
from tests.engines_claude.stage import Stage

COMMAND = os.environ.get("GATEWAY_CLAUDE_COMMAND") or shutil.which("claude") or ""
QUIET = {"DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}

marks = [
    pytest.mark.real_claude,
    pytest.mark.skipif(not COMMAND, reason="Claude Code is not installed: make test-real-claude"),
]


@pytest.fixture
def home(stage, monkeypatch):
    """A home of its own, so that nobody's login and settings are used."""
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "CLAUDE", "AWS_")):
            monkeypatch.delenv(name)
    home = stage.folder / "home"
    home.mkdir()
    for name, value in {"HOME": str(home), **QUIET}.items():
        monkeypatch.setenv(name, value)
    return home


@pytest.fixture
def model(home, monkeypatch):
    """Starts a model that answers in these steps."""

    def start(*steps):
        api = MessagesApi(steps)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-nobody")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        return api

    return start


def runner(stage: Stage, *allowed_tools: str) -> ClaudeRunner:
    """The program as a deployment runs it."""
    return stage.runner(command=COMMAND, allowed_tools=allowed_tools or ["Read", "Bash(exit 3)", "Bash(sleep:*)"])
