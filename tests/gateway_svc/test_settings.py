"""Wrong or missing settings end the gateway with exit code 2 and a sentence that names the variable."""

import pytest

from gateway_svc.settings import GatewaySettings
from tests.support.forked import run_command

OLLAMA = {
    "GATEWAY_OLLAMA_URL": "http://127.0.0.1:9",
    "GATEWAY_OLLAMA_MODEL": "m",
    "GATEWAY_LISTEN": "127.0.0.1:0",
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"PATH": "/nowhere"}, "GATEWAY_OLLAMA_URL"),
        ({"GATEWAY_OLLAMA_URL": "127.0.0.1:11434", "GATEWAY_OLLAMA_MODEL": "m"}, "GATEWAY_OLLAMA_URL"),
        ({"GATEWAY_OLLAMA_URL": "http://127.0.0.1:11434"}, "GATEWAY_OLLAMA_MODEL"),
        ({"GATEWAY_OPENAI_URL": "http://127.0.0.1:1/v1"}, "GATEWAY_OPENAI_MODEL"),
        ({**OLLAMA, "GATEWAY_DEFAULT_ENGINE": "openai"}, "GATEWAY_DEFAULT_ENGINE"),
        ({**OLLAMA, "GATEWAY_SESSIONS": "postgresql://h/d", "GATEWAY_WORKERS": "2"}, "GATEWAY_WORKERS"),
        ({**OLLAMA, "GATEWAY_MAX_STEPS": "0"}, "GATEWAY_MAX_STEPS"),
        ({**OLLAMA, "GATEWAY_MAX_STEPS": "many"}, "GATEWAY_MAX_STEPS"),
        ({**OLLAMA, "GATEWAY_TOOLS": "read,fly"}, "GATEWAY_TOOLS"),
        ({**OLLAMA, "GATEWAY_TOOLS": "read=perhaps"}, "GATEWAY_TOOLS"),
        ({**OLLAMA, "GATEWAY_TOOL_SECONDS": "60"}, "GATEWAY_BASH_SECONDS"),
        ({**OLLAMA, "GATEWAY_ARGUMENTS": "some"}, "GATEWAY_ARGUMENTS"),
        ({**OLLAMA, "GATEWAY_SPOOL_SYNC": "often"}, "GATEWAY_SPOOL_SYNC"),
        ({**OLLAMA, "GATEWAY_WEBFETCH_ALLOW": "http://a/b c"}, "GATEWAY_WEBFETCH_ALLOW"),
        ({**OLLAMA, "GATEWAY_BASH_SANDBOX": "bubblewrap", "PATH": "/nowhere"}, "GATEWAY_BASH_SANDBOX"),
        ({**OLLAMA, "GATEWAY_STATE_DIR": "/tmp/w/state", "GATEWAY_WORKSPACE": "/tmp/w"}, "GATEWAY_STATE_DIR"),
        ({**OLLAMA, "GATEWAY_MCP_FILE": "/tmp/w/mcp.json", "GATEWAY_WORKSPACE": "/tmp/w"}, "GATEWAY_MCP_FILE"),
        ({**OLLAMA, "GATEWAY_MCP_FILE": "/nowhere/mcp.json"}, "GATEWAY_MCP_FILE"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, env, named):
    ran = run_command("gateway_svc", {"GATEWAY_STATE_DIR": str(tmp_path), **env}, "serve")
    assert ran.returncode == 2, ran.stderr
    sentences = [line for line in ran.stderr.splitlines() if not line.startswith("{")]
    assert any(named in sentence for sentence in sentences), ran.stderr


@pytest.fixture
def claude_on_path(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "claude"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(program.parent))


def test_claude_on_path_is_the_engine_where_no_other_is_configured(claude_on_path):
    """And nothing is recorded of it unless that is asked for."""
    settings = GatewaySettings()
    assert (settings.engines["claude"].command, settings.default_engine) == ("claude", "claude")
    assert not settings.keeps_record


def test_claude_on_path_is_no_engine_beside_another(claude_on_path, monkeypatch):
    for name, value in OLLAMA.items():
        monkeypatch.setenv(name, value)
    assert list(GatewaySettings().engines) == ["ollama"]


@pytest.mark.long
def test_a_state_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    ran = run_command("gateway_svc", {**OLLAMA, "GATEWAY_STATE_DIR": str(tmp_path / "file" / "state")}, "serve")
    assert ran.returncode == 2
    assert "file/state" in ran.stderr


@pytest.mark.long
def test_secrets_are_masked_in_the_start_line(tmp_path):
    env = {
        "GATEWAY_MAX_STEP": "5",
        "GATEWAY_OPENAI_URL": "http://ada:hunter22@127.0.0.1:9/v1",
        "GATEWAY_OPENAI_MODEL": "m",
        "GATEWAY_OPENAI_API_KEY": "sk-sentinel-0123456789",
        "GATEWAY_STATE_DIR": str(tmp_path),
        "GATEWAY_LISTEN": f"unix:{tmp_path}/none/socket",
    }
    ran = run_command("gateway_svc", env, "serve")
    assert ran.returncode == 1
    assert "service.starting" in ran.stderr
    assert ran.stderr.count("settings.unknown") == 1
    assert "GATEWAY_MAX_STEP is not a setting: is GATEWAY_MAX_STEPS meant?" in ran.stderr
    assert "sentinel" not in ran.stderr
    assert "hunter22" not in ran.stderr


@pytest.mark.parametrize(
    ("url", "api", "responses"),
    [
        ("https://api.openai.com/v1", None, True),
        ("https://api.openai.com/v1", "chat", False),
        ("http://127.0.0.1:8080/v1", None, False),
        ("http://127.0.0.1:8080/v1", "responses", True),
    ],
)
def test_which_of_openai_s_apis_is_spoken_is_the_server_s_own_unless_it_is_set(monkeypatch, url, api, responses):
    monkeypatch.setenv("GATEWAY_OPENAI_URL", url)
    monkeypatch.setenv("GATEWAY_OPENAI_MODEL", "m")
    if api:
        monkeypatch.setenv("GATEWAY_OPENAI_API", api)
    assert GatewaySettings().engines["openai"].speaks_responses is responses
