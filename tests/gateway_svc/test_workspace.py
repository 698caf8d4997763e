"""A workspace that holds, or lies in, what the gateway runs or reads is refused at start, with the way out."""

import json
import os
import sys
from pathlib import Path

import pytest

import gateway_svc
from gateway_svc.errors import SettingsError
from gateway_svc.settings import GatewaySettings
from gateway_svc.workspace import check_environment, check_programs, check_state, check_workspace
from tests.support.forked import run_command

OLLAMA = {
    "GATEWAY_OLLAMA_URL": "http://127.0.0.1:9",
    "GATEWAY_OLLAMA_MODEL": "m",
    "GATEWAY_LISTEN": "127.0.0.1:0",
}
PACKAGE = Path(gateway_svc.__file__).parent


@pytest.mark.parametrize(
    "workspace",
    [
        PACKAGE,
        PACKAGE.parent,
        PACKAGE / "tools",
        Path(sys.prefix) / "work",
        Path("/"),
        Path("/etc"),
        Path("/proc/self"),
    ],
)
def test_code_of_the_gateway_is_apart_from_the_workspace(workspace):
    with pytest.raises(SettingsError, match=r"GATEWAY_WORKSPACE: .* name a folder that holds nothing else"):
        check_workspace(workspace, [])


def test_a_folder_that_python_loads_from_is_apart(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "lib")
    with pytest.raises(SettingsError, match="holds what Python loads"):
        check_workspace(tmp_path, [])
    check_workspace(tmp_path / "work", [])


@pytest.mark.parametrize(
    "variable",
    [
        "GATEWAY_TLS_KEY",
        pytest.param("GATEWAY_TOKENS_FILE", marks=pytest.mark.long),
        pytest.param("GATEWAY_AUDIT_TOKEN_FILE", marks=pytest.mark.long),
    ],
)
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
    with pytest.raises(SettingsError, match=r"GATEWAY_MCP_FILE: .*server.py must not lie in GATEWAY_WORKSPACE"):
        check_programs(tmp_path, "GATEWAY_MCP_FILE", ["sh", "-c", f"exec python3 --main={tmp_path}/server.py"])


@pytest.mark.parametrize("folder", ["bin", "link"])
def test_a_folder_of_path_is_apart(tmp_path, monkeypatch, folder):
    """A model that can write there can take the place of bwrap at the next start."""
    (tmp_path / "work" / "bin").mkdir(parents=True)
    (tmp_path / "work" / "link").symlink_to("bin")
    monkeypatch.setenv("PATH", f"{tmp_path}/work/{folder}:/usr/bin")
    with pytest.raises(SettingsError, match=r"a folder of PATH .* are not apart"):
        check_workspace(tmp_path / "work", [])


@pytest.mark.parametrize("variable", ["HOME", "PYTHONPATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "NODE_PATH"])
def test_a_variable_by_which_something_of_the_workspace_is_loaded_is_refused(tmp_path, monkeypatch, variable):
    """Both the gateway's own and those that an MCP server is given."""
    monkeypatch.setenv(variable, f"/usr/lib:{tmp_path}/work/lib" if variable != "HOME" else f"{tmp_path}/work")
    with pytest.raises(SettingsError, match=rf"{variable}: .* must not lie in GATEWAY_WORKSPACE"):
        check_workspace(tmp_path / "work", [])
    check_environment(tmp_path / "elsewhere", os.environ)


@pytest.mark.parametrize("variable", ["GATEWAY_LISTEN", "GATEWAY_AUDIT_TARGET"])
@pytest.mark.parametrize("prefix", ["unix:", "unix://"])
def test_a_socket_in_the_workspace_is_refused(tmp_path, monkeypatch, variable, prefix):
    """A jail without a network still reaches it."""
    for name, value in {**OLLAMA, "GATEWAY_STATE_DIR": str(tmp_path / "state")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(variable, f"{prefix}{tmp_path}/work/service.sock")
    with pytest.raises(SettingsError, match=rf"{variable}: .* must not lie in GATEWAY_WORKSPACE"):
        check_workspace(tmp_path / "work", [GatewaySettings()])


def test_the_gateways_own_folders_are_no_workspace(tmp_path):
    for name in ("sessions", "spool/x", ""):
        with pytest.raises(SettingsError, match="lies in the state directory"):
            check_state(tmp_path / name, tmp_path)
    check_state(tmp_path / "workspace", tmp_path)


def test_a_workspace_that_is_not_there_is_refused_and_not_made(tmp_path):
    workspace = tmp_path / "worksapce"
    env = {"GATEWAY_STATE_DIR": str(tmp_path / "state"), "GATEWAY_WORKSPACE": str(workspace), **OLLAMA}
    ran = run_command("gateway_svc", env, "serve")
    assert ran.returncode == 2
    assert ran.stderr.endswith(f"GATEWAY_WORKSPACE: {workspace} is not there: make it, or name another\n")
    assert not workspace.exists()
    workspace.touch()
    with pytest.raises(SettingsError, match="is not a folder: make it, or name another"):
        check_state(workspace, tmp_path / "state")


@pytest.mark.long
def test_an_mcp_server_runs_in_no_folder_of_the_workspace(tmp_path):
    """Python and others load code from where they run."""
    file = tmp_path / "mcp.json"
    (tmp_path / "work").mkdir()
    file.write_text(json.dumps({"mcpServers": {"a": {"command": "python3", "cwd": str(tmp_path / "work")}}}))
    env = {"GATEWAY_STATE_DIR": str(tmp_path / "state"), "GATEWAY_WORKSPACE": str(tmp_path / "work")}
    ran = run_command("gateway_svc", {**OLLAMA, **env, "GATEWAY_MCP_FILE": str(file)}, "serve")
    assert ran.returncode == 2, ran.stderr
    assert "cwd must not lie in GATEWAY_WORKSPACE" in ran.stderr
