"""A workspace that holds, or lies in, what the gateway runs or reads is refused at start, with the way out."""

import sys
from pathlib import Path

import pytest

import gateway_svc
from demo.processes import run_command
from gateway_svc.errors import SettingsError
from gateway_svc.workspace import check_programs, check_workspace

OLLAMA = {"GATEWAY_OLLAMA_URL": "http://127.0.0.1:9", "GATEWAY_OLLAMA_MODEL": "m"}
PACKAGE = Path(gateway_svc.__file__).parent


@pytest.mark.parametrize(
    "workspace", [PACKAGE, PACKAGE.parent, PACKAGE / "tools", Path(sys.prefix) / "work", Path("/")]
)
def test_code_of_the_gateway_is_apart_from_the_workspace(workspace):
    with pytest.raises(SettingsError, match=r"GATEWAY_WORKSPACE: .* name a folder that holds nothing else"):
        check_workspace(workspace, [])


def test_a_folder_that_python_loads_from_is_apart(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "lib")
    with pytest.raises(SettingsError, match="holds what Python loads"):
        check_workspace(tmp_path, [])
    check_workspace(tmp_path / "work", [])


@pytest.mark.parametrize("variable", ["GATEWAY_TOKENS_FILE", "GATEWAY_AUDIT_TOKEN_FILE", "GATEWAY_TLS_KEY"])
def test_a_file_of_the_settings_in_the_workspace_is_refused(tmp_path, variable):
    """Whichever it is."""
    file = tmp_path / "workspace" / "file"
    file.parent.mkdir()
    file.write_text("x")
    more = {"GATEWAY_TLS_CERT": str(file)} if variable == "GATEWAY_TLS_KEY" else {}
    env = {"GATEWAY_STATE_DIR": str(tmp_path / "state"), "GATEWAY_WORKSPACE": str(file.parent), variable: str(file)}
    ran = run_command("gateway_svc", {**OLLAMA, **env, **more}, "serve")
    assert ran.returncode == 2, ran.stderr
    assert "must not lie in GATEWAY_WORKSPACE" in ran.stderr


def test_a_program_that_is_started_with_a_file_of_the_workspace_is_refused(tmp_path):
    (tmp_path / "server.py").write_text("")
    with pytest.raises(SettingsError, match=r"GATEWAY_MCP_FILE: .*server.py must not lie in GATEWAY_WORKSPACE"):
        check_programs(tmp_path, "GATEWAY_MCP_FILE", [sys.executable, str(tmp_path / "server.py")])
    check_programs(tmp_path, "GATEWAY_MCP_FILE", [sys.executable, "-m", "mcp_server_time", str(tmp_path)])
